//! The synchronisation primitives of the crate, in one place.
//!
//! Owns the choice of primitive: the standard library's, or under `cfg(loom)` the model checker's.
//! Must not know what is protected by them.

#[cfg(loom)]
mod checked;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};

#[cfg(loom)]
pub(crate) use checked::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Mutex, MutexGuard, OnceLock, Ordering, fence,
};

/// A counter for statistics. Not the model checker's: nothing depends on it, and every access
/// would be one more place where the checker tries all orders.
pub(crate) use std::sync::atomic::AtomicU64 as Tally;

/// Locks, whether or not a callback panicked with the lock held: every critical section leaves
/// its data consistent before it calls out.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(all(test, not(loom)))]
    crate::tests::steps::before_lock(|| mutex.try_lock().is_ok());
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
