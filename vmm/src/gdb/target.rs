//! What gdb asks of the VM: registers, memory, breakpoints, going on.
//!
//! Owns the translation between gdb's terms and the rendezvous. Threads are vCPUs, numbered from 1.
//! Must not know sockets.
//!
//! Both kinds of breakpoints that gdb knows are the processor's debug registers, four in all: a
//! breakpoint instruction in guest memory needs KVM to carry out `int3`, which a PVM-type host does
//! not for guest kernel code.

use std::sync::Arc;

use gdbstub::arch::Arch;
use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use super::registers;
use super::rendezvous::{Debugger, Resume};
use crate::domain::Domain;
use crate::vm::VmShared;

/// Translation works by pages.
const PAGE: u64 = 4096;

/// Why debugging cannot go on.
#[derive(Debug, Error)]
pub enum Fatal {
    /// The vCPU's threads have ended.
    #[error("the VM has ended")]
    Ended,
}

/// The VM as gdb sees it.
pub struct Debugged {
    pub(super) debugger: Arc<Debugger>,
    pub(super) vm: Arc<VmShared>,
    pub(super) domain: Arc<Domain>,
    /// What gdb said of each thread that it named.
    named: Vec<(u32, Resume)>,
    /// What the others do.
    others: Resume,
}

pub(super) fn tid(index: u32) -> Tid {
    Tid::new(index as usize + 1).unwrap_or(Tid::MIN)
}

fn index(tid: Tid) -> u32 {
    u32::try_from(tid.get() - 1).unwrap_or(u32::MAX)
}

impl Debugged {
    /// A VM of that domain.
    #[must_use]
    pub fn new(debugger: Arc<Debugger>, vm: Arc<VmShared>, domain: Arc<Domain>) -> Self {
        Debugged { debugger, vm, domain, named: Vec::new(), others: Resume::Run }
    }

    fn translate(&self, cpu: u32, address: u64) -> Option<u64> {
        let translated = self.debugger.on(cpu, move |core| core.fd.translate_gva(address))?;
        translated.ok().filter(|t| t.valid != 0).map(|t| t.physical_address)
    }

    /// Goes through a range of guest memory, page by page; answers how many bytes were done.
    fn pages(
        &self,
        cpu: u32,
        start: u64,
        len: usize,
        mut each: impl FnMut(GuestAddress, usize, usize) -> bool,
    ) -> usize {
        let mut done = 0;
        while done < len {
            let Some(address) = start.checked_add(done as u64) else { break };
            let part = (len - done).min((PAGE - address % PAGE) as usize);
            let Some(physical) = self.translate(cpu, address) else { break };
            if !each(GuestAddress(physical), done, part) {
                break;
            }
            done += part;
        }
        done
    }
}

impl Target for Debugged {
    type Arch = X86_64_SSE;
    type Error = Fatal;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
}

impl MultiThreadBase for Debugged {
    fn read_registers(&mut self, regs: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let read = self.debugger.on(index(tid), |core| registers::read(&core.fd));
        *regs = read.ok_or(TargetError::Fatal(Fatal::Ended))?.map_err(|_| TargetError::NonFatal)?;
        Ok(())
    }

    fn write_registers(&mut self, regs: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let regs = regs.clone();
        let write = self.debugger.on(index(tid), move |core| registers::write(&core.fd, &regs));
        write.ok_or(TargetError::Fatal(Fatal::Ended))?.map_err(|_| TargetError::NonFatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let len = data.len();
        let done = self.pages(index(tid), start, len, |at, done, part| {
            self.vm.memory.read_slice(&mut data[done..done + part], at).is_ok()
        });
        if done == 0 && len > 0 { Err(TargetError::NonFatal) } else { Ok(done) }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let done = self.pages(index(tid), start, data.len(), |at, done, part| {
            self.vm.memory.write_slice(&data[done..done + part], at).is_ok()
        });
        if done == data.len() { Ok(()) } else { Err(TargetError::NonFatal) }
    }

    fn list_active_threads(&mut self, each: &mut dyn FnMut(Tid)) -> Result<(), Fatal> {
        (0..self.vm.cpus).map(tid).for_each(each);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Debugged {
    fn resume(&mut self) -> Result<(), Fatal> {
        let how = |index| {
            let named = self.named.iter().find(|(named, _)| *named == index);
            named.map_or(self.others, |(_, how)| *how)
        };
        self.debugger.resume(how);
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Fatal> {
        self.named.clear();
        self.others = Resume::Run;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Fatal> {
        self.named.push((index(tid), Resume::Run));
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSchedulerLocking for Debugged {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Fatal> {
        self.others = Resume::Stay;
        Ok(())
    }
}

impl MultiThreadSingleStep for Debugged {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), Fatal> {
        self.named.push((index(tid), Resume::Step));
        Ok(())
    }
}

impl Breakpoints for Debugged {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

type Kind = <X86_64_SSE as Arch>::BreakpointKind;

impl SwBreakpoint for Debugged {
    fn add_sw_breakpoint(&mut self, address: u64, _: Kind) -> TargetResult<bool, Self> {
        Ok(self.debugger.add_breakpoint(address))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: Kind) -> TargetResult<bool, Self> {
        Ok(self.debugger.remove_breakpoint(address))
    }
}

impl HwBreakpoint for Debugged {
    fn add_hw_breakpoint(&mut self, address: u64, _: Kind) -> TargetResult<bool, Self> {
        Ok(self.debugger.add_breakpoint(address))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: Kind) -> TargetResult<bool, Self> {
        Ok(self.debugger.remove_breakpoint(address))
    }
}
