//! A vCPU's registers in gdb's layout.
//!
//! Owns nothing. The order of gdb's general registers is RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to
//! R15 (gdb's `org.gnu.gdb.i386.core`). Must not know threads.

use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_ioctls::VcpuFd;

/// Reads them. Segment registers are selectors.
pub(super) fn read(fd: &VcpuFd) -> Result<X86_64CoreRegs, kvm_ioctls::Error> {
    let regs = fd.get_regs()?;
    let sregs = fd.get_sregs()?;
    let fpu = fd.get_fpu()?;
    let mut out = X86_64CoreRegs {
        regs: [
            regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        eflags: regs.rflags as u32,
        mxcsr: fpu.mxcsr,
        ..Default::default()
    };
    out.segments.cs = u32::from(sregs.cs.selector);
    out.segments.ss = u32::from(sregs.ss.selector);
    out.segments.ds = u32::from(sregs.ds.selector);
    out.segments.es = u32::from(sregs.es.selector);
    out.segments.fs = u32::from(sregs.fs.selector);
    out.segments.gs = u32::from(sregs.gs.selector);
    out.fpu.fctrl = u32::from(fpu.fcw);
    out.fpu.fstat = u32::from(fpu.fsw);
    for (to, from) in out.st.iter_mut().zip(&fpu.fpr) {
        to.copy_from_slice(&from[..10]);
    }
    for (to, from) in out.xmm.iter_mut().zip(&fpu.xmm) {
        *to = u128::from_le_bytes(*from);
    }
    Ok(out)
}

/// Writes the general registers, RIP and the flags. Segments and the FPU stay as they are.
pub(super) fn write(fd: &VcpuFd, from: &X86_64CoreRegs) -> Result<(), kvm_ioctls::Error> {
    let mut regs = fd.get_regs()?;
    [
        regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ] = from.regs;
    regs.rip = from.rip;
    regs.rflags = u64::from(from.eflags);
    fd.set_regs(&regs)
}
