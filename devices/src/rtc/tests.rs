use super::*;

const SECOND: u64 = 1_000_000_000;
/// 2024-02-28 23:59:58 UTC, a Wednesday.
const LEAP_EVE: u64 = 1_709_164_798;

fn rtc_at(unix_ns: u64) -> Rtc {
    Rtc::new(RtcConfig {
        host_ns: 0,
        unix_ns,
        low_memory: 64 << 20,
        high_memory: 1 << 30,
        least_period_ns: 0,
    })
}

fn clock() -> Rtc {
    rtc_at(LEAP_EVE * SECOND)
}

fn get(rtc: &mut Rtc, at: u8, now: u64) -> u8 {
    rtc.write(0x70, at, now);
    rtc.read(0x71, now)
}

fn set(rtc: &mut Rtc, at: u8, value: u8, now: u64) {
    rtc.write(0x70, at, now);
    rtc.write(0x71, value, now);
}

/// Century, year, month, day, weekday, hour, minute, second, as the registers show them.
fn shown(rtc: &mut Rtc, now: u64) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|at| get(rtc, at, now))
}

#[test]
fn time_goes_over_the_leap_day() {
    let mut rtc = clock();
    assert_eq!(shown(&mut rtc, 0), [0x20, 0x24, 2, 0x28, 4, 0x23, 0x59, 0x58]);
    assert_eq!(shown(&mut rtc, 2 * SECOND), [0x20, 0x24, 2, 0x29, 5, 0, 0, 0]);
    assert_eq!(shown(&mut rtc, 86_402 * SECOND), [0x20, 0x24, 3, 1, 6, 0, 0, 0]);
}

#[test]
fn binary_and_twelve_hours() {
    let mut rtc = clock();
    set(&mut rtc, 0x0b, 0x06, 0);
    assert_eq!(shown(&mut rtc, 0), [20, 24, 2, 28, 4, 23, 59, 58]);
    set(&mut rtc, 0x0b, 0x00, 0);
    assert_eq!(get(&mut rtc, 4, 0), 0x91, "11 pm");
    assert_eq!(get(&mut rtc, 4, 2 * SECOND), 0x12, "12 am");
    set(&mut rtc, 4, 0x92, 2 * SECOND);
    set(&mut rtc, 0x0b, 0x02, 2 * SECOND);
    assert_eq!(get(&mut rtc, 4, 2 * SECOND), 0x12, "noon");
}

#[test]
fn guest_sets_the_time_with_the_clock_stopped() {
    let mut rtc = clock();
    set(&mut rtc, 0x0b, 0x82, 0);
    for (at, value) in
        [(0, 0x30), (2, 0x45), (4, 0x12), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19)]
    {
        set(&mut rtc, at, value, 0);
    }
    assert_eq!(get(&mut rtc, 0, 5 * SECOND), 0x30, "it stands");
    set(&mut rtc, 0x0b, 0x02, 5 * SECOND);
    assert_eq!(shown(&mut rtc, 8 * SECOND), [0x19, 0x99, 0x12, 0x31, 6, 0x12, 0x45, 0x33]);
    assert_eq!(get(&mut rtc, 0x32, 50_000 * SECOND), 0x20, "and over the century");
}

#[test]
fn guest_sets_the_time_with_the_clock_going() {
    let mut rtc = clock();
    set(&mut rtc, 4, 0x07, 0);
    assert_eq!(shown(&mut rtc, SECOND), [0x20, 0x24, 2, 0x28, 4, 0x07, 0x59, 0x59]);
}

#[test]
fn update_in_progress_just_before_the_second() {
    let mut rtc = clock();
    assert_eq!(get(&mut rtc, 0x0a, SECOND - 244_001), 0x26);
    assert_eq!(get(&mut rtc, 0x0a, SECOND - 244_000), 0xa6);
    assert_eq!(get(&mut rtc, 0x0a, SECOND), 0x26);
}

#[test]
fn update_interrupt_comes_with_each_second_and_reading_c_ends_it() {
    let mut rtc = rtc_at(SECOND / 4);
    assert_eq!(rtc.next_event(), None);
    set(&mut rtc, 0x0b, 0x12, 0);
    let due = rtc.next_event().expect("it is enabled");
    assert_eq!(due, SECOND - SECOND / 4);
    rtc.advance(due - 1);
    assert!(!rtc.line());
    rtc.advance(due);
    assert!(rtc.line());
    assert_eq!(rtc.next_event(), None, "until it is read");
    assert_eq!(get(&mut rtc, 0x0c, due) & !0x40, 0x90);
    assert!(!rtc.line());
    assert_eq!(rtc.next_event(), Some(due + SECOND));
    assert_eq!(get(&mut rtc, 0x0c, due), 0);
}

