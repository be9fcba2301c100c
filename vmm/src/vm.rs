//! What the vCPUs of one VM share, and how a VM ends.
//!
//! Owns the VM's descriptor, memory, bus and interrupt routing, its first and only outcome, and the
//! count of vCPUs that still run. Must not know how vCPUs are run. Building one is `build`'s.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use devices::apic::{DeliveryMode, Inbox, Ipi, Routing};
use devices::bus::Bus;
use devices::chipset::Board;
use kvm_ioctls::VmFd;
use thiserror::Error;
use tmigr::Slot;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

use crate::clock;
use crate::gdb::rendezvous::Debugger;
use crate::guest_faults::{GuestFault, GuestFaults};
use crate::limits::{Limits, Meters};
use crate::memory::GuestMemory;
use crate::shared_image::SharedImage;
use crate::vcpu::{Held, Post};

/// The limit of a VM's CPU time is looked at no more often than this, in ns.
const CAP_GRAIN_NS: u64 = 1_000_000;

/// The part of a VM that its vCPU threads and the controller share.
pub struct VmShared {
    /// Name in messages: `vm0`, `vm1`, ...
    pub name: String,
    /// Its number in the fleet.
    pub id: u32,
    /// How many vCPUs it has.
    pub cpus: u32,
    /// The slots of its vCPUs, in their order.
    pub slots: Box<[Slot]>,
    /// Ports and device memory.
    pub bus: Bus,
    /// Interrupt controllers, PIT and clock.
    pub board: Arc<Board>,
    /// The local APICs are in user space, not in KVM.
    pub user_apic: bool,
    /// Which vCPU an interrupt destination means.
    pub routing: Routing,
    /// Guest RAM, mapped as long as this lives.
    pub memory: GuestMemory,
    /// The images whose pages it may share; VMs that are built while it lives find them.
    pub images: Vec<Arc<SharedImage>>,
    /// KVM's descriptor; keeps the VM alive.
    pub fd: VmFd,
    /// What it may ask of the host.
    pub limits: Limits,
    /// What it has used of that.
    pub meters: Meters,
    /// Where vCPU threads meet the debugger, if there is one.
    pub debugger: Option<Arc<Debugger>>,
    /// Written once, by whoever comes first.
    outcome: OnceLock<Outcome>,
    /// vCPU threads that have not ended. AcqRel: the last one reports after all have finished.
    running: AtomicU32,
    /// Told when a vCPU has paused or ended.
    pub pauses: Bell,
    /// What the guest did to no effect.
    pub faults: GuestFaults,
    /// When it was built, in host monotonic ns.
    pub built_at: u64,
    ended: Arc<EventFd>,
}

/// What [`VmShared::new`] is made of.
pub struct Parts {
    /// See [`VmShared::name`].
    pub name: String,
    /// See [`VmShared::id`].
    pub id: u32,
    /// See [`VmShared::cpus`].
    pub cpus: u32,
    /// See [`VmShared::slots`].
    pub slots: Box<[Slot]>,
    /// See [`VmShared::bus`].
    pub bus: Bus,
    /// See [`VmShared::board`].
    pub board: Arc<Board>,
    /// See [`VmShared::user_apic`].
    pub user_apic: bool,
    /// See [`VmShared::routing`].
    pub routing: Routing,
    /// See [`VmShared::memory`].
    pub memory: GuestMemory,
    /// See [`VmShared::images`].
    pub images: Vec<Arc<SharedImage>>,
    /// See [`VmShared::fd`].
    pub fd: VmFd,
    /// See [`VmShared::limits`].
    pub limits: Limits,
    /// See [`VmShared::debugger`].
    pub debugger: Option<Arc<Debugger>>,
    /// See [`VmShared::built_at`].
    pub built_at: u64,
    /// Is written when the VM's last vCPU has ended.
    pub ended: Arc<EventFd>,
}

