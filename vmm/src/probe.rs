//! What this host's KVM does that no capability tells, found out with a scratch VM.
//!
//! Owns the scratch VM and its few bytes of real-mode code. Must not know what is made of the
//! answers.

#![allow(unsafe_code)] // announces an entry with the kvm_run page

use std::fs;
use std::io;
use std::sync::mpsc;
use std::thread;

use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

use crate::clock;
use crate::cpu_features::CpuFeatures;
use crate::cpuid::{self, CpuidError};
use crate::kvm::{Host, KvmError};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::msr;
use crate::vcpu::{self, Entry, HostTimer, ThreadState};

/// What was found out about the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The CPU has neither VMX nor SVM: KVM runs guest kernels by emulation.
    pub pvm_type: bool,
    /// A guest's write of the TSC deadline arrives as an exit; elsewhere KVM drops it silently.
    pub tsc_deadline_exits: bool,
    /// Median time of a `KVM_RUN` that ends with an exit to user space, in nanoseconds.
    pub exit_cost_ns: u64,
    /// The same, when another thread ran the vCPU last. Before Linux 6.13 it is milliseconds.
    pub other_thread_cost_ns: u64,
    /// Median time from the expiry of a sleeping thread's time-out until the thread runs, in
    /// nanoseconds.
    pub wakeup_ns: u64,
    /// A guest's TSC can be moved. Elsewhere it is the host's, and KVM takes other offsets silently.
    pub tsc_moves: bool,
    /// Frequency of the guests' TSC, in kHz.
    pub tsc_khz: u32,
}

