//! Integration tests with kernels: each is booted in a VM of its own and judged by how it ends.
//!
//! [`plan`] says what is to be run, [`workers`] runs it, several at a time, [`judge`] decides from the
//! exit status and the serial output, [`expect`] compares the latter, [`tap`] and [`junit`] write it
//! down. Owns nothing beside these. Must not know the command line.

pub mod expect;
pub mod judge;
pub mod junit;
pub mod plan;
pub mod tap;
pub mod workers;

pub use plan::{Plan, Test};
pub use workers::{End, SuiteError, run};