#[test]
fn set_disables_the_update_interrupt() {
    let mut rtc = clock();
    set(&mut rtc, 0x0b, 0x92, 0);
    assert_eq!(get(&mut rtc, 0x0b, 0), 0x82);
    assert_eq!(rtc.next_event(), None);
}

#[test]
fn periodic_interrupt_has_its_rate_and_no_drift() {
    let mut rtc = clock();
    set(&mut rtc, 0x0b, 0x42, 0);
    let mut count = 0;
    let mut now = 0;
    while let Some(due) = rtc.next_event().filter(|due| *due <= 10 * SECOND) {
        assert!(due > now);
        now = due;
        rtc.advance(now);
        assert!(rtc.line());
        assert_eq!(get(&mut rtc, 0x0c, now) & 0xc0, 0xc0);
        count += 1;
    }
    assert_eq!(count, 10_240);
}

#[test]
fn rates() {
    let rate = |select: u8| {
        let mut rtc = clock();
        set(&mut rtc, 0x0a, 0x20 | select, 0);
        set(&mut rtc, 0x0b, 0x42, 0);
        rtc.next_event().map(|due| (SECOND as f64 / due as f64).round() as u64)
    };
    assert_eq!(rate(0), None);
    let rates: Vec<_> = (1..=15).filter_map(rate).collect();
    assert_eq!(rates, [256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2]);
}

#[test]
fn fastest_rate_is_kept_to_the_least_period() {
    let mut rtc = Rtc::new(RtcConfig {
        host_ns: 0,
        unix_ns: 0,
        low_memory: 0,
        high_memory: 0,
        least_period_ns: 200_000,
    });
    set(&mut rtc, 0x0a, 0x23, 0);
    set(&mut rtc, 0x0b, 0x42, 0);
    let first = rtc.next_event().expect("enabled");
    rtc.advance(first);
    let _ = get(&mut rtc, 0x0c, first);
    assert_eq!(rtc.next_event(), Some(first + 200_000));
}

#[test]
fn alarm_comes_at_its_time_and_with_any_field_open() {
    let mut rtc = clock();
    for (at, value) in [(1, 0x05), (3, 0xff), (5, 0xc0)] {
        set(&mut rtc, at, value, 0);
    }
    set(&mut rtc, 0x0b, 0x22, 0);
    assert_eq!(rtc.next_event(), Some(7 * SECOND));
    rtc.advance(7 * SECOND);
    assert_eq!(get(&mut rtc, 0x0c, 7 * SECOND) & !0x40, 0xb0);
    assert_eq!(rtc.next_event(), Some(67 * SECOND));
    set(&mut rtc, 1, 0x61, 8 * SECOND);
    assert_eq!(rtc.next_event(), None, "there is no second 61");
}

#[test]
fn alarm_that_passed_unnoticed_is_one() {
    let mut rtc = clock();
    for at in [1, 3, 5] {
        set(&mut rtc, at, 0xff, 0);
    }
    set(&mut rtc, 0x0b, 0x22, 0);
    rtc.advance(1_000 * SECOND);
    assert_eq!(get(&mut rtc, 0x0c, 1_000 * SECOND) & 0x20, 0x20);
    assert_eq!(rtc.next_event(), Some(1_001 * SECOND));
}

#[test]
fn memory_bytes_and_ram() {
    let mut rtc = clock();
    let mut word = |at| u16::from_le_bytes([get(&mut rtc, at, 0), get(&mut rtc, at + 1, 0)]);
    assert_eq!([0x15, 0x17, 0x30, 0x34].map(&mut word), [640, 63 << 10, 63 << 10, 48 << 4]);
    assert_eq!(word(0x5b), 1 << 14);
    set(&mut rtc, 0x0f, 0xa5, 0);
    assert_eq!(get(&mut rtc, 0x8f, 0), 0xa5);
    assert!(rtc.nmi_masked());
    set(&mut rtc, 0x0c, 0xff, 0);
    set(&mut rtc, 0x0d, 0x00, 0);
    assert_eq!(get(&mut rtc, 0x0d, 0), 0x80);
}

#[test]
fn time_that_runs_backwards_or_ends_harms_nobody() {
    let mut rtc = clock();
    set(&mut rtc, 0x0b, 0x72, 0);
    rtc.advance(u64::MAX);
    rtc.advance(3);
    let _ = (shown(&mut rtc, u64::MAX), rtc.next_event(), get(&mut rtc, 0x0c, 0));
    assert!(rtc.next_event().is_some());
}
