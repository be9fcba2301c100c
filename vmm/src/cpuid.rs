//! What the guest's CPUID says.
//!
//! Starts from what KVM supports and changes what the guest's topology, its interrupt controller
//! and the absence of an in-kernel one make different. Owns that list. Must not know KVM's vCPUs.
//!
//! The topology is one package of cores with one thread each; vCPU `n` has APIC ID `n`, as the MP and
//! ACPI tables say too. Sources: SDM volume 2, CPUID; AMD's Architecture Programmer's Manual volume
//! 3, appendix E.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use thiserror::Error;

use crate::cpu_features::{CpuFeatures, FeatureError};
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
    /// The TSC can be moved: IA32_TSC_ADJUST is offered.
    pub tsc_adjust: bool,
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
    /// A feature that was asked for.
    #[error("--cpu-features: {0}")]
    Feature(#[from] FeatureError),
}

const LEAF_VENDOR: u32 = 0x0;
const LEAF_FEATURES: u32 = 0x1;
const LEAF_CACHES: u32 = 0x4;
const LEAF_POWER: u32 = 0x6;
const LEAF_FEATURES_7: u32 = 0x7;
const LEAF_PMU: u32 = 0xa;
const LEAF_TOPOLOGY: u32 = 0xb;
/// TSC and crystal clock.
const LEAF_TSC: u32 = 0x15;
/// Processor and bus frequency.
const LEAF_MHZ: u32 = 0x16;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_KVM: u32 = 0x4000_0000;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
/// TSC and APIC bus frequency in kHz, as other hypervisors offer it and kernels read it.
const LEAF_FREQUENCIES: u32 = 0x4000_0010;
const LEAF_AMD_VENDOR: u32 = 0x8000_0000;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;
const LEAF_AMD_PMU: u32 = 0x8000_0022;
const LEAF_AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// Physical-address bits of a processor that does not tell them.
const FEWEST_PHYSICAL_BITS: u8 = 36;

/// The virtual APIC timer counts at 1 GHz at divide-by-1.
const APIC_BUS_KHZ: u32 = 1_000_000;
/// The largest numerator that leaf 0x15 may have: Linux multiplies it with the crystal's kHz in 32
/// bits.
const NUMERATOR_MOST: u32 = u32::MAX / APIC_BUS_KHZ;

/// Bits of leaf 0x4000_0001, EAX, that mean nothing or harm without an in-kernel APIC: ASYNC_PF (4,
/// 10, 14) comes as interrupts, STEAL_TIME (5) follows the thread that enters, PV_UNHALT (7),
/// PV_SEND_IPI (11), POLL_CONTROL (12) and PV_SCHED_YIELD (13) are served by the in-kernel APIC alone
/// (KVM CPUID documentation).
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

/// The CPUID table of a vCPU, with these changes.
///
/// # Errors
/// [`CpuidError`]: KVM does not tell, the table overflows, or a change is not possible.
pub fn for_vcpu(
    host: &Host,
    options: &Options,
    features: &CpuFeatures,
) -> Result<CpuId, CpuidError> {
    let supported = host.supported_cpuid().map_err(CpuidError::Supported)?;
    let mut entries = adapt(supported.as_slice(), options);
    features.apply(&mut entries, supported.as_slice(), options.user_apic)?;
    CpuId::from_entries(&entries).map_err(|_| CpuidError::TooLong)
}

/// Physical-address bits that the table tells the guest; 36 where it does not say (SDM volume 2,
/// CPUID, leaf 80000008H). KVM takes no more from it, in IA32_APIC_BASE for one.
#[must_use]
pub fn physical_bits(table: &CpuId) -> u8 {
    let sizes = table.as_slice().iter().find(|entry| entry.function == LEAF_AMD_SIZES);
    sizes.map_or(FEWEST_PHYSICAL_BITS, |sizes| sizes.eax as u8)
}

