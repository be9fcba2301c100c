//! Input on its way to a guest's serial port.
//!
//! Owns the bytes that the guest has not taken, within a bound, and who is told of new ones. Must not
//! know where they come from.
//!
//! | variable | lock | writer | reader |
//! |---|---|---|---|
//! | `bytes` | its own mutex, held for a copy of a few bytes | event loop | vCPU threads |
//! | `count` | none (relaxed hint; the lock decides) | both, under the lock | both |
//! | `told` | its own mutex, held for a copy of the reference | the fleet, before the VM runs | event loop |

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most input that waits for the guest, in bytes; a source that is further ahead is not read, or what
/// it says is dropped.
pub const INPUT_MOST: usize = 4096;

type Told = Arc<dyn Fn() + Send + Sync>;

/// Input on its way to the guest.
#[derive(Default)]
pub(super) struct Input {
    bytes: Mutex<VecDeque<u8>>,
    count: AtomicUsize,
    /// Called after each addition, without a lock.
    told: Mutex<Option<Told>>,
}

impl Input {
    /// Takes up to `most` bytes into `into`. Answers how many, and whether there was no room for more
    /// before.
    pub(super) fn take(&self, into: &mut [u8]) -> (usize, bool) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return (0, false);
        }
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let was_full = bytes.len() >= INPUT_MOST;
        let count = bytes.len().min(into.len());
        for (to, from) in into.iter_mut().zip(bytes.drain(..count)) {
            *to = from;
        }
        self.count.store(bytes.len(), Ordering::Relaxed);
        (count, was_full && count > 0)
    }

    /// Adds as much of `more` as there is room for, from its start. Answers how much that is.
    pub(super) fn put(&self, more: &[u8]) -> usize {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let count = more.len().min(INPUT_MOST.saturating_sub(bytes.len()));
        bytes.extend(&more[..count]);
        self.count.store(bytes.len(), Ordering::Relaxed);
        drop(bytes);
        if count == 0 {
            return 0;
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(told) = told {
            told();
        }
        count
    }

    /// Has this one told from now on, and nobody else.
    pub(super) fn on_put(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    pub(super) fn room(&self) -> usize {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        INPUT_MOST.saturating_sub(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_taken_and_nobody_is_told_of_it() {
        let input = Input::default();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        input.on_put(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(input.put(&[1; INPUT_MOST - 1]), INPUT_MOST - 1);
        assert_eq!(input.put(&[2; 10]), 1);
        assert_eq!(input.put(&[3; 10]), 0);
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(input.take(&mut [0; 8]), (8, true));
        assert_eq!(input.room(), 8);
    }
}
