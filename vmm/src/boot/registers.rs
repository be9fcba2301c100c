//! The registers with which vCPUs start: the BSP at the kernel's entry, an AP after INIT and SIPI.
//!
//! Owns nothing: the caller has the run word of the vCPU it passes. Must not know the local APIC,
//! whose reset is the caller's, nor what the kernel is.

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW,
    kvm_debugregs, kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
};
use kvm_ioctls::VcpuFd;
use vm_memory::GuestMemoryError;

use super::layout::GDT;
use super::multiboot_info;
use super::tables::{self, BOOT_CODE, CODE32, DATA, GDT_LIMIT, PML4, TSS};
use super::{Entry, EntryKind};
use crate::memory::GuestMemory;

/// Why a vCPU has not got its registers.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// KVM does not read or take a group of registers.
    #[error("kvm: cannot {what}")]
    Kvm {
        /// What was tried, for instance "set the segment and control registers".
        what: &'static str,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The GDT or the page tables do not fit into guest memory.
    #[error("cannot write the GDT and page tables into guest memory")]
    Tables(#[source] GuestMemoryError),
}

fn kvm(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> StateError {
    move |source| StateError::Kvm { what, source }
}

/// Reserved bit 1 of RFLAGS, always set. IF, TF and VM are clear.
const RFLAGS: u64 = 2;
/// CR0: PE and ET.
const CR0_PROTECTED: u64 = 0x11;
/// CR0: PG, AM, WP, NE, ET, MP, PE.
const CR0_LONG: u64 = 0x8005_0033;
/// CR0: CD and NW, which INIT leaves alone.
const CR0_CACHE: u64 = 0x6000_0000;
/// CR0: ET, hard-wired.
const CR0_ET: u64 = 0x10;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
const CR4_LONG: u64 = 0x620;
/// EFER: SCE, LME, LMA, NXE.
const EFER_LONG: u64 = 0xd01;

/// Gives the BSP the registers with which `entry` is entered, and writes the GDT and page tables they
/// point at into `memory`.
///
/// PVH: 32-bit protected mode, flat segments, paging off, `ebx` = start info (Xen's PVH boot ABI).
/// Multiboot: the same, `eax` = its magic number, `ebx` = multiboot information (Multiboot
/// Specification, 3.2). Linux, 32-bit: the same, code selector 0x10, `esi` = zero page; 64-bit: long
/// mode, the first 4 GiB mapped to themselves, `rsi` = zero page (Linux's boot protocols). In all IF
/// is clear and the FPU is as after `FNINIT`; A20 is always open.
///
/// # Errors
/// [`StateError`], naming the registers that KVM does not take.
pub fn set_entry_state(fd: &VcpuFd, memory: &GuestMemory, entry: &Entry) -> Result<(), StateError> {
    tables::write(memory, entry.kind != EntryKind::Linux32).map_err(StateError::Tables)?;
    let mut sregs = sregs(fd)?;
    match entry.kind {
        EntryKind::Pvh | EntryKind::Multiboot => protected_mode(&mut sregs, CODE32),
        EntryKind::Linux32 => protected_mode(&mut sregs, BOOT_CODE),
        EntryKind::Linux64 => long_mode(&mut sregs),
    }
    set_sregs(fd, &sregs)?;
    set_regs(fd, &entry_regs(entry))?;
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    fd.set_fpu(&fpu).map_err(kvm("set the FPU registers"))
}

/// Gives a vCPU the registers it has after INIT (SDM volume 3, "Processor State After Reset and
/// INIT"): FPU, MSRs other than EFER, and CR0's CD and NW stay as they are. Whatever was about to be
/// delivered (exception, interrupt, NMI) is dropped.
///
/// The local APIC and `kvm_run.cr8` are the caller's.
///
/// # Errors
/// [`StateError`], naming the registers that KVM does not take.
pub fn set_init_state(fd: &VcpuFd) -> Result<(), StateError> {
    reset(fd, None)
}

/// Gives a vCPU the registers with which it starts after INIT and a SIPI with `vector`: real mode at
/// `vector` * 4 KiB, all else as after INIT.
///
/// # Errors
/// [`StateError`], naming the registers that KVM does not take.
pub fn set_sipi_state(fd: &VcpuFd, vector: u8) -> Result<(), StateError> {
    reset(fd, Some(vector))
}

fn reset(fd: &VcpuFd, sipi: Option<u8>) -> Result<(), StateError> {
    let mut sregs = sregs(fd)?;
    after_init(&mut sregs, sipi);
    set_sregs(fd, &sregs)?;
    set_regs(fd, &regs_after_init(sipi, signature(fd)?))?;
    let debug = kvm_debugregs { dr6: 0xffff_0ff0, dr7: 0x400, ..Default::default() };
    fd.set_debug_regs(&debug).map_err(kvm("set the debug registers"))?;
    let events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    fd.set_vcpu_events(&events).map_err(kvm("clear the pending events"))
}

fn sregs(fd: &VcpuFd) -> Result<kvm_sregs, StateError> {
    fd.get_sregs().map_err(kvm("read the segment and control registers"))
}

fn set_sregs(fd: &VcpuFd, sregs: &kvm_sregs) -> Result<(), StateError> {
    fd.set_sregs(sregs).map_err(kvm("set the segment and control registers"))
}

fn set_regs(fd: &VcpuFd, regs: &kvm_regs) -> Result<(), StateError> {
    fd.set_regs(regs).map_err(kvm("set the general registers"))
}

/// The CPU's family, model and stepping (CPUID.1:EAX), which INIT leaves in EDX.
fn signature(fd: &VcpuFd) -> Result<u64, StateError> {
    let leaves = fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(kvm("read the CPUID leaves"))?;
    let leaf = leaves.as_slice().iter().find(|leaf| leaf.function == 1);
    Ok(leaf.map_or(0x600, |leaf| u64::from(leaf.eax)))
}

fn entry_regs(entry: &Entry) -> kvm_regs {
    let regs = kvm_regs { rip: entry.rip, rflags: RFLAGS, ..Default::default() };
    match entry.kind {
        EntryKind::Pvh => kvm_regs { rbx: entry.boot_info, ..regs },
        EntryKind::Multiboot => {
            kvm_regs { rax: multiboot_info::MAGIC.into(), rbx: entry.boot_info, ..regs }
        }
        EntryKind::Linux32 | EntryKind::Linux64 => kvm_regs { rsi: entry.boot_info, ..regs },
    }
}

fn regs_after_init(sipi: Option<u8>, signature: u64) -> kvm_regs {
    let rip = if sipi.is_some() { 0 } else { 0xfff0 };
    kvm_regs { rip, rflags: RFLAGS, rdx: signature, ..Default::default() }
}

fn protected_mode(sregs: &mut kvm_sregs, code_selector: u16) {
    flat_segments(sregs, code(code_selector, false));
    sregs.cr0 = CR0_PROTECTED;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.efer = 0;
}

fn long_mode(sregs: &mut kvm_sregs) {
    flat_segments(sregs, code(BOOT_CODE, true));
    sregs.cr0 = CR0_LONG;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_LONG;
    sregs.efer = EFER_LONG;
}

/// Loads all segment registers as if from the GDT.
fn flat_segments(sregs: &mut kvm_sregs, code: kvm_segment) {
    let data = kvm_segment { selector: DATA, type_: 0x3, db: 1, l: 0, ..code };
    sregs.cs = code;
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = data;
    }
    // Busy TSS of the least size, which VM entry asks for.
    sregs.tr = system(TSS, 0xb, 0x67);
    sregs.ldt = kvm_segment { unusable: 1, ..system(0, 0x2, 0) };
    sregs.gdt = table(GDT, GDT_LIMIT);
    sregs.idt = table(0, 0);
}

fn code(selector: u16, long: bool) -> kvm_segment {
    kvm_segment {
        limit: 0xffff_ffff,
        selector,
        type_: 0xb,
        present: 1,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

fn system(selector: u16, type_: u8, limit: u32) -> kvm_segment {
    kvm_segment { selector, type_, limit, present: 1, ..Default::default() }
}

fn table(base: u64, limit: u16) -> kvm_dtable {
    kvm_dtable { base, limit, ..Default::default() }
}

/// INIT's effect on the segment and control registers, and the SIPI's on CS. `apic_base` stays.
fn after_init(sregs: &mut kvm_sregs, sipi: Option<u8>) {
    let data = kvm_segment { limit: 0xffff, type_: 0x3, present: 1, s: 1, ..Default::default() };
    let (selector, base) = match sipi {
        Some(vector) => (u16::from(vector) << 8, u64::from(vector) << 12),
        None => (0xf000, 0xffff_0000),
    };
    *sregs = kvm_sregs {
        cs: kvm_segment { selector, base, type_: 0xb, ..data },
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: system(0, 0xb, 0xffff),
        ldt: system(0, 0x2, 0xffff),
        gdt: table(0, 0xffff),
        idt: table(0, 0xffff),
        cr0: sregs.cr0 & CR0_CACHE | CR0_ET,
        cr2: 0,
        cr3: 0,
        cr4: 0,
        cr8: 0,
        efer: 0,
        apic_base: sregs.apic_base,
        interrupt_bitmap: [0; 4],
    };
}

#[cfg(test)]
#[path = "registers_tests.rs"]
mod tests;
