//! When a vCPU's slot is part of the hierarchy, and when its thread is called busy.
//!
//! Owns coming, going idle, leaving for a while and coming back: an isolated vCPU is no member, one that
//! others were late with is none for a while, and a busy thread that used up its share, or does its
//! duty late, hands the whole of it to somebody else. Must not know how a vCPU is run, nor how timers are
//! set.

use super::Stats;
use super::home::Worker;
use crate::clock;

/// A busy thread that began so many passes in a row too late leaves the duty to others.
const LATE_PASSES: u8 = 2;

impl Worker<'_> {
    /// The vCPU is about to run: its slot becomes active.
    pub(super) fn activate(&mut self) {
        let Some(hierarchy) = self.domain.hierarchy() else { return };
        self.settle_membership();
        if self.member && hierarchy.is_idle(self.vcpu.slot) {
            match hierarchy.activate(self.vcpu.slot) {
                Ok(notices) => self.domain.deliver(self.vcpu, notices),
                Err(error) => tracing::error!(%error, "cannot become active in the hierarchy"),
            }
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
        let back = match self.domain.hierarchy().filter(|_| !out) {
            None => {
                self.own_expiry = next;
                next
            }
            Some(hierarchy) => {
                if !self.member {
                    self.end_leave();
                    self.share.halted(clock::now_ns());
                    self.join(false);
                }
                match hierarchy.deactivate(self.vcpu.slot, next) {
                    Ok(wakeup) => {
                        self.domain.deliver(self.vcpu, wakeup.notices);
                        wakeup.first
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot become idle in the hierarchy");
                        next
                    }
                }
            }
        };
        self.rest_timer(back);
    }

    pub(super) fn join(&mut self, idle: bool) {
        let Some(hierarchy) = self.domain.hierarchy() else { return };
        match hierarchy.available(self.vcpu.slot, idle) {
            Ok(notices) => {
                self.member = true;
                self.domain.deliver(self.vcpu, notices);
            }
            Err(error) => {
                tracing::error!(slot = self.vcpu.slot.0, %error, "cannot join the hierarchy")
            }
        }
    }

    pub(super) fn quit(&mut self) {
        let Some(hierarchy) = self.domain.hierarchy() else { return };
        if !self.member {
            return;
        }
        self.member = false;
        self.push_backstop();
        let left = hierarchy.unavailable(self.vcpu.slot);
        self.domain.deliver(self.vcpu, left.notices);
        if left.trigger.is_some() {
            self.domain.summon(self.vcpu.slot);
        }
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
        let Some(at) = self.responsibility().filter(|at| *at <= now) else { return false };
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

    pub(super) fn responsibility(&self) -> Option<u64> {
        self.domain.hierarchy().filter(|_| self.member)?.responsibility(self.vcpu.slot)
    }
}
