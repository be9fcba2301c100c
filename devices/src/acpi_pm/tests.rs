//! Behaviour of the register block, by offsets.

use proptest::prelude::*;

use super::*;

const START: u64 = 1_000_000_007;
/// 2^31 ticks, rounded up to nanoseconds: just under ten minutes.
const CHANGE_NS: u64 = 599_932_015_941;

fn get(pm: &mut AcpiPm, offset: u64, now: u64) -> u16 {
    let mut data = [0xaa; 2];
    pm.read(offset, &mut data, now);
    u16::from_le_bytes(data)
}

fn set(pm: &mut AcpiPm, offset: u64, value: u16, now: u64) {
    assert_eq!(pm.write(offset, &value.to_le_bytes(), now), Action::None);
}

fn timer(pm: &mut AcpiPm, now: u64) -> u32 {
    let mut data = [0xaa; 4];
    pm.read(8, &mut data, now);
    u32::from_le_bytes(data)
}

#[test]
fn ports_do_not_move() {
    assert_eq!((PM1A_EVENT, PM1A_CONTROL, PM_TIMER), (0xb000, 0xb004, 0xb008));
    assert_eq!(PORTS, 0xb000..=0xb00b);
}

#[test]
fn timer_counts_from_the_start_and_wraps_at_32_bits() {
    let mut pm = AcpiPm::new(START);
    assert_eq!(timer(&mut pm, 0), 0);
    assert_eq!(timer(&mut pm, START), 0);
    assert_eq!(timer(&mut pm, START + 279), 0);
    assert_eq!(timer(&mut pm, START + 280), 1);
    assert_eq!(timer(&mut pm, START + 1_000_000_000), 3_579_545);
    assert_eq!(timer(&mut pm, START + 2 * CHANGE_NS - 200), u32::MAX);
    assert_eq!(timer(&mut pm, START + 2 * CHANGE_NS), 0);
}

#[test]
fn timer_cannot_be_written() {
    let mut pm = AcpiPm::new(START);
    assert_eq!(pm.write(8, &[0xff; 4], START), Action::None);
    assert_eq!(timer(&mut pm, START), 0);
}

#[test]
fn timer_interrupts_when_its_highest_bit_changes() {
    let mut pm = AcpiPm::new(START);
    assert_eq!(pm.next_event(), None);
    set(&mut pm, 2, TMR, START);
    for change in [1, 2, 3] {
        let due = START + (change * (1_u64 << 31) * 1_000_000_000).div_ceil(3_579_545);
        assert_eq!(pm.next_event(), Some(due));
        pm.advance(due - 1);
        assert!(!pm.line());
        pm.advance(due);
        assert!(pm.line());
        assert_eq!(pm.next_event(), None);
        assert_eq!(get(&mut pm, 0, due), TMR);
        set(&mut pm, 0, TMR, due);
        assert!(!pm.line());
        pm.advance(due);
        assert!(!pm.line());
    }
}

#[test]
fn timer_status_is_set_without_being_enabled() {
    let mut pm = AcpiPm::new(START);
    pm.advance(START + 10 * CHANGE_NS);
    assert!(!pm.line());
    assert_eq!(get(&mut pm, 0, 0), TMR);
    set(&mut pm, 2, TMR, 0);
    assert!(pm.line());
}

#[test]
fn power_button_requests_once_until_cleared() {
    let mut pm = AcpiPm::new(START);
    pm.press_power_button(START);
    assert!(!pm.line(), "not enabled");
    set(&mut pm, 2, PWRBTN, START);
    assert!(pm.line());
    pm.press_power_button(START);
    assert_eq!(get(&mut pm, 0, START), PWRBTN);
    set(&mut pm, 0, !PWRBTN, START);
    assert!(pm.line(), "zeros do not clear");
    set(&mut pm, 0, PWRBTN, START);
    assert!(!pm.line());
}

#[test]
fn bytes_of_status_and_enable_are_written_one_by_one() {
    let mut pm = AcpiPm::new(START);
    pm.press_power_button(START + CHANGE_NS);
    assert_eq!(get(&mut pm, 0, 0), PWRBTN | TMR);
    assert_eq!(pm.write(1, &[0xff], 0), Action::None);
    assert_eq!(get(&mut pm, 0, 0), TMR);
    assert_eq!(pm.write(2, &[0xff], 0), Action::None);
    assert_eq!(get(&mut pm, 2, 0), TMR | GBL);
    assert_eq!(pm.write(3, &[0xff], 0), Action::None);
    assert_eq!(get(&mut pm, 2, 0), TMR | GBL | PWRBTN | SLPBTN | RTC);
    assert_eq!(pm.write(0, &[0xff, 0xff, 0, 0], 0), Action::None);
    assert_eq!((get(&mut pm, 0, 0), get(&mut pm, 2, 0)), (0, 0));
}