fn adapt(supported: &[kvm_cpuid_entry2], options: &Options) -> Vec<kvm_cpuid_entry2> {
    let replaced = |leaf: u32| {
        matches!(
            leaf,
            LEAF_TOPOLOGY
                | LEAF_TSC
                | LEAF_MHZ
                | LEAF_TOPOLOGY_V2
                | LEAF_AMD_TOPOLOGY_V2
                | LEAF_FREQUENCIES
                | LEAF_PMU
                | LEAF_AMD_PMU
        )
    };
    let mut entries: Vec<_> =
        supported.iter().filter(|entry| !replaced(entry.function)).copied().collect();
    let amd = is_amd(supported);
    for entry in &mut entries {
        adapt_entry(entry, options, amd);
    }
    for leaf in [LEAF_TOPOLOGY, LEAF_TOPOLOGY_V2] {
        entries.extend(topology(
            leaf,
            &[(SMT, 0, 1), (CORE, width(options.cpus), options.cpus)],
            options,
        ));
    }
    if amd {
        entries.extend(amd_topology(options));
    }
    entries.extend(clocks(options.tsc_khz));
    entries.push(kvm_cpuid_entry2 {
        function: LEAF_FREQUENCIES,
        eax: options.tsc_khz,
        ebx: APIC_BUS_KHZ,
        ..Default::default()
    });
    entries
}

/// Whether the CPU's vendor is AMD, or Hygon, whose CPUs are told apart as AMD's are.
fn is_amd(supported: &[kvm_cpuid_entry2]) -> bool {
    let vendor = supported.iter().find(|entry| entry.function == LEAF_VENDOR);
    let amd = [*b"Auth", *b"Hygo"].map(u32::from_le_bytes);
    vendor.is_some_and(|vendor| amd.contains(&vendor.ebx))
}

/// How many bits of an APIC ID tell `cpus` CPUs apart.
fn width(cpus: u32) -> u32 {
    cpus.next_power_of_two().trailing_zeros()
}

