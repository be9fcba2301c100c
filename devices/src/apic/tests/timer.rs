//! One-shot and periodic mode, in virtual time.

use super::*;

/// TDCR value and what it divides by.
const DIVISORS: [(u64, u64); 8] = [
    (0b0000, 2),
    (0b0001, 4),
    (0b0010, 8),
    (0b0011, 16),
    (0b1000, 32),
    (0b1001, 64),
    (0b1010, 128),
    (0b1011, 1),
];

fn counting(mode: u64, divide: u64, initial: u64, start: u64) -> LocalApic {
    let mut apic = x2apic();
    set_at(&mut apic, LVT_TIMER, 0x40 | mode, start);
    set_at(&mut apic, TDCR, divide, start);
    set_at(&mut apic, TMICT, initial, start);
    apic
}

fn take(apic: &mut LocalApic) -> bool {
    let Some(0x40) = apic.next_vector() else {
        return false;
    };
    apic.acknowledge(0x40);
    set(apic, EOI, 0);
    true
}

/// SDM 12.5.4.
#[test]
fn one_shot_fires_once_at_its_time_with_every_divisor() {
    for (code, divisor) in DIVISORS {
        let mut apic = counting(0, code, 1000, 500);
        let due = 500 + 1000 * divisor;
        assert_eq!(apic.deadline(), Some(due), "divide by {divisor}");
        assert!(!apic.advance(at(due - 1)));
        assert!(!take(&mut apic));
        assert!(apic.advance(at(due)));
        assert_eq!(apic.deadline(), None);
        assert!(!apic.advance(at(due * 1000)));
        assert!(take(&mut apic));
        assert_eq!(get(&mut apic, TMICT), 1000);
    }
}

/// SDM 12.5.4.
#[test]
fn current_count_falls_once_every_divisor_nanoseconds() {
    for (code, divisor) in DIVISORS {
        let mut apic = counting(0, code, 1000, 500);
        for ticks in [0, 1, 2, 499, 998, 999] {
            let first = 500 + ticks * divisor;
            assert_eq!(get_at(&mut apic, TMCCT, first), 1000 - ticks);
            assert_eq!(get_at(&mut apic, TMCCT, first + divisor - 1), 1000 - ticks);
        }
        assert_eq!(get_at(&mut apic, TMCCT, 500 + 1000 * divisor), 0);
        assert_eq!(apic.next_vector(), Some(0x40), "a count of zero is an expiry");
    }
}

#[test]
fn count_that_is_no_whole_number_of_nanoseconds_is_rounded_up() {
    let mut apic = x2apic_of(ApicConfig { timer_hz: 3, ..CONFIG });
    set(&mut apic, LVT_TIMER, 0x40 | PERIODIC);
    set(&mut apic, TDCR, DIVIDE_BY_1);
    set(&mut apic, TMICT, 1);
    for due in [333_333_334, 666_666_667, 1_000_000_000, 1_333_333_334] {
        assert_eq!(apic.deadline(), Some(due));
        assert!(!apic.advance(at(due - 1)));
        assert!(apic.advance(at(due)));
    }
}

/// SDM figure 12-10.
#[test]
fn largest_count_and_divisor_fit() {
    let mut apic = counting(0, 0b1010, u64::from(u32::MAX), 7);
    let due = 7 + u64::from(u32::MAX) * 128;
    assert_eq!(apic.deadline(), Some(due));
    assert_eq!(get_at(&mut apic, TMCCT, due - 1), 1);
    assert!(apic.advance(at(due)));
}

#[test]
fn time_beyond_64_bits_is_never() {
    let mut apic = x2apic_of(ApicConfig { timer_hz: 0, ..CONFIG });
    set_at(&mut apic, LVT_TIMER, 0x40, u64::MAX - 1);
    set_at(&mut apic, TMICT, u64::from(u32::MAX), u64::MAX - 1);
    assert_eq!(apic.deadline(), Some(u64::MAX));
    assert!(!apic.advance(at(u64::MAX - 1)));
}

/// SDM 12.5.4.
#[test]
fn periodic_stays_on_its_grid_however_late_it_is_served() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1000, 300);
    for (now, next) in [(1300, 2300), (2999, 3300), (3300, 4300), (4301, 5300)] {
        assert!(apic.advance(at(now)));
        assert_eq!(apic.deadline(), Some(next));
        assert!(take(&mut apic));
    }
}

#[test]
fn lost_periods_are_one_interrupt() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1000, 0);
    assert!(apic.advance(at(1_000_500)));
    assert_eq!(apic.deadline(), Some(1_001_000));
    assert!(!apic.advance(at(1_000_500)));
    assert!(take(&mut apic));
    assert!(!take(&mut apic));
}

