//! The locked instructions of a halt and a wake, and nothing else: what no change to the hierarchy
//! that keeps them can get below.
//!
//! Owns words and locks that mean nothing. Must not know the hierarchy.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As in a group: on lines of its own, a word that is exchanged on both ways, and a lock.
#[derive(Default)]
#[repr(align(128))]
struct Level {
    word: AtomicU32,
    lock: Mutex<u32>,
}

impl Level {
    fn exchange(&self) {
        let now = self.word.load(Ordering::SeqCst);
        let next = now.wrapping_add(1);
        let exchanged = self.word.compare_exchange(now, next, Ordering::SeqCst, Ordering::Acquire);
        debug_assert!(exchanged.is_ok(), "nobody else exchanges it");
    }
}

fn lock(mutex: &Mutex<u32>) -> MutexGuard<'_, u32> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A slot, and the levels above it.
pub struct Exchanges {
    slot: Mutex<u32>,
    levels: Vec<Level>,
}

impl Exchanges {
    /// Four for the slot's lock, and four for each level.
    pub fn new(levels: usize) -> Self {
        Exchanges {
            slot: Mutex::default(),
            levels: std::iter::repeat_with(Level::default).take(levels).collect(),
        }
    }

    /// Up once as for a halt, with the locks hand over hand, and once as for a wake.
    pub fn halt_and_wake(&self) {
        {
            let _slot = lock(&self.slot);
            let mut below = None;
            for level in black_box(&self.levels) {
                level.exchange();
                let here = lock(&level.lock);
                drop(below.replace(here));
            }
        }
        let _slot = lock(&self.slot);
        for level in black_box(&self.levels) {
            level.exchange();
        }
    }
}
