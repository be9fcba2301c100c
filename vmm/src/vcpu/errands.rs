//! What a chipset asks for, carried to where it goes.
//!
//! Owns the way from a message or a line to inboxes and threads, and the vCPU that looks after the
//! chipset's timers: its *owner*, vCPU 0 unless that waits for a SIPI. The timers are part of the
//! owner's next expiry, so that a halted VM has one in the hierarchy. Must not know the devices.
//!
//! Races:
//! 1. *A timer programmed by another vCPU.* The deadline is published before the owner is posted to;
//!    the owner clears `PENDING` before it reads the deadline.
//! 2. *An owner that goes to wait for its SIPI.* It gives the timers away after its word says so; who
//!    gives them looks at the new owner's word after the gift, and goes on if that waits, too.
//! 3. *A line that rises and falls while two threads carry that to KVM's controllers.* One at a time
//!    takes changes and tells them, and a vCPU whose access made one waits for whoever does.

use std::sync::atomic::{Ordering, fence};

use crossbeam_epoch as epoch;
use devices::apic::{Ipi, Lint};
use devices::bus::Outcome;
use devices::chipset::{Chipset, Errand, LineLevel};
use devices::serial;

use super::home::Worker;
use super::{Core, Held, Post, State, Vcpu};
use crate::clock;
use crate::domain::{Domain, TimerMode};
use crate::vm::{self, VmShared};

impl Domain {
    /// Does something to the chipset of a VM, and what that asks for. `by`: the vCPU, by its number in
    /// the VM, whose holder calls; it looks at the chipset itself afterwards. `None`: no vCPU's.
    fn board<R>(&self, vm: &VmShared, by: Option<u32>, with: impl FnOnce(&mut Chipset) -> R) -> R {
        let (answer, errands) = vm.board.with(clock::now_ns(), with);
        if errands {
            self.errands(vm, by);
        }
        answer
    }

    /// Carries out what the chipset of a VM asks for.
    fn errands(&self, vm: &VmShared, by: Option<u32>) {
        let _in_order = vm.board.in_order();
        while let Some(errand) = vm.board.take_errand() {
            match errand {
                // The I/O APIC names its targets without regard to who sends.
                Errand::Message(message) => self.send(vm, by.unwrap_or(0), &message),
                Errand::Intr if vm.board.intr() => self.look(vm, by, 0),
                // The vCPU that has been offered it finds that there is nothing to acknowledge.
                Errand::Intr => {}
                Errand::Earlier => self.look(vm, by, vm.board.owner()),
                Errand::Lines => vm.board.tell_lines(|level| {
                    let LineLevel { irq, asserted } = level;
                    if let Err(error) = vm.fd.set_irq_line(u32::from(irq), asserted) {
                        tracing::error!(vm = %vm.name, irq, %error, "cannot drive an interrupt line");
                    }
                }),
            }
        }
    }

    /// Makes the vCPU `index` of the VM look at the chipset, unless it is the one that asks.
    fn look(&self, vm: &VmShared, by: Option<u32>, index: u32) {
        if by == Some(index) {
            return;
        }
        let guard = epoch::pin();
        let seated = vm.slot(index).and_then(|slot| self.vcpu(slot, &guard));
        let Some(vcpu) = seated else { return };
        if self.policy.mode == TimerMode::Kernel {
            vcpu.thread.kick();
        } else {
            self.post(vcpu, Post::Interrupt);
        }
    }

    /// Sends an interrupt from vCPU `from`, or from the chipset, to the vCPUs of the VM that it names.
    fn send(&self, vm: &VmShared, from: u32, ipi: &Ipi) {
        let guard = epoch::pin();
        for target in vm.routing.resolve(from as usize, ipi) {
            let slot = vm.slots.get(target);
            if let Some(vcpu) = slot.and_then(|slot| self.vcpu(*slot, &guard))
                && let Some(why) = vm::put(&vcpu.inbox, ipi)
            {
                self.post(vcpu, why);
            }
        }
    }

