//! The atomics of the run word and of the threads' words: the standard library's, or under
//! `cfg(loom)` the model checker's.
//!
//! Owns that choice. Must not know what the words mean.

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, Ordering};
