//! The model checker's primitives, made to mean what the standard library's mean.
//!
//! Owns the differences. loom takes a `SeqCst` access for an `AcqRel` one, so that it would
//! report what the real thing forbids; it knows `SeqCst` fences exactly, and an access between two
//! of them is at least as strong as a `SeqCst` one: stronger towards accesses that are not. A
//! `SeqCst` store is a swap, since loom does not put plain stores and exchanges of one value into one
//! order. And it has no `OnceLock`.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
pub(crate) use loom::sync::{Mutex, MutexGuard};

fn fence_if(wanted: bool) {
    if wanted {
        fence(Ordering::SeqCst);
    }
}

fn fenced<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
    let total = order == Ordering::SeqCst;
    fence_if(total);
    let value = access();
    fence_if(total);
    value
}

pub(crate) struct AtomicU32(loom::sync::atomic::AtomicU32);

impl AtomicU32 {
    pub(crate) fn new(value: u32) -> Self {
        AtomicU32(loom::sync::atomic::AtomicU32::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u32 {
        fenced(order, || self.0.load(order))
    }

    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }

    pub(crate) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        fenced(order, || self.0.fetch_add(value, order))
    }

    pub(crate) fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        fenced(order, || self.0.fetch_sub(value, order))
    }

    pub(crate) fn compare_exchange(
        &self,
        from: u32,
        to: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        fence_if(success == Ordering::SeqCst);
        let answer = self.0.compare_exchange(from, to, success, failure);
        fence_if(*answer.as_ref().map_or(&failure, |_| &success) == Ordering::SeqCst);
        answer
    }
}

pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        AtomicU64(loom::sync::atomic::AtomicU64::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        fenced(order, || self.0.load(order))
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        if order == Ordering::SeqCst {
            fenced(order, || self.0.swap(value, order));
        } else {
            self.0.store(value, order);
        }
    }

    pub(crate) fn fetch_min(&self, value: u64, order: Ordering) -> u64 {
        fenced(order, || self.0.fetch_min(value, order))
    }
}

/// The value is the standard library's, so that a reference to it can be handed out; whether a
/// reader may see it, is the checker's to say.
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    seen: AtomicBool,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        OnceLock { value: std::sync::OnceLock::new(), seen: AtomicBool::new(false) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.seen.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    /// Callers are serialised, as all of the crate's are.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.seen.store(true, Ordering::Release);
        Ok(())
    }
}