    /// Something was said to the guest's serial port: the port looks for it, and interrupts.
    pub fn serial_input(&self, vm: &VmShared) {
        // Any access to the port will do; this one changes nothing.
        let scratch = *serial::COM1.start() + serial::SCRATCH;
        if let Outcome::Edge(irq) = vm.bus.pio_read(scratch, &mut [0], clock::now_ns()) {
            self.device_edge(vm, irq);
        }
    }

    /// A device gives an edge on a line, 0 to 23, from a thread that is no vCPU's.
    pub fn device_edge(&self, vm: &VmShared, irq: u8) {
        self.board(vm, None, |chipset| chipset.pulse(irq));
    }
}

impl Domain {
    /// Presses a VM's power button. Answers whether its guest wants to hear of that.
    pub fn press_power_button(&self, vm: &VmShared) -> bool {
        let now = clock::now_ns();
        self.board(vm, None, |chipset| chipset.press_power_button(now))
    }
}

impl Worker<'_> {
    /// Does something to the chipset of the VM of `from`, which this thread holds, and what that asks
    /// for.
    pub(super) fn board<R>(&self, from: &Vcpu, with: impl FnOnce(&mut Chipset) -> R) -> R {
        self.domain.board(&from.vm, Some(from.index), with)
    }

    /// Lets the chipset's timers fire if this vCPU looks after them and they are due. Answers whether
    /// they were: there may be something in the inbox then.
    pub(super) fn expire_board(&self, held: &Held<'_>, now: u64) -> bool {
        let due = held.vcpu.board_deadline().is_some_and(|at| at <= now);
        if due {
            self.board(held.vcpu, |_| ());
        }
        due
    }

    /// Carries out what the chipset of the VM of `from`, which this thread holds, asks for.
    pub(super) fn errands(&self, from: &Vcpu) {
        self.domain.errands(&from.vm, Some(from.index));
    }

    /// Sends an interrupt from `from` to the vCPUs of the VM that it names.
    pub(super) fn send(&self, from: &Vcpu, ipi: &Ipi) {
        self.domain.send(&from.vm, from.index, ipi);
    }

    /// The processor takes an external interrupt and learns its vector from the PIC.
    pub(super) fn acknowledge_external(&self, vcpu: &Vcpu, core: &mut Core) -> Option<u8> {
        core.apic.take_extint();
        let now = clock::now_ns();
        let vector = self.board(vcpu, |chipset| chipset.acknowledge(now));
        // An NMI on this line comes on its rising edge, which an acknowledgement does not make.
        let _ = core.apic.set_lint(Lint::Lint0, vcpu.vm.board.intr());
        Some(vector)
    }

    /// This thread's vCPU waits for its SIPI: another one looks after the chipset's timers.
    pub(super) fn pass_board(&self) {
        let vm = &self.vcpu.vm;
        if vm.board.owner() != self.vcpu.index {
            return;
        }
        let guard = epoch::pin();
        for index in (0..vm.cpus).filter(|index| *index != self.vcpu.index) {
            let seated = vm.slot(index).and_then(|slot| self.domain.vcpu(slot, &guard));
            let Some(next) = seated else { continue };
            if waits(next) {
                continue;
            }
            vm.board.give_to(index);
            fence(Ordering::SeqCst);
            if !waits(next) {
                self.domain.post(next, Post::Interrupt);
                return;
            }
        }
    }
}

fn waits(vcpu: &Vcpu) -> bool {
    matches!(vcpu.word.load().state(), State::WaitSipi | State::Stopped)
}

impl Held<'_> {
    /// Takes over the level of the PIC's output, which is wired to LINT0 of the boot processor.
    pub(super) fn look_at_lines(&mut self) -> Result<(), kvm_ioctls::Error> {
        if self.vcpu.index != 0 {
            return Ok(());
        }
        let level = self.vcpu.vm.board.intr();
        if self.apic.set_lint(Lint::Lint0, level) && !self.wait_sipi {
            self.give_nmi()?;
        }
        Ok(())
    }
}
