//! The life of a vCPU's own thread: wait, take the vCPU, run it, park it.
//!
//! Owns the thread, its host timer, its share of lent time and its membership in the hierarchy.
//! Must not know what the guest does.
//!
//! The thread sleeps on its futex whenever its vCPU is parked. It has a time-out only if the
//! hierarchy said that nobody else cares (it is the *keeper*), or if there is no hierarchy.
//! Woken by a time-out it takes its own vCPU and becomes active, which makes it migrator, serves
//! whatever is due, its own timer first, and leaves the role on going idle.

#![allow(unsafe_code)] // prctl

use std::hint;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::cycle::{self, Leave, Role};
use super::host_timer::HostTimer;
use super::in_kernel;
use super::lead::Lead;
use super::{Backoff, Held, Share, State, Stats, Turns, Vcpu, earlier, hold_signal, signal_number};
use crate::backstop::{self, MARGIN_NS};
use crate::clock;
use crate::domain::{Domain, TimerMode};
use crate::gdb::rendezvous::Reason;
use crate::placement::gate::Gate;
use crate::vm::Outcome;

/// Enough for the run loop and a crash report; a thread's stack is the larger part of what an idle
/// vCPU costs.
const STACK_BYTES: usize = 128 * 1024;

/// A thread whose VM has used up its CPU time looks so often whether it is to stop or pause, in ns.
const THROTTLE_GRAIN_NS: u64 = 10_000_000;

/// A busy thread that began so many passes in a row too late leaves the duty to others.
const LATE_PASSES: u8 = 2;

/// A vCPU thread at work.
pub struct Worker<'a> {
    pub(super) domain: &'a Domain,
    pub(super) vcpu: &'a Vcpu,
    pub(super) timer: HostTimer,
    /// Cuts borrowed runs. A timer of its own: it is set while there is time, after a pass, so that the
    /// next one need not wait for that; and set beyond the other, it costs no programming of the CPU's.
    cut: HostTimer,
    pub(super) share: Share,
    pub(super) turns: Turns,
    lead: Lead,
    /// Signals the backstop if this thread does not come back to its duty.
    backstop: Option<HostTimer>,
    /// The slot is available in the hierarchy.
    pub(super) member: bool,
    /// When a thread that used up its share comes back.
    rejoin_at: Option<u64>,
    /// Until then the vCPU's timers are this thread's own, as others were late with them.
    alone_until: Option<u64>,
    alone: Backoff,
    /// Counted as busy.
    busy: bool,
    /// Passes in a row that began late.
    late_passes: u8,
    /// How long before a time-out of its sleep this thread is woken.
    sleep_lead: Lead,
    /// The own next expiry while parked without a hierarchy.
    own_expiry: Option<u64>,
}

/// Starts the home thread of `vcpu`. With a gate it is placed first, and does not run the vCPU if it
/// may not pass.
///
/// # Errors
/// The thread could not be created (`EAGAIN`: too many threads).
pub fn spawn(
    domain: Arc<Domain>,
    vcpu: Arc<Vcpu>,
    gate: Option<Arc<Gate>>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("{}/{}", vcpu.vm.name, vcpu.index);
    Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        hold_signal();
        vcpu.thread.adopt_current_thread();
        // SAFETY: takes integers only. Sleeps shall end when they are told to, not up to 50 us
        // later (PR_SET_TIMERSLACK, prctl(2)).
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
        let refused = gate.is_some_and(|gate| !gate.pass());
        let timer = || HostTimer::for_current_thread(signal_number());
        match timer().and_then(|first| Ok([first, timer()?])) {
            _ if refused => abandon(&domain, &vcpu, "it has no place".into()),
            Ok(timers) => Worker::new(&domain, &vcpu, timers).live(),
            Err(error) => abandon(&domain, &vcpu, format!("no host timer: {error}")),
        }
        vcpu.vm.vcpu_ended();
    })
}

/// Waits for the rest of the time to a timer, unless the vCPU is somebody else's to run meanwhile.
fn await_expiry(vcpu: &Vcpu, expiry: Option<u64>) {
    while expiry.is_some_and(|at| clock::now_ns() < at) && vcpu.word.load().state() == State::Parked
    {
        hint::spin_loop();
    }
}

/// Without a host timer or its place the vCPU cannot be run.
fn abandon(domain: &Domain, vcpu: &Vcpu, why: String) {
    vcpu.vm.end(Outcome::HostError(format!("vCPU {}: {why}", vcpu.index)));
    domain.stop_vm(&vcpu.vm);
    if let Some(held) = vcpu.take_waking() {
        held.finish();
    }
}