fn adapt_entry(entry: &mut kvm_cpuid_entry2, options: &Options, amd: bool) {
    let id = options.apic_id;
    let cpus = options.cpus;
    // IDs that the package has room for.
    let ids = cpus.next_power_of_two();
    match entry.function {
        LEAF_VENDOR => entry.eax = entry.eax.max(LEAF_TOPOLOGY_V2),
        LEAF_FEATURES => {
            // The fields have 8 bits each: larger IDs are in the topology leaves alone.
            entry.ebx = (entry.ebx & 0xffff) | (id << 24) | (cpus.min(0xff) << 16);
            set(&mut entry.edx, 28, cpus > 1); // HTT: EBX[23:16] is valid
            set(&mut entry.ecx, 3, false); // MONITOR: a halted vCPU must say so
            set(&mut entry.ecx, 21, true); // x2APIC
            set(&mut entry.ecx, 24, options.tsc_deadline);
            set(&mut entry.ecx, 31, true); // runs under a hypervisor
        }
        LEAF_CACHES | LEAF_AMD_CACHES if entry.eax & 0x1f != 0 => {
            // The first two levels are a core's own, the third is the package's.
            let sharing = if entry.eax >> 5 & 7 > 2 { ids.min(0x1000) - 1 } else { 0 };
            entry.eax = (entry.eax & 0xfc00_3fff) | (sharing << 14);
            if entry.function == LEAF_CACHES {
                entry.eax = (entry.eax & 0x03ff_ffff) | ((ids.min(64) - 1) << 26);
            }
        }
        // IA32_TSC_ADJUST
        LEAF_FEATURES_7 if entry.index == 0 => {
            let offered = options.tsc_adjust && entry.ebx & 1 << 1 != 0;
            set(&mut entry.ebx, 1, offered);
        }
        LEAF_POWER => set(&mut entry.eax, 2, true), // ARAT: the timer runs in every idle state
        LEAF_KVM => entry.eax = entry.eax.max(LEAF_FREQUENCIES),
        LEAF_KVM_FEATURES if options.user_apic => entry.eax &= !NEEDS_KERNEL_APIC,
        LEAF_AMD_VENDOR if amd => entry.eax = entry.eax.max(LEAF_AMD_TOPOLOGY_V2),
        LEAF_AMD_FEATURES => {
            set(&mut entry.ecx, 1, amd && cpus > 1); // CmpLegacy: threads of leaf 1 are cores
            set(&mut entry.ecx, 23, false); // core performance counters
        }
        LEAF_AMD_SIZES => {
            entry.ecx = (entry.ecx & !0xf0ff) | (width(cpus) << 12) | (cpus.min(0x100) - 1);
        }
        LEAF_AMD_TOPOLOGY => {
            entry.eax = id;
            entry.ebx = id & 0xff;
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Level types of leaves 0xb and 0x1f.
const SMT: u32 = 1;
const CORE: u32 = 2;

/// A topology leaf with these levels: type, bits of the APIC ID to shift out for the next level's ID,
/// and CPUs at this level. A level of type 0 ends it.
fn topology(leaf: u32, levels: &[(u32, u32, u32)], options: &Options) -> Vec<kvm_cpuid_entry2> {
    let level = |(index, &(kind, shift, count)): (u32, &(u32, u32, u32))| kvm_cpuid_entry2 {
        function: leaf,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count & 0xffff,
        ecx: kind << 8 | index,
        edx: options.apic_id,
        ..Default::default()
    };
    (0..).zip(levels.iter().chain([&(0, 0, 0)])).map(level).collect()
}

/// AMD's leaf 0x8000_0026, whose level types are core, complex, die and socket.
fn amd_topology(options: &Options) -> Vec<kvm_cpuid_entry2> {
    let package = |kind| (kind, width(options.cpus), options.cpus);
    let levels = [(1, 0, 1), package(2), package(3), package(4)];
    topology(LEAF_AMD_TOPOLOGY_V2, &levels, options)
}

/// Leaves 0x15 and 0x16. The crystal is what the APIC timer counts, because that is how Linux takes
/// it, and the TSC its multiple by the fraction that [`tsc_ratio`] finds.
fn clocks(tsc_khz: u32) -> [kvm_cpuid_entry2; 2] {
    let (numerator, denominator) = tsc_ratio(tsc_khz);
    let mhz = (tsc_khz.saturating_add(500) / 1000).min(0xffff);
    [
        kvm_cpuid_entry2 {
            function: LEAF_TSC,
            eax: denominator,
            ebx: numerator,
            ecx: APIC_BUS_KHZ * 1000,
            ..Default::default()
        },
        kvm_cpuid_entry2 {
            function: LEAF_MHZ,
            eax: mhz,
            ebx: mhz,
            ecx: APIC_BUS_KHZ / 1000,
            ..Default::default()
        },
    ]
}

/// The fraction nearest to TSC frequency / crystal frequency whose numerator is at most
/// [`NUMERATOR_MOST`]; 0/0, "not known", for a TSC that stands.
///
/// Exact where the frequency is a whole number of MHz (up to 4.29 GHz), else usually wrong by less
/// than 1 in a million; the worst are frequencies near, but not at, a small multiple of 1 GHz, with
/// less than 250 in a million. Guests that must know better read leaf 0x4000_0010 or kvmclock.
fn tsc_ratio(tsc_khz: u32) -> (u32, u32) {
    if tsc_khz == 0 {
        return (0, 0);
    }
    let error = |(n, d): (u64, u64)| {
        // |n/d - tsc/bus| in units that do not depend on n: compared by cross-multiplication.
        (n * u64::from(APIC_BUS_KHZ)).abs_diff(d * u64::from(tsc_khz))
    };
    let nearest = |numerator: u64| {
        let exact = numerator * u64::from(APIC_BUS_KHZ);
        let below = (exact / u64::from(tsc_khz)).max(1);
        let (a, b) = ((numerator, below), (numerator, below + 1));
        if error(a) * b.1 <= error(b) * a.1 { a } else { b }
    };
    let best = (1..=u64::from(NUMERATOR_MOST))
        .map(nearest)
        .reduce(|best, next| if error(next) * best.1 < error(best) * next.1 { next } else { best });
    best.map_or((0, 0), |(n, d)| (n as u32, d as u32))
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = (*register & !(1 << bit)) | (u32::from(on) << bit);
}

#[cfg(test)]
#[path = "cpuid_tests.rs"]
mod tests;
