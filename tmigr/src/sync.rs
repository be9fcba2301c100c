//! The synchronisation primitives of the crate, in one place.
//!
//! Owns the choice of primitive: the standard library's, or under `cfg(loom)` the model checker's; and how
//! long a lock is waited for. Must not know what is protected by them.

#[cfg(loom)]
mod checked;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

#[cfg(loom)]
pub(crate) use checked::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Mutex, MutexGuard, OnceLock, Ordering, fence,
};

/// A counter for statistics. Not the model checker's: nothing depends on it, and every access
/// would be one more place where the checker tries all orders.
pub(crate) use std::sync::atomic::AtomicU64 as Tally;

/// How long a thread waits for a lock of the hierarchy ([`crate::Hierarchy::set_patience`]).
pub trait Patience: Send + Sync {
    /// The calling thread has found a lock taken, for the `tries`-th time in a row, 0 the first. It waits a
    /// little and answers whether it is to try again.
    fn wait(&self, tries: u32) -> bool;
}

/// `None`: without end.
pub(crate) type Waiting = Option<Box<dyn Patience>>;

/// As [`lock`], for as long as `waiting` says; `None`: the lock was not to be had.
#[inline(always)]
pub(crate) fn lock_within<'a, T>(
    mutex: &'a Mutex<T>,
    waiting: &Waiting,
) -> Option<MutexGuard<'a, T>> {
    #[cfg(all(test, not(loom)))]
    crate::tests::steps::before_lock(|| mutex.try_lock().is_ok());
    #[cfg(all(test, not(loom)))]
    if crate::tests::stuck::fails() {
        return None;
    }
    #[cfg(not(loom))]
    return try_lock(mutex).or_else(|| wait_for(mutex, waiting));
    // The checker has no clock, and nothing to gain from a thread that does not come.
    #[cfg(loom)]
    {
        let _ = waiting;
        Some(lock(mutex))
    }
}

#[cfg(not(loom))]
#[cold]
fn wait_for<'a, T>(mutex: &'a Mutex<T>, waiting: &Waiting) -> Option<MutexGuard<'a, T>> {
    let Some(patience) = waiting else { return Some(lock(mutex)) };
    for tries in 0.. {
        if !patience.wait(tries) {
            break;
        }
        if let Some(guard) = try_lock(mutex) {
            return Some(guard);
        }
    }
    None
}

/// The lock, if nobody has it.
#[inline(always)]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    #[cfg(not(loom))]
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
    #[cfg(loom)]
    mutex.try_lock().ok()
}

/// Whether nobody has the lock.
pub(crate) fn is_free<T>(mutex: &Mutex<T>) -> bool {
    try_lock(mutex).is_some()
}

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
