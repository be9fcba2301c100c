//! Application processors start, and wake each other.

use siesta_tests::{image, needs_kvm};

#[test]
fn vcpus_wake_each_other_from_hlt_in_every_mode() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        for cpus in [2, 4, 8] {
            for apic in ["x2apic", "xapic"] {
                let cmdline = format!("cpus={cpus} rounds=200 apic={apic}");
                let more = ["--timers", mode, "--cpus", &cpus.to_string()];
                let ended = image("ipi", &cmdline, &more).expect(0);
                assert!(ended.stdout.contains("ok"), "{ended:#?}");
            }
        }
    }
}

#[test]
fn ring_of_vcpus_runs_beside_guests_whose_timers_are_served_by_it() {
    needs_kvm!();
    // The same hierarchy: 4 VMs of 4 vCPUs, all of which sleep and wake all the time.
    let ended = image("ipi", "cpus=4 rounds=300", &["--cpus", "4", "--count", "4"]).expect(0);
    assert_eq!(ended.stdout.matches("ok").count(), 4, "{ended:#?}");
}

#[test]
fn more_vcpus_than_there_are_ids_of_8_bits_start() {
    needs_kvm!();
    for mode in ["migrate", "thread"] {
        let cmdline = "cpus=260 apic=x2apic";
        let ended = image("start", cmdline, &["--cpus", "260", "--timers", mode]).expect(0);
        assert!(ended.stdout.contains("start: cpus=260 us="), "{ended:#?}");
    }
}