#[test]
fn acpi_mode_is_always_on() {
    let mut pm = AcpiPm::new(START);
    assert_eq!(get(&mut pm, 4, START), SCI_EN);
    set(&mut pm, 4, 0, START);
    assert_eq!(get(&mut pm, 4, START), SCI_EN);
    set(&mut pm, 4, 0xdfff, START);
    assert_eq!(get(&mut pm, 4, START), SCI_EN | BM_RLD | SLP_TYP);
}

#[test]
fn soft_off_powers_off_and_no_other_sleep_does() {
    for sleep in 0..8_u16 {
        let mut pm = AcpiPm::new(START);
        let value = sleep << 10 | SLP_EN;
        let action = if sleep == 5 { Action::PowerOff } else { Action::None };
        assert_eq!(pm.write(4, &value.to_le_bytes(), START), action, "SLP_TYP {sleep}");
        assert_eq!(get(&mut pm, 4, START), sleep << 10 | SCI_EN);
        assert_eq!(pm.write(5, &[value.to_le_bytes()[1]], START), action);
    }
    let mut pm = AcpiPm::new(START);
    set(&mut pm, 4, 5 << 10, START);
    set(&mut pm, 2, SLP_EN, START);
}

#[test]
fn bytes_that_are_no_register_read_as_zero() {
    let mut pm = AcpiPm::new(START);
    for (offset, len) in [(6, 2), (12, 8), (u64::MAX - 1, 2), (u64::MAX - 1, 8)] {
        let mut data = vec![0xaa; len];
        pm.read(offset, &mut data, START);
        assert!(data[..2].iter().all(|byte| *byte == 0), "{offset:#x}");
        assert_eq!(pm.write(offset, &data, START), Action::None);
    }
}

#[test]
fn reset_disables_and_the_timer_goes_on() {
    let mut pm = AcpiPm::new(START);
    pm.press_power_button(START);
    set(&mut pm, 2, PWRBTN | TMR, START);
    set(&mut pm, 4, SLP_TYP, START);
    pm.reset();
    assert!(!pm.line());
    assert_eq!([0, 2, 4].map(|offset| get(&mut pm, offset, START)), [0, 0, SCI_EN]);
    assert_eq!(timer(&mut pm, START + 1_000_000_000), 3_579_545);
}

#[test]
fn event_beyond_the_end_of_time_is_none() {
    let mut pm = AcpiPm::new(START);
    set(&mut pm, 2, TMR, u64::MAX);
    set(&mut pm, 0, TMR, u64::MAX);
    assert_eq!(pm.next_event(), None);
    let mut pm = AcpiPm::new(u64::MAX);
    set(&mut pm, 2, TMR, 0);
    assert_eq!(pm.next_event(), None);
}

proptest! {
    #[test]
    fn timer_agrees_with_a_count_of_ticks(
        start in any::<u64>(), steps in prop::collection::vec(0_u64..1000, 1..200),
    ) {
        let start = start >> 1;
        let mut pm = AcpiPm::new(start);
        let (mut now, mut ticks) = (0, 0_u32);
        for step in steps {
            for _ in 0..step {
                now += 1;
                // A tick is passed when 10^9 of its parts are.
                if now * 3_579_545 / 1_000_000_000 != (now - 1) * 3_579_545 / 1_000_000_000 {
                    ticks += 1;
                }
            }
            prop_assert_eq!(timer(&mut pm, start + now), ticks);
        }
    }

    #[test]
    fn next_event_is_the_first_nanosecond_with_the_line_up(
        start in 0_u64..1 << 62, waits in prop::collection::vec(0_u64..2_000_000_000_000, 1..20),
    ) {
        let mut pm = AcpiPm::new(start);
        set(&mut pm, 2, TMR, start);
        let mut now = start;
        for wait in waits {
            now += wait;
            pm.advance(now);
            set(&mut pm, 0, TMR, now);
            let due = pm.next_event().unwrap();
            prop_assert!(due > now && due - now <= CHANGE_NS + 1);
            let mut early = pm.clone();
            early.advance(due - 1);
            prop_assert!(!early.line());
            early.advance(due);
            prop_assert!(early.line());
        }
    }
}
