//! How a VM of a fleet comes, starts again, and goes.
//!
//! Owns the order of these steps: a VM is built, then served, then run; on its way out the other way
//! round. A step that fails leaves the fleet as it was before the first. Must not know why a VM comes
//! or goes.

use std::sync::Arc;
use std::time::Duration;

use super::{Fleet, FleetError, Running};
use crate::assemble::{self, Built, Place, VmConfig};
use crate::console::{self, ConsoleWriter, Sink};
use crate::domain::Domain;
use crate::event_loop::CarriedId;
use crate::kvm::Host;
use crate::memory;
use crate::placement::gate::Keeper;
use crate::probe::Facts;
use crate::seats;
use crate::vcpu;
use crate::virtio::Backend;
use crate::virtio::wiring::Line;
use crate::vm::{Outcome, VmShared};

/// How long a removed VM is waited for by whoever removes it. What is still in use then is freed later.
const FREE_PATIENCE: Duration = Duration::from_millis(100);

impl Fleet {
    /// Builds and starts one more VM, called `name` or `vm` with its number. Answers the number.
    ///
    /// # Errors
    /// [`FleetError`]; the fleet is as before then.
    pub fn create(
        &mut self,
        host: &Host,
        facts: &Facts,
        config: &VmConfig,
        sink: Sink,
        name: Option<String>,
    ) -> Result<u32, FleetError> {
        let id = self.build(host, facts, config, sink, name)?;
        if let Err(error) = self.start(self.running.len() - 1) {
            self.remove(id, || Outcome::HostError(error.to_string()));
            return Err(error);
        }
        Ok(id)
    }

    /// Builds a VM and has its console and devices served. It has no threads yet. Answers its number.
    pub(super) fn build(
        &mut self,
        host: &Host,
        facts: &Facts,
        config: &VmConfig,
        sink: Sink,
        name: Option<String>,
    ) -> Result<u32, FleetError> {
        let others = self.vms.iter().map(|vm| vm.memory_bytes()).sum();
        memory::check_sum(others, config.memory)?;
        let (console, writer) = console::console(sink).map_err(FleetError::Descriptors)?;
        let id = self.next_id;
        let (running, backends) = self.assemble(host, facts, config, id, name, writer)?;
        self.next_id += 1;
        self.vms.push(Arc::clone(&running.vm));
        self.running.push(running);
        let index = self.running.len() - 1;
        let carried = match &self.event_loop {
            Some(event_loop) => event_loop.add(console).map(Some),
            None => Ok(None),
        };
        let carried = carried.map_err(FleetError::from).and_then(|console| {
            self.running[index].console = console;
            self.carry(index, backends)
        });
        if let Err(error) = carried {
            self.remove(id, || Outcome::HostError(error.to_string()));
            return Err(error);
        }
        Ok(id)
    }

    /// Builds a VM whose console is `writer`'s. It has no threads yet, and nobody serves its devices.
    fn assemble(
        &mut self,
        host: &Host,
        facts: &Facts,
        config: &VmConfig,
        id: u32,
        name: Option<String>,
        writer: ConsoleWriter,
    ) -> Result<(Running, Vec<Box<dyn Backend>>), FleetError> {
        let domain = match &self.shared {
            Some(domain) => Arc::clone(domain),
            None => {
                let domain = Arc::new(Domain::new(self.policy.clone(), config.cpus)?);
                if let Some(backstop) = &self.backstop {
                    backstop.watch(&domain);
                }
                domain
            }
        };
        let slots = domain.admit(config.cpus)?;
        let place = Place {
            id,
            name,
            domain: &domain,
            slots: slots.clone(),
            ended: Arc::clone(&self.ended),
            console: writer.clone(),
        };
        let built = match assemble::build(host, facts, config, place) {
            Ok(built) => built,
            Err(error) => {
                domain.dismiss(&slots);
                return Err(error.into());
            }
        };
        let Built { vm, vcpus, backends } = built;
        for vcpu in &vcpus {
            domain.add(Arc::clone(vcpu));
        }
        let (guest, seats) = (Arc::downgrade(&vm), Arc::downgrade(&domain));
        writer.on_input(move || {
            if let (Some(vm), Some(domain)) = (guest.upgrade(), seats.upgrade()) {
                domain.serial_input(&vm);
            }
        });
        if self.mixed && !self.warned && config.placement.is_pinned_loosely(config.cpus) {
            self.warned = true;
            tracing::warn!(
                "{}: pinned, but its halted vCPUs may be run by other VMs' threads, on their CPUs; \
                 isolate it to keep it on its own",
                vm.name
            );
        }
        let place = Some(&config.placement).filter(|place| place.concerns_threads()).cloned();
        let running = Running {
            vm,
            domain,
            vcpus,
            writer,
            console: None,
            devices: Vec::new(),
            place,
            threads: Vec::new(),
        };
        Ok((running, backends))
    }

