//! Does to a fleet what was asked.
//!
//! Owns the names of the VMs, and what is remembered of those that ended. Must not know sockets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{BalloonSize, Isolate, Request, Response, VmLine, VmState};
use super::spec::{Loaded, VmSpec};
use super::stats::{Counters, SCHEMA, Stats};
use super::survey;
use crate::assemble::{ApicTimer, VmConfig};
use crate::bench::Lateness;
use crate::clock;
use crate::fleet::{Fleet, OnReboot};
use crate::kvm::Host;
use crate::probe::Facts;
use crate::vm::{Outcome, VmShared};

/// How long guests may take to power off when they are asked to.
pub const SHUTDOWN: Duration = Duration::from_secs(10);

/// How many ended VMs are remembered.
const REMEMBERED: usize = 256;

/// A fleet, and what is needed to make more of it.
pub struct Operator<'a> {
    /// The VMs.
    pub fleet: Fleet,
    host: &'a Host,
    facts: &'a Facts,
    apic_timer: ApicTimer,
    started: u64,
    created: u64,
    ended: u64,
    remembered: VecDeque<VmLine>,
    quits: bool,
    /// How long guests may take to power off, in ns.
    shutdown_ns: u64,
    /// VMs that were asked to power off, and when they are ended at the latest, in host ns; the end of
    /// time: they were.
    leaving: Vec<(u32, u64)>,
    /// VMs that start again when they reset their machines, and what they are made of.
    again: BTreeMap<u32, VmConfig>,
}

impl<'a> Operator<'a> {
    /// Operates a fleet that has no VMs yet.
    #[must_use]
    pub fn new(fleet: Fleet, host: &'a Host, facts: &'a Facts, apic_timer: ApicTimer) -> Self {
        Operator {
            fleet,
            host,
            facts,
            apic_timer,
            started: clock::now_ns(),
            created: 0,
            ended: 0,
            remembered: VecDeque::new(),
            quits: false,
            shutdown_ns: nanos(SHUTDOWN),
            leaving: Vec::new(),
            again: BTreeMap::new(),
        }
    }

