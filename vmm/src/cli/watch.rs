//! What `siesta run` does while its VMs run: it waits for their ends, signals, keys and time limits.
//!
//! Owns what each of these leads to. Must not know how VMs run, nor what is said of their ends in the
//! end.

use std::time::Duration;

use super::run::tell;
use crate::assemble::VmConfig;
use crate::clock;
use crate::console::keys::Wish;
use crate::console::stdio::Wishes;
use crate::console::terminal::Raw;
use crate::fleet::{Fleet, FleetError, Woken};
use crate::kvm::Host;
use crate::probe::Facts;
use crate::signals::Signals;
use crate::vm::Outcome;

/// Why the wait is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All VMs have ended.
    All,
    /// The time is up.
    TimeOut,
    /// The process was asked to end.
    Interrupted,
    /// Whoever sits at the console wants it.
    Quit,
}

/// What is needed to build VMs anew.
pub(super) struct Plan<'a> {
    /// KVM.
    pub(super) host: &'a Host,
    /// What it does.
    pub(super) facts: &'a Facts,
    /// What each of the VMs is made of.
    pub(super) config: &'a VmConfig,
}

/// What is waited for beside the VMs. The fleet watches the first two.
pub(super) struct Watch<'a> {
    /// Signals.
    pub(super) signals: &'a mut Signals,
    /// Keys.
    pub(super) wishes: &'a Wishes,
    /// The terminal, if it is in raw mode.
    pub(super) raw: Option<&'a Raw>,
    /// How VMs that reset their machines are built anew, if they are.
    pub(super) restart: Option<Plan<'a>>,
    /// How long guests may take to power off when the process is asked to end.
    pub(super) shutdown: Duration,
    /// When those that have not are ended, in host ns, once it was asked.
    pub(super) ends_at: Option<u64>,
}

impl Watch<'_> {
    /// Waits until all VMs have ended or something else ends them, after `limit` at the latest.
    ///
    /// # Errors
    /// A VM could not be built anew.
    pub(super) fn wait(
        mut self,
        fleet: &mut Fleet,
        limit: Option<Duration>,
    ) -> Result<End, FleetError> {
        let until = limit.map(after);
        let mut told = vec![false; fleet.vms().len()];
        loop {
            for (index, told) in told.iter_mut().enumerate() {
                if !*told && fleet.vms()[index].has_ended() {
                    *told = !self.restarted(fleet, index)?;
                }
            }
            if told.iter().all(|told| *told) {
                return Ok(End::All);
            }
            let left = |at: Option<u64>| {
                at.map(|at| Duration::from_nanos(at.saturating_sub(clock::now_ns())))
            };
            if left(until) == Some(Duration::ZERO) {
                return Ok(End::TimeOut);
            }
            if left(self.ends_at) == Some(Duration::ZERO) {
                eprintln!(
                    "siesta: not powered off within {} s (--shutdown-timeout)",
                    self.shutdown.as_secs_f64()
                );
                return Ok(End::Interrupted);
            }
            let wait = left(until).into_iter().chain(left(self.ends_at)).min();
            if fleet.wait(wait) == Woken::Signal
                && let Some(end) = self.called(fleet)
            {
                return Ok(end);
            }
        }
    }

    /// A VM has ended: it is started again, or its end is told of. Answers whether it goes on.
    fn restarted(&self, fleet: &mut Fleet, index: usize) -> Result<bool, FleetError> {
        let vm = &fleet.vms()[index];
        match &self.restart {
            Some(plan)
                if matches!(vm.outcome(), Some(Outcome::Reset)) && self.ends_at.is_none() =>
            {
                tracing::info!("{}: reset, starts again", vm.name);
                let id = vm.id;
                fleet.restart(plan.host, plan.facts, id, plan.config)
            }
            _ => {
                tell(vm);
                Ok(false)
            }
        }
    }

    /// Takes in all signals and keys that have come.
    fn called(&mut self, fleet: &Fleet) -> Option<End> {
        while let Some(signal) = self.signals.pop() {
            match (signal, self.raw) {
                (libc::SIGTSTP, Some(raw)) => raw.suspend(),
                (libc::SIGCONT, Some(raw)) => raw.resume(),
                (libc::SIGTERM, _) if self.ends_at.is_none() => self.shut_down(fleet),
                _ => return Some(End::Interrupted),
            }
        }
        for wish in self.wishes.take() {
            match wish {
                Wish::Quit => return Some(End::Quit),
                Wish::PowerButton => {
                    let pressed = |vm: &u32| fleet.press_power_button(*vm);
                    let ids: Vec<_> = fleet.vms().iter().map(|vm| vm.id).collect();
                    if !ids.iter().any(pressed) {
                        eprintln!("siesta: the guest does not look at its power button");
                    }
                }
                Wish::Help => {}
            }
        }
        None
    }

    /// Asks all guests to power off. Those that do not look at their power buttons end at once.
    fn shut_down(&mut self, fleet: &Fleet) {
        self.ends_at = Some(after(self.shutdown));
        for vm in fleet.vms() {
            if !vm.has_ended() && !fleet.press_power_button(vm.id) {
                fleet.end(vm.id, Outcome::Interrupted);
            }
        }
    }
}

/// The time after this much of it, in host ns.
fn after(time: Duration) -> u64 {
    clock::now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
