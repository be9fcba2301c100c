//! Where each CPU feature stands in CPUID, under Linux's name for it.
//!
//! Owns the table. Must not know what is made of it. Sources: SDM volume 2, CPUID; AMD's Architecture
//! Programmer's Manual volume 3, appendix E; KVM's CPUID documentation for those that begin with
//! `kvm_`, whose names are KVM's own.

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Who may change a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The user.
    Free,
    /// Nobody: it follows something else.
    Fixed(&'static str),
    /// The user, where the local APIC is in KVM.
    KernelApic(&'static str),
    /// The user may take it away.
    RemoveOnly(&'static str),
}

/// One feature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) leaf: u32,
    pub(super) subleaf: u32,
    pub(super) register: Register,
    pub(super) bit: u8,
    pub(super) rule: Rule,
}

use Register::{Eax, Ebx, Ecx, Edx};
use Rule::{Fixed, Free, KernelApic, RemoveOnly};

const fn at(
    (leaf, subleaf, register): (u32, u32, Register),
    bit: u8,
    name: &'static str,
    rule: Rule,
) -> Feature {
    Feature { name, leaf, subleaf, register, bit, rule }
}

const TOPOLOGY: Rule = Fixed("it follows --cpus");
const NO_PMU: Rule = Fixed("guests have no performance counters");
const IN_KERNEL: Rule = KernelApic("it needs --timers kernel, where the APIC is KVM's");

const F1_EDX: (u32, u32, Register) = (1, 0, Edx);
const F1_ECX: (u32, u32, Register) = (1, 0, Ecx);
const F6_EAX: (u32, u32, Register) = (6, 0, Eax);
const F7_EBX: (u32, u32, Register) = (7, 0, Ebx);
const F7_ECX: (u32, u32, Register) = (7, 0, Ecx);
const F7_EDX: (u32, u32, Register) = (7, 0, Edx);
const F7_1_EAX: (u32, u32, Register) = (7, 1, Eax);
const FD_EAX: (u32, u32, Register) = (0xd, 1, Eax);
const A1_EDX: (u32, u32, Register) = (0x8000_0001, 0, Edx);
const A1_ECX: (u32, u32, Register) = (0x8000_0001, 0, Ecx);
const A7_EDX: (u32, u32, Register) = (0x8000_0007, 0, Edx);
const A8_EBX: (u32, u32, Register) = (0x8000_0008, 0, Ebx);
const AA_EDX: (u32, u32, Register) = (0x8000_000a, 0, Edx);
const KVM: (u32, u32, Register) = (0x4000_0001, 0, Eax);

/// Every feature that can be named.
#[rustfmt::skip]
pub(super) const TABLE: &[Feature] = &[
    at(F1_EDX, 0, "fpu", Free),
    at(F1_EDX, 1, "vme", Free),
    at(F1_EDX, 2, "de", Free),
    at(F1_EDX, 3, "pse", Free),
    at(F1_EDX, 4, "tsc", Free),
    at(F1_EDX, 5, "msr", Free),
    at(F1_EDX, 6, "pae", Free),
    at(F1_EDX, 7, "mce", Free),
    at(F1_EDX, 8, "cx8", Free),
    at(F1_EDX, 9, "apic", Fixed("every vCPU has a local APIC")),
    at(F1_EDX, 11, "sep", Free),
    at(F1_EDX, 12, "mtrr", Free),
    at(F1_EDX, 13, "pge", Free),
    at(F1_EDX, 14, "mca", Free),
    at(F1_EDX, 15, "cmov", Free),
    at(F1_EDX, 16, "pat", Free),
    at(F1_EDX, 17, "pse36", Free),
    at(F1_EDX, 18, "pn", Free),
    at(F1_EDX, 19, "clflush", Free),
    at(F1_EDX, 21, "dts", NO_PMU),
    at(F1_EDX, 22, "acpi", Fixed("guests have no thermal or frequency control")),
    at(F1_EDX, 23, "mmx", Free),
    at(F1_EDX, 24, "fxsr", Free),
    at(F1_EDX, 25, "sse", Free),
    at(F1_EDX, 26, "sse2", Free),
    at(F1_EDX, 27, "ss", Free),
    at(F1_EDX, 28, "ht", TOPOLOGY),
    at(F1_EDX, 29, "tm", Fixed("guests have no thermal or frequency control")),
    at(F1_EDX, 31, "pbe", Fixed("guests have no thermal or frequency control")),
    at(F1_ECX, 0, "pni", Free),
    at(F1_ECX, 1, "pclmulqdq", Free),
    at(F1_ECX, 2, "dtes64", NO_PMU),
    at(F1_ECX, 3, "monitor", Fixed("a halted vCPU has to say so, by HLT")),
    at(F1_ECX, 4, "ds_cpl", NO_PMU),
    at(F1_ECX, 5, "vmx", Free),
    at(F1_ECX, 6, "smx", Free),
    at(F1_ECX, 7, "est", Fixed("guests have no thermal or frequency control")),
    at(F1_ECX, 8, "tm2", Fixed("guests have no thermal or frequency control")),
    at(F1_ECX, 9, "ssse3", Free),
    at(F1_ECX, 10, "cid", Free),
    at(F1_ECX, 11, "sdbg", Free),
    at(F1_ECX, 12, "fma", Free),
    at(F1_ECX, 13, "cx16", Free),
    at(F1_ECX, 14, "xtpr", Free),
    at(F1_ECX, 15, "pdcm", NO_PMU),
    at(F1_ECX, 17, "pcid", Free),
    at(F1_ECX, 18, "dca", Free),
    at(F1_ECX, 19, "sse4_1", Free),
    at(F1_ECX, 20, "sse4_2", Free),
    at(F1_ECX, 21, "x2apic", IN_KERNEL),
    at(F1_ECX, 22, "movbe", Free),
    at(F1_ECX, 23, "popcnt", Free),
    at(F1_ECX, 24, "tsc_deadline_timer", Fixed("it follows --apic-timer")),
    at(F1_ECX, 25, "aes", Free),
    at(F1_ECX, 26, "xsave", Free),
    at(F1_ECX, 28, "avx", Free),
    at(F1_ECX, 29, "f16c", Free),
    at(F1_ECX, 30, "rdrand", Free),
    at(F1_ECX, 31, "hypervisor", Fixed("guests have to know that they run under one")),
    at(F6_EAX, 2, "arat", Fixed("the APIC timer runs in every idle state")),
    at(F7_EBX, 0, "fsgsbase", Free),
    at(F7_EBX, 1, "tsc_adjust", RemoveOnly("it is there where KVM can move the TSC")),
    at(F7_EBX, 2, "sgx", Free),
    at(F7_EBX, 3, "bmi1", Free),
    at(F7_EBX, 4, "hle", Free),
    at(F7_EBX, 5, "avx2", Free),
    at(F7_EBX, 7, "smep", Free),
    at(F7_EBX, 8, "bmi2", Free),
    at(F7_EBX, 9, "erms", Free),
    at(F7_EBX, 10, "invpcid", Free),
    at(F7_EBX, 11, "rtm", Free),
    at(F7_EBX, 12, "cqm", Free),
    at(F7_EBX, 14, "mpx", Free),
    at(F7_EBX, 15, "rdt_a", Free),
    at(F7_EBX, 16, "avx512f", Free),
    at(F7_EBX, 17, "avx512dq", Free),
    at(F7_EBX, 18, "rdseed", Free),
    at(F7_EBX, 19, "adx", Free),
    at(F7_EBX, 20, "smap", Free),
    at(F7_EBX, 21, "avx512ifma", Free),
    at(F7_EBX, 23, "clflushopt", Free),
    at(F7_EBX, 24, "clwb", Free),
    at(F7_EBX, 25, "intel_pt", Free),
    at(F7_EBX, 26, "avx512pf", Free),
    at(F7_EBX, 27, "avx512er", Free),
    at(F7_EBX, 28, "avx512cd", Free),
    at(F7_EBX, 29, "sha_ni", Free),
    at(F7_EBX, 30, "avx512bw", Free),
    at(F7_EBX, 31, "avx512vl", Free),
    at(F7_ECX, 1, "avx512vbmi", Free),
    at(F7_ECX, 2, "umip", Free),
    at(F7_ECX, 3, "pku", Free),
    at(F7_ECX, 5, "waitpkg", Free),
    at(F7_ECX, 6, "avx512_vbmi2", Free),
    at(F7_ECX, 8, "gfni", Free),
    at(F7_ECX, 9, "vaes", Free),
    at(F7_ECX, 10, "vpclmulqdq", Free),
    at(F7_ECX, 11, "avx512_vnni", Free),
    at(F7_ECX, 12, "avx512_bitalg", Free),
    at(F7_ECX, 13, "tme", Free),
    at(F7_ECX, 14, "avx512_vpopcntdq", Free),
    at(F7_ECX, 16, "la57", Free),
    at(F7_ECX, 22, "rdpid", Free),
    at(F7_ECX, 24, "bus_lock_detect", Free),
    at(F7_ECX, 25, "cldemote", Free),
    at(F7_ECX, 27, "movdiri", Free),
    at(F7_ECX, 28, "movdir64b", Free),
    at(F7_ECX, 29, "enqcmd", Free),
    at(F7_ECX, 30, "sgx_lc", Free),
    at(F7_EDX, 2, "avx512_4vnniw", Free),
    at(F7_EDX, 3, "avx512_4fmaps", Free),
    at(F7_EDX, 4, "fsrm", Free),
    at(F7_EDX, 8, "avx512_vp2intersect", Free),
    at(F7_EDX, 10, "md_clear", Free),
    at(F7_EDX, 14, "serialize", Free),
    at(F7_EDX, 16, "tsxldtrk", Free),
    at(F7_EDX, 18, "pconfig", Free),
    at(F7_EDX, 19, "arch_lbr", Free),
    at(F7_EDX, 20, "ibt", Free),
    at(F7_EDX, 22, "amx_bf16", Free),
    at(F7_EDX, 23, "avx512_fp16", Free),
    at(F7_EDX, 24, "amx_tile", Free),
    at(F7_EDX, 25, "amx_int8", Free),
    at(F7_EDX, 28, "flush_l1d", Free),
    at(F7_EDX, 29, "arch_capabilities", Free),
    at(F7_1_EAX, 4, "avx_vnni", Free),
    at(F7_1_EAX, 5, "avx512_bf16", Free),
    at(F7_1_EAX, 26, "lam", Free),
    at(FD_EAX, 0, "xsaveopt", Free),
    at(FD_EAX, 1, "xsavec", Free),
    at(FD_EAX, 2, "xgetbv1", Free),
    at(FD_EAX, 3, "xsaves", Free),
    at(A1_EDX, 11, "syscall", Free),
    at(A1_EDX, 19, "mp", Free),
    at(A1_EDX, 20, "nx", Free),
    at(A1_EDX, 22, "mmxext", Free),
    at(A1_EDX, 25, "fxsr_opt", Free),
    at(A1_EDX, 26, "pdpe1gb", Free),
    at(A1_EDX, 27, "rdtscp", Free),
    at(A1_EDX, 29, "lm", Free),
    at(A1_EDX, 30, "3dnowext", Free),
    at(A1_EDX, 31, "3dnow", Free),
    at(A1_ECX, 0, "lahf_lm", Free),
    at(A1_ECX, 1, "cmp_legacy", TOPOLOGY),
    at(A1_ECX, 2, "svm", Free),
    at(A1_ECX, 3, "extapic", Fixed("the APIC has no extended registers")),
    at(A1_ECX, 4, "cr8_legacy", Free),
    at(A1_ECX, 5, "abm", Free),
    at(A1_ECX, 6, "sse4a", Free),
    at(A1_ECX, 7, "misalignsse", Free),
    at(A1_ECX, 8, "3dnowprefetch", Free),
    at(A1_ECX, 9, "osvw", Free),
    at(A1_ECX, 10, "ibs", NO_PMU),
    at(A1_ECX, 11, "xop", Free),
    at(A1_ECX, 12, "skinit", Free),
    at(A1_ECX, 13, "wdt", Free),
    at(A1_ECX, 15, "lwp", Free),
    at(A1_ECX, 16, "fma4", Free),
    at(A1_ECX, 17, "tce", Free),
    at(A1_ECX, 19, "nodeid_msr", Free),
    at(A1_ECX, 21, "tbm", Free),
    at(A1_ECX, 22, "topoext", TOPOLOGY),
    at(A1_ECX, 23, "perfctr_core", NO_PMU),
    at(A1_ECX, 24, "perfctr_nb", NO_PMU),
    at(A1_ECX, 26, "bpext", Free),
    at(A1_ECX, 27, "ptsc", Free),
    at(A1_ECX, 28, "perfctr_llc", NO_PMU),
    at(A1_ECX, 29, "mwaitx", Fixed("a halted vCPU has to say so, by HLT")),
    at(A7_EDX, 8, "nonstop_tsc", Free),
    at(A8_EBX, 0, "clzero", Free),
    at(A8_EBX, 1, "irperf", Free),
    at(A8_EBX, 2, "xsaveerptr", Free),
    at(A8_EBX, 4, "rdpru", Free),
    at(A8_EBX, 9, "wbnoinvd", Free),
    at(A8_EBX, 23, "amd_ppin", Free),
    at(A8_EBX, 25, "virt_ssbd", Free),
    at(AA_EDX, 0, "npt", Free),
    at(AA_EDX, 1, "lbrv", Free),
    at(AA_EDX, 2, "svm_lock", Free),
    at(AA_EDX, 3, "nrip_save", Free),
    at(AA_EDX, 4, "tsc_scale", Free),
    at(AA_EDX, 5, "vmcb_clean", Free),
    at(AA_EDX, 6, "flushbyasid", Free),
    at(AA_EDX, 7, "decodeassists", Free),
    at(AA_EDX, 10, "pausefilter", Free),
    at(AA_EDX, 12, "pfthreshold", Free),
    at(AA_EDX, 13, "avic", Free),
    at(AA_EDX, 15, "v_vmsave_vmload", Free),
    at(AA_EDX, 16, "vgif", Free),
    at(KVM, 0, "kvm_clocksource", Free),
    at(KVM, 1, "kvm_nop_io_delay", Free),
    at(KVM, 3, "kvm_clocksource2", Free),
    at(KVM, 4, "kvm_async_pf", IN_KERNEL),
    at(KVM, 5, "kvm_steal_time", IN_KERNEL),
    at(KVM, 6, "kvm_pv_eoi", Free),
    at(KVM, 7, "kvm_pv_unhalt", IN_KERNEL),
    at(KVM, 9, "kvm_pv_tlb_flush", Free),
    at(KVM, 10, "kvm_async_pf_vmexit", IN_KERNEL),
    at(KVM, 11, "kvm_pv_send_ipi", IN_KERNEL),
    at(KVM, 12, "kvm_poll_control", IN_KERNEL),
    at(KVM, 13, "kvm_pv_sched_yield", IN_KERNEL),
    at(KVM, 14, "kvm_async_pf_int", IN_KERNEL),
    at(KVM, 15, "kvm_msi_ext_dest_id", Free),
    at(KVM, 24, "kvm_clocksource_stable", Free),
];
