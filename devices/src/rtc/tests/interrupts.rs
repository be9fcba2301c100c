//! Flags, the line, and when it is next due.

use super::*;

fn enable(rtc: &mut Rtc, interrupts: u8) {
    set(rtc, 0x0b, interrupts | HOURS_24, 5 * SECOND);
}

fn set_alarm(rtc: &mut Rtc, hours: u8, minutes: u8, seconds: u8) {
    for (index, byte) in [(5, hours), (3, minutes), (1, seconds)] {
        set(rtc, index, byte, 5 * SECOND);
    }
}

#[test]
fn nothing_is_due_while_no_interrupt_is_enabled() {
    let mut rtc = rtc();
    assert_eq!(rtc.next_event(), None);
    rtc.advance(6 * SECOND);
    assert!(!rtc.line());
    assert_eq!(get(&mut rtc, 0x0c, 6 * SECOND) & IRQF, 0);
}

#[test]
fn flag_sets_without_being_enabled_and_raises_the_line_when_it_is() {
    let mut rtc = rtc();
    rtc.advance(6 * SECOND);
    enable(&mut rtc, UPDATE);
    assert!(rtc.line());
    assert_eq!(get(&mut rtc, 0x0c, 6 * SECOND), IRQF | PERIODIC | UPDATE);
    assert!(!rtc.line());
}

#[test]
fn update_raises_the_line_each_second_until_the_flags_are_read() {
    let mut rtc = rtc();
    enable(&mut rtc, UPDATE);
    for second in [6, 7, 8, 1000] {
        rtc.advance(second * SECOND - 1);
        if second < 1000 {
            assert!(!rtc.line());
            assert_eq!(rtc.next_event(), Some(second * SECOND));
        }
        rtc.advance(second * SECOND);
        assert!(rtc.line());
        assert_eq!(rtc.next_event(), None);
        let flags = get(&mut rtc, 0x0c, second * SECOND);
        assert_eq!(flags & (IRQF | UPDATE), IRQF | UPDATE);
        assert!(!rtc.line());
        assert_eq!(rtc.next_event(), Some((second + 1) * SECOND));
        assert_eq!(get(&mut rtc, 0x0c, second * SECOND), 0);
    }
}

#[test]
fn setting_the_date_disables_the_update_interrupt() {
    let mut rtc = rtc();
    enable(&mut rtc, UPDATE | SET);
    assert_eq!(get(&mut rtc, 0x0b, 5 * SECOND), SET | HOURS_24);
    rtc.advance(9 * SECOND);
    assert_eq!(get(&mut rtc, 0x0c, 9 * SECOND) & UPDATE, 0, "nothing is updated");
}

