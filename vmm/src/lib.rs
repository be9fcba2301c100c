//! The Siesta virtual machine monitor.