    /// Gives guests this long to power off when they are asked to; without, [`SHUTDOWN`].
    #[must_use]
    pub fn with_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_ns = nanos(timeout);
        self
    }

    /// The process was asked to end.
    #[must_use]
    pub fn quits(&self) -> bool {
        self.quits
    }

    /// Answers a request as it came over the socket, in one line.
    pub fn answer(&mut self, line: &str) -> String {
        let response = match serde_json::from_str(line) {
            Ok(request) => self.carry_out(request),
            Err(error) => Response::Error(format!("not a request: {error}")),
        };
        serde_json::to_string(&response)
            .unwrap_or_else(|error| format!("{{\"error\":\"cannot write the answer: {error}\"}}"))
    }

    /// Does what was asked.
    pub fn carry_out(&mut self, request: Request) -> Response {
        let outcome = match request {
            Request::List => Ok(Response::Vms(self.list())),
            Request::Create(spec) => self.create(&spec).map(Response::Created),
            Request::Pause(named) => self.pause(&named.vm),
            Request::Resume(named) => self.resume(&named.vm),
            Request::Stop(named) => self.stop(&named.vm),
            Request::Shutdown(named) => self.shutdown(&named.vm),
            Request::Isolate(isolate) => self.isolate(&isolate),
            Request::Balloon(balloon) => self.balloon(&balloon),
            Request::Stats => Ok(Response::Stats(Box::new(self.stats()))),
            Request::Quit => {
                self.quits = true;
                Ok(Response::Done)
            }
        };
        outcome.unwrap_or_else(Response::Error)
    }

    /// Starts the VMs of a description: all of them or none. Answers their names.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn create(&mut self, spec: &VmSpec) -> Result<Vec<String>, String> {
        let loaded = spec.load(self.apic_timer)?;
        for name in loaded.names.iter().flatten() {
            if self.id(name).is_ok() {
                return Err(format!("there is a VM '{name}' already"));
            }
        }
        let mut ids = Vec::new();
        for index in 0..loaded.names.len() {
            match self.create_one(&loaded, index) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    for id in ids {
                        self.fleet.remove(id, || Outcome::Interrupted);
                    }
                    return Err(error);
                }
            }
        }
        self.created += ids.len() as u64;
        let name = |id: &u32| self.fleet.vm(*id).map(|vm| vm.name.clone());
        Ok(ids.iter().filter_map(name).collect())
    }

    fn create_one(&mut self, loaded: &Loaded, index: usize) -> Result<u32, String> {
        let sink = loaded.sink(index)?;
        let name = loaded.names[index].clone();
        let config = loaded.config_of(index)?;
        let created = self.fleet.create(self.host, self.facts, &config, sink, name);
        let id = created.map_err(|error| error.to_string())?;
        if loaded.on_reboot == OnReboot::Restart {
            self.again.insert(id, config);
        }
        Ok(id)
    }

    fn pause(&mut self, name: &str) -> Result<Response, String> {
        let id = self.id(name)?;
        match self.fleet.pause(id) {
            true => Ok(Response::Done),
            false => Err(format!("'{name}' cannot be paused: it has ended or a vCPU is stuck")),
        }
    }

    fn resume(&mut self, name: &str) -> Result<Response, String> {
        let id = self.id(name)?;
        match self.fleet.resume(id) {
            true => Ok(Response::Done),
            false => Err(format!("'{name}' has ended")),
        }
    }

    fn stop(&mut self, name: &str) -> Result<Response, String> {
        let id = self.id(name)?;
        self.retire(id, || Outcome::Interrupted);
        Ok(Response::Done)
    }

    fn shutdown(&mut self, name: &str) -> Result<Response, String> {
        let id = self.id(name)?;
        if self.fleet.is_paused(id) {
            return Err(format!("'{name}' is paused and cannot power off; resume or stop it"));
        }
        self.ask_to_leave(id);
        Ok(Response::Done)
    }

    /// Asks all VMs to power off; those that cannot are ended at once.
    pub fn shut_down(&mut self) {
        let ids: Vec<_> = self.fleet.vms().iter().map(|vm| vm.id).collect();
        for id in ids {
            if self.fleet.is_paused(id) {
                self.retire(id, || Outcome::Interrupted);
            } else {
                self.ask_to_leave(id);
            }
        }
    }

    fn ask_to_leave(&mut self, id: u32) {
        if self.fleet.press_power_button(id) {
            // Asked again, it has no more time.
            if !self.leaving.iter().any(|(leaving, _)| *leaving == id) {
                self.leaving.push((id, clock::now_ns().saturating_add(self.shutdown_ns)));
            }
        } else {
            self.retire(id, || Outcome::Interrupted);
        }
    }

    /// How long until somebody has to leave: [`Operator::bury`] sees to that.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let now = clock::now_ns();
        let due = self.leaving.iter().map(|(_, at)| *at).filter(|at| *at != u64::MAX);
        let left = due.map(|at| at.saturating_sub(now)).min();
        left.map(Duration::from_nanos)
    }

    fn isolate(&mut self, isolate: &Isolate) -> Result<Response, String> {
        let id = self.id(&isolate.vm)?;
        let cpus = self.fleet.vm(id).map_or(0, |vm| vm.cpus);
        if let Some(absent) = isolate.vcpus.iter().find(|vcpu| **vcpu >= cpus) {
            return Err(format!("'{}' has no vCPU {absent}: it has {cpus}", isolate.vm));
        }
        self.fleet.isolate(id, |vcpu| isolate.vcpus.contains(&vcpu));
        Ok(Response::Done)
    }

    fn balloon(&mut self, asked: &BalloonSize) -> Result<Response, String> {
        let id = self.id(&asked.vm)?;
        let memory = self.fleet.vm(id).map_or(0, |vm| vm.memory_bytes());
        if asked.size >= memory {
            return Err(format!(
                "'{}' has {} bytes of memory; a balloon of {} would leave nothing",
                asked.vm, memory, asked.size
            ));
        }
        let Some(control) = self.fleet.balloon(id) else {
            return Err(format!("'{}' has no balloon; create it with --balloon", asked.vm));
        };
        control.set_target(asked.size);
        Ok(Response::Done)
    }

    /// Frees the VMs that have ended, and ends those that should have by now. Answers them, for
    /// whoever tells people.
    pub fn bury(&mut self) -> Vec<Arc<VmShared>> {
        let now = clock::now_ns();
        for (id, at) in &mut self.leaving {
            if *at <= now {
                self.fleet.end(*id, Outcome::Interrupted);
                *at = u64::MAX;
            }
        }
        let ended = self.fleet.vms().iter().filter(|vm| vm.has_ended()).map(|vm| vm.id);
        let ids: Vec<_> = ended.collect();
        let mut buried = Vec::new();
        for id in ids {
            if !self.restarted(id) {
                buried.extend(self.retire(id, || Outcome::Interrupted));
            }
        }
        self.leaving.retain(|(id, _)| self.fleet.vm(*id).is_some());
        buried
    }

    /// Starts a VM again that has reset its machine, if that is wanted of it. Answers whether it goes
    /// on.
    fn restarted(&mut self, id: u32) -> bool {
        let asked_to_leave = self.leaving.iter().any(|(leaving, _)| *leaving == id);
        let reset =
            self.fleet.vm(id).is_some_and(|vm| matches!(vm.outcome(), Some(Outcome::Reset)));
        let Some(config) = self.again.get(&id).filter(|_| reset && !asked_to_leave) else {
            return false;
        };
        let left = self.fleet.vm(id).map(|vm| line(vm, VmState::Ended));
        match self.fleet.restart(self.host, self.facts, id, config) {
            Ok(goes_on) => goes_on,
            Err(error) => {
                tracing::error!(%error, vm = id, "a VM that reset its machine cannot start again");
                self.again.remove(&id);
                self.remember(left);
                true
            }
        }
    }

    fn remember(&mut self, line: Option<VmLine>) {
        self.ended += 1;
        self.remembered.truncate(REMEMBERED - 1);
        line.into_iter().for_each(|line| self.remembered.push_front(line));
    }

    fn retire(&mut self, id: u32, outcome: impl FnOnce() -> Outcome) -> Option<Arc<VmShared>> {
        let vm = self.fleet.remove(id, outcome)?;
        self.again.remove(&id);
        self.remember(Some(line(&vm, VmState::Ended)));
        Some(vm)
    }

    fn id(&self, name: &str) -> Result<u32, String> {
        let found = self.fleet.vms().iter().find(|vm| vm.name == name);
        found.map(|vm| vm.id).ok_or_else(|| format!("there is no VM '{name}'"))
    }

    fn state(&self, vm: &VmShared) -> VmState {
        if vm.has_ended() {
            VmState::Ended
        } else if self.fleet.is_paused(vm.id) {
            VmState::Paused
        } else {
            VmState::Running
        }
    }

    fn list(&self) -> Vec<VmLine> {
        let there = self.fleet.vms().iter().map(|vm| line(vm, self.state(vm)));
        there.chain(self.remembered.iter().cloned()).collect()
    }

    fn stats(&self) -> Stats {
        let now = clock::now_ns();
        let mut lateness = Lateness::default();
        let mut vms = Vec::new();
        let mut totals = Counters::default();
        for vm in self.fleet.vms() {
            let stats = survey::vm(&self.fleet, vm, self.state(vm), &mut lateness, now);
            stats.vcpus.iter().for_each(|vcpu| totals.add(&vcpu.counters));
            vms.push(stats);
        }
        let hierarchies = survey::hierarchies(&self.fleet);
        Stats {
            schema: SCHEMA.to_owned(),
            at_ns: now,
            timers: self.fleet.policy().mode.name().to_owned(),
            process: survey::process(self.fleet.policy(), self.started, now),
            created: self.created,
            ended: self.ended,
            totals,
            lateness: survey::figures(&lateness),
            vms,
            levels: survey::levels(&hierarchies),
            hierarchies,
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn line(vm: &VmShared, state: VmState) -> VmLine {
    VmLine {
        vm: vm.name.clone(),
        state,
        cpus: vm.cpus,
        memory: vm.memory_bytes(),
        outcome: vm.outcome().map(ToString::to_string).unwrap_or_default(),
        status: vm.outcome().map(Outcome::status),
    }
}
