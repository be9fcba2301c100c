//! Several VMs in one process: built together, started together, ended together.
//!
//! Owns the VMs, their domains, their threads and the event loop. Whatever way it is left, nothing
//! it started goes on. How a VM comes and goes is in `lives`. Must not know what the VMs are for.

mod lives;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::assemble::{BuildError, VmConfig};
use crate::backstop::Backstop;
use crate::console::{ConsoleWriter, Sink};
use crate::descriptors;
use crate::domain::{Domain, DomainError, Policy, TimerMode};
use crate::event_loop::{CarriedId, EventLoop, EventLoopError};
use crate::gdb::{self, stream::Listener};
use crate::kvm::Host;
use crate::memory::MemoryError;
use crate::placement::{Placement, PlacementError};
use crate::probe::Facts;
use crate::vcpu::{Post, State, Vcpu};
use crate::virtio::{self, VirtioError};
use crate::vm::{Outcome, VmShared};

/// Which vCPUs look after each other's timers (`--share`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sharing {
    /// All of the process's
    Host,
    /// Those of one VM
    Vm,
}

/// What a guest's reset of its machine leads to (`--on-reboot`).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum OnReboot {
    /// Its VM ends, with status 0
    #[default]
    Exit,
    /// Its VM is built anew and starts again
    Restart,
}

/// Why a fleet could not be launched. Nothing runs then.
#[derive(Debug, Error)]
pub enum FleetError {
    /// A VM could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Too many vCPUs for a hierarchy.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The event loop.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// A thread, of a vCPU or the backstop's, could not be started.
    #[error("cannot start a thread: {0} (limits: ulimit -u, cgroup pids.max)")]
    Thread(#[source] io::Error),
    /// What is behind a virtio device could not be started.
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// A thread could not be placed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// All VMs together have more memory than the host could ever serve.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Out of descriptors.
    #[error("cannot set up the fleet: {0}{hint}", hint = descriptors::hint(.0.raw_os_error()))]
    Descriptors(#[source] io::Error),
}

/// What woke the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// At least one VM has ended.
    VmEnded,
    /// The process was asked to end.
    Signal,
    /// The time is up.
    TimeOut,
}

/// How long a vCPU may take to come to a pause: a kick reaches it wherever it is.
const PAUSE_PATIENCE: Duration = Duration::from_secs(10);

/// A VM, and all that goes with it.
struct Running {
    vm: Arc<VmShared>,
    domain: Arc<Domain>,
    vcpus: Vec<Arc<Vcpu>>,
    /// The guest's end of its console.
    writer: ConsoleWriter,
    console: Option<CarriedId>,
    devices: Vec<virtio::Running>,
    /// Where its threads are to run; none: anywhere.
    place: Option<Placement>,
    threads: Vec<JoinHandle<()>>,
}

/// Running VMs.
pub struct Fleet {
    /// In the order of their numbers.
    vms: Vec<Arc<VmShared>>,
    /// The rest of each.
    running: Vec<Running>,
    policy: Policy,
    /// The domain of all, with `--share host`.
    shared: Option<Arc<Domain>>,
    /// VMs on different CPUs may come to serve each other.
    mixed: bool,
    warned: bool,
    next_id: u32,
    /// In mode `migrate`.
    backstop: Option<Backstop>,
    ended: Arc<EventFd>,
    epoll: Epoll,
    event_loop: Option<EventLoop>,
}

/// A fleet to be.
pub struct FleetConfig {
    /// How vCPUs are run.
    pub policy: Policy,
    /// Who shares a hierarchy.
    pub sharing: Sharing,
    /// The VMs and where their consoles go.
    pub vms: Vec<(VmConfig, Sink)>,
}

impl Fleet {
    /// Builds all VMs, then starts them. The fleet has room for no others.
    ///
    /// # Errors
    /// [`FleetError`]; nothing is left running.
    pub fn launch(host: &Host, facts: &Facts, config: FleetConfig) -> Result<Self, FleetError> {
        let most = config.vms.iter().map(|(vm, _)| vm.cpus).sum();
        Fleet::launch_with_room(host, facts, config, most)
    }