/// Why the host could not be probed.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Memory of the scratch VM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A KVM setting.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// CPUID of the scratch VM.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// An ioctl.
    #[error("probing KVM: {what}: {source}")]
    Ioctl {
        /// What was tried.
        what: &'static str,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The scratch code could not be written.
    #[error("probing KVM: scratch memory: {0}")]
    Code(#[from] vm_memory::GuestMemoryError),
    /// The scratch guest did something that it cannot do.
    #[error("probing KVM: the scratch guest ended with {0}")]
    Unexpected(String),
    /// There is no host timer.
    #[error("probing KVM: no host timer: {0}")]
    Timer(#[source] io::Error),
}

fn ioctl(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> ProbeError {
    move |source| ProbeError::Ioctl { what, source }
}

const SCRATCH_BYTES: u64 = 64 * 1024;
const CODE: u64 = 0x1000;
/// Where a fault of the scratch code ends up.
const FAULT: u64 = 0x1100;
const FAULT_VECTORS: [u64; 2] = [6, 13];

/// `mov ecx, 0x6e0; xor edx, edx; mov eax, 1; wrmsr; l: hlt; jmp l`, 16-bit.
const SCRATCH: [u8; 20] = [
    0x66, 0xb9, 0xe0, 0x06, 0x00, 0x00, 0x66, 0x31, 0xd2, 0x66, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f,
    0x30, 0xf4, 0xeb, 0xfd,
];

/// `l: jmp l`.
const SPIN: [u8; 2] = [0xeb, 0xfe];
const SPIN_AT: u64 = 0x1200;
/// How far ahead the timer is set that ends the spinning, in nanoseconds.
const SPIN_NS: u64 = 200_000;

/// Sleeps that are timed, and how long each is.
const SLEEPS: usize = 15;
const SLEEP_NS: u64 = 100_000;

/// How many exits are timed, at most, and for how long; but some of them in any case: the start of a
/// thread alone may take longer on a host that is busy, and no figure would look like a good one.
const ROUNDS: usize = 64;
const PATIENCE_NS: u64 = 300_000_000;
const FEWEST_ROUNDS: usize = 6;

/// Finds out. Takes a few milliseconds.
///
/// # Errors
/// [`ProbeError`]: not even the scratch VM could be run.
pub fn run(host: &Host) -> Result<Facts, ProbeError> {
    let scratch = Scratch::new(host)?;
    let Scratch { mut vcpu, vm: _vm, memory: _memory } = scratch;
    let tsc_khz = vcpu.get_tsc_khz().map_err(ioctl("cannot read the TSC frequency"))?;
    let mut tsc_deadline_exits = false;
    loop {
        match vcpu.run().map_err(ioctl("cannot run the scratch guest"))? {
            VcpuExit::X86Wrmsr(write) => {
                tsc_deadline_exits = true;
                *write.error = 0;
            }
            VcpuExit::Hlt => break,
            other => return Err(ProbeError::Unexpected(format!("{other:?}"))),
        }
    }
    let exit_cost_ns = median(timed_here(&mut vcpu)?);
    let other_thread_cost_ns = median(timed_by_turns(&mut vcpu)?);
    Ok(Facts {
        pvm_type: !hardware_virtualisation(
            &fs::read_to_string("/proc/cpuinfo").unwrap_or_default(),
        ),
        tsc_deadline_exits,
        exit_cost_ns,
        other_thread_cost_ns,
        wakeup_ns: wakeup_ns(),
        tsc_moves: msr::tsc_moves(&vcpu),
        tsc_khz,
    })
}

/// Measured on a thread of its own, whose sleeps are as exact as those of vCPU threads.
fn wakeup_ns() -> u64 {
    let sleeps = || {
        // SAFETY: takes integers only (PR_SET_TIMERSLACK, prctl(2)).
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
        let late = |_| {
            let until = clock::now_ns() + SLEEP_NS;
            std::thread::sleep(std::time::Duration::from_nanos(SLEEP_NS));
            clock::now_ns().saturating_sub(until)
        };
        median((0..SLEEPS).map(late).collect())
    };
    std::thread::scope(|scope| scope.spawn(sleeps).join()).unwrap_or_default()
}

/// Median time, in nanoseconds, from the expiry of a thread's host timer until the thread has left
/// its guest.
///
/// # Errors
/// [`ProbeError`]: not even the scratch VM could be run.
pub fn timer_exit_ns(host: &Host) -> Result<u64, ProbeError> {
    let Scratch { mut vcpu, vm: _vm, memory } = Scratch::new(host)?;
    memory.write_slice(&SPIN, GuestAddress(SPIN_AT))?;
    let mut regs = vcpu.get_regs().map_err(ioctl("cannot read registers"))?;
    regs.rip = SPIN_AT;
    vcpu.set_regs(&regs).map_err(ioctl("cannot set registers"))?;
    vcpu::hold_signal();
    vcpu::admit_signal(&vcpu).map_err(ioctl("cannot set the signal mask"))?;
    let thread = ThreadState::default();
    thread.adopt_current_thread();
    let mut timer =
        HostTimer::for_current_thread(vcpu::signal_number()).map_err(ProbeError::Timer)?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let now = clock::now_ns();
        timer.arm(Some(now + SPIN_NS), 0, now);
        let entry = Entry::new(&thread);
        let ended = vcpu.run().map(|exit| format!("{exit:?}"));
        drop(entry);
        match ended {
            Err(e) if e.errno() == libc::EINTR => {
                vcpu::take_signal();
                times.extend(timer.fired(clock::now_ns()));
            }
            Err(source) => {
                return Err(ProbeError::Ioctl { what: "cannot run the scratch guest", source });
            }
            Ok(other) => return Err(ProbeError::Unexpected(other)),
        }
    }
    Ok(median(times))
}

struct Scratch {
    vcpu: VcpuFd,
    vm: VmFd,
    memory: GuestMemory,
}

impl Scratch {
    fn new(host: &Host) -> Result<Self, ProbeError> {
        let memory = memory::create(SCRATCH_BYTES)?;
        memory.write_slice(&SCRATCH, GuestAddress(CODE))?;
        memory.write_obj(0xf4u8, GuestAddress(FAULT))?;
        for vector in FAULT_VECTORS {
            memory.write_obj(FAULT as u32, GuestAddress(vector * 4))?;
        }
        let vm = host.kvm.create_vm().map_err(ioctl("cannot create a VM"))?;
        msr::enable_user_space_msrs(&vm)?;
        memory::register(&vm, &memory)?;
        let vcpu = vm.create_vcpu(0).map_err(ioctl("cannot create a vCPU"))?;
        let options = cpuid::Options {
            cpus: 1,
            apic_id: 0,
            user_apic: true,
            tsc_deadline: true,
            tsc_adjust: true,
            tsc_khz: 0,
        };
        let leaves = cpuid::for_vcpu(host, &options, &CpuFeatures::default())?;
        vcpu.set_cpuid2(&leaves).map_err(ioctl("cannot set CPUID"))?;
        let mut sregs = vcpu.get_sregs().map_err(ioctl("cannot read registers"))?;
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        vcpu.set_sregs(&sregs).map_err(ioctl("cannot set registers"))?;
        let regs = kvm_bindings::kvm_regs {
            rip: CODE,
            rsp: SCRATCH_BYTES - 16,
            rflags: 2,
            ..Default::default()
        };
        vcpu.set_regs(&regs).map_err(ioctl("cannot set registers"))?;
        Ok(Scratch { vcpu, vm, memory })
    }
}

/// One timed run, from one HLT to the next.
fn timed(vcpu: &mut VcpuFd) -> Result<u64, ProbeError> {
    let before = clock::now_ns();
    match vcpu.run() {
        Ok(_) => Ok(clock::now_ns().saturating_sub(before)),
        Err(e) if e.errno() == libc::EINTR => Ok(clock::now_ns().saturating_sub(before)),
        Err(source) => Err(ProbeError::Ioctl { what: "cannot run the scratch guest", source }),
    }
}

fn timed_here(vcpu: &mut VcpuFd) -> Result<Vec<u64>, ProbeError> {
    (0..ROUNDS).map(|_| timed(vcpu)).collect()
}

/// Two threads run the vCPU in turns; only runs that follow one of the other thread are timed.
fn timed_by_turns(vcpu: &mut VcpuFd) -> Result<Vec<u64>, ProbeError> {
    let started = clock::now_ns();
    thread::scope(|scope| {
        let (give, take) = mpsc::sync_channel::<&mut VcpuFd>(0);
        let (give_back, take_back) = mpsc::sync_channel(0);
        scope.spawn(move || {
            while let Ok(vcpu) = take.recv() {
                let result = timed(vcpu);
                if give_back.send((vcpu, result)).is_err() {
                    return;
                }
            }
        });
        let mut times = Vec::new();
        let mut vcpu = vcpu;
        while goes_on(times.len(), clock::now_ns().saturating_sub(started)) {
            let gone = || ProbeError::Unexpected("a thread that died".into());
            give.send(vcpu).map_err(|_| gone())?;
            let (back, time) = take_back.recv().map_err(|_| gone())?;
            vcpu = back;
            times.push(time?);
            times.push(timed(vcpu)?);
        }
        Ok(times)
    })
}

/// Whether there is another turn after so many runs and nanoseconds.
fn goes_on(runs: usize, passed_ns: u64) -> bool {
    runs < FEWEST_ROUNDS || (runs < ROUNDS && passed_ns < PATIENCE_NS)
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

fn hardware_virtualisation(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| line.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_without_vmx_and_svm_is_of_the_emulating_kind() {
        assert!(hardware_virtualisation("flags\t\t: fpu vmx ept\n"));
        assert!(hardware_virtualisation("model name: x\nflags : svm\n"));
        assert!(!hardware_virtualisation("flags\t\t: fpu svm_lock\nbugs: vmx\n"));
    }

    #[test]
    fn turns_are_measured_even_where_the_first_comes_late() {
        assert!(goes_on(0, 10 * PATIENCE_NS));
        assert!(!goes_on(FEWEST_ROUNDS, PATIENCE_NS));
        assert!(goes_on(FEWEST_ROUNDS, PATIENCE_NS - 1));
        assert!(!goes_on(ROUNDS, 0));
    }

    #[test]
    fn median_of_nothing_is_nothing() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![5, 1, 9]), 5);
    }
}
