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
//!
//! **Race 7, the end of a stall against a halt.** A thread has found the hierarchy stalled and parks its vCPU
//! without it. The mark is cleared before the post: if the park comes first, the post makes the vCPU halt
//! anew; if it comes second, it fails and the thread looks again. Either way it finds the hierarchy sound.
//! Model `race7_*` (`vcpu::models`).

use std::cell::Cell;
use std::hint;
use std::mem;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tmigr::{Hierarchy, Patience, Slot};

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

    /// How often that was so.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// A lock of the hierarchy was waited for in vain. From now on every thread does without, until the
    /// backstop finds all locks free.
    pub fn stall(&self) {
        if self.stalled.swap(true, Ordering::SeqCst) {
            return;
        }
        self.stalls.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("a lock of the timer hierarchy is not given back");
        self.call_backstop();
    }

    fn call_backstop(&self) {
        if let Some(backstop) = self.backstop() {
            backstop::call(backstop);
        }
    }

    /// The backstop's work beside its looks at vCPUs: ends a stall if all locks can be had, and what others
    /// could not wait for. Answers whether nothing is left to do.
    #[must_use]
    pub fn recover(&self) -> bool {
        let Some(hierarchy) = &self.hierarchy else { return true };
        if self.is_stalled() {
            if !hierarchy.is_sound() {
                return false;
            }
            self.stalled.store(false, Ordering::SeqCst);
            self.for_each_vcpu(|vcpu| {
                self.post(vcpu, Post::Interrupt);
                // One that is paused or waits for its SIPI may have wanted to leave.
                vcpu.thread.rouse();
            });
        }
        self.settle_leavers(hierarchy);
        // It may have stalled again meanwhile.
        !self.is_stalled() && !self.leaving.load(Ordering::Relaxed)
    }

    /// Something about slots is left to the backstop.
    pub(super) fn leave_to_backstop(&self, slot: Slot) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.leaving.push(slot);
        self.leaving.store(true, Ordering::Relaxed);
        drop(free);
        self.call_backstop();
    }

    /// The housekeeper could not go idle.
    pub(super) fn leave_housekeeper_active(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.stall();
    }

    /// The housekeeper goes idle and slots are given up, if that could not be done before.
    fn settle_leavers(&self, hierarchy: &Hierarchy) {
        if !self.leaving.load(Ordering::Relaxed) {
            return;
        }
        // Whoever admits or dismisses has it; there is another look.
        let Ok(mut free) = self.free.try_lock() else { return };
        let leavers = mem::take(&mut free.leaving);
        let mut left = false;
        if !hierarchy.is_idle(HOUSEKEEPER) {
            match hierarchy.deactivate(HOUSEKEEPER, None) {
                Ok(wakeup) => {
                    self.spread(wakeup.notices);
                    if wakeup.first.is_some() {
                        self.summon(HOUSEKEEPER, wakeup.first);
                    }
                }
                Err(_) => {
                    self.stall();
                    left = true;
                }
            }
        }
        for slot in leavers {
            if !self.try_to_give_up(hierarchy, slot) {
                free.leaving.push(slot);
            }
        }
        self.leaving.store(left || !free.leaving.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::domain::{Policy, TimerMode};

    #[test]
    fn stalled_hierarchy_is_done_without_until_its_locks_are_free() {
        let domain = Domain::new(Policy::unmeasured(TimerMode::Migrate), 4).expect("it is small");
        assert!(domain.sound().is_some());
        domain.stall();
        domain.stall();
        assert!(domain.sound().is_none() && domain.hierarchy().is_some());
        assert_eq!(domain.stalls(), 1);
        assert!(domain.recover() && domain.sound().is_some());
    }

    #[test]
    fn what_could_not_be_done_about_slots_is_done_with_the_recovery() {
        let domain = Domain::new(Policy::unmeasured(TimerMode::Migrate), 4).expect("it is small");
        let slots = domain.admit(2).expect("there is room");
        let hierarchy = domain.hierarchy().expect("of this mode");
        let _ = hierarchy.activate(HOUSEKEEPER).expect("it is idle");
        domain.leave_housekeeper_active();
        domain.leave_to_backstop(slots[0]);
        assert!(domain.recover());
        assert!(hierarchy.is_idle(HOUSEKEEPER));
        assert_eq!(domain.admit(1).expect("there is room")[0], slots[0], "it was given up");
    }

    #[test]
    fn lock_is_waited_for_for_a_while_and_not_for_ever() {
        let began = clock::now_ns();
        let tries = (0..).take_while(|tries| Bounded.wait(*tries)).count();
        assert!(tries > SPINS as usize);
        assert!(clock::now_ns() - began >= LOCK_PATIENCE_NS);
    }
}
