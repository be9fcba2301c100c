//! The Siesta virtual machine monitor.
pub mod bench;
pub mod clock;
