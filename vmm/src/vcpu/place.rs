//! Where a vCPU thread is, as far as others have to know before they signal or wake it.
//!
//! Owns the two words of races 2 and 3 (`kick`) and their transitions. Must not know signals, futexes
//! or run words: a transition that makes one necessary says so.

use super::kick::Place;
use super::sync::{AtomicU32, Ordering};

const HOST: u32 = 0;
const GUEST: u32 = 1;
const KICKED: u32 = 2;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const TOKEN: u32 = 2;

/// In host code, in some guest, or kicked out of it.
pub(super) struct PlaceWord(AtomicU32);

impl PlaceWord {
    pub(super) fn new() -> Self {
        PlaceWord(AtomicU32::new(HOST))
    }

    /// The thread is about to enter a guest, and looks at every flag that a kick may stand for *after*
    /// this.
    pub(super) fn enter(&self) {
        self.0.store(GUEST, Ordering::SeqCst);
    }

    /// The thread is back in host code.
    pub(super) fn leave(&self) {
        self.0.store(HOST, Ordering::SeqCst);
    }

    /// Somebody has set a flag *before* this. Answers whether the thread has to be signalled.
    #[must_use]
    pub(super) fn kick(&self) -> bool {
        self.0.compare_exchange(GUEST, KICKED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// For messages and reports.
    pub(super) fn seen(&self) -> Place {
        match self.0.load(Ordering::Relaxed) {
            HOST => Place::Host,
            GUEST => Place::Guest,
            _ => Place::Kicked,
        }
    }
}

/// The word that the thread sleeps on.
pub(super) struct Nap(AtomicU32);

impl Nap {
    /// The value with which it may sleep.
    pub(super) const ASLEEP: u32 = ASLEEP;

    pub(super) fn new() -> Self {
        Nap(AtomicU32::new(AWAKE))
    }

    /// The thread is about to sleep as long as the word is [`Nap::ASLEEP`]; `false`: it was woken
    /// already.
    #[must_use]
    pub(super) fn begin(&self) -> bool {
        self.0.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The thread does not sleep any more, and looks at the state of the world *after* this.
    pub(super) fn end(&self) {
        self.0.store(AWAKE, Ordering::SeqCst);
    }

    /// Somebody has changed the state of the world *before* this. Answers whether the thread sleeps,
    /// and the futex has to be woken.
    #[must_use]
    pub(super) fn wake(&self) -> bool {
        self.0.swap(TOKEN, Ordering::SeqCst) == ASLEEP
    }

    /// For messages, and for the model of a sleep.
    pub(super) fn asleep(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ASLEEP
    }

    /// Where the word lies.
    #[cfg(not(loom))]
    pub(super) fn as_ptr(&self) -> *mut u32 {
        self.0.as_ptr()
    }

    #[cfg(loom)]
    pub(super) fn as_ptr(&self) -> *mut u32 {
        std::ptr::null_mut()
    }
}