impl VmShared {
    /// A VM whose vCPUs are about to start.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            name,
            id,
            cpus,
            slots,
            bus,
            board,
            user_apic,
            routing,
            memory,
            images,
            fd,
            limits,
            debugger,
            built_at,
            ended,
        } = parts;
        VmShared {
            name,
            id,
            cpus,
            slots,
            bus,
            board,
            user_apic,
            routing,
            memory,
            images,
            fd,
            meters: Meters::new(&limits),
            limits,
            debugger,
            outcome: OnceLock::new(),
            running: AtomicU32::new(cpus),
            pauses: Bell::default(),
            faults: GuestFaults::default(),
            built_at,
            ended,
        }
    }

    /// Notes how the VM ended. Only the first outcome counts.
    pub fn end(&self, outcome: Outcome) {
        // Later ones are consequences of the first.
        let _ = self.outcome.set(outcome);
    }

    /// The slot of vCPU `index`.
    #[must_use]
    pub fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }

    /// How the VM ended, once it is known.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// A vCPU thread has ended; the last one reports the VM.
    pub fn vcpu_ended(&self) {
        self.pauses.tell();
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(debugger) = &self.debugger {
                debugger.end();
            }
            // A full counter means that the controller has been told already.
            let _ = self.ended.write(1);
        }
    }

    /// The debugger, if vCPU `index` is to stop for it.
    #[must_use]
    pub fn stopping_debugger(&self, index: u32) -> Option<&Debugger> {
        self.debugger.as_deref().filter(|debugger| debugger.stopping(index))
    }

    /// Guest RAM in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|region| region.len()).sum()
    }

    /// The CPU time of the calling thread, if the VM's is limited, in ns.
    pub(crate) fn cap_clock(&self) -> Option<u64> {
        self.meters.cap.as_ref().map(|_| clock::thread_cpu_ns())
    }

    /// A vCPU of the VM was run on the calling thread since [`VmShared::cap_clock`].
    pub(crate) fn charge_cap(&self, began: Option<u64>) {
        if let (Some(cap), Some(began)) = (&self.meters.cap, began) {
            cap.charge(clock::thread_cpu_ns().saturating_sub(began), clock::now_ns());
        }
    }

    /// When its CPU time may be used up at the earliest, if it is limited, in host ns.
    pub(crate) fn cap_ends(&self, now: u64) -> Option<u64> {
        self.meters.cap.as_ref().map(|cap| now.saturating_add(cap.left(now).max(CAP_GRAIN_NS)))
    }

    /// Until when the VM has used up its CPU time at `now`, both in host ns.
    #[must_use]
    pub fn capped_until(&self, now: u64) -> Option<u64> {
        self.meters.cap.as_ref()?.over_until(now)
    }

    /// All vCPUs have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    /// Notes what the guest did to no effect, at `now` (ns).
    pub fn note_fault(&self, fault: GuestFault, now: u64) {
        if let Some(line) = self.faults.note(fault, now) {
            tracing::debug!(vm = %self.name, unlogged = line.unlogged, "{fault}");
        }
    }
}

/// Puts an interrupt into the inbox of a vCPU that it is for. Answers what its run word has to be
/// told; nothing, where modern processors ignore the message.
#[must_use]
pub fn put(inbox: &Inbox, ipi: &Ipi) -> Option<Post> {
    match ipi.mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority if ipi.level => {
            inbox.post_level(ipi.vector);
        }
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => inbox.post(ipi.vector),
        DeliveryMode::ExtInt => inbox.post_extint(),
        DeliveryMode::Nmi => inbox.post_nmi(),
        DeliveryMode::Init => {
            inbox.post_init();
            return Some(Post::Startup);
        }
        DeliveryMode::Sipi => {
            inbox.post_sipi(ipi.vector);
            return Some(Post::Startup);
        }
        DeliveryMode::InitDeassert => return None,
    }
    Some(Post::Interrupt)
}

