//! What the vCPUs of one hierarchy share: the hierarchy itself, the table of slots, the policy.
//!
//! Owns how a wake-up that a transition or the hierarchy asked for reaches its thread. Must not
//! know how vCPUs run. With `--share vm` there is a domain for each VM, with `--share host` one for
//! all of the process's. What a hierarchy that does not answer leads to is in `stall`.

mod stall;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crossbeam_epoch::{self as epoch, Guard};
use thiserror::Error;
use tmigr::{Hierarchy, Notice, Slot, SlotError, Trace, TraceEvent};

use crate::backstop::MARGIN_NS;
use crate::load::Load;
use crate::seats::Seats;
use crate::vcpu::{Post, State, Stats, Tell, Vcpu};
use crate::vm::VmShared;

/// Where the timer of a halted vCPU is kept (`--timers`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum TimerMode {
    /// In the hierarchy, expired by a running vCPU's thread
    Migrate,
    /// With its own host thread, which sleeps until then
    Thread,
    /// In KVM's in-kernel APIC, as other VMMs do
    Kernel,
}

impl TimerMode {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TimerMode::Migrate => "migrate",
            TimerMode::Thread => "thread",
            TimerMode::Kernel => "kernel",
        }
    }
}

/// How the vCPUs of a domain are run.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where timers are kept.
    pub mode: TimerMode,
    /// Halted vCPUs are entered on the migrator's thread; otherwise their own threads are woken.
    pub inline: bool,
    /// How late a timer may expire so that others are taken along, in nanoseconds.
    pub slack_ns: u64,
    /// Longest borrowed run, in nanoseconds.
    pub borrow_limit_ns: u64,
    /// Share of a thread's time that goes to other vCPUs while its own guest wants to run, in
    /// percent; 100: no limit.
    pub borrow_share_percent: u8,
    /// How late a timer may be served, beyond the slack, before whoever serves it is taken to be
    /// overloaded or absent, in nanoseconds.
    pub lateness_goal_ns: u64,
    /// What it takes from the expiry of a sleeping thread's time-out until a guest runs on it, in
    /// nanoseconds.
    pub wakeup_ns: u64,
}

impl Policy {
    /// A policy for a host of which nothing was measured, with limits that fit slow exits.
    #[must_use]
    pub fn unmeasured(mode: TimerMode) -> Self {
        Policy {
            mode,
            inline: true,
            slack_ns: 0,
            borrow_limit_ns: 1_000_000,
            borrow_share_percent: 25,
            lateness_goal_ns: 500_000,
            wakeup_ns: 50_000,
        }
    }

    /// How late a host timer is armed, in nanoseconds: the slack less what it takes to be there, and
    /// less the time in which those that are due by then are served, of whom the last shall not be
    /// late, either.
    #[must_use]
    pub fn armed_late_ns(&self, pass_ns: u64) -> u64 {
        self.slack_ns.saturating_sub(self.wakeup_ns).saturating_sub(pass_ns)
    }

    /// How late a timer may be before whoever serves it is taken to be overloaded or absent.
    #[must_use]
    pub fn patience_ns(&self) -> u64 {
        self.lateness_goal_ns.saturating_add(self.slack_ns)
    }

    /// When a thread that has not looked after a timer for `at` is missed, in host monotonic ns.
    #[must_use]
    pub fn missed_at(&self, at: u64) -> u64 {
        at.saturating_add(self.patience_ns()).saturating_add(MARGIN_NS)
    }
}

