//! What a vCPU thread sets its host timers for.
//!
//! Owns what the three of them are for: the next thing to do, the end of a borrowed run, and the backstop,
//! which is called if this thread does not come. Must not know what is done then.

use std::hint;

use tmigr::Hierarchy;

use super::cycle::Role;
use super::earlier;
use super::home::Worker;
use crate::backstop::MARGIN_NS;
use crate::clock;

impl Worker<'_> {
    /// The thread is about to sleep until `back`. A signal would only end the sleep.
    pub(super) fn rest_timer(&mut self, back: Option<u64>) {
        self.push_backstop();
        self.turns.halted();
        self.set_busy(false);
        let now = clock::now_ns();
        self.timer.disarm_before(back.unwrap_or(u64::MAX), now);
        self.spare_cut(back, now);
    }

    pub(super) fn still_timers(&mut self) {
        let now = clock::now_ns();
        self.timer.arm(None, 0, now);
        self.cut.arm(None, 0, now);
    }

    /// Nobody is served before `next`: if the timer that cuts borrowed runs would fire before it can
    /// have a meaning, it is moved to where it will have one, so that it need not be set then.
    pub(super) fn spare_cut(&mut self, next: Option<u64>, now: u64) {
        let limit = self.domain.policy.borrow_limit_ns;
        match next {
            None => self.cut.arm(None, 0, now),
            Some(next) if self.cut.fires_before(next.saturating_add(limit), now) => {
                self.cut.arm(Some(next.saturating_add(limit)), limit, now);
            }
            Some(_) => {}
        }
    }

    /// Says by when this thread will have done its duty, and sets the timer that calls the backstop
    /// otherwise. A time that was said before and is near enough is left, as setting it costs a
    /// system call.
    /// Answers what the thread is responsible for, and is the one place where it asks for that while it
    /// is awake: notices are measured against an answer that it has said something for.
    pub(super) fn push_backstop(&mut self) -> Option<u64> {
        loop {
            let said = self.vcpu.watch.back_by();
            let duty = self.responsibility();
            let Some(tid) = self.domain.backstop() else { return duty };
            let wanted = match duty {
                None => u64::MAX,
                Some(at) => {
                    let most = self.domain.policy.missed_at(at);
                    if (most.saturating_sub(MARGIN_NS)..=most).contains(&said) {
                        return duty;
                    }
                    most
                }
            };
            if wanted == said || self.vcpu.watch.say(said, wanted, tid, clock::now_ns()) {
                return duty;
            }
        }
    }

    /// This slot is about to become active: what falls to it then is nobody else's any more, so the
    /// thread is missed at it from now on.
    pub(super) fn foresee(&self, hierarchy: &Hierarchy) {
        let Some(tid) = self.domain.backstop() else { return };
        let (slot, policy) = (self.vcpu.slot, &self.domain.policy);
        if let Some(at) = hierarchy.prospect(slot) {
            self.vcpu.watch.expect(policy.missed_at(at), tid);
        }
        // What it was responsible for the last time, and says nothing for any more, shall not keep others
        // from telling it.
        let said = self.vcpu.watch.back_by();
        if hierarchy.known(slot).is_some_and(|known| policy.missed_at(known) < said) {
            hierarchy.forget_known(slot);
        }
    }

    /// The thread ends: nobody is to miss it.
    pub(super) fn unwatch(&self) {
        let Some(tid) = self.domain.backstop() else { return };
        while !self.vcpu.watch.say(self.vcpu.watch.back_by(), u64::MAX, tid, clock::now_ns()) {}
    }

    /// Arms the thread's host timer for the earliest time at which it has to be out of the guest,
    /// whose own timers fire next at `deadline`.
    /// Answers whether there is any time to run.
    #[must_use]
    pub(super) fn arm(&mut self, deadline: Option<u64>, role: Role, now: u64) -> bool {
        let (late, limit_ns) = (self.domain.armed_late_ns(), self.domain.policy.borrow_limit_ns);
        let guest = deadline.map(|at| at.saturating_add(late));
        let exact = match role {
            Role::Borrowed { own, .. } => earlier(guest, own),
            Role::Home => {
                let duty = self.push_backstop();
                earlier(guest, self.home_limit(duty, late))
            }
        };
        if exact.is_some_and(|at| at <= now) {
            return false;
        }
        match role {
            Role::Home => {
                self.timer.arm(exact, 0, now);
                self.spare_cut(exact, now);
            }
            // A run that ends somewhat late costs less than a timer set for each, so an armed time
            // up to one limit later is left alone.
            Role::Borrowed { limit, .. } => {
                self.cut.arm(Some(limit), limit_ns, now);
                if let Some(at) = exact.filter(|at| !self.cut.fires_before(*at, now)) {
                    self.timer.arm(Some(at), 0, now);
                }
            }
        }
        true
    }

    /// In mode `kernel`: arms the thread's host timer for the chipset's timers alone. Answers whether
    /// there is any time to run.
    #[must_use]
    pub(super) fn arm_for_board(&mut self, deadline: Option<u64>, now: u64) -> bool {
        if deadline.is_some_and(|at| at <= now) {
            return false;
        }
        self.timer.arm(deadline, 0, now);
        true
    }

    /// A signal ended a run.
    pub(super) fn interrupted(&mut self, now: u64) {
        if let Some(late) = self.timer.fired(now) {
            self.lead.record(late);
        }
    }

    /// This thread enters a guest in that role.
    pub(super) fn entered(&mut self, role: Role) {
        if role == Role::Home {
            self.turns.entered();
        }
    }

    /// Waits until `now` is the time of the next duty, if that is nearer than the host timer can be
    /// aimed, or of the own timer; answers the time.
    pub(super) fn await_duty(&self, own: Option<u64>, now: u64) -> u64 {
        let near = now.saturating_add(self.lead());
        let soon = |at: &u64| *at <= near;
        let Some(at) = self.likely_responsibility().filter(soon) else { return now };
        let at = own.map_or(at, |own| own.min(at));
        let mut now = now;
        while now < at && !self.vcpu.thread.attention() && !self.vcpu.word.load().attention() {
            hint::spin_loop();
            now = clock::now_ns();
        }
        now
    }

    /// With slack there is no hurry.
    pub(super) fn lead(&self) -> u64 {
        if self.domain.armed_late_ns() == 0 { self.lead.ns() } else { 0 }
    }

    pub(super) fn home_limit(&self, duty: Option<u64>, late: u64) -> Option<u64> {
        let duty = duty.map(|at| {
            let aimed = at.saturating_add(late).saturating_sub(self.lead());
            aimed.max(self.turns.until())
        });
        // There is nothing to come back to where the hierarchy does not answer.
        earlier(duty, self.rejoin_at.filter(|_| self.domain.sound().is_some()))
    }
}