    /// Builds all VMs, then starts them. With [`Sharing::Host`] the fleet has room for `most` vCPUs.
    ///
    /// # Errors
    /// [`FleetError`]; nothing is left running.
    pub fn launch_with_room(
        host: &Host,
        facts: &Facts,
        config: FleetConfig,
        most: u32,
    ) -> Result<Self, FleetError> {
        let ended = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(FleetError::Descriptors)?;
        let backstop = match config.policy.mode {
            TimerMode::Migrate => Some(Backstop::start().map_err(FleetError::Thread)?),
            TimerMode::Thread | TimerMode::Kernel => None,
        };
        let shared = match config.sharing {
            Sharing::Host => Some(Arc::new(Domain::new(config.policy.clone(), most)?)),
            Sharing::Vm => None,
        };
        if let (Some(backstop), Some(domain)) = (&backstop, &shared) {
            backstop.watch(domain);
        }
        let pins = || config.vms.iter().map(|(vm, _)| &vm.placement.pin);
        let others = most > config.vms.iter().map(|(vm, _)| vm.cpus).sum();
        let differ = pins().zip(pins().skip(1)).any(|(one, next)| one != next);
        let serving = config.policy.mode == TimerMode::Migrate && config.policy.inline;
        let mut fleet = Fleet {
            mixed: serving && shared.is_some() && (others || differ),
            warned: false,
            vms: Vec::new(),
            running: Vec::new(),
            policy: config.policy,
            shared,
            next_id: 0,
            backstop,
            epoll: Epoll::new().map_err(FleetError::Descriptors)?,
            ended: Arc::new(ended),
            event_loop: Some(EventLoop::start()?),
        };
        fleet.watch(fleet.ended.as_raw_fd(), 0)?;
        for (vm, sink) in config.vms {
            fleet.build(host, facts, &vm, sink, None)?;
        }
        for index in 0..fleet.running.len() {
            fleet.start(index)?;
        }
        Ok(fleet)
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.vms.binary_search_by_key(&id, |vm| vm.id).ok()
    }

    /// The VM with this number, if it was not removed.
    #[must_use]
    pub fn vm(&self, id: u32) -> Option<&Arc<VmShared>> {
        self.position(id).map(|index| &self.vms[index])
    }

    /// Pauses a VM: when this returns `true`, none of its vCPUs runs, and none of its timers wakes
    /// anybody. `false`: there is no such VM, it has ended, a debugger has it, or a vCPU did not come
    /// to the pause, which is withdrawn then.
    pub fn pause(&self, id: u32) -> bool {
        let Some(Running { vm, domain, vcpus, .. }) = self.at(id) else { return false };
        if vm.has_ended() || vm.debugger.is_some() {
            return false;
        }
        domain.pause_vm(vm);
        let rests =
            |vcpu: &Arc<Vcpu>| matches!(vcpu.word.load().state(), State::Paused | State::Stopped);
        let paused = vm.pauses.wait(PAUSE_PATIENCE, || vcpus.iter().all(rests));
        if !paused {
            domain.resume_vm(vm);
        }
        paused && !vm.has_ended()
    }

    /// Lets a paused VM go on. `false`: there is no such VM, or it has ended.
    pub fn resume(&self, id: u32) -> bool {
        let Some(Running { vm, domain, .. }) = self.at(id) else { return false };
        domain.resume_vm(vm);
        !vm.has_ended()
    }

    /// Keeps those vCPUs of a VM out of the hierarchy that `isolated` says, by their numbers, and lets
    /// the others in: from their next halt or exit on. `false`: there is no such VM.
    pub fn isolate(&self, id: u32, isolated: impl Fn(u32) -> bool) -> bool {
        let Some(Running { domain, vcpus, .. }) = self.at(id) else { return false };
        for vcpu in vcpus.iter().filter(|vcpu| vcpu.is_isolated() != isolated(vcpu.index)) {
            vcpu.set_isolated(isolated(vcpu.index));
            // Its thread looks after its own timers from the moment it notices; until then the
            // hierarchy does.
            domain.post(vcpu, Post::Interrupt);
        }
        true
    }

    /// Whether all vCPUs of a VM that have not ended are paused.
    #[must_use]
    pub fn is_paused(&self, id: u32) -> bool {
        let state = |vcpu: &Arc<Vcpu>| vcpu.word.load().state();
        self.at(id).is_some_and(|running| {
            let mut states = running.vcpus.iter().map(state).filter(|at| *at != State::Stopped);
            states.next() == Some(State::Paused) && states.all(|at| at == State::Paused)
        })
    }

    /// Presses a VM's power button. `false`: its guest does not want to hear of it, it has ended, or
    /// there is no such VM.
    pub fn press_power_button(&self, id: u32) -> bool {
        let Some(Running { vm, domain, .. }) = self.at(id) else { return false };
        !vm.has_ended() && domain.press_power_button(vm)
    }

