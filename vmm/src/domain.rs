//! What the vCPUs of one hierarchy share: the hierarchy itself, the table of slots, the policy.
//!
//! Owns how a wake-up that a transition or the hierarchy asked for reaches its thread. Must not
//! know how vCPUs run. With `--share vm` there is a domain for each VM, with `--share host` one for
//! all of the process's.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tmigr::{Hierarchy, Notice, Slot, Trace, TraceEvent};

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
}

impl Policy {
    /// How late a host timer is armed, in nanoseconds: half the slack. What is due by then is taken
    /// along; the other half is for the time that serving it takes.
    #[must_use]
    pub fn armed_late_ns(&self) -> u64 {
        self.slack_ns / 2
    }
}

/// Why a domain could not be made or a slot not be prepared.
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
    #[error("cannot prepare slot {slot} of the timer hierarchy")]
    Prepare {
        /// The slot.
        slot: u32,
        /// What the hierarchy says.
        #[source]
        source: tmigr::PrepareError,
    },
}

/// The slot that belongs to no vCPU: preparing others needs an active one (see `tmigr`).
const HOUSEKEEPER: Slot = Slot(0);

/// The vCPUs that look after each other's timers.
pub struct Domain {
    /// How they are run.
    pub policy: Policy,
    hierarchy: Option<Hierarchy>,
    /// By slot; 0 stays empty. Written once, before the vCPU's thread starts.
    slots: Box<[OnceLock<Arc<Vcpu>>]>,
    /// Where the search for a helper starts. Relaxed: a hint.
    helper: AtomicU32,
}

impl Domain {
    /// A domain for `vcpus` vCPUs, in the slots from 1 up, all prepared.
    ///
    /// # Errors
    /// The hierarchy cannot be that large.
    pub fn new(policy: Policy, vcpus: u32) -> Result<Self, DomainError> {
        let count = vcpus + 1;
        let hierarchy = match policy.mode {
            TimerMode::Migrate => Some(prepared(count)?),
            _ => None,
        };
        Ok(Domain {
            policy,
            hierarchy,
            slots: (0..count).map(|_| OnceLock::new()).collect(),
            helper: AtomicU32::new(1),
        })
    }

    /// The hierarchy, in mode `migrate`.
    #[must_use]
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref()
    }

    /// Puts a vCPU into its slot, which must be free.
    pub fn add(&self, vcpu: Arc<Vcpu>) {
        let slot = vcpu.slot.0 as usize;
        let taken = self.slots[slot].set(vcpu).is_err();
        debug_assert!(!taken, "slot {slot} is taken");
    }

    /// The vCPU in a slot.
    #[must_use]
    pub fn vcpu(&self, slot: Slot) -> Option<&Vcpu> {
        self.slots.get(slot.0 as usize)?.get().map(Arc::as_ref)
    }

    /// All vCPUs.
    pub fn vcpus(&self) -> impl Iterator<Item = &Vcpu> {
        self.slots.iter().filter_map(|slot| slot.get().map(Arc::as_ref))
    }

    /// All vCPUs, to be shared with their threads.
    pub fn vcpus_shared(&self) -> impl Iterator<Item = &Arc<Vcpu>> {
        self.slots.iter().filter_map(OnceLock::get)
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
                if let Some(by) = self.vcpu(Slot(by)) {
                    by.thread.kick();
                }
            }
        }
    }

    /// Asks all vCPUs of a VM to end.
    pub fn stop_vm(&self, vm: &VmShared) {
        for index in 0..vm.cpus {
            if let Some(vcpu) = self.vcpu(Slot(vm.first_slot + index)) {
                self.tell(vcpu, vcpu.word.request_stop());
            }
        }
        if let Some(debugger) = &vm.debugger {
            debugger.disturb();
        }
    }

    /// Makes all vCPUs of a VM come to the debugger's rendezvous.
    pub fn call_for_debugger(&self, vm: &VmShared) {
        for index in 0..vm.cpus {
            if let Some(vcpu) = self.vcpu(Slot(vm.first_slot + index)) {
                self.post(vcpu, Post::Startup);
                vcpu.thread.kick();
            }
        }
    }

    /// Carries notices of the hierarchy, caused by `by`, to the threads that they concern.
    pub fn deliver(&self, by: &Vcpu, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            if notice.slot == by.slot {
                continue;
            }
            if let Some(vcpu) = self.vcpu(notice.slot) {
                Stats::add(&by.stats.kicks, 1);
                vcpu.thread.call_attention();
            }
        }
    }

    /// Nobody looks after the hierarchy any more: makes some available vCPU but `except` run, which
    /// makes it migrator. Posting reaches a thread in every state, also one that is about to park;
    /// availability is read after the post, so that a thread that left before is passed over, and
    /// one that leaves later sees an idle tree itself and summons the next.
    pub fn summon(&self, except: Slot) {
        let Some(hierarchy) = &self.hierarchy else { return };
        let count = self.slots.len() as u32;
        let start = self.helper.load(Ordering::Relaxed);
        let candidates = || (0..count).map(|i| Slot((start + i) % count));
        // A parked one can start at once; others only if there is none.
        for parked_only in [true, false] {
            for slot in candidates().filter(|slot| *slot != except) {
                let Some(vcpu) = self.vcpu(slot).filter(|_| hierarchy.is_available(slot)) else {
                    continue;
                };
                let state = vcpu.word.load().state();
                if matches!(state, State::WaitSipi | State::Stopped)
                    || (parked_only && state != State::Parked)
                {
                    continue;
                }
                self.post(vcpu, Post::Interrupt);
                if hierarchy.is_available(slot) {
                    self.helper.store(slot.0, Ordering::Relaxed);
                    return;
                }
            }
        }
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

fn prepared(count: u32) -> Result<Hierarchy, DomainError> {
    let mut hierarchy = Hierarchy::with_housekeeper(count, 1, HOUSEKEEPER)
        .map_err(|source| DomainError::Create { slots: count, source })?;
    if tracing::enabled!(target: TRACE_TARGET, tracing::Level::TRACE) {
        hierarchy.set_trace(Box::new(ToLog));
    }
    for slot in 0..count {
        let _nobody_runs_yet = hierarchy
            .prepare(Slot(slot), 0, HOUSEKEEPER)
            .map_err(|source| DomainError::Prepare { slot, source })?;
        if slot == HOUSEKEEPER.0 {
            let _nobody_runs_yet = hierarchy.available(HOUSEKEEPER, false);
        }
    }
    // No timer is queued yet, so nobody has to take over.
    let _nothing_to_care_for = hierarchy.deactivate(HOUSEKEEPER, None);
    Ok(hierarchy)
}
