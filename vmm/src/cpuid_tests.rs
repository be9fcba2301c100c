//! Tests of the guest's CPUID; none opens KVM.

use super::*;

const OPTIONS: Options = Options {
    cpus: 4,
    apic_id: 3,
    user_apic: true,
    tsc_deadline: true,
    tsc_adjust: true,
    tsc_khz: 2_000_000,
};

fn leaf(function: u32, options: &Options) -> kvm_cpuid_entry2 {
    let all = |function| kvm_cpuid_entry2 {
        function,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
        ..Default::default()
    };
    let supported: Vec<_> = [0, 1, 4, 6, 7, 0xa, 0xb, 0x1f, LEAF_KVM_FEATURES, LEAF_AMD_SIZES]
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
fn tsc_adjust_is_offered_where_the_tsc_can_be_moved() {
    assert_eq!(leaf(LEAF_FEATURES_7, &OPTIONS).ebx, u32::MAX);
    let fixed = Options { tsc_adjust: false, ..OPTIONS };
    assert_eq!(leaf(LEAF_FEATURES_7, &fixed).ebx, !2);
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
fn physical_address_bits_are_those_of_the_table_or_36() {
    let sizes = kvm_cpuid_entry2 { function: LEAF_AMD_SIZES, eax: 0x3930, ..Default::default() };
    let table = |entries: &[_]| CpuId::from_entries(entries).expect("it fits");
    assert_eq!(physical_bits(&table(&[sizes])), 0x30);
    assert_eq!(physical_bits(&table(&[])), 36);
}

#[test]
fn there_is_no_pmu() {
    assert_eq!(leaf(LEAF_PMU, &OPTIONS).eax, 0);
}

fn of(cpus: u32, apic_id: u32) -> Options {
    Options { cpus, apic_id, ..OPTIONS }
}

/// What a guest with this CPU vendor sees, given full entries of every leaf that is changed.
fn seen(vendor: &[u8; 4], options: &Options) -> Vec<kvm_cpuid_entry2> {
    let entry = |function, eax, ebx| kvm_cpuid_entry2 { function, eax, ebx, ..Default::default() };
    let cache = |function, index, kind: u32, level: u32| kvm_cpuid_entry2 {
        index,
        ..entry(function, 0xffff_c000 | level << 5 | kind, 0)
    };
    let mut supported = vec![
        entry(0, 0xd, u32::from_le_bytes(*vendor)),
        entry(1, 0, 0),
        entry(LEAF_AMD_VENDOR, 0x8000_001f, 0),
        entry(LEAF_AMD_FEATURES, 0, 0),
        entry(LEAF_AMD_SIZES, 0, 0),
        entry(LEAF_AMD_TOPOLOGY, 0, 0),
    ];
    for function in [LEAF_CACHES, LEAF_AMD_CACHES] {
        supported.extend([cache(function, 0, 1, 1), cache(function, 1, 3, 2)]);
        supported.extend([cache(function, 2, 3, 3), cache(function, 3, 0, 0)]);
    }
    adapt(&supported, options)
}

fn entry(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    let mut found = leaves.iter().filter(|e| e.function == function && e.index == index);
    let entry = *found.next().unwrap_or_else(|| panic!("leaf {function:#x}.{index}"));
    assert_eq!(found.next(), None);
    entry
}

/// Leaves as the specifications define them: bits of ID, CPUs, level type, for each level.
fn levels(leaves: &[kvm_cpuid_entry2], leaf: u32, id: u32) -> Vec<(u32, u32, u32)> {
    let mut found = Vec::new();
    for index in 0.. {
        let level = entry(leaves, leaf, index);
        assert_eq!((level.ecx & 0xff, level.edx), (index, id));
        if level.ecx >> 8 == 0 {
            break;
        }
        found.push((level.eax, level.ebx, level.ecx >> 8));
    }
    found
}

#[test]
fn extended_topology_is_one_package_of_single_threaded_cores() {
    for (cpus, id, bits) in
        [(1, 0, 0), (2, 1, 1), (3, 2, 2), (64, 63, 6), (300, 299, 9), (4096, 4095, 12)]
    {
        let leaves = seen(b"Genu", &of(cpus, id));
        for leaf in [LEAF_TOPOLOGY, LEAF_TOPOLOGY_V2] {
            assert_eq!(levels(&leaves, leaf, id), [(0, 1, 1), (bits, cpus, 2)]);
        }
        assert!(entry(&leaves, 0, 0).eax >= LEAF_TOPOLOGY_V2);
        assert!(!leaves.iter().any(|e| e.function == LEAF_AMD_TOPOLOGY_V2));
        let leaves = seen(b"Auth", &of(cpus, id));
        let package = (bits, cpus);
        let expected = [
            (0, 1, 1),
            (package.0, package.1, 2),
            (package.0, package.1, 3),
            (package.0, package.1, 4),
        ];
        assert_eq!(levels(&leaves, LEAF_AMD_TOPOLOGY_V2, id), expected);
        assert_eq!(entry(&leaves, LEAF_AMD_VENDOR, 0).eax, LEAF_AMD_TOPOLOGY_V2);
    }
}

#[test]
fn older_topology_fields_are_capped_and_not_wrapped() {
    for (cpus, id, threads, cores) in
        [(1, 0, 1, 0), (4, 3, 4, 3), (256, 255, 255, 255), (300, 299, 255, 255)]
    {
        let leaves = seen(b"Auth", &of(cpus, id));
        let features = entry(&leaves, LEAF_FEATURES, 0);
        assert_eq!((features.ebx >> 16 & 0xff, features.ebx >> 24), (threads, id & 0xff));
        assert_eq!(features.edx >> 28 & 1, u32::from(cpus > 1));
        let sizes = entry(&leaves, LEAF_AMD_SIZES, 0);
        assert_eq!((sizes.ecx & 0xff, 1 << (sizes.ecx >> 12)), (cores, cpus.next_power_of_two()));
        let amd = entry(&leaves, LEAF_AMD_TOPOLOGY, 0);
        assert_eq!((amd.eax, amd.ebx, amd.ecx), (id, id & 0xff, 0));
        assert_eq!(entry(&leaves, LEAF_AMD_FEATURES, 0).ecx >> 1 & 1, u32::from(cpus > 1));
    }
    assert_eq!(entry(&seen(b"Genu", &of(4, 0)), LEAF_AMD_FEATURES, 0).ecx & 2, 0);
}

#[test]
fn first_two_cache_levels_are_a_cores_own_and_the_third_is_shared() {
    for (cpus, ids) in [(1, 1), (3, 4), (64, 64), (300, 512)] {
        let leaves = seen(b"Genu", &of(cpus, 0));
        for function in [LEAF_CACHES, LEAF_AMD_CACHES] {
            let sharing = |index| (entry(&leaves, function, index).eax >> 14 & 0xfff) + 1;
            assert_eq!([0, 1, 2].map(sharing), [1, 1, ids], "{cpus} CPUs");
            assert_eq!(entry(&leaves, function, 3).eax & 0x1f, 0, "the end of the list");
        }
        let cores = (entry(&leaves, LEAF_CACHES, 0).eax >> 26) + 1;
        assert_eq!(cores, ids.min(64), "the field has 6 bits");
    }
}

/// What Linux makes of leaf 0x15, in kHz, with its 32-bit arithmetic.
fn linux_tsc_khz(leaf: &kvm_cpuid_entry2) -> u32 {
    (leaf.ecx / 1000).checked_mul(leaf.ebx).expect("no overflow") / leaf.eax
}

#[test]
fn crystal_is_the_apic_timer_and_the_tsc_its_exact_multiple_for_whole_mhz() {
    for tsc_khz in [1_000_000, 2_000_000, 2_445_000, 2_100_000, 3_693_000, 4_200_000, 800_000] {
        let leaves = seen(b"Genu", &Options { tsc_khz, ..OPTIONS });
        let clock = entry(&leaves, LEAF_TSC, 0);
        assert_eq!(clock.ecx, 1_000_000_000);
        assert_eq!(linux_tsc_khz(&clock), tsc_khz);
        assert_eq!(entry(&leaves, LEAF_MHZ, 0).eax, tsc_khz / 1000);
    }
}

#[test]
fn tsc_of_any_frequency_is_near_its_multiple_of_the_crystal() {
    let error_ppm = |tsc_khz: u32| {
        let found = linux_tsc_khz(&clocks(tsc_khz)[0]);
        f64::from(found.abs_diff(tsc_khz)) / f64::from(tsc_khz) * 1e6
    };
    // As calibrated by hosts.
    for tsc_khz in [2_399_998, 2_445_406, 2_593_907, 2_894_561, 3_393_624] {
        assert!(error_ppm(tsc_khz) < 2.0, "{tsc_khz}: {}", error_ppm(tsc_khz));
    }
    for tsc_khz in [1_000_120, 1_999_990, 2_000_233, 3_000_150, 999_880] {
        assert!(error_ppm(tsc_khz) < 250.0, "{tsc_khz}: {}", error_ppm(tsc_khz));
    }
}

#[test]
fn frequencies_at_both_ends_have_an_answer() {
    assert_eq!(tsc_ratio(0), (0, 0));
    assert_eq!(tsc_ratio(1), (1, 1_000_000));
    assert_eq!(clocks(u32::MAX)[0].ebx, NUMERATOR_MOST);
    assert_eq!(clocks(u32::MAX)[1].eax, 0xffff, "the field has 16 bits");
}
