//! What Linux makes of its timers, in each mode. The guests' own checks are in
//! `tests/nested/guest/timers.sh` and `smp.sh`.

use crate::guests::{self, Guest};

/// Ticks a second of the guests' kernel.
const HZ: f64 = 250.0;

/// The guest counted the timer interrupts that `siesta` gave to it, and no others. It cannot count
/// while it powers off; by its own clock, that is so many ticks, and as many other timers at most.
#[track_caller]
fn expect_same_count(guest: &Guest, vcpu: u32) {
    let seen: u64 = guest.fact(&format!("loc-{vcpu}")).parse().expect("a number");
    let given = guest.timer_interrupts(vcpu);
    assert!(seen > 100, "the guest had timer interrupts: {guest:#?}");
    assert!(seen <= given, "{seen} seen, {given} given: {guest:#?}");
    let left = guest.power_down_at() - guest.fact("last-look").parse::<f64>().expect("seconds");
    let unseen = (given - seen) as f64;
    assert!(unseen <= 16.0 + 2.0 * HZ * left, "{seen} seen, {given} given: {guest:#?}");
}

#[test]
fn linux_runs_with_the_timers_in_the_kernel() {
    let Some(guest) = guests::guest("kernel") else { return };
    guest.expect_success();
    assert_eq!(guest.fact("clockevent"), "lapic-deadline");
    assert_eq!(guest.timer_interrupts(0), 0, "KVM has the APIC: {guest:#?}");
}

#[test]
fn linux_boots_as_it_is_shipped_with_each_timer_on_its_own_thread() {
    let Some(guest) = guests::guest("thread") else { return };
    guest.expect_success();
    assert_eq!(guest.fact("clockevent"), "lapic-deadline");
    expect_same_count(guest, 0);
}

#[test]
fn linux_runs_with_its_timers_in_the_hierarchy() {
    let Some(guest) = guests::guest("migrate") else { return };
    guest.expect_success();
    assert_eq!(guest.fact("clockevent"), "lapic-deadline");
    expect_same_count(guest, 0);
    assert_eq!(guest.served(0), 0, "not on a host that stalls: {guest:#?}");
}

#[test]
fn linux_calibrates_the_apic_timer_where_there_is_no_deadline() {
    let Some(guest) = guests::guest("oneshot") else { return };
    guest.expect_success();
    assert_eq!(guest.fact("clockevent"), "lapic");
    expect_same_count(guest, 0);
    // 1 GHz at divide-by-1, which is what Linux prints.
    let mhz: f64 = guest.fact("apic-timer-mhz").parse().expect("a number");
    assert!((990.0..=1010.0).contains(&mhz), "{guest:#?}");
}

#[test]
fn two_cpus_serve_each_other_and_one_goes_and_comes_back() {
    let Some(guest) = guests::guest("smp") else { return };
    guest.expect_success();
    assert_eq!(guest.fact("clockevent"), "lapic-deadline");
    expect_same_count(guest, 0);
    expect_same_count(guest, 1);
    // The emulated host's kernel is older than 6.13, so this was forced. What stalls is soon left to
    // its own thread.
    assert!(guest.served(0) + guest.served(1) > 0, "{guest:#?}");
    assert!(guest.output.contains("--inline force does it nevertheless"), "{guest:#?}");
}

#[test]
fn host_that_stalls_on_a_change_of_thread_is_told_of() {
    let (Some(auto), Some(thread)) = (guests::guest("migrate"), guests::guest("thread")) else {
        return;
    };
    let warning = "running a vCPU on another thread takes";
    assert!(auto.output.contains(warning), "{auto:#?}");
    assert!(auto.output.contains("--inline force overrides it"), "{auto:#?}");
    // It means something in that mode alone.
    assert!(!thread.output.contains(warning), "{thread:#?}");
}

#[test]
fn cpu_features_that_were_taken_away_are_gone() {
    let (Some(all), Some(less)) = (guests::guest("migrate"), guests::guest("thread")) else {
        return;
    };
    let has = |guest: &Guest, flag| guest.fact("cpu-flags").split(' ').any(|has| has == flag);
    for flag in ["aes", "pclmulqdq"] {
        assert!(has(all, flag), "{flag}: {all:#?}");
        assert!(!has(less, flag), "{flag}: {less:#?}");
    }
    assert!(has(less, "sse2"), "{less:#?}");
}

#[test]
fn no_register_that_linux_touches_is_unknown() {
    for name in ["thread", "migrate", "oneshot", "smp"] {
        let Some(guest) = guests::guest(name) else { return };
        assert!(guest.output.contains(": 0 unknown MSRs"), "{guest:#?}");
    }
}
