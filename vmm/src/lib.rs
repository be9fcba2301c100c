//! The Siesta virtual machine monitor.
pub mod clock;
