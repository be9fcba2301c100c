//! What a VM exit means.
//!
//! Turns an exit into a [`Next`] and serves port, MMIO and MSR accesses from the bus and the local
//! APIC. Owns no state. Must not know threads, the hierarchy or who runs the vCPU.

use std::ops::RangeInclusive;

use devices::apic::{Effect, Ipi, LocalApic};
use devices::bus;
use devices::time::Moment;
use kvm_ioctls::{ReadMsrExit, VcpuExit, WriteMsrExit};

use crate::gdb::rendezvous::Reason;
use crate::guest_faults::GuestFault;
use crate::msr::TscMove;
use crate::trail::{Kind, Trail};
use crate::vm::{CrashCause, Outcome, VmShared};

/// SDM vol. 4, table 2-2.
pub(super) const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const KVM_PV_EOI: u32 = 0x4b56_4d04;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;
const APIC_PAGE: u64 = 0x1000;
/// Where PCs have their I/O APICs, HPET, TPM, local APICs, message-signalled interrupts and firmware.
const CHIPSET_WINDOW: RangeInclusive<u64> = 0xfe00_0000..=0xffff_ffff;
/// DR6: which breakpoints were met (SDM vol. 3B, 18.2.3).
const DR6_BREAKPOINTS: u64 = 0xf;

/// What to do after an exit.
#[derive(Debug)]
#[must_use]
pub(super) enum Next {
    /// Enter again.
    Again,
    /// Enter again; the access raises #GP then.
    Fault,
    /// The guest executed HLT.
    Halt,
    /// Send an interrupt to other vCPUs (or to this one).
    Ipi(Ipi),
    /// The APIC can be reached under another address from now on.
    Routing,
    /// IA32_APIC_BASE was written.
    ApicBase,
    /// A breakpoint, or the end of a step.
    Debug(Reason),
    /// A level-triggered interrupt with this vector has ended: the I/O APIC is to be told.
    EndOfInterrupt(u8),
    /// A device gives an edge on an interrupt line.
    Edge(u8),
    /// The chipset has errands.
    Errands,
    /// The guest moved its TSC.
    MoveTsc(TscMove),
    /// The guest ended its VM.
    End(Outcome),
    /// The vCPU cannot go on.
    Crash(CrashCause),
}

impl From<Effect> for Next {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::None => Next::Again,
            Effect::Ipi(ipi) => Next::Ipi(ipi),
            Effect::Routing => Next::Routing,
            Effect::EndOfInterrupt(vector) => Next::EndOfInterrupt(vector),
        }
    }
}

impl From<bus::Outcome> for Next {
    fn from(outcome: bus::Outcome) -> Self {
        match outcome {
            bus::Outcome::Exit(value) => Next::End(Outcome::Exit(value)),
            bus::Outcome::Reset => Next::End(Outcome::Reset),
            bus::Outcome::PowerOff => Next::End(Outcome::PowerOff),
            bus::Outcome::Panicked => Next::End(Outcome::Panicked),
            bus::Outcome::Edge(irq) => Next::Edge(irq),
            bus::Outcome::Errands => Next::Errands,
            bus::Outcome::None | bus::Outcome::Unclaimed => Next::Again,
        }
    }
}

/// An exit, and what kvm-ioctls leaves out of it.
pub(super) struct Exit<'a> {
    /// The exit.
    pub(super) exit: VcpuExit<'a>,
    /// At an exit for a port, how wide one access is, in bytes: a string instruction makes many of
    /// them in one exit.
    pub(super) io_bytes: u8,
}

/// Carries out accesses to one port, in order, until one of them ends the VM. What several of them
/// ask for is the same, and asked for once.
fn ports<T>(accesses: impl Iterator<Item = T>, mut access: impl FnMut(T) -> bus::Outcome) -> Next {
    let mut asked = Next::Again;
    for each in accesses {
        match Next::from(access(each)) {
            Next::Again => {}
            Next::End(outcome) => return Next::End(outcome),
            next => asked = next,
        }
    }
    asked
}

/// Serves the exit.
pub(super) fn decode(
    exit: Exit<'_>,
    apic: &mut LocalApic,
    vm: &VmShared,
    trail: &mut Trail,
    now: Moment,
) -> Next {
    let width = usize::from(exit.io_bytes.max(1));
    match exit.exit {
        VcpuExit::Hlt => {
            trail.note(Kind::Hlt, 0, 0);
            Next::Halt
        }
        VcpuExit::X86Wrmsr(write) => {
            trail.note(Kind::Wrmsr, u64::from(write.index), write.data);
            write_msr(write, apic, vm, now)
        }
        VcpuExit::X86Rdmsr(read) => {
            trail.note(Kind::Rdmsr, u64::from(read.index), 0);
            read_msr(read, apic, vm, now)
        }
        VcpuExit::IoOut(port, data) => {
            trail.note(Kind::Out, u64::from(port), low_bytes(data));
            ports(data.chunks(width), |data| vm.bus.pio_write(port, data, now.ns))
        }
        VcpuExit::IoIn(port, data) => {
            trail.note(Kind::In, u64::from(port), data.len() as u64);
            ports(data.chunks_mut(width), |data| vm.bus.pio_read(port, data, now.ns))
        }
        VcpuExit::MmioWrite(address, data) => {
            trail.note(Kind::MmioWrite, address, low_bytes(data));
            match apic_offset(apic, address) {
                Some(offset) => apic.write_mmio(offset, data, now).into(),
                None => {
                    claimed(vm, vm.bus.mmio_write(address, data, now.ns), address, true, now.ns)
                }
            }
        }
        VcpuExit::MmioRead(address, data) => {
            trail.note(Kind::MmioRead, address, data.len() as u64);
            match apic_offset(apic, address) {
                Some(offset) => {
                    apic.read_mmio(offset, data, now);
                    Next::Again
                }
                None => {
                    claimed(vm, vm.bus.mmio_read(address, data, now.ns), address, false, now.ns)
                }
            }
        }
        VcpuExit::IrqWindowOpen => {
            trail.note(Kind::Window, 0, 0);
            Next::Again
        }
        VcpuExit::SetTpr | VcpuExit::Intr => Next::Again,
        VcpuExit::Debug(met) => {
            let breakpoint = met.dr6 & DR6_BREAKPOINTS != 0;
            Next::Debug(if breakpoint { Reason::Breakpoint } else { Reason::Step })
        }
        other => {
            trail.note(Kind::Other, 0, 0);
            Next::Crash(failure(&other))
        }
    }
}

