//! The model checker's atomics, made to mean what the standard library's mean.
//!
//! Owns the difference: loom takes a `SeqCst` access for an `AcqRel` one, but knows `SeqCst` fences
//! exactly. An access between two of them is at least as strong as a `SeqCst` one; towards accesses
//! that are not it is stronger.

pub(crate) use loom::sync::atomic::Ordering;
use loom::sync::atomic::fence;

fn fenced<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
    let total = order == Ordering::SeqCst;
    if total {
        fence(Ordering::SeqCst);
    }
    let value = access();
    if total {
        fence(Ordering::SeqCst);
    }
    value
}

macro_rules! atomic {
    ($name:ident, $int:ty) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(loom::sync::atomic::$name);

        #[allow(dead_code)] // not everything of both, nor without the models
        impl $name {
            pub(crate) fn load(&self, order: Ordering) -> $int {
                fenced(order, || self.0.load(order))
            }

            pub(crate) fn swap(&self, value: $int, order: Ordering) -> $int {
                fenced(order, || self.0.swap(value, order))
            }

            pub(crate) fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                fenced(order, || self.0.fetch_or(value, order))
            }

            pub(crate) fn fetch_and(&self, value: $int, order: Ordering) -> $int {
                fenced(order, || self.0.fetch_and(value, order))
            }

            /// Fails with the order that it succeeds with, if that is `SeqCst`.
            pub(crate) fn compare_exchange_weak(
                &self,
                from: $int,
                to: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                fenced(success, || self.0.compare_exchange_weak(from, to, success, failure))
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
