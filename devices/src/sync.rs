//! The atomics of the crate, in one place.
//!
//! Owns the choice: the standard library's, or under `cfg(loom)` the model checker's. Must not know
//! what they mean. Only what is modelled takes them from here.

#[cfg(loom)]
mod checked;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use checked::{AtomicU32, AtomicU64, Ordering};