    /// Has a VM's devices served.
    fn carry(&mut self, index: usize, backends: Vec<Box<dyn Backend>>) -> Result<(), FleetError> {
        let Some(event_loop) = &self.event_loop else { return Ok(()) };
        let running = &mut self.running[index];
        for backend in backends {
            let line = Line::new(&running.vm, &running.domain, backend.irq());
            running.devices.push(backend.start(line, event_loop)?);
        }
        Ok(())
    }

    /// Starts the threads of a VM that was built.
    pub(super) fn start(&mut self, index: usize) -> Result<(), FleetError> {
        let Running { domain, vcpus, place, threads, .. } = &mut self.running[index];
        let keeper = place.take().map(Keeper::new);
        for vcpu in vcpus.iter() {
            let gate = keeper.as_ref().map(Keeper::gate);
            let thread = vcpu::spawn(Arc::clone(domain), Arc::clone(vcpu), gate);
            threads.push(thread.map_err(FleetError::Thread)?);
        }
        match keeper {
            Some(keeper) => Ok(keeper.open(vcpus.len())?),
            None => Ok(()),
        }
    }

    /// Ends a VM, with this outcome if it had none, and frees all that it had: memory, descriptors,
    /// threads, slots. Answers what is left of it; `None`: there is no such VM.
    pub fn remove(&mut self, id: u32, outcome: impl FnOnce() -> Outcome) -> Option<Arc<VmShared>> {
        let index = self.position(id)?;
        let (vm, _, console) = self.take_down(index, outcome);
        if let (Some(event_loop), Some(console)) = (&self.event_loop, console) {
            event_loop.remove(console);
        }
        Some(vm)
    }

    /// Ends a VM and frees what it had, but for its console.
    fn take_down(
        &mut self,
        index: usize,
        outcome: impl FnOnce() -> Outcome,
    ) -> (Arc<VmShared>, ConsoleWriter, Option<CarriedId>) {
        self.vms.remove(index);
        let Running { vm, domain, vcpus, writer, console, devices, threads, .. } =
            self.running.remove(index);
        if !vm.has_ended() {
            vm.end(outcome());
        }
        domain.stop_vm(&vm);
        for thread in threads {
            // A vCPU thread that panicked has said so; the others must still be waited for.
            let _ = thread.join();
        }
        domain.dismiss(&vm.slots);
        drop(vcpus);
        if let Some(event_loop) = &self.event_loop {
            devices.into_iter().for_each(|device| device.stop(event_loop));
        }
        seats::settle(FREE_PATIENCE, || Arc::strong_count(&vm) == 1);
        (vm, writer, console)
    }

    /// Builds a VM anew, as after its creation, and starts it: same number, name and console, memory
    /// and devices as after power-up. `false`: there is no such VM.
    ///
    /// # Errors
    /// [`FleetError`]; the VM has been removed then.
    pub fn restart(
        &mut self,
        host: &Host,
        facts: &Facts,
        id: u32,
        config: &VmConfig,
    ) -> Result<bool, FleetError> {
        let Some(index) = self.position(id) else { return Ok(false) };
        let (vm, writer, console) = self.take_down(index, || Outcome::Reset);
        let name = vm.name.clone();
        // What it had is free before the new one needs as much.
        drop(vm);
        let built = self.assemble(host, facts, config, id, Some(name), writer);
        let started = built.and_then(|(running, backends)| {
            self.vms.insert(index, Arc::clone(&running.vm));
            self.running.insert(index, running);
            self.carry(index, backends)?;
            self.start(index)
        });
        if let Err(error) = started {
            if self.position(id).is_some() {
                let _ = self.take_down(index, || Outcome::HostError(error.to_string()));
            }
            if let (Some(event_loop), Some(console)) = (&self.event_loop, console) {
                event_loop.remove(console);
            }
            return Err(error);
        }
        self.running[index].console = console;
        Ok(true)
    }
}
