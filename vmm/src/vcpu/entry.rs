//! Entering the guest: offering an interrupt, arming the host timer, `KVM_RUN`.
//!
//! Owns the protocol of one entry. The order matters: announce the entry ([`kick::Entry`]), *then*
//! look at flags and clock and arm the timer, then run. A kick or an expiry that comes before the
//! announcement is seen by the look; one that comes after it ends the run.
//! Must not know what exits mean.

#![allow(unsafe_code)] // the kvm_run page and KVM_INTERRUPT

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use devices::apic::LocalApic;
use kvm_bindings::{KVM_SYNC_X86_EVENTS, KVMIO, kvm_interrupt};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::cycle::Role;
use super::exits::{self, Exit, Next};
use super::home::Worker;
use super::kick;
use super::{Core, Held, earlier};
use crate::clock;
use crate::memory::GuestMemory;
use crate::vm::CrashCause;

/// Exits that one instruction can lead to before KVM lets others in: it looks up every 1024 rounds of
/// a string instruction.
const MOST_COMPLETIONS: u32 = 2048;
/// One NMI that is delivered at once and one that waits for its IRET.
const MOST_NMIS: u8 = 2;

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

/// Lets the guest run until its next exit. `None`: it was not entered, or a signal ended the run;
/// the caller looks at everything again.
pub(super) fn enter(w: &mut Worker<'_>, held: &mut Held<'_>, role: Role) -> Option<Next> {
    if let Err(errno) = offer_interrupt(w, held) {
        return Some(Next::Crash(CrashCause::kvm(errno)));
    }
    let vcpu = held.vcpu;
    let core: &mut Core = &mut *held;
    let entry = kick::Entry::new(&w.vcpu.thread);
    grant_eoi(&vcpu.vm.memory, core);
    let called = vcpu.word.load().attention()
        || vcpu.vm.stopping_debugger(vcpu.index).is_some()
        || w.vcpu.thread.attention()
        || (role != Role::Home && w.vcpu.word.load().attention());
    let now = clock::now_ns();
    let deadline = earlier(core.apic.deadline(), vcpu.board_deadline());
    if called || !w.arm(earlier(deadline, vcpu.vm.cap_ends(now)), role, now) {
        return None;
    }
    core.halted = false;
    w.entered(role);
    let began = vcpu.vm.cap_clock();
    let result = core.fd.run();
    drop(entry);
    vcpu.vm.charge_cap(began);
    settle_eoi(&vcpu.vm.memory, &mut core.apic, &mut core.eoi_flags);

    let run = core.run;
    core.staged = false;
    core.nmi_given = false;
    core.faulting = false;
    core.events_fresh = true;
    // SAFETY: plain reads of fields that no reference handed out by `run()` covers; `io` has
    // meaning at an exit for a port alone, and every bit pattern of it is valid.
    let (cr8, io_bytes) = unsafe { ((*run).cr8, (*run).__bindgen_anon_1.io.size) };
    core.apic.set_cr8(cr8 as u8);
    match result {
        Ok(exit) => {
            let now = clock::moment(core.tsc_offset);
            let exit = Exit { exit, io_bytes };
            Some(exits::decode(exit, &mut core.apic, &vcpu.vm, &mut core.trail, now))
        }
        Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
            kick::take_signal();
            w.interrupted(clock::now_ns());
            None
        }
        Err(e) => Some(Next::Crash(CrashCause::kvm(e))),
    }
}

/// Hands KVM the highest vector that priority allows, or asks for the moment when it can take it.
///
/// The vector travels in the sync-regs area where that is safe, which saves an ioctl. Writing that
/// area writes *all* event state, so it must be that of the last exit, with no exception under way
/// and no NMI handed over since (KVM API, "KVM_CAP_SYNC_REGS").
fn offer_interrupt(w: &Worker<'_>, held: &mut Held<'_>) -> Result<(), kvm_ioctls::Error> {
    let vcpu = held.vcpu;
    let core: &mut Core = &mut *held;
    let cr8 = core.apic.cr8();
    let (staged, may_stage) = (core.staged, core.events_fresh && !core.nmi_given);
    // A vector that is injected together with the #GP of a refused MSR access would be lost.
    let busy = staged || core.faulting;
    // An external interrupt knows no priority.
    let external = core.apic.extint_wanted();
    let wanted = external || core.apic.next_vector().is_some();
    let run = core.run_page();
    run.cr8 = u64::from(cr8);
    run.kvm_valid_regs = u64::from(KVM_SYNC_X86_EVENTS);
    let ready = run.ready_for_interrupt_injection != 0 && run.if_flag != 0 && !busy;
    if !wanted || !ready {
        run.request_interrupt_window = u8::from(wanted);
        return Ok(());
    }
    let vector = if external { w.acknowledge_external(vcpu, core) } else { take_vector(core) };
    let Some(vector) = vector else { return Ok(()) };
    let run = core.run_page();
    // SAFETY: every bit pattern of the union's `regs` is valid; KVM filled it at the last exit.
    let events = unsafe { &mut run.s.regs.events };
    let quiet = events.exception.injected == 0
        && events.exception.pending == 0
        && events.interrupt.injected == 0
        && events.nmi.injected == 0
        && events.nmi.pending == 0;
    if may_stage && quiet {
        events.interrupt.injected = 1;
        events.interrupt.nr = vector;
        events.interrupt.soft = 0;
        run.kvm_dirty_regs = u64::from(KVM_SYNC_X86_EVENTS);
        core.staged = true;
    } else {
        let interrupt = kvm_interrupt { irq: u32::from(vector) };
        // SAFETY: the structure outlives the call; the descriptor is a vCPU's.
        let rc = unsafe { ioctl_with_ref(&core.fd.as_raw_fd(), KVM_INTERRUPT(), &interrupt) };
        if rc != 0 {
            return Err(kvm_ioctls::Error::last());
        }
        core.staged = true;
    }
    let more = core.apic.next_vector().is_some() || core.apic.extint_wanted();
    core.run_page().request_interrupt_window = u8::from(more);
    Ok(())
}

