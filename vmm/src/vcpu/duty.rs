//! The migrator's duty: expiring the timers of halted vCPUs, on this thread.
//!
//! Owns one pass over the hierarchy: taking each due vCPU, serving it inline or handing it to its
//! home thread, and giving it up in the critical section that re-queues it. Must not know how a
//! vCPU is run or how the hierarchy finds who is due.
//!
//! Borrowed runs never nest, no lock is held during one, and the borrower's own vCPU comes first:
//! the run ends at the next exit when its word asks for attention, or when its own timer is later than
//! timers may be; nobody else is served once that is due.

use std::mem;

use crossbeam_epoch::{self as epoch, Guard};
use tmigr::{Expire, Expired, Next, Notice, Slot};

use super::budget::cut_for_own_timer;
use super::cycle::{self, Leave, Role};
use super::home::Worker;
use super::{Held, Post, State, Stats, Vcpu};
use crate::clock;

/// How a served vCPU is given up when the pass re-queues it.
enum Ending<'a> {
    None,
    Park(Held<'a>),
    HandOff(Held<'a>),
}

struct Duty<'w, 'a, 'g> {
    w: &'w mut Worker<'a>,
    /// The next timer of the thread's own vCPU: due, it ends the pass.
    own_deadline: Option<u64>,
    /// The own guest wants to run: what is lent is taken from its share.
    own_runs: bool,
    ending: Ending<'g>,
    /// A vCPU whose home thread is to be woken once no lock is held.
    wake: Option<&'g Vcpu>,
    exhausted: bool,
    /// Keeps the vCPUs of the pass from being freed.
    guard: &'g Guard,
}

impl<'a> Worker<'a> {
    /// Whether somebody's timer is due and this thread is the one to see to it.
    #[must_use]
    pub(super) fn duty_calls(&self, now: u64) -> bool {
        self.member
            && self.domain.sound().is_some_and(|h| h.requires_handle_remote(self.vcpu.slot, now))
    }

    /// Serves whoever is due, if it falls to this thread and is not the own guest's turn. `held` is
    /// the thread's own vCPU. Answers whether time has passed.
    pub(super) fn duty(&mut self, held: &Held<'_>) -> bool {
        let Some(hierarchy) = self.domain.sound() else { return false };
        let limit = self.domain.policy.borrow_limit_ns;
        let started = clock::now_ns();
        self.rejoin_when_due(started);
        self.settle_membership();
        self.become_active(hierarchy);
        let own_runs = self.turns.own_wants(held.runnable(), started, limit);
        self.set_busy(own_runs);
        if !held.runnable() {
            self.turns.halted();
        }
        if !self.turns.others(held.wants_entry(), started) {
            return false;
        }
        let mut now = self.await_duty(held.deadline(), started);
        let waited = now.saturating_sub(started);
        if own_runs && waited > 0 && !self.share.charge(waited, now) && self.relieve() {
            return true;
        }
        if own_runs && self.was_late_again(now) && self.relieve() {
            return true;
        }
        let began = now;
        while self.duty_calls(now) {
            let guard = epoch::pin();
            let mut duty = Duty {
                own_deadline: held.deadline(),
                own_runs,
                ending: Ending::None,
                wake: None,
                exhausted: false,
                guard: &guard,
                w: self,
            };
            let pass = hierarchy.handle_remote(duty.w.vcpu.slot, now, &mut duty);
            duty.flush_wake();
            if pass.stuck {
                self.domain.stall();
                return true;
            }
            if duty.exhausted && self.relieve() {
                return true;
            }
            now = clock::now_ns();
            if pass.stopped || now.saturating_sub(started) > limit {
                break;
            }
        }
        if now > began && self.domain.policy.slack_ns != 0 {
            self.domain.load.served(now - began);
        }
        if held.runnable() {
            self.turns.served(started, now, limit);
        }
        now > started
    }
}

impl<'g> Duty<'_, '_, 'g> {
    fn flush_wake(&mut self) {
        if let Some(vcpu) = self.wake.take() {
            vcpu.thread.wake();
        }
    }

    fn own_vcpu_calls(&self) -> bool {
        self.w.vcpu.word.load().attention()
            || self.own_deadline.is_some_and(|at| at <= clock::now_ns())
    }

    /// The vCPU cannot or shall not be run here: its own thread looks at its timers.
    fn hand_over(&mut self, vcpu: &'g Vcpu) -> Expired {
        Stats::add(&self.w.vcpu.stats.handed_off, 1);
        self.call(vcpu);
        Expired { next: Next::Foreign, stop: self.own_vcpu_calls() }
    }

