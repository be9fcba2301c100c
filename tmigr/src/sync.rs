//! The synchronisation primitives of the crate, in one place.
//!
//! Owns the choice of primitive, so that a model checker's own can take their place. Must not
//! know what is protected by them.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};

/// Locks, whether or not a callback panicked with the lock held: every critical section leaves
/// its data consistent before it calls out.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    crate::tests::steps::before_lock(|| mutex.try_lock().is_ok());
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
