//! A hierarchy that does not answer: a thread was stopped, or lost its CPU, in the few nanoseconds in
//! which it holds a lock of it.
//!
//! Owns for how long others wait for such a lock, the mark that the hierarchy cannot be relied on, and
//! the way back. Must not know how a thread does without: it looks after its own vCPU's timer then, as in
//! mode `thread`. Nobody takes the lock from whoever has it.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `Domain::stalled` | whoever waited in vain sets; the backstop clears | all home threads, the backstop | SeqCst: the backstop clears it and posts to every vCPU; whoever takes a vCPU afterwards finds the hierarchy sound |
//!
//! **The way back.** Events may be queued nowhere and notices are lost ([`Hierarchy::set_patience`]). When
//! every lock can be had, all vCPUs are posted to: each goes active and idle once, which queues its timer.
//! What became due meanwhile was looked after by its own thread, or by the backstop's looks.

use std::cell::Cell;
use std::hint;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tmigr::{Hierarchy, Patience};

use super::{Domain, HOUSEKEEPER};
use crate::backstop;
use crate::clock;
use crate::vcpu::Post;

/// For how long a lock is waited for, in nanoseconds. It is held for less than a microsecond.
const LOCK_PATIENCE_NS: u64 = 1_000_000;
/// So often a lock is looked at before the thread gives up its CPU.
const SPINS: u32 = 100;
/// Between two looks after that.
const NAP: Duration = Duration::from_micros(20);

/// Gives a lock up after [`LOCK_PATIENCE_NS`].
pub(super) struct Bounded;

impl Patience for Bounded {
    fn wait(&self, tries: u32) -> bool {
        thread_local! {
            static BEGAN: Cell<u64> = const { Cell::new(0) };
        }
        if tries < SPINS {
            hint::spin_loop();
            return true;
        }
        let now = clock::now_ns();
        if tries == SPINS {
            BEGAN.set(now);
        }
        thread::sleep(NAP);
        now.saturating_sub(BEGAN.get()) < LOCK_PATIENCE_NS
    }
}

impl Domain {
    /// The hierarchy, if there is one and it answers.
    #[must_use]
    pub fn sound(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref().filter(|_| !self.is_stalled())
    }

    /// Whether the hierarchy does not answer.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    /// A lock of the hierarchy was waited for in vain. From now on every thread does without, until the
    /// backstop finds all locks free.
    pub fn stall(&self) {
        if self.stalled.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::debug!("a lock of the timer hierarchy is not given back");
        if let Some(backstop) = self.backstop() {
            backstop::call(backstop);
        }
    }

    /// Ends a stall if all locks can be had. Answers whether it has ended. The backstop's.
    #[must_use]
    pub fn recover(&self) -> bool {
        let Some(hierarchy) = self.hierarchy.as_ref().filter(|hierarchy| hierarchy.is_sound())
        else {
            return false;
        };
        self.stalled.store(false, Ordering::SeqCst);
        self.settle_leavers(hierarchy);
        self.for_each_vcpu(|vcpu| {
            self.post(vcpu, Post::Interrupt);
            // One that is paused or waits for its SIPI may have wanted to leave.
            vcpu.thread.wake();
        });
        // It may have stalled again meanwhile.
        !self.is_stalled()
    }

    /// The housekeeper goes idle and the slots of vCPUs that ended are given up, if that could not be done.
    fn settle_leavers(&self, hierarchy: &Hierarchy) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let leavers = std::mem::take(&mut free.leaving);
        if !hierarchy.is_idle(HOUSEKEEPER) {
            match hierarchy.deactivate(HOUSEKEEPER, None) {
                Ok(left) => {
                    self.spread(left.notices);
                }
                Err(_) => self.stall(),
            }
        }
        drop(free);
        leavers.into_iter().for_each(|slot| self.give_up(hierarchy, slot));
    }
}
