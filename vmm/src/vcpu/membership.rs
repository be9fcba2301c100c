//! When a vCPU's slot is part of the hierarchy, and when its thread is called busy.
//!
//! Owns coming, going idle, leaving for a while and coming back: an isolated vCPU is no member, one that
//! others were late with is none for a while, and a busy thread that used up its share, or does its
//! duty late, hands the whole of it to somebody else. A thread that gets no answer of the hierarchy looks
//! after its own vCPU's timer. Must not know how a vCPU is run, nor how timers are set.

use tmigr::{Hierarchy, SlotError};

use super::Stats;
use super::home::Worker;
use crate::clock;

/// A busy thread that began so many passes in a row too late leaves the duty to others.
const LATE_PASSES: u8 = 2;

impl Worker<'_> {
    /// The vCPU is about to run: its slot becomes active.
    pub(super) fn activate(&mut self) {
        let Some(hierarchy) = self.domain.sound() else { return };
        self.settle_membership();
        self.become_active(hierarchy);
    }

    /// A member's slot is active while its thread has its vCPU.
    pub(super) fn become_active(&mut self, hierarchy: &Hierarchy) {
        if self.member && hierarchy.is_idle(self.vcpu.slot) {
            self.foresee(hierarchy);
            match hierarchy.activate(self.vcpu.slot) {
                Ok(notices) => self.domain.deliver(self.vcpu, notices),
                Err(error) => self.refused(&error, "cannot become active in the hierarchy"),
            }
        }
    }

    fn refused(&self, error: &SlotError, what: &str) {
        match error {
            SlotError::Stuck => self.domain.stall(),
            error => tracing::error!(slot = self.vcpu.slot.0, %error, "{what}"),
        }
    }

    /// An isolated vCPU is no member; any other is, unless it used up its share or was sent away.
    pub(super) fn settle_membership(&mut self) {
        if self.stays_out() {
            self.end_leave();
            self.quit();
        } else if !self.member && self.rejoin_at.is_none() {
            self.join(false);
        }
    }

    /// The vCPU is isolated, or better off by itself for the time being.
    pub(super) fn stays_out(&mut self) -> bool {
        if let Some(until) = self.alone_until {
            let now = clock::now_ns();
            if now < until {
                return true;
            }
            self.alone_until = None;
            self.alone.back(now);
        }
        self.vcpu.is_isolated()
    }

    /// A thread that was relieved comes back, or has another reason to stay away.
    pub(super) fn end_leave(&mut self) {
        if self.rejoin_at.take().is_some() {
            self.domain.load.away(false);
        }
    }

    /// Counts this thread as busy, or no longer.
    pub(super) fn set_busy(&mut self, busy: bool) {
        if self.busy != busy {
            self.busy = busy;
            self.domain.load.busy(busy);
        }
    }

    /// The vCPU halted: its next expiry enters the hierarchy.
    pub(super) fn deactivate(&mut self, next: Option<u64>) {
        let out = self.stays_out();
        if out {
            self.end_leave();
            self.quit();
        }
        let sound = self.domain.sound().filter(|_| !out);
        let told = sound.and_then(|hierarchy| self.become_idle(hierarchy, next));
        self.own_expiry = if told.is_some() { None } else { next };
        self.rest_timer(told.unwrap_or(next));
    }

    /// Answers what the thread has to be back for; `None`: the hierarchy does not look after the vCPU's
    /// timer.
    fn become_idle(&mut self, hierarchy: &Hierarchy, next: Option<u64>) -> Option<Option<u64>> {
        if !self.member {
            self.end_leave();
            self.share.halted(clock::now_ns());
            self.join(false);
        }
        if !self.member {
            return None;
        }
        self.become_active(hierarchy);
        match hierarchy.deactivate(self.vcpu.slot, next) {
            Ok(wakeup) => {
                self.domain.deliver(self.vcpu, wakeup.notices);
                Some(wakeup.first)
            }
            Err(error) => {
                self.refused(&error, "cannot become idle in the hierarchy");
                None
            }
        }
    }

    pub(super) fn join(&mut self, idle: bool) {
        let Some(hierarchy) = self.domain.sound() else { return };
        if !idle {
            self.foresee(hierarchy);
        }
        match hierarchy.available(self.vcpu.slot, idle) {
            Ok(notices) => {
                self.member = true;
                self.leaving = false;
                self.domain.deliver(self.vcpu, notices);
            }
            Err(error) => self.refused(&error, "cannot join the hierarchy"),
        }
    }

    pub(super) fn quit(&mut self) {
        let Some(hierarchy) = self.domain.hierarchy() else { return };
        if !self.member {
            return;
        }
        let sound = self.domain.sound().is_some();
        let left = sound.then(|| hierarchy.unavailable(self.vcpu.slot));
        let Some(left) = left.filter(|left| !left.stuck) else {
            self.leaving = true;
            return self.domain.stall();
        };
        (self.member, self.leaving) = (false, false);
        self.domain.deliver(self.vcpu, left.notices);
        if left.trigger.is_some() {
            self.domain.summon(self.vcpu.slot, left.trigger);
        }
        // Not before: until somebody else has the duty this thread is missed at it.
        self.push_backstop();
    }

    /// The share is used up, or the duty was done late: the slot leaves the hierarchy for a while, and
    /// the whole responsibility goes to another busy thread or to one that is woken. `false`: there is
    /// nobody to whom it could go, and the thread stays.
    #[must_use]
    pub(super) fn relieve(&mut self) -> bool {
        let now = clock::now_ns();
        self.late_passes = 0;
        if !self.domain.load.can_relieve() {
            self.share.rejoin(now);
            return false;
        }
        Stats::add(&self.vcpu.stats.relieved, 1);
        self.rejoin_at = Some(self.share.leave(now));
        self.domain.load.away(true);
        self.quit();
        true
    }

    /// Whether this pass, like those before it, begins later than timers may be served: the host, or
    /// the own guest, keeps the thread from its duty.
    pub(super) fn was_late_again(&mut self, now: u64) -> bool {
        let Some(at) = self.likely_responsibility().filter(|at| *at <= now) else { return false };
        let late = now - at > self.domain.policy.patience_ns();
        self.late_passes = if late { self.late_passes + 1 } else { 0 };
        self.late_passes >= LATE_PASSES
    }

    pub(super) fn rejoin_when_due(&mut self, now: u64) {
        if self.rejoin_at.is_some_and(|at| at <= now) {
            self.end_leave();
            self.share.rejoin(now);
            if !self.stays_out() {
                self.join(false);
            }
        }
    }

    /// What the thread has to be ready to work for, after which notices are measured; it says something
    /// for that ([`Worker::push_backstop`]), or sleeps.
    pub(super) fn responsibility(&self) -> Option<u64> {
        self.domain.sound().filter(|_| self.member)?.responsibility(self.vcpu.slot)
    }

    /// The same without a consequence.
    pub(super) fn likely_responsibility(&self) -> Option<u64> {
        self.domain.sound().filter(|_| self.member)?.peek_responsibility(self.vcpu.slot)
    }
}