/// Why a domain could not be made or not take in another vCPU.
#[derive(Debug, Error)]
pub enum DomainError {
    /// The hierarchy cannot have that many slots.
    #[error("no timer hierarchy for {slots} vCPUs")]
    Create {
        /// How many were asked for.
        slots: u32,
        /// What the hierarchy says.
        #[source]
        source: tmigr::CreateError,
    },
    /// A slot could not be prepared.
    #[error("cannot prepare a slot of the timer hierarchy")]
    Prepare(#[source] tmigr::PrepareError),
    /// The housekeeper refuses.
    #[error("cannot use the timer hierarchy")]
    Housekeeper(#[source] SlotError),
    /// All slots are in use.
    #[error("no room for another vCPU: {0} is the most (--max-vcpus)")]
    Full(u32),
}

/// The slot that belongs to no vCPU: preparing others needs an active one (see `tmigr`).
const HOUSEKEEPER: Slot = Slot(0);

/// So often a slot that some pass has is looked at before it is left to the backstop.
const PASS_PATIENCE: u32 = 1_000;

/// Slots that are not in use, where there is no hierarchy to hand them out.
struct Free {
    given_up: Vec<Slot>,
    /// To be given up when the hierarchy answers again, or the pass that has them has ended.
    leaving: Vec<Slot>,
    /// All slots below this one were handed out at some time.
    fresh: u32,
}

/// The vCPUs that look after each other's timers.
///
/// | variable | lock | writers | readers |
/// |---|---|---|---|
/// | `seats` | none: epochs | the controller | any thread |
/// | `free` | its mutex, outermost: whoever admits or dismisses | the controller | the same |
/// | the housekeeper's slot | `free`'s mutex | whoever admits | the hierarchy |
pub struct Domain {
    /// How they are run.
    pub policy: Policy,
    /// Who is busy.
    pub load: Load,
    hierarchy: Option<Hierarchy>,
    seats: Seats,
    free: Mutex<Free>,
    /// Where the search for a helper starts. Relaxed: a hint.
    helper: AtomicU32,
    /// The thread that overdue migrators' timers signal. Written once, before a vCPU runs.
    backstop: OnceLock<i32>,
    /// The hierarchy cannot be relied on. See `stall`.
    stalled: AtomicBool,
    /// How often that was so. Relaxed: a figure.
    stalls: AtomicU64,
    /// Some slots of `free` are still to be given up. Written under its lock; relaxed: a hint.
    leaving: AtomicBool,
}

impl Domain {
    /// A domain with room for `most` vCPUs.
    ///
    /// # Errors
    /// The hierarchy cannot be that large.
    pub fn new(policy: Policy, most: u32) -> Result<Self, DomainError> {
        let count = most.saturating_add(1);
        let hierarchy = match policy.mode {
            TimerMode::Migrate => Some(with_housekeeper(count)?),
            _ => None,
        };
        Ok(Domain {
            policy,
            load: Load::default(),
            hierarchy,
            seats: Seats::new(count),
            free: Mutex::new(Free {
                given_up: Vec::new(),
                leaving: Vec::new(),
                fresh: HOUSEKEEPER.0 + 1,
            }),
            helper: AtomicU32::new(1),
            backstop: OnceLock::new(),
            stalled: AtomicBool::new(false),
            stalls: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
        })
    }

    /// Slots for the vCPUs of a new VM. They belong to the caller, who seats vCPUs in them or
    /// dismisses them.
    ///
    /// # Errors
    /// There are not as many; none is taken then.
    pub fn admit(&self, count: u32) -> Result<Box<[Slot]>, DomainError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = Vec::new();
        let outcome = match &self.hierarchy {
            Some(hierarchy) => self.acquire(hierarchy, count, &mut slots),
            None => free.take(count, self.seats.len(), &mut slots),
        };
        drop(free);
        if let Err(error) = outcome {
            self.dismiss(&slots);
            return Err(error);
        }
        Ok(slots.into())
    }

    /// Takes slots back whose vCPUs, if there were any, have ended with their threads.
    pub fn dismiss(&self, slots: &[Slot]) {
        for &slot in slots {
            self.seats.leave(slot.0);
            match &self.hierarchy {
                Some(hierarchy) => self.give_up(hierarchy, slot),
                None => {
                    let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
                    free.given_up.push(slot);
                }
            }
        }
    }

    fn acquire(
        &self,
        hierarchy: &Hierarchy,
        count: u32,
        slots: &mut Vec<Slot>,
    ) -> Result<(), DomainError> {
        // It is active still if the hierarchy did not answer the last time.
        if hierarchy.is_idle(HOUSEKEEPER) {
            let notices = hierarchy.activate(HOUSEKEEPER).map_err(DomainError::Housekeeper)?;
            self.spread(notices);
        }
        let mut outcome = Ok(());
        for _ in 0..count {
            match hierarchy.acquire(0, HOUSEKEEPER) {
                Ok((slot, notices)) => {
                    slots.push(slot);
                    self.spread(notices);
                }
                Err(tmigr::PrepareError::NoSuchSlot(_)) => {
                    outcome = Err(DomainError::Full(self.seats.len() - 1));
                    break;
                }
                Err(error) => {
                    outcome = Err(DomainError::Prepare(error));
                    break;
                }
            }
        }
        match hierarchy.deactivate(HOUSEKEEPER, None) {
            Ok(left) => {
                self.spread(left.notices);
                if left.first.is_some() {
                    self.summon(HOUSEKEEPER, left.first);
                }
            }
            Err(SlotError::Stuck) => self.leave_housekeeper_active(),
            Err(error) => return Err(DomainError::Housekeeper(error)),
        }
        outcome
    }

    /// Gives a slot up, or leaves it to the backstop to do so.
    fn give_up(&self, hierarchy: &Hierarchy, slot: Slot) {
        for _ in 0..PASS_PATIENCE {
            if self.try_to_give_up(hierarchy, slot) {
                return;
            }
            // Whoever has the lock may be stopped for long.
            if self.is_stalled() {
                break;
            }
            thread::yield_now();
        }
        self.leave_to_backstop(slot);
    }

    /// `false`: it cannot be done now.
    fn try_to_give_up(&self, hierarchy: &Hierarchy, slot: Slot) -> bool {
        match hierarchy.give_up(slot) {
            Ok(left) => {
                self.spread(left.notices);
                if left.trigger.is_some() {
                    self.summon(slot, left.trigger);
                }
            }
            // Another thread's pass has the slot; it gives it up with the end of that expiry.
            Err(SlotError::Remote(_)) => return false,
            Err(SlotError::Stuck) => {
                self.stall();
                return false;
            }
            Err(error) => tracing::error!(slot = slot.0, %error, "cannot give up a slot"),
        }
        true
    }

    /// The hierarchy, in mode `migrate`.
    #[must_use]
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref()
    }