#[test]
fn shortest_period_after_the_longest_time_is_one_step() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1, 0);
    assert!(apic.advance(Moment { ns: u64::MAX - 1, tsc: 0 }));
    assert_eq!(apic.deadline(), Some(u64::MAX));
}

/// SDM 12.5.4.
#[test]
fn periodic_count_starts_over_at_the_initial_count() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1000, 0);
    for (now, count) in [(0, 1000), (999, 1), (1000, 1000), (1001, 999), (5_000_250, 750)] {
        assert_eq!(get_at(&mut apic, TMCCT, now), count);
    }
}

/// SDM 12.5.4.
#[test]
fn masked_timer_has_no_deadline_and_counts_all_the_same() {
    let mut apic = counting(MASKED, DIVIDE_BY_1, 1000, 0);
    assert_eq!(apic.deadline(), None);
    assert_eq!(get_at(&mut apic, TMCCT, 400), 600);
    set_at(&mut apic, LVT_TIMER, 0x40, 400);
    assert_eq!(apic.deadline(), Some(1000));
}

/// SDM 12.5.4.
#[test]
fn one_shot_that_expires_while_masked_is_lost() {
    let mut apic = counting(MASKED, DIVIDE_BY_1, 1000, 0);
    assert!(!apic.advance(at(1000)));
    set_at(&mut apic, LVT_TIMER, 0x40, 1001);
    assert_eq!(apic.deadline(), None);
    assert_eq!(apic.next_vector(), None);

    let mut apic = counting(MASKED, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, LVT_TIMER, 0x40, 1001);
    assert_eq!((apic.deadline(), apic.next_vector()), (None, None), "with nobody looking");
}

#[test]
fn periodic_unmasked_goes_on_with_the_next_point_of_its_grid() {
    let mut apic = counting(MASKED | PERIODIC, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, LVT_TIMER, 0x40 | PERIODIC, 5500);
    assert_eq!(apic.next_vector(), None);
    assert_eq!(apic.deadline(), Some(6000));
}

#[test]
fn expiry_just_before_the_guest_masks_or_restarts_is_not_lost() {
    for (msr, value) in [(LVT_TIMER, 0x40 | MASKED), (TMICT, 5), (TDCR, 0), (SVR, 0xff)] {
        let mut apic = counting(0, DIVIDE_BY_1, 1000, 0);
        set_at(&mut apic, msr, value, 1000);
        assert_eq!(vectors(&mut apic, IRR), [0x40], "{msr:#x}");
    }
}

/// SDM 12.5.4.
#[test]
fn zero_initial_count_stops() {
    for mode in [0, PERIODIC] {
        let mut apic = counting(mode, DIVIDE_BY_1, 1000, 0);
        set_at(&mut apic, TMICT, 0, 10);
        assert_eq!(apic.deadline(), None);
        assert_eq!(get_at(&mut apic, TMCCT, 10), 0);
        assert!(!apic.advance(at(5000)));
    }
}

/// SDM 12.5.4.
#[test]
fn new_initial_count_starts_over() {
    let mut apic = counting(0, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, TMICT, 1000, 900);
    assert_eq!(apic.deadline(), Some(1900));
    assert_eq!(get_at(&mut apic, TMCCT, 900), 1000);
}

/// SDM 12.5.4.
#[test]
fn new_divisor_keeps_the_count_and_changes_its_rate() {
    let mut apic = counting(0, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, TDCR, 0b0000, 400);
    assert_eq!(get_at(&mut apic, TMCCT, 400), 600);
    assert_eq!(get_at(&mut apic, TMCCT, 402), 599);
    assert_eq!(apic.deadline(), Some(400 + 2 * 600));
}

/// SDM 12.5.4.
#[test]
fn new_divisor_of_a_periodic_timer_changes_the_grid_from_there() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, TDCR, 0b0001, 2400);
    assert!(take(&mut apic));
    for due in [2400 + 4 * 600, 4800 + 4000, 8800 + 4000] {
        assert_eq!(apic.deadline(), Some(due));
        assert!(apic.advance(at(due)));
    }
}

#[test]
fn same_divisor_written_again_loses_no_part_of_a_tick() {
    let mut apic = counting(0, 0b1010, 10, 0);
    set_at(&mut apic, TDCR, 0b1010, 100);
    assert_eq!(apic.deadline(), Some(1280));
}