/// Wakes the controller, which waits for something that vCPU threads do.
///
/// | variable | lock | writers | readers |
/// |---|---|---|---|
/// | `rings` | its mutex, held for an addition | vCPU threads | the controller |
#[derive(Debug, Default)]
pub struct Bell {
    rings: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    /// Something has been done.
    pub fn tell(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until `done`, or for `limit`. Answers whether it is done.
    #[must_use]
    pub fn wait(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rings, limit, |_| !done());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Why a vCPU cannot go on.
#[derive(Debug, Error)]
pub enum CrashCause {
    /// `KVM_EXIT_SHUTDOWN`.
    #[error("triple fault")]
    TripleFault,
    /// `KVM_EXIT_INTERNAL_ERROR`.
    #[error("KVM could not emulate an instruction")]
    Emulation,
    /// `KVM_EXIT_FAIL_ENTRY`.
    #[error("the processor refused to enter the guest, reason {reason:#x}")]
    FailedEntry {
        /// The hardware's reason.
        reason: u64,
    },
    /// An access to an address that is neither memory nor a device.
    #[error("{} unmapped address {address:#x}", if *.write { "write to" } else { "read of" })]
    Unmapped {
        /// Guest-physical.
        address: u64,
        /// A write.
        write: bool,
    },
    /// `KVM_EXIT_SYSTEM_EVENT`.
    #[error("system event {kind}")]
    SystemEvent {
        /// KVM's type.
        kind: u32,
    },
    /// An exit that KVM should not have made.
    #[error("unexpected exit {what}")]
    UnknownExit {
        /// As kvm-ioctls prints it.
        what: String,
    },
    /// The vCPU's state could not be set.
    #[error("cannot set the processor's state: {0}")]
    State(String),
    /// An ioctl on the vCPU failed.
    #[error("KVM: {0}")]
    Kvm(kvm_ioctls::Error),
}

impl CrashCause {
    /// From an ioctl.
    #[must_use]
    pub fn kvm(error: kvm_ioctls::Error) -> Self {
        CrashCause::Kvm(error)
    }

    /// From a failure to set registers.
    #[must_use]
    pub fn state(error: impl fmt::Display) -> Self {
        CrashCause::State(error.to_string())
    }
}

/// Everything that is known about a vCPU that cannot go on.
#[derive(Debug)]
pub struct Crash {
    /// Its number in the VM.
    pub vcpu: u32,
    /// Why.
    pub cause: CrashCause,
    /// Where.
    pub rip: u64,
    /// General and control registers, a few lines.
    pub registers: String,
    /// The last exits, one a line, oldest first.
    pub trail: String,
    /// The local APIC's registers, a few lines; empty where KVM has it.
    pub apic: String,
}

/// How a VM ended.
#[derive(Debug)]
pub enum Outcome {
    /// The guest powered the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// The guest's kernel said that it panicked.
    Panicked,
    /// The guest wrote this value to the debug-exit port.
    Exit(u32),
    /// A vCPU could not go on.
    Crashed(Box<Crash>),
    /// The host could not run it.
    HostError(String),
    /// It was ended by its time limit.
    TimedOut,
    /// It was ended on request.
    Interrupted,
    /// It was ended by whoever sat at its console.
    Quit,
}

impl Outcome {
    /// Collects what is known about `held`.
    #[must_use]
    pub fn crashed(held: &mut Held<'_>, cause: CrashCause) -> Self {
        let regs = held.fd.get_regs().unwrap_or_default();
        let sregs = held.fd.get_sregs().unwrap_or_default();
        let registers = format!(
            "rip {:016x} rsp {:016x} rflags {:08x}\n\
             rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}\n\
             rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}\n\
             r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}\n\
             r13 {:016x} r14 {:016x} r15 {:016x}\n\
             cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} efer {:x} cs {:x}:{:x} idt {:x}/{:x}",
            regs.rip,
            regs.rsp,
            regs.rflags,
            regs.rax,
            regs.rbx,
            regs.rcx,
            regs.rdx,
            regs.rsi,
            regs.rdi,
            regs.rbp,
            regs.r8,
            regs.r9,
            regs.r10,
            regs.r11,
            regs.r12,
            regs.r13,
            regs.r14,
            regs.r15,
            sregs.cr0,
            sregs.cr2,
            sregs.cr3,
            sregs.cr4,
            sregs.efer,
            sregs.cs.selector,
            sregs.cs.base,
            sregs.idt.base,
            sregs.idt.limit,
        );
        Outcome::Crashed(Box::new(Crash {
            vcpu: held.vcpu.index,
            cause,
            rip: regs.rip,
            registers,
            trail: held.trail.to_string(),
            apic: held.apic_report(),
        }))
    }

    /// The exit status that the command ends with (see `docs/specification.md`).
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Outcome::PowerOff | Outcome::Reset | Outcome::Quit => 0,
            // As QEMU's isa-debug-exit: always odd.
            Outcome::Exit(value) => ((value << 1) | 1) as u8,
            Outcome::Crashed(_) | Outcome::HostError(_) => 4,
            Outcome::TimedOut => 6,
            Outcome::Panicked => 8,
            Outcome::Interrupted => 130,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::PowerOff => write!(f, "powered off"),
            Outcome::Reset => write!(f, "reset"),
            Outcome::Panicked => write!(f, "the guest's kernel panicked"),
            Outcome::Exit(value) => write!(f, "debug exit with value {value}"),
            Outcome::Crashed(crash) => {
                write!(f, "vCPU {} stopped at RIP {:#x}: {}", crash.vcpu, crash.rip, crash.cause)
            }
            Outcome::HostError(what) => write!(f, "could not be run: {what}"),
            Outcome::TimedOut => write!(f, "ended by its time limit"),
            Outcome::Interrupted => write!(f, "interrupted"),
            Outcome::Quit => write!(f, "ended at its console"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_exit_status_is_odd_and_never_collides_with_the_even_ones() {
        for value in [0u32, 1, 2, 63, 127, 128, u32::MAX] {
            assert_eq!(Outcome::Exit(value).status() % 2, 1);
        }
        assert_eq!(Outcome::Exit(16).status(), 33);
        assert_eq!(Outcome::Reset.status(), 0);
        assert_eq!(Outcome::PowerOff.status(), 0);
        assert_eq!(Outcome::Panicked.status(), 8);
        assert_eq!(Outcome::TimedOut.status(), 6);
        assert_eq!(Outcome::Interrupted.status(), 130);
    }
}
