//! Several VMs in one process: built together, started together, ended together.
//!
//! Owns the VMs, their domains, their threads and the event loop. Whatever way it is left, nothing
//! it started goes on. Must not know what the VMs are for.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::assemble::{self, BuildError, Place, VmConfig};
use crate::console::{self, Sink};
use crate::domain::{Domain, DomainError, Policy};
use crate::event_loop::{EventLoop, EventLoopError};
use crate::gdb::{self, stream::Listener};
use crate::kvm::Host;
use crate::probe::Facts;
use crate::vcpu::{self, Vcpu};
use crate::vm::{Outcome, VmShared};

/// Which vCPUs look after each other's timers (`--share`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sharing {
    /// All of the process's
    Host,
    /// Those of one VM
    Vm,
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
    /// A thread could not be started.
    #[error("cannot start the thread of a vCPU: {0} (limits: ulimit -u, cgroup pids.max)")]
    Thread(#[source] io::Error),
    /// Out of descriptors.
    #[error("cannot set up the fleet: {0} (limit: ulimit -n)")]
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

/// Running VMs.
pub struct Fleet {
    vms: Vec<Arc<VmShared>>,
    /// The domain of each VM.
    domains: Vec<Arc<Domain>>,
    threads: Vec<JoinHandle<()>>,
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
    /// Builds all VMs, then starts them.
    ///
    /// # Errors
    /// [`FleetError`]; nothing is left running.
    pub fn launch(host: &Host, facts: &Facts, config: FleetConfig) -> Result<Self, FleetError> {
        vcpu::install_handler();
        let ended = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(FleetError::Descriptors)?;
        let mut fleet = Fleet {
            vms: Vec::new(),
            domains: Vec::new(),
            threads: Vec::new(),
            epoll: Epoll::new().map_err(FleetError::Descriptors)?,
            ended: Arc::new(ended),
            event_loop: None,
        };
        fleet.watch(fleet.ended.as_raw_fd(), 0)?;
        let total: u32 = config.vms.iter().map(|(vm, _)| vm.cpus).sum();
        let shared = match config.sharing {
            Sharing::Host => Some(Arc::new(Domain::new(config.policy.clone(), total)?)),
            Sharing::Vm => None,
        };
        let mut consoles = Vec::new();
        let mut next_slot = 1;
        for (id, (vm, sink)) in (0..).zip(config.vms) {
            let (console, writer) = console::console(sink).map_err(FleetError::Descriptors)?;
            consoles.push(console);
            let domain = match &shared {
                Some(domain) => Arc::clone(domain),
                None => Arc::new(Domain::new(config.policy.clone(), vm.cpus)?),
            };
            let first_slot = if shared.is_some() { next_slot } else { 1 };
            next_slot += vm.cpus;
            let place = Place {
                id,
                domain: &domain,
                first_slot,
                ended: Arc::clone(&fleet.ended),
                console: writer,
            };
            fleet.vms.push(assemble::build(host, facts, &vm, place)?);
            fleet.domains.push(domain);
        }
        fleet.event_loop = Some(EventLoop::start(consoles)?);
        fleet.start()?;
        Ok(fleet)
    }

    fn start(&mut self) -> Result<(), FleetError> {
        let mut last: Option<&Arc<Domain>> = None;
        for domain in &self.domains {
            if last.is_some_and(|last| Arc::ptr_eq(last, domain)) {
                continue;
            }
            last = Some(domain);
            for vcpu in domain.vcpus_shared() {
                let thread = vcpu::spawn(Arc::clone(domain), Arc::clone(vcpu));
                self.threads.push(thread.map_err(FleetError::Thread)?);
            }
        }
        Ok(())
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

    /// The vCPUs of a VM.
    pub fn vcpus_of(&self, vm: &VmShared) -> impl Iterator<Item = &Vcpu> {
        let domain = &self.domains[vm.id as usize];
        (0..vm.cpus).filter_map(move |i| domain.vcpu(tmigr::Slot(vm.first_slot + i)))
    }

    /// Lets debuggers in on a VM that was built to be debugged, until it has ended.
    ///
    /// # Errors
    /// The thread could not be created.
    pub fn serve_debugger(&mut self, index: usize, listener: Listener) -> io::Result<()> {
        let vm = &self.vms[index];
        if let Some(debugger) = &vm.debugger {
            let domain = Arc::clone(&self.domains[index]);
            let thread = gdb::serve(listener, Arc::clone(debugger), Arc::clone(vm), domain)?;
            self.threads.push(thread);
        }
        Ok(())
    }

    /// The distinct domains.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        let all = &self.domains;
        (0..all.len())
            .filter(|&i| i == 0 || !Arc::ptr_eq(&all[i], &all[i - 1]))
            .map(|i| all[i].as_ref())
    }

    /// Ends all VMs that still run, with this outcome, and waits until they have.
    pub fn stop(&mut self, outcome: impl Fn() -> Outcome) {
        for (vm, domain) in self.vms.iter().zip(&self.domains) {
            if !vm.has_ended() {
                vm.end(outcome());
            }
            domain.stop_vm(vm);
        }
        for thread in self.threads.drain(..) {
            // A vCPU thread that panicked has said so; the others must still be waited for.
            let _ = thread.join();
        }
        self.event_loop = None;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop(|| Outcome::Interrupted);
    }
}