    /// How late host timers are armed at present, in nanoseconds.
    #[must_use]
    pub fn armed_late_ns(&self) -> u64 {
        self.policy.armed_late_ns(self.load.pass_ns())
    }

    /// Puts a vCPU into its slot, which must be free.
    pub fn add(&self, vcpu: Arc<Vcpu>) {
        self.seats.take(vcpu.slot.0, vcpu);
    }

    /// The vCPU in a slot, for as long as the thread is pinned.
    #[must_use]
    pub fn vcpu<'g>(&self, slot: Slot, guard: &'g Guard) -> Option<&'g Vcpu> {
        self.seats.get(slot.0, guard)
    }

    /// Sets `PENDING` for what was put into the inbox of `vcpu`, and tells whoever must know.
    pub fn post(&self, vcpu: &Vcpu, why: Post) {
        self.tell(vcpu, vcpu.word.post(why));
    }

    /// Tells whoever a transition of the run word of `vcpu` says.
    pub fn tell(&self, vcpu: &Vcpu, tell: Tell) {
        match tell {
            Tell::Nobody => {}
            Tell::WakeHome => {
                vcpu.thread.wake();
            }
            Tell::KickHome => vcpu.thread.kick(),
            Tell::KickBorrower(by) => {
                if let Some(by) = self.vcpu(Slot(by), &epoch::pin()) {
                    by.thread.kick();
                }
            }
        }
    }

    /// Names the thread that looks after this domain's timers when a migrator does not.
    pub fn set_backstop(&self, tid: i32) {
        // A second one is a mistake of the caller's, and has no effect.
        let _ = self.backstop.set(tid);
    }

    /// The thread that [`Domain::set_backstop`] named.
    #[must_use]
    pub fn backstop(&self) -> Option<i32> {
        self.backstop.get().copied()
    }

    /// Does something to each vCPU.
    pub fn for_each_vcpu(&self, mut what: impl FnMut(&Vcpu)) {
        let guard = epoch::pin();
        (0..self.seats.len()).filter_map(|slot| self.seats.get(slot, &guard)).for_each(&mut what);
    }

    /// Does something to each vCPU of a VM that has not left.
    fn each(&self, vm: &VmShared, mut what: impl FnMut(&Vcpu)) {
        let guard = epoch::pin();
        vm.slots.iter().filter_map(|slot| self.vcpu(*slot, &guard)).for_each(&mut what);
    }

    /// Asks all vCPUs of a VM to end.
    pub fn stop_vm(&self, vm: &VmShared) {
        self.each(vm, |vcpu| self.tell(vcpu, vcpu.word.request_stop()));
        if let Some(debugger) = &vm.debugger {
            debugger.disturb();
        }
    }

    /// Asks all vCPUs of a VM to pause.
    pub fn pause_vm(&self, vm: &VmShared) {
        self.each(vm, |vcpu| self.tell(vcpu, vcpu.word.request_pause()));
    }

    /// Lets all vCPUs of a VM go on.
    pub fn resume_vm(&self, vm: &VmShared) {
        self.each(vm, |vcpu| self.tell(vcpu, vcpu.word.resume()));
    }

    /// Makes all vCPUs of a VM come to the debugger's rendezvous.
    pub fn call_for_debugger(&self, vm: &VmShared) {
        self.each(vm, |vcpu| {
            self.post(vcpu, Post::Startup);
            vcpu.thread.kick();
        });
    }

    /// Carries notices of the hierarchy, caused by `by`, to the threads that they concern.
    pub fn deliver(&self, by: &Vcpu, notices: impl IntoIterator<Item = Notice>) {
        let others = notices.into_iter().filter(|notice| notice.slot != by.slot);
        Stats::add(&by.stats.kicks, self.spread(others));
    }

    /// Carries notices to the threads that they concern. Answers how many there were.
    fn spread(&self, notices: impl IntoIterator<Item = Notice>) -> u64 {
        let mut told = 0;
        for notice in notices {
            if let Some(vcpu) = self.vcpu(notice.slot, &epoch::pin()) {
                told += 1;
                vcpu.thread.call_attention();
                // It is missed if it does not hear of this.
                if let Some(backstop) = self.backstop() {
                    vcpu.watch.expect(self.policy.missed_at(notice.expires), backstop);
                }
            }
        }
        told
    }

    /// Nobody looks after the hierarchy any more: makes some available vCPU but `except` run, which
    /// makes it migrator. Posting reaches a thread in every state, also one that is about to park;
    /// availability is read after the post, so that a thread that left before is passed over, and
    /// one that leaves later sees an idle tree itself and summons the next. `first`: the expiry that it is
    /// to be there for. Answers whether there was one.
    pub fn summon(&self, except: Slot, first: Option<u64>) -> bool {
        let Some(hierarchy) = &self.hierarchy else { return false };
        let guard = epoch::pin();
        let count = self.seats.len();
        let start = self.helper.load(Ordering::Relaxed);
        let candidates = || (0..count).map(|i| Slot((start + i) % count));
        // A parked one can start at once; others only if there is none.
        for parked_only in [true, false] {
            for slot in candidates().filter(|slot| *slot != except) {
                let Some(vcpu) = self.vcpu(slot, &guard).filter(|_| hierarchy.is_available(slot))
                else {
                    continue;
                };
                let state = vcpu.word.load().state();
                if matches!(state, State::WaitSipi | State::Paused | State::Stopped)
                    || (parked_only && state != State::Parked)
                {
                    continue;
                }
                self.post(vcpu, Post::Interrupt);
                if hierarchy.is_available(slot) {
                    self.helper.store(slot.0, Ordering::Relaxed);
                    if let (Some(backstop), Some(first)) = (self.backstop(), first) {
                        vcpu.watch.expect(self.policy.missed_at(first), backstop);
                    }
                    return true;
                }
            }
        }
        false
    }
}