impl<'a> Worker<'a> {
    fn new(domain: &'a Domain, vcpu: &'a Vcpu, [timer, cut]: [HostTimer; 2]) -> Self {
        Worker {
            domain,
            vcpu,
            timer,
            cut,
            turns: Turns::default(),
            lead: Lead::default(),
            share: Share::new(domain.policy.borrow_share_percent, clock::now_ns()),
            backstop: None,
            member: false,
            rejoin_at: None,
            alone_until: None,
            alone: Backoff::new(clock::now_ns()),
            busy: false,
            late_passes: 0,
            sleep_lead: Lead::default(),
            own_expiry: None,
        }
    }

    fn live(mut self) {
        if self.domain.policy.mode == TimerMode::Kernel {
            return in_kernel::live(&mut self);
        }
        if self.vcpu.word.load().state() == State::WaitSipi && !self.vcpu.is_isolated() {
            self.join(true);
        }
        loop {
            let held = self.wait();
            if !self.drive(held) {
                return;
            }
        }
    }

    /// Sleeps until the vCPU is this thread's to run.
    fn wait(&mut self) -> Held<'a> {
        let vcpu = self.vcpu;
        let mut woken_for = None;
        loop {
            match vcpu.word.load().state() {
                State::Waking => {
                    if let Some(held) = vcpu.take_waking() {
                        return held;
                    }
                }
                State::Parked => {
                    let expiry = self.parked_expiry();
                    let now = clock::now_ns();
                    if let Some(at) = woken_for.filter(|at| *at <= now) {
                        self.sleep_lead.record(now - at);
                    }
                    if expiry.is_some_and(|at| at <= now.saturating_add(self.sleep_lead.ns())) {
                        await_expiry(vcpu, expiry);
                        if let Some(held) = vcpu.take_parked() {
                            return held;
                        }
                        continue;
                    }
                    Stats::add(&vcpu.stats.stale_timeouts, u64::from(woken_for.is_some()));
                    woken_for = expiry.map(|at| self.time_out(at));
                    vcpu.thread.sleep(woken_for);
                }
                // Whoever has it wakes this thread if it is needed.
                State::Borrowed(_)
                | State::WaitSipi
                | State::Home
                | State::Paused
                | State::Stopped => {
                    woken_for = None;
                    vcpu.thread.sleep(None);
                }
            }
        }
    }

    /// When the thread lets itself be woken for a timer: with slack, as late as that allows; without,
    /// earlier by what a wakeup takes at least.
    fn time_out(&self, at: u64) -> u64 {
        match self.domain.armed_late_ns() {
            // By itself it is because there is no CPU to spare.
            0 if self.member => at.saturating_sub(self.sleep_lead.ns()),
            late => at.saturating_add(late),
        }
    }

    /// Sleeps until the paused vCPU is to go on, or to end.
    pub(super) fn wait_paused(&mut self) -> Held<'a> {
        self.still_timers();
        loop {
            if let Some(held) = self.vcpu.take_waking() {
                return held;
            }
            self.vcpu.thread.sleep(None);
        }
    }

    /// What the parked vCPU's thread has to be back for.
    fn parked_expiry(&self) -> Option<u64> {
        match self.domain.hierarchy().filter(|_| self.member) {
            Some(hierarchy) => hierarchy.responsibility(self.vcpu.slot),
            None => self.own_expiry,
        }
    }

    /// Runs the vCPU until it is parked (`true`) or has ended (`false`).
    fn drive(&mut self, mut held: Held<'a>) -> bool {
        if self.vcpu.was_sent_away() {
            self.alone_until = Some(self.alone.leave(clock::now_ns()));
        }
        self.vcpu.lateness.taken(self.vcpu.expiry(), clock::now_ns());
        self.activate();
        loop {
            let parked = match cycle::run(self, &mut held, Role::Home) {
                Leave::Stop => {
                    self.retire(held);
                    return false;
                }
                Leave::Halted => {
                    self.deactivate(held.next_expiry());
                    held.park()
                }
                Leave::WaitSipi => {
                    // Nothing but INIT and SIPI wakes it then, so it must not become the keeper.
                    self.still_timers();
                    self.end_leave();
                    self.set_busy(false);
                    self.quit();
                    let waits = held.wait_sipi();
                    if waits.is_ok() {
                        self.pass_board();
                    }
                    waits
                }
                Leave::Pause => {
                    self.still_timers();
                    self.end_leave();
                    self.set_busy(false);
                    self.quit();
                    held.pause()
                }
                Leave::Throttle(until) => {
                    self.throttle(&held, until);
                    Err(held)
                }
                Leave::Yield => Err(held),
            };
            match parked {
                Ok(()) => return true,
                Err(still_held) => held = still_held,
            }
            self.activate();
        }
    }

    /// The vCPU is about to run: its slot becomes active.
    fn activate(&mut self) {
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
    fn stays_out(&mut self) -> bool {
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
    fn end_leave(&mut self) {
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
    fn deactivate(&mut self, next: Option<u64>) {
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

    /// The thread is about to sleep until `back`. A signal would only end the sleep.
    fn rest_timer(&mut self, back: Option<u64>) {
        self.push_backstop();
        self.turns.halted();
        self.set_busy(false);
        let now = clock::now_ns();
        self.timer.disarm_before(back.unwrap_or(u64::MAX), now);
        self.spare_cut(back, now);
    }

    fn still_timers(&mut self) {
        let now = clock::now_ns();
        self.timer.arm(None, 0, now);
        self.cut.arm(None, 0, now);
    }

    /// Nobody is served before `next`: if the timer that cuts borrowed runs would fire before it can
    /// have a meaning, it is moved to where it will have one, so that it need not be set then.
    fn spare_cut(&mut self, next: Option<u64>, now: u64) {
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
    fn push_backstop(&mut self) {
        let Some(tid) = self.domain.backstop() else { return };
        let policy = &self.domain.policy;
        let patience = policy.patience_ns();
        let said = self.vcpu.thread.back_by();
        let wanted = match self.responsibility() {
            None => u64::MAX,
            Some(at) => {
                let least = at.saturating_add(patience);
                let most = least.saturating_add(MARGIN_NS);
                if (least..=most).contains(&said) {
                    return;
                }
                most
            }
        };
        if wanted == said {
            return;
        }
        self.vcpu.thread.set_back_by(wanted);
        if self.backstop.is_none() {
            match HostTimer::for_thread(tid, backstop::signal_number()) {
                Ok(timer) => self.backstop = Some(timer),
                Err(error) => return tracing::warn!(%error, "no timer for the backstop"),
            }
        }
        if let Some(timer) = &mut self.backstop {
            timer.arm(Some(wanted).filter(|at| *at != u64::MAX), 0, clock::now_ns());
        }
    }

    /// The VM has used up its CPU time: others look after the hierarchy while this thread sleeps.
    pub(super) fn throttle(&mut self, held: &Held<'_>, until: u64) {
        self.still_timers();
        self.end_leave();
        self.set_busy(false);
        self.turns.halted();
        self.quit();
        Stats::add(&self.vcpu.stats.throttled, 1);
        // A thread that holds its vCPU is not woken by whoever wants it, so it looks.
        let until = until.min(clock::now_ns().saturating_add(THROTTLE_GRAIN_NS));
        if !held.vcpu.word.load().controlled() {
            self.vcpu.thread.sleep(Some(until));
        }
    }

    fn join(&mut self, idle: bool) {
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

    fn quit(&mut self) {
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

    fn retire(&mut self, held: Held<'a>) {
        self.end_leave();
        self.set_busy(false);
        self.quit();
        self.still_timers();
        held.finish();
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
                self.push_backstop();
                earlier(guest, self.home_limit(late))
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
        let Some(at) = self.responsibility().filter(soon) else { return now };
        let at = own.map_or(at, |own| own.min(at));
        let mut now = now;
        while now < at && !self.vcpu.thread.attention() && !self.vcpu.word.load().attention() {
            hint::spin_loop();
            now = clock::now_ns();
        }
        now
    }

    fn responsibility(&self) -> Option<u64> {
        self.domain.hierarchy().filter(|_| self.member)?.responsibility(self.vcpu.slot)
    }

    /// With slack there is no hurry.
    fn lead(&self) -> u64 {
        if self.domain.armed_late_ns() == 0 { self.lead.ns() } else { 0 }
    }

    fn home_limit(&self, late: u64) -> Option<u64> {
        let duty = self.responsibility().map(|at| {
            let aimed = at.saturating_add(late).saturating_sub(self.lead());
            aimed.max(self.turns.until())
        });
        earlier(duty, self.rejoin_at)
    }

    /// `vcpu` met a breakpoint: the others of its VM stop, too.
    pub(super) fn meet_debugger(&self, vcpu: &Vcpu, reason: Reason) {
        if let Some(debugger) = &vcpu.vm.debugger {
            debugger.met(vcpu.index, reason);
            self.domain.call_for_debugger(&vcpu.vm);
        }
    }

    /// Ends the VM of `vcpu`, which this thread holds.
    pub(super) fn end_vm(&self, vcpu: &Vcpu, outcome: Outcome) {
        vcpu.vm.end(outcome);
        self.domain.stop_vm(&vcpu.vm);
    }
}