#[test]
fn periodic_rates() {
    let hz = [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
    for (rate, hz) in (1..).zip(hz) {
        let mut rtc = rtc();
        set(&mut rtc, 0x0a, 0x20 | rate, 5 * SECOND);
        enable(&mut rtc, PERIODIC);
        for n in [1, 2, 3, 1000 * hz + 6, 1000 * hz + 7] {
            let due = |n: u64| 5 * SECOND + (n * SECOND).div_ceil(hz);
            let (last, due) = (due(n - 1), due(n));
            let _ = get(&mut rtc, 0x0c, last);
            assert_eq!(rtc.next_event(), Some(due), "rate {rate}");
            rtc.advance(due - 1);
            assert!(!rtc.line());
            rtc.advance(due);
            assert!(rtc.line());
            assert_eq!(get(&mut rtc, 0x0c, due) & (IRQF | PERIODIC), IRQF | PERIODIC);
        }
    }
}

#[test]
fn rate_of_zero_and_divider_in_reset_have_no_periodic_interrupt() {
    for a in [0x20, 0x66, 0x76] {
        let mut rtc = rtc();
        set(&mut rtc, 0x0a, a, 5 * SECOND);
        enable(&mut rtc, PERIODIC);
        assert_eq!(rtc.next_event(), None);
        rtc.advance(9 * SECOND);
        assert!(!rtc.line());
    }
}

#[test]
fn periodic_interrupt_goes_on_while_the_date_is_set() {
    let mut rtc = rtc();
    enable(&mut rtc, PERIODIC | SET);
    assert_eq!(rtc.next_event(), Some(5 * SECOND + 976_563));
    rtc.advance(5 * SECOND + 976_563);
    assert!(rtc.line());
}

#[test]
fn least_period_thins_periodic_interrupts_but_not_the_flag_of_a_guest_that_polls() {
    let mut rtc = Rtc::new(&RtcConfig { least_period_ns: 200_000, ..CONFIG });
    set(&mut rtc, 0x0a, 0x23, 5 * SECOND);
    assert_eq!(get(&mut rtc, 0x0c, 5 * SECOND + 122_070) & PERIODIC, 0);
    assert_eq!(get(&mut rtc, 0x0c, 5 * SECOND + 122_071) & PERIODIC, PERIODIC);
    enable(&mut rtc, PERIODIC);
    // Every other one of 8192 a second.
    assert_eq!(rtc.next_event(), Some(5 * SECOND + 244_141));
    rtc.advance(5 * SECOND + 244_140);
    assert!(!rtc.line());
    rtc.advance(5 * SECOND + 244_141);
    assert!(rtc.line());
}

#[test]
fn alarm_comes_at_its_time_each_day() {
    let mut rtc = rtc();
    set_alarm(&mut rtc, 0x00, 0x01, 0x00);
    enable(&mut rtc, ALARM);
    for due in [67, 67 + 86_400, 67 + 2 * 86_400] {
        assert_eq!(rtc.next_event(), Some(due * SECOND));
        rtc.advance(due * SECOND - 1);
        assert!(!rtc.line());
        rtc.advance(due * SECOND);
        assert!(rtc.line());
        assert_eq!(get(&mut rtc, 0x0c, due * SECOND) & (IRQF | ALARM), IRQF | ALARM);
    }
}

#[test]
fn alarm_that_nobody_saw_pass_is_flagged() {
    let mut rtc = rtc();
    set_alarm(&mut rtc, 0x00, 0x01, 0x00);
    assert_eq!(get(&mut rtc, 0x0c, 66 * SECOND) & ALARM, 0);
    assert_eq!(get(&mut rtc, 0x0c, 1000 * SECOND) & ALARM, ALARM);
    assert_eq!(get(&mut rtc, 0x0c, 2000 * SECOND) & ALARM, 0);
}

#[test]
fn alarm_bytes_that_match_everything() {
    // It is 23:59:58 at second 5.
    for (alarm, due) in [
        ([0xff, 0xff, 0xff], 6),
        ([0xff, 0xff, 0x30], 37),
        ([0xc0, 0x01, 0xc0], 67),
        ([0x01, 0xff, 0xff], 7 + 3600),
        ([0xff, 0x59, 0x58], 5 + 3600),
        ([0xff, 0x59, 0x59], 6),
        ([0x23, 0x59, 0x58], 5 + 86_400),
    ] {
        let mut rtc = rtc();
        set_alarm(&mut rtc, alarm[0], alarm[1], alarm[2]);
        enable(&mut rtc, ALARM);
        assert_eq!(rtc.next_event(), Some(due * SECOND), "{alarm:x?}");
    }
}

#[test]
fn alarm_that_is_no_time_never_comes() {
    for alarm in [[0x24, 0, 0], [0, 0x60, 0], [0, 0, 0x0a], [0x92, 0, 0], [0, 0, 0xbf]] {
        let mut rtc = rtc();
        set_alarm(&mut rtc, alarm[0], alarm[1], alarm[2]);
        enable(&mut rtc, ALARM);
        assert_eq!(rtc.next_event(), None, "{alarm:x?}");
        rtc.advance(200_000 * SECOND);
        assert!(!rtc.line());
    }
}

#[test]
fn alarm_in_the_afternoon_of_twelve_hours() {
    let mut rtc = rtc();
    set_alarm(&mut rtc, 0x92, 0x00, 0x00);
    set(&mut rtc, 0x0b, ALARM, 5 * SECOND);
    assert_eq!(rtc.next_event(), Some((7 + 12 * 3600) * SECOND));
}

#[test]
fn alarm_waits_while_the_date_stands_still() {
    let mut rtc = rtc();
    set_alarm(&mut rtc, 0xff, 0xff, 0xff);
    enable(&mut rtc, ALARM | SET);
    assert_eq!(rtc.next_event(), None);
    rtc.advance(100 * SECOND);
    assert!(!rtc.line());
}

#[test]
fn event_beyond_the_end_of_time_is_none() {
    let mut rtc = rtc();
    set_alarm(&mut rtc, 0xff, 0xff, 0xff);
    for interrupts in [PERIODIC, ALARM, UPDATE] {
        set(&mut rtc, 0x0b, interrupts, u64::MAX);
        let _ = get(&mut rtc, 0x0c, u64::MAX);
        assert_eq!(rtc.next_event(), None);
    }
}