/// Shows the hierarchy's trace points in the log.
struct ToLog;

impl Trace for ToLog {
    fn event(&self, event: &TraceEvent) {
        tracing::trace!(target: TRACE_TARGET, "{}: {event:?}", event.name());
    }
}

const TRACE_TARGET: &str = "tmigr";

impl Free {
    fn take(&mut self, count: u32, end: u32, slots: &mut Vec<Slot>) -> Result<(), DomainError> {
        for _ in 0..count {
            if let Some(slot) = self.given_up.pop() {
                slots.push(slot);
            } else if self.fresh < end {
                slots.push(Slot(self.fresh));
                self.fresh += 1;
            } else {
                return Err(DomainError::Full(end - 1));
            }
        }
        Ok(())
    }
}

fn with_housekeeper(count: u32) -> Result<Hierarchy, DomainError> {
    let mut hierarchy = Hierarchy::with_housekeeper(count, 1, HOUSEKEEPER)
        .map_err(|source| DomainError::Create { slots: count, source })?;
    hierarchy.set_patience(Box::new(stall::Bounded));
    if tracing::enabled!(target: TRACE_TARGET, tracing::Level::TRACE) {
        hierarchy.set_trace(Box::new(ToLog));
    }
    let _nobody_runs_yet =
        hierarchy.prepare(HOUSEKEEPER, 0, HOUSEKEEPER).map_err(DomainError::Prepare)?;
    let _nobody_runs_yet =
        hierarchy.available(HOUSEKEEPER, true).map_err(DomainError::Housekeeper)?;
    Ok(hierarchy)
}