/// An exit after which the vCPU cannot go on.
fn failure(exit: &VcpuExit<'_>) -> CrashCause {
    match exit {
        VcpuExit::Shutdown => CrashCause::TripleFault,
        VcpuExit::InternalError => CrashCause::Emulation,
        VcpuExit::FailEntry(reason, _) => CrashCause::FailedEntry { reason: *reason },
        VcpuExit::MemoryFault { gpa, .. } => CrashCause::Unmapped { address: *gpa, write: false },
        VcpuExit::SystemEvent(kind, _) => CrashCause::SystemEvent { kind: *kind },
        other => CrashCause::UnknownExit { what: format!("{other:?}") },
    }
}

/// What an access to an address comes to. Where a PC's chipset answers, an access that no device
/// claims has no effect, as kernels that look for devices expect. Anywhere else it is a stray one,
/// and going on would hide a fault of the guest's.
fn claimed(vm: &VmShared, outcome: bus::Outcome, address: u64, write: bool, now: u64) -> Next {
    match outcome {
        bus::Outcome::Unclaimed if CHIPSET_WINDOW.contains(&address) => {
            vm.note_fault(GuestFault::Address { address, write }, now);
            Next::Again
        }
        bus::Outcome::Unclaimed => Next::Crash(CrashCause::Unmapped { address, write }),
        other => other.into(),
    }
}

fn apic_offset(apic: &LocalApic, address: u64) -> Option<u64> {
    let base = apic.mmio_base()?;
    (base..base + APIC_PAGE).contains(&address).then(|| address - base)
}

fn low_bytes(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let n = data.len().min(8);
    bytes[..n].copy_from_slice(&data[..n]);
    u64::from_le_bytes(bytes)
}

fn is_apic_msr(index: u32) -> bool {
    matches!(index, IA32_APIC_BASE | IA32_TSC_DEADLINE | KVM_PV_EOI | X2APIC_FIRST..=X2APIC_LAST)
}

fn write_msr(exit: WriteMsrExit<'_>, apic: &mut LocalApic, vm: &VmShared, now: Moment) -> Next {
    if let Some(to) = TscMove::from_msr(exit.index, exit.data) {
        *exit.error = 0;
        return Next::MoveTsc(to);
    }
    if is_apic_msr(exit.index) {
        if let Ok(effect) = apic.write_msr(exit.index, exit.data, now) {
            *exit.error = 0;
            return match exit.index {
                IA32_APIC_BASE => Next::ApicBase,
                _ => effect.into(),
            };
        }
    } else {
        vm.note_fault(GuestFault::Msr { index: exit.index, write: true }, now.ns);
    }
    // Any value but 0 makes KVM inject #GP (KVM API, "KVM_EXIT_X86_WRMSR").
    *exit.error = 1;
    Next::Fault
}

fn read_msr(exit: ReadMsrExit<'_>, apic: &mut LocalApic, vm: &VmShared, now: Moment) -> Next {
    let value = if is_apic_msr(exit.index) {
        apic.read_msr(exit.index, now).ok()
    } else {
        vm.note_fault(GuestFault::Msr { index: exit.index, write: false }, now.ns);
        None
    };
    *exit.error = u8::from(value.is_none());
    *exit.data = value.unwrap_or(0);
    if value.is_some() { Next::Again } else { Next::Fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_instruction_is_one_access_after_another_to_the_same_port() {
        let mut seen = Vec::new();
        let next = ports(b"abcdef".chunks(2), |data| {
            seen.push(data.to_vec());
            bus::Outcome::None
        });
        assert!(matches!(next, Next::Again));
        assert_eq!(seen, [b"ab", b"cd", b"ef"]);
    }

    #[test]
    fn access_that_ends_the_vm_is_the_last() {
        let mut count = 0;
        let next = ports([1, 2, 3].into_iter(), |value| {
            count += 1;
            if value == 2 { bus::Outcome::Exit(7) } else { bus::Outcome::Unclaimed }
        });
        assert!(matches!(next, Next::End(Outcome::Exit(7))));
        assert_eq!(count, 2);
    }
}
