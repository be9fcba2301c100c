//! The life of a vCPU's own thread: wait, take the vCPU, run it, park it.
//!
//! Owns the thread and the order of its life. When its slot is part of the hierarchy is in
//! `membership`, what its host timers are set for in `deadlines`. Must not know what the guest does.
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

/// A vCPU thread at work.
pub struct Worker<'a> {
    pub(super) domain: &'a Domain,
    pub(super) vcpu: &'a Vcpu,
    pub(super) timer: HostTimer,
    /// Cuts borrowed runs. A timer of its own: it is set while there is time, after a pass, so that the
    /// next one need not wait for that; and set beyond the other, it costs no programming of the CPU's.
    pub(super) cut: HostTimer,
    pub(super) share: Share,
    pub(super) turns: Turns,
    pub(super) lead: Lead,
    /// The slot is available in the hierarchy.
    pub(super) member: bool,
    /// It is to leave the hierarchy, which did not answer.
    pub(super) leaving: bool,
    /// When a thread that used up its share comes back.
    pub(super) rejoin_at: Option<u64>,
    /// Until then the vCPU's timers are this thread's own, as others were late with them.
    pub(super) alone_until: Option<u64>,
    pub(super) alone: Backoff,
    /// Counted as busy.
    pub(super) busy: bool,
    /// Passes in a row that began late.
    pub(super) late_passes: u8,
    /// How long before a time-out of its sleep this thread is woken.
    pub(super) sleep_lead: Lead,
    /// The own next expiry while parked without a hierarchy, or with one that did not answer.
    pub(super) own_expiry: Option<u64>,
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
            member: false,
            leaving: false,
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
                    vcpu.watch.set_missing(false);
                }
                // Whoever has it wakes this thread if it is needed.
                State::Borrowed(_)
                | State::WaitSipi
                | State::Home
                | State::Paused
                | State::Stopped => {
                    woken_for = None;
                    if self.leaving {
                        self.quit();
                    }
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
        earlier(self.own_expiry, self.responsibility())
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

    fn retire(&mut self, held: Held<'a>) {
        self.end_leave();
        self.set_busy(false);
        self.quit();
        self.still_timers();
        self.unwatch();
        held.finish();
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