    /// Ends a VM, with this outcome if it had none. Does not wait for it.
    pub fn end(&self, id: u32, outcome: Outcome) {
        if let Some(Running { vm, domain, .. }) = self.at(id) {
            vm.end(outcome);
            domain.stop_vm(vm);
        }
    }

    fn at(&self, id: u32) -> Option<&Running> {
        self.position(id).map(|index| &self.running[index])
    }

    fn watch(&self, fd: i32, data: u64) -> Result<(), FleetError> {
        self.epoll
            .ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data))
            .map_err(FleetError::Descriptors)
    }

    /// Lets [`Fleet::wait`] return on a signal, too: of the process, or of whatever else makes a
    /// descriptor readable.
    ///
    /// # Errors
    /// epoll cannot watch it.
    pub fn watch_signals(&self, signals: &impl AsRawFd) -> Result<(), FleetError> {
        self.watch(signals.as_raw_fd(), 1)
    }

    /// Waits until a VM ends, a signal comes, or the time is up.
    #[must_use]
    pub fn wait(&self, time_out: Option<Duration>) -> Woken {
        let millis = time_out.map_or(-1, |t| i32::try_from(t.as_millis() + 1).unwrap_or(i32::MAX));
        let mut events = [EpollEvent::default(); 2];
        let count = self.epoll.wait(millis, &mut events).unwrap_or(0);
        let came = |data| events[..count].iter().any(|event| event.data() == data);
        if came(1) {
            Woken::Signal
        } else if came(0) {
            let _ = self.ended.read();
            Woken::VmEnded
        } else {
            Woken::TimeOut
        }
    }

    /// The VMs, in order.
    #[must_use]
    pub fn vms(&self) -> &[Arc<VmShared>] {
        &self.vms
    }

    /// The balloon of a VM, if it has one.
    #[must_use]
    pub fn balloon(&self, id: u32) -> Option<&virtio::balloon::Control> {
        self.at(id)?.devices.iter().find_map(virtio::Running::balloon)
    }

    /// The vCPUs of a VM.
    pub fn vcpus_of(&self, vm: &VmShared) -> impl Iterator<Item = &Vcpu> {
        self.at(vm.id).into_iter().flat_map(|running| running.vcpus.iter().map(Arc::as_ref))
    }

    /// Lets debuggers in on a VM that was built to be debugged, until it has ended.
    ///
    /// # Errors
    /// The thread could not be created.
    pub fn serve_debugger(&mut self, index: usize, listener: Listener) -> io::Result<()> {
        let Running { vm, domain, threads, .. } = &mut self.running[index];
        if let Some(debugger) = &vm.debugger {
            let (vm, domain) = (Arc::clone(vm), Arc::clone(domain));
            threads.push(gdb::serve(listener, Arc::clone(debugger), vm, domain)?);
        }
        Ok(())
    }

    /// The distinct domains.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        let own = self.running.iter().filter(|_| self.shared.is_none());
        self.shared.iter().map(Arc::as_ref).chain(own.map(|running| running.domain.as_ref()))
    }

    /// The distinct domains, and the VMs of each.
    pub fn domains_with_vms(&self) -> impl Iterator<Item = (&Domain, &[Arc<VmShared>])> {
        let own = self.running.iter().filter(|_| self.shared.is_none());
        let own = own.map(|running| (running.domain.as_ref(), std::slice::from_ref(&running.vm)));
        self.shared.iter().map(|domain| (domain.as_ref(), self.vms.as_slice())).chain(own)
    }

    /// All VMs share one domain.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// How vCPUs are run.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Ends all VMs that still run, with this outcome, and waits until they have.
    pub fn stop(&mut self, outcome: impl Fn() -> Outcome) {
        for Running { vm, domain, .. } in &self.running {
            if !vm.has_ended() {
                vm.end(outcome());
            }
            domain.stop_vm(vm);
        }
        for thread in self.running.iter_mut().flat_map(|running| running.threads.drain(..)) {
            // A vCPU thread that panicked has said so; the others must still be waited for.
            let _ = thread.join();
        }
        if let Some(event_loop) = self.event_loop.take() {
            for running in &mut self.running {
                running.devices.drain(..).for_each(|device| device.stop(&event_loop));
                if let Some(console) = running.console.take() {
                    event_loop.remove(console);
                }
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop(|| Outcome::Interrupted);
    }
}