/// SDM 12.5.4.1: a change to TSC-deadline mode disarms.
#[test]
fn change_to_deadline_mode_disarms_a_count() {
    for from in [0, PERIODIC] {
        let mut apic = counting(from, DIVIDE_BY_1, 1000, 0);
        set_at(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE, 10);
        assert_eq!(apic.deadline(), None);
        assert_eq!((get_at(&mut apic, TMCCT, 10), get_at(&mut apic, TMICT, 10)), (0, 0));
        assert!(!apic.advance(at(5000)));
        set_at(&mut apic, LVT_TIMER, 0x40 | from, 5000);
        assert_eq!(apic.deadline(), None, "it was forgotten, not suspended");
    }
}

/// SDM 12.5.4 (since May 2019): one-shot and periodic mode share one count.
#[test]
fn one_shot_made_periodic_goes_on_and_then_repeats() {
    let mut apic = counting(0, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, LVT_TIMER, 0x40 | PERIODIC, 400);
    assert_eq!((get_at(&mut apic, TMCCT, 400), get_at(&mut apic, TMICT, 400)), (600, 1000));
    for due in [1000, 2000, 3000] {
        assert_eq!(apic.deadline(), Some(due));
        assert!(apic.advance(at(due)));
    }
}

/// SDM 12.5.4.1.
#[test]
fn periodic_made_one_shot_ends_with_the_period_it_is_in() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1000, 0);
    assert!(apic.advance(at(5400)));
    set_at(&mut apic, LVT_TIMER, 0x40, 5400);
    assert_eq!(get_at(&mut apic, TMCCT, 5400), 600);
    assert_eq!(apic.deadline(), Some(6000));
    assert!(apic.advance(at(6000)));
    assert_eq!(apic.deadline(), None);
    assert_eq!(get_at(&mut apic, TMCCT, 6000), 0);
}

/// SDM 12.5.4.1.
#[test]
fn count_that_has_ended_stays_at_zero_in_periodic_mode() {
    let mut apic = counting(0, DIVIDE_BY_1, 1000, 0);
    assert!(apic.advance(at(1000)));
    set_at(&mut apic, LVT_TIMER, 0x40 | PERIODIC, 1500);
    assert_eq!(apic.deadline(), None);
    assert_eq!((get_at(&mut apic, TMCCT, 9999), get_at(&mut apic, TMICT, 9999)), (0, 1000));
}

/// SDM 12.5.4.
#[test]
fn new_vector_or_mask_in_the_same_mode_keeps_the_count() {
    let mut apic = counting(0, DIVIDE_BY_1, 1000, 0);
    set_at(&mut apic, LVT_TIMER, 0x50, 10);
    assert_eq!(apic.deadline(), Some(1000));
    assert!(apic.advance(at(1000)));
    assert_eq!(apic.next_vector(), Some(0x50));
}

/// SDM 12.5.2.
#[test]
fn illegal_vector_is_an_error_and_no_interrupt() {
    let mut apic = counting(PERIODIC, DIVIDE_BY_1, 1000, 0);
    set(&mut apic, LVT_TIMER, 0x0f | PERIODIC);
    assert!(!apic.advance(at(1000)));
    assert_eq!(apic.deadline(), Some(2000));
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 1 << 6);
    assert!(vectors(&mut apic, IRR).is_empty());
}

#[test]
fn clock_that_runs_backwards_is_harmless() {
    for mode in [0, PERIODIC] {
        let mut apic = counting(mode, 0b0011, 1000, 1_000_000);
        assert_eq!(get_at(&mut apic, TMCCT, 5), 1000);
        assert!(!apic.advance(at(5)));
        set_at(&mut apic, TDCR, DIVIDE_BY_1, 5);
        assert_eq!(apic.deadline(), Some(1005));
    }
}

#[test]
fn period_below_the_least_is_stretched_and_one_above_is_not() {
    let mut apic = x2apic_of(ApicConfig { least_period_ns: 200_000, ..CONFIG });
    set(&mut apic, TDCR, DIVIDE_BY_1);
    set(&mut apic, LVT_TIMER, PERIODIC | 0x40);
    set(&mut apic, TMICT, 10);
    let mut now = apic.deadline().expect("armed");
    assert_eq!(now, 10, "the first expiry is when the guest wants it");
    for _ in 0..3 {
        assert!(apic.advance(at(now)));
        let next = apic.deadline().expect("armed");
        assert_eq!(next - now, 200_000);
        assert!(get_at(&mut apic, TMCCT, now + 100) <= 10, "never above the initial count");
        now = next;
    }
    set_at(&mut apic, TMICT, 300_000, now);
    assert!(apic.advance(at(now + 300_000)));
    assert_eq!(apic.deadline(), Some(now + 600_000));
}
