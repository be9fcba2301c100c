//! What the guest's CPUID says.
//!
//! Starts from what KVM supports and changes what the guest's topology, its interrupt controller
//! and the absence of an in-kernel one make different. Owns that list. Must not know KVM's vCPUs.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use thiserror::Error;

use crate::kvm::Host;

/// What a vCPU's CPUID depends on.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// vCPUs of the VM.
    pub cpus: u32,
    /// Local APIC ID of this one.
    pub apic_id: u32,
    /// The local APIC is in user space, not in KVM.
    pub user_apic: bool,
    /// The APIC timer's TSC-deadline mode is offered.
    pub tsc_deadline: bool,
    /// Frequency of the guest's TSC, in kHz.
    pub tsc_khz: u32,
}

/// Why CPUID could not be made.
#[derive(Debug, Error)]
pub enum CpuidError {
    /// KVM does not say what it supports.
    #[error("cannot read KVM's supported CPUID: {0}")]
    Supported(#[source] kvm_ioctls::Error),
    /// More entries than a table holds.
    #[error("the CPUID table does not fit")]
    TooLong,
}

const LEAF_FEATURES: u32 = 0x1;
const LEAF_CACHES: u32 = 0x4;
const LEAF_POWER: u32 = 0x6;
const LEAF_PMU: u32 = 0xa;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_KVM: u32 = 0x4000_0000;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
/// TSC and APIC bus frequency in kHz, as other hypervisors offer it and kernels read it.
const LEAF_FREQUENCIES: u32 = 0x4000_0010;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;
const LEAF_AMD_PMU: u32 = 0x8000_0022;
const LEAF_AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// The virtual APIC timer counts at 1 GHz at divide-by-1.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// Bits of leaf 0x4000_0001, EAX, that mean nothing or harm without an in-kernel APIC: ASYNC_PF (4,
/// 10, 14) comes as interrupts, STEAL_TIME (5) follows the thread that enters, PV_UNHALT (7), PV_SEND_IPI (11), POLL_CONTROL (12) and PV_SCHED_YIELD (13) are served by the
/// in-kernel APIC alone (KVM CPUID documentation).
const NEEDS_KERNEL_APIC: u32 = bits(&[4, 5, 7, 10, 11, 12, 13, 14]);

const fn bits(list: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

/// The CPUID table of a vCPU.
///
/// # Errors
/// [`CpuidError`]: KVM does not tell, or the table overflows.
pub fn for_vcpu(host: &Host, options: &Options) -> Result<CpuId, CpuidError> {
    let supported =
        host.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(CpuidError::Supported)?;
    let entries = adapt(supported.as_slice(), options);
    CpuId::from_entries(&entries).map_err(|_| CpuidError::TooLong)
}

fn adapt(supported: &[kvm_cpuid_entry2], options: &Options) -> Vec<kvm_cpuid_entry2> {
    let replaced = |leaf: u32| {
        matches!(
            leaf,
            LEAF_TOPOLOGY
                | LEAF_TOPOLOGY_V2
                | LEAF_AMD_TOPOLOGY_V2
                | LEAF_FREQUENCIES
                | LEAF_PMU
                | LEAF_AMD_PMU
        )
    };
    let mut entries: Vec<_> =
        supported.iter().filter(|entry| !replaced(entry.function)).copied().collect();
    for entry in &mut entries {
        adapt_entry(entry, options);
    }
    entries.extend(topology(options));
    entries.push(kvm_cpuid_entry2 {
        function: LEAF_FREQUENCIES,
        eax: options.tsc_khz,
        ebx: APIC_BUS_KHZ,
        ..Default::default()
    });
    entries
}

fn adapt_entry(entry: &mut kvm_cpuid_entry2, options: &Options) {
    let id = options.apic_id;
    let cpus = options.cpus;
    match entry.function {
        LEAF_FEATURES => {
            entry.ebx = (entry.ebx & 0xffff) | (id << 24) | ((cpus & 0xff) << 16);
            set(&mut entry.edx, 28, cpus > 1); // HTT: EBX[23:16] is valid
            set(&mut entry.ecx, 3, false); // MONITOR: a halted vCPU must say so
            set(&mut entry.ecx, 21, true); // x2APIC
            set(&mut entry.ecx, 24, options.tsc_deadline);
            set(&mut entry.ecx, 31, true); // runs under a hypervisor
        }
        LEAF_CACHES => {
            let ids = cpus.next_power_of_two() - 1;
            entry.eax = (entry.eax & 0x03ff_ffff) | ((ids & 0x3f) << 26);
        }
        LEAF_POWER => set(&mut entry.eax, 2, true), // ARAT: the timer runs in every idle state
        LEAF_KVM => entry.eax = entry.eax.max(LEAF_FREQUENCIES),
        LEAF_KVM_FEATURES if options.user_apic => entry.eax &= !NEEDS_KERNEL_APIC,
        LEAF_AMD_FEATURES => set(&mut entry.ecx, 23, false), // core performance counters
        LEAF_AMD_SIZES => {
            let width = cpus.next_power_of_two().trailing_zeros();
            entry.ecx = (entry.ecx & !0xf0ff) | (width << 12) | ((cpus - 1) & 0xff);
        }
        LEAF_AMD_TOPOLOGY => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Leaf 0xb: one thread a core, all cores in one package (SDM vol. 2, CPUID).
fn topology(options: &Options) -> [kvm_cpuid_entry2; 3] {
    const SIGNIFICANT_INDEX: u32 = kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    const SMT: u32 = 1 << 8;
    const CORE: u32 = 2 << 8;
    let level = |index: u32, shift: u32, count: u32, kind: u32| kvm_cpuid_entry2 {
        function: LEAF_TOPOLOGY,
        index,
        flags: SIGNIFICANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind | index,
        edx: options.apic_id,
        ..Default::default()
    };
    let width = options.cpus.next_power_of_two().trailing_zeros();
    [level(0, 0, 1, SMT), level(1, width, options.cpus, CORE), level(2, 0, 0, 0)]
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = (*register & !(1 << bit)) | (u32::from(on) << bit);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options =
        Options { cpus: 4, apic_id: 3, user_apic: true, tsc_deadline: true, tsc_khz: 2_000_000 };

    fn leaf(function: u32, options: &Options) -> kvm_cpuid_entry2 {
        let all = |function| kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let supported: Vec<_> = [0, 1, 4, 6, 0xa, 0xb, 0x1f, LEAF_KVM_FEATURES, LEAF_AMD_SIZES]
            .map(all)
            .into_iter()
            .chain([kvm_cpuid_entry2 {
                function: LEAF_KVM,
                eax: LEAF_KVM_FEATURES,
                ..Default::default()
            }])
            .collect();
        let entries = adapt(&supported, options);
        entries.into_iter().find(|e| e.function == function).unwrap_or_default()
    }

    #[test]
    fn features_name_the_apic_id_and_the_timer_mode() {
        let entry = leaf(LEAF_FEATURES, &OPTIONS);
        assert_eq!(entry.ebx >> 24, 3);
        assert_eq!(entry.ebx >> 16 & 0xff, 4);
        assert_ne!(entry.ecx & 1 << 21, 0);
        assert_ne!(entry.ecx & 1 << 24, 0);
        assert_eq!(entry.ecx & 1 << 3, 0);
        let oneshot = Options { tsc_deadline: false, ..OPTIONS };
        assert_eq!(leaf(LEAF_FEATURES, &oneshot).ecx & 1 << 24, 0);
    }

    #[test]
    fn paravirtual_features_that_need_a_kernel_apic_are_hidden_without_one() {
        assert_eq!(leaf(LEAF_KVM_FEATURES, &OPTIONS).eax & NEEDS_KERNEL_APIC, 0);
        assert_ne!(leaf(LEAF_KVM_FEATURES, &OPTIONS).eax & 1 << 3, 0, "kvmclock stays");
        let kernel = Options { user_apic: false, ..OPTIONS };
        assert_eq!(leaf(LEAF_KVM_FEATURES, &kernel).eax, u32::MAX);
    }

    #[test]
    fn frequencies_can_be_found_by_a_guest_that_asks_for_the_highest_leaf() {
        assert_eq!(leaf(LEAF_KVM, &OPTIONS).eax, LEAF_FREQUENCIES);
        assert_eq!(leaf(LEAF_FREQUENCIES, &OPTIONS).eax, 2_000_000);
    }

    #[test]
    fn topology_is_one_package_and_there_is_no_pmu() {
        assert_eq!(leaf(LEAF_TOPOLOGY, &OPTIONS).edx, 3);
        assert_eq!(leaf(LEAF_PMU, &OPTIONS).eax, 0);
        assert_eq!(leaf(LEAF_TOPOLOGY_V2, &OPTIONS).ebx, 0);
        assert_eq!(leaf(LEAF_AMD_SIZES, &OPTIONS).ecx & 0xff, 3);
    }
}
