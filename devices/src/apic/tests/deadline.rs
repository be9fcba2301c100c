//! TSC-deadline mode.

use super::*;

fn armed(tsc: u64, now: Moment) -> LocalApic {
    let mut apic = x2apic();
    set(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE);
    assert_eq!(apic.write_msr(TSC_DEADLINE, tsc, now), Ok(Effect::None));
    apic
}

/// SDM 12.5.4.1.
#[test]
fn fires_when_the_tsc_reaches_the_value_and_disarms() {
    let mut apic = armed(3000, at(1000));
    assert_eq!(apic.deadline(), Some(1500));
    assert_eq!(get_at(&mut apic, TSC_DEADLINE, 1499), 3000);
    assert!(!apic.advance(at(1499)));
    assert!(apic.advance(at(1500)));
    assert_eq!(apic.next_vector(), Some(0x40));
    assert_eq!(apic.deadline(), None);
    assert_eq!(get_at(&mut apic, TSC_DEADLINE, 1500), 0);
    assert!(!apic.advance(at(9999)));
}

/// SDM 12.5.4.1.
#[test]
fn value_reads_as_zero_from_the_expiry_on_even_if_nobody_advanced() {
    let mut apic = armed(3000, at(1000));
    assert_eq!(get_at(&mut apic, TSC_DEADLINE, 1500), 0);
    assert_eq!(apic.next_vector(), Some(0x40));
}

#[test]
fn conversion_rounds_up() {
    let mut apic = x2apic_of(ApicConfig { tsc_khz: 3_000_000, ..CONFIG });
    set(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE);
    for (cycles, ns) in [(1, 1), (3, 1), (4, 2), (3_000_000_000, 1_000_000_000)] {
        let now = Moment { ns: 10, tsc: 100 };
        assert_eq!(apic.write_msr(TSC_DEADLINE, 100 + cycles, now), Ok(Effect::None));
        assert_eq!(apic.deadline(), Some(10 + ns), "{cycles}");
    }
}

/// SDM 12.5.4.1.
#[test]
fn deadline_in_the_past_fires_at_once() {
    for tsc in [1, 1999, 2000] {
        let mut apic = armed(tsc, at(1000));
        assert_eq!(apic.next_vector(), Some(0x40));
        assert_eq!(apic.deadline(), None);
        assert_eq!(get_at(&mut apic, TSC_DEADLINE, 1000), 0);
    }
}

/// SDM 12.5.4.1.
#[test]
fn zero_disarms() {
    let mut apic = armed(3000, at(1000));
    set_at(&mut apic, TSC_DEADLINE, 0, 1001);
    assert_eq!(apic.deadline(), None);
    assert!(!apic.advance(at(9999)));
}

/// SDM 12.5.4.1.
#[test]
fn new_deadline_replaces_the_old_one_in_either_direction() {
    let mut apic = armed(3000, at(0));
    set(&mut apic, TSC_DEADLINE, 2000);
    assert_eq!(apic.deadline(), Some(1000));
    set(&mut apic, TSC_DEADLINE, 8000);
    assert_eq!(apic.deadline(), Some(4000));
    assert!(!apic.advance(at(1500)));
}

#[test]
fn expiry_just_before_the_guest_writes_anew_is_not_lost() {
    let mut apic = armed(3000, at(0));
    set_at(&mut apic, TSC_DEADLINE, 8000, 1500);
    assert_eq!(apic.next_vector(), Some(0x40));
    assert_eq!(apic.deadline(), Some(4000));
}

#[test]
fn largest_deadline_saturates_to_never() {
    let mut apic = x2apic_of(ApicConfig { tsc_khz: 0, ..CONFIG });
    set(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE);
    set_at(&mut apic, TSC_DEADLINE, u64::MAX, 1);
    assert_eq!(apic.deadline(), Some(u64::MAX));
    assert!(!apic.advance(at(1 << 62)));
    assert_eq!(get(&mut apic, TSC_DEADLINE), u64::MAX);
}

#[test]
fn host_time_that_comes_before_the_tsc_value_is_no_expiry() {
    let mut apic = armed(3000, at(1000));
    assert!(!apic.advance(Moment { ns: 1500, tsc: 2990 }));
    assert_eq!(apic.deadline(), Some(1505));
    assert!(apic.advance(Moment { ns: 1504, tsc: 3000 }), "the TSC decides");
}

/// SDM 12.5.4.1.
#[test]
fn other_modes_read_zero_and_ignore_writes() {
    for mode in [0, PERIODIC] {
        let mut apic = x2apic();
        set(&mut apic, LVT_TIMER, 0x40 | mode);
        set(&mut apic, TSC_DEADLINE, 3000);
        assert_eq!(get(&mut apic, TSC_DEADLINE), 0);
        assert_eq!(apic.deadline(), None);
    }
}

/// SDM 12.5.4.1.
#[test]
fn deadline_mode_ignores_the_initial_count() {
    let mut apic = armed(3000, at(0));
    set(&mut apic, TMICT, 5);
    assert_eq!(apic.deadline(), Some(1500));
    assert_eq!(get(&mut apic, TMICT), 0);
    assert_eq!(get(&mut apic, TMCCT), 0);
}

/// SDM 12.5.4.1.
#[test]
fn leaving_the_mode_and_coming_back_disarms() {
    let mut apic = armed(3000, at(0));
    set(&mut apic, LVT_TIMER, 0x40);
    assert_eq!(apic.deadline(), None);
    set(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE);
    assert_eq!(apic.deadline(), None);
    assert_eq!(get(&mut apic, TSC_DEADLINE), 0);
}

/// SDM 12.5.1.
#[test]
fn masked_deadline_keeps_no_host_timer_and_is_lost_when_it_passes() {
    let mut apic = armed(3000, at(0));
    set(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE | MASKED);
    assert_eq!(apic.deadline(), None);
    assert!(!apic.advance(at(1500)));
    set_at(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE, 1501);
    assert_eq!((apic.deadline(), apic.next_vector()), (None, None));
}

/// SDM 12.5.4.1.
#[test]
fn mode_not_offered_raises_gp() {
    let mut apic = x2apic_of(ApicConfig { tsc_deadline: false, ..CONFIG });
    assert!(refused(&mut apic, TSC_DEADLINE, 3000));
    assert!(apic.read_msr(TSC_DEADLINE, at(0)).is_err());
}

#[test]
fn works_in_xapic_mode_too() {
    let mut apic = xapic();
    let _ = poke(&mut apic, 0x320, 0x40 | 1 << 18);
    set(&mut apic, TSC_DEADLINE, 3000);
    assert_eq!(apic.deadline(), Some(1500));
}