    /// Makes whoever has the vCPU, or is to have it, look at its timers.
    fn call(&self, vcpu: &'g Vcpu) {
        self.w.domain.post(vcpu, Post::Interrupt);
        // Whoever made it so may have been stopped before it woke the thread.
        if vcpu.word.load().state() == State::Waking {
            vcpu.thread.rouse();
        }
    }

    /// `bad`: the run is one of those that count against the vCPU.
    fn serve(&mut self, mut held: Held<'g>, bad: bool) -> Expired {
        let began = clock::now_ns();
        held.vcpu.lateness.taken(held.vcpu.expiry(), began);
        let policy = &self.w.domain.policy;
        let limit = began.saturating_add(policy.borrow_limit_ns);
        let own = cut_for_own_timer(self.own_deadline, policy.patience_ns());
        let role = Role::Borrowed { limit, own };
        let leave = cycle::run(self.w, &mut held, role);
        let ended = clock::now_ns();
        let spent = ended.saturating_sub(began);
        held.vcpu.vm.meters.served.charge(spent, ended);
        held.service.record(spent, !bad && (leave != Leave::Yield || ended < limit));
        self.account(held.vcpu, spent);
        if self.own_runs {
            self.exhausted |= !self.w.share.charge(spent, ended);
        }
        let stop = self.exhausted || self.own_vcpu_calls();
        if leave == Leave::Halted {
            let next = held.next_expiry();
            self.ending = Ending::Park(held);
            Expired { next: Next::Owned(next), stop }
        } else {
            Stats::add(&self.w.vcpu.stats.handed_off, 1);
            self.ending = Ending::HandOff(held);
            Expired { next: Next::Owned(None), stop }
        }
    }

    fn account(&self, served: &Vcpu, spent: u64) {
        let stats = &self.w.vcpu.stats;
        Stats::add(&stats.inline, 1);
        Stats::add(&stats.by_helper, u64::from(!self.own_runs));
        Stats::add(&stats.lent_ns, spent);
        Stats::add(&served.stats.served, 1);
        Stats::add(&served.stats.served_ns, spent);
    }
}

impl Expire for Duty<'_, '_, '_> {
    fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
        self.flush_wake();
        let policy = &self.w.domain.policy;
        let Some(vcpu) = self.w.domain.vcpu(slot, self.guard).filter(|_| slot != self.w.vcpu.slot)
        else {
            return Expired { next: Next::Foreign, stop: false };
        };
        if !policy.inline || vcpu.vm.capped_until(clock::now_ns()).is_some() {
            return self.hand_over(vcpu);
        }
        // One that is late is served here nevertheless, as its own thread would be later still; but
        // not time and again.
        let now = clock::now_ns();
        let waited = vcpu.expiry().map_or(0, |at| now.saturating_sub(at));
        let late = waited > policy.patience_ns();
        let Some(mut held) = vcpu.borrow(self.w.vcpu.slot) else {
            // Somebody has it and is made to look at its own timers before it can park.
            self.call(vcpu);
            return Expired { next: Next::Foreign, stop: self.own_vcpu_calls() };
        };
        let often = held.service.too_often(now, vcpu.vm.limits.min_timer_period_ns);
        let dear = vcpu.vm.meters.served.over_until(now).is_some();
        // Its own thread does not come.
        let stranded = vcpu.watch.is_missing();
        if (held.service.out(late || often) || dear) && !stranded {
            vcpu.send_away();
        } else if held.service.fits(policy.borrow_limit_ns) || stranded {
            return self.serve(held, late || often);
        } else {
            held.service.forgive();
        }
        Stats::add(&self.w.vcpu.stats.handed_off, 1);
        self.ending = Ending::HandOff(held);
        Expired { next: Next::Owned(None), stop: self.own_vcpu_calls() }
    }

    fn release(&mut self, _slot: Slot) {
        match mem::replace(&mut self.ending, Ending::None) {
            Ending::None => {}
            Ending::Park(held) => {
                let vcpu = held.vcpu;
                if let Err(held) = held.park() {
                    // Something was posted at the very end of the run.
                    held.hand_off();
                    self.wake = Some(vcpu);
                }
            }
            Ending::HandOff(held) => {
                self.wake = Some(held.vcpu);
                held.hand_off();
            }
        }
    }

    /// Its own thread looks after what could not be queued.
    fn abandon(&mut self, _slot: Slot) {
        if let Ending::Park(held) | Ending::HandOff(held) =
            mem::replace(&mut self.ending, Ending::None)
        {
            self.wake = Some(held.vcpu);
            held.hand_off();
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.w.domain.deliver(self.w.vcpu, Some(notice));
    }
}