/// The local APIC's next vector, which is in service from now on.
fn take_vector(core: &mut Core) -> Option<u8> {
    let vector = core.apic.next_vector()?;
    core.apic.acknowledge(vector);
    Some(vector)
}

/// Lets the guest end its interrupt without an exit, where its APIC allows it. An
/// address without memory is the guest's own fault and of no consequence here.
pub(super) fn grant_eoi(memory: &GuestMemory, core: &mut Core) {
    while let Some(grant) = core.apic.grant_eoi() {
        if let Some(flags) = core.eoi_flags.at(memory, grant.address) {
            flags.store(u8::from(grant.set), Ordering::Relaxed);
        }
    }
}

/// Learns whether the guest has done so.
fn settle_eoi(memory: &GuestMemory, apic: &mut LocalApic, bytes: &mut EoiFlags) {
    if let Some(address) = apic.granted_eoi()
        && let Some(flags) = bytes.at(memory, address)
        && flags.load(Ordering::Relaxed) & 1 == 0
    {
        apic.eoi_without_exit();
    }
}

/// Where the byte lies in this process, looked up once for an address and not at each entry and exit:
/// a vCPU's memory stays where it is as long as the vCPU.
#[derive(Default)]
pub struct EoiFlags(Option<(u64, NonNull<u8>)>);

impl EoiFlags {
    fn at<'m>(&mut self, memory: &'m GuestMemory, address: u64) -> Option<&'m AtomicU8> {
        let known = self.0.filter(|(known, _)| *known == address);
        let found = known.or_else(|| {
            let host = memory.get_host_address(GuestAddress(address)).ok()?;
            Some((address, NonNull::new(host)?))
        });
        self.0 = found;
        // SAFETY: the byte belongs to a mapping that `memory` keeps, and is reached by atomic
        // operations of single bytes only, by the guest as well as here.
        found.map(|(_, byte)| unsafe { AtomicU8::from_ptr(byte.as_ptr()) })
    }
}

impl Core {
    /// Completes the last exit, as KVM does at the start of a run, without entering the guest: what
    /// is left of an instruction must not be carried out on registers that were replaced meanwhile
    /// (KVM API, "immediate_exit").
    pub(super) fn complete_exit(&mut self) {
        self.run_page().immediate_exit = 1;
        // EINTR, unless what was completed leads to another exit: the second half of an access, or
        // the next round of a string instruction. Whatever it reads or writes is of no interest.
        for _ in 0..MOST_COMPLETIONS {
            if self.fd.run().is_err() {
                break;
            }
        }
        self.run_page().immediate_exit = 0;
    }

    /// Queues an NMI in KVM.
    pub(super) fn give_nmi(&mut self) -> Result<(), kvm_ioctls::Error> {
        let run = self.run_page();
        if run.kvm_dirty_regs & u64::from(KVM_SYNC_X86_EVENTS) == 0 {
            self.fd.nmi()?;
        } else {
            // The staged event state is written at the next entry and would erase KVM's own note.
            // SAFETY: every bit pattern of the union's `regs` is valid.
            let nmi = unsafe { &mut run.s.regs.events.nmi };
            nmi.pending = (nmi.pending + 1).min(MOST_NMIS);
        }
        self.nmi_given = true;
        Ok(())
    }

    /// An NMI that can be taken waits in KVM since the last exit. There are hosts that let the guest go
    /// on after the IRET that ends another NMI, and halt, before they look for it.
    pub(super) fn nmi_waits(&mut self) -> bool {
        let fresh = self.events_fresh;
        // SAFETY: every bit pattern of the union's `regs` is valid; KVM fills it at each exit.
        let nmi = unsafe { self.run_page().s.regs.events.nmi };
        fresh && nmi.pending != 0 && nmi.masked == 0
    }

    /// The register state was replaced: what the `kvm_run` page says of the past is void.
    pub(super) fn forget_run_state(&mut self) {
        self.halted = false;
        self.staged = false;
        self.faulting = false;
        self.events_fresh = false;
        let run = self.run_page();
        run.kvm_dirty_regs = 0;
        run.if_flag = 0;
        run.ready_for_interrupt_injection = 0;
    }
}
