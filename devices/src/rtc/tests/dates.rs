//! What the date's bytes show, and what setting them does.

use super::*;

#[test]
fn date_is_shown_in_binary_coded_decimal() {
    assert_eq!(shown(&mut rtc(), 5 * SECOND), [0x20, 0x24, 0x02, 0x28, 0x04, 0x23, 0x59, 0x58]);
}

#[test]
fn date_is_shown_in_binary_when_asked() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, BINARY | HOURS_24, 5 * SECOND);
    assert_eq!(shown(&mut rtc, 5 * SECOND), [20, 24, 2, 28, 4, 23, 59, 58]);
}

#[test]
fn hours_of_half_a_day_run_from_twelve_to_eleven() {
    let hours = [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)];
    for (hour, byte) in hours {
        let mut rtc = showing(hour * 3600);
        set(&mut rtc, 0x0b, 0, 5 * SECOND);
        assert_eq!(get(&mut rtc, 4, 5 * SECOND), byte);
        set(&mut rtc, 4, 0x03, 5 * SECOND);
        set(&mut rtc, 4, byte, 5 * SECOND);
        set(&mut rtc, 0x0b, BINARY | HOURS_24, 5 * SECOND);
        assert_eq!(u64::from(get(&mut rtc, 4, 5 * SECOND)), hour);
    }
}

#[test]
fn leap_day_comes_once_in_four_years() {
    let mut rtc = rtc();
    assert_eq!(shown(&mut rtc, 7 * SECOND)[..5], [0x20, 0x24, 0x02, 0x29, 0x05]);
    assert_eq!(shown(&mut rtc, (7 + 86_400) * SECOND)[..5], [0x20, 0x24, 0x03, 0x01, 0x06]);
    // 2023-02-28 23:59:59, and 2100, which is no leap year, and 2000, which is one.
    for (last_second, next) in [
        (1_677_628_799, [0x20, 0x23, 0x03, 0x01]),
        (4_107_542_399, [0x21, 0x00, 0x03, 0x01]),
        (951_782_399, [0x20, 0x00, 0x02, 0x29]),
    ] {
        assert_eq!(shown(&mut showing(last_second), 6 * SECOND)[..4], next);
    }
}

#[test]
fn fraction_of_a_second_at_the_start_counts() {
    let mut rtc = Rtc::new(&RtcConfig { unix_ns: 59 * SECOND + 900 * MS, host_ns: 7, ..CONFIG });
    assert_eq!(get(&mut rtc, 0, 7 + 100 * MS - 1), 0x59);
    assert_eq!(get(&mut rtc, 0, 7 + 100 * MS), 0x00);
    assert_eq!(get(&mut rtc, 2, 7 + 100 * MS), 0x01);
}

#[test]
fn date_that_is_set_goes_on_at_the_dividers_next_second() {
    let mut rtc = rtc();
    let now = 5 * SECOND + 700 * MS;
    set(&mut rtc, 0x0b, SET | HOURS_24, now);
    set_date(&mut rtc, [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59], now);
    assert_eq!(get(&mut rtc, 0, now + 5 * SECOND), 0x59, "it stands still");
    let now = now + 5 * SECOND;
    set(&mut rtc, 0x0b, HOURS_24, now);
    assert_eq!(shown(&mut rtc, 11 * SECOND - 1), [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59]);
    assert_eq!(shown(&mut rtc, 11 * SECOND), [0x20, 0, 0x01, 0x01, 0x07, 0, 0, 0]);
}

#[test]
fn bytes_read_back_as_written_while_the_date_stands_still() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, SET, 0);
    let nonsense = [0xff, 0xab, 0x99, 0x00, 0x77, 0x55, 0xfe, 0x61];
    set_date(&mut rtc, nonsense, 0);
    assert_eq!(shown(&mut rtc, 60 * SECOND), nonsense);
}

#[test]
fn date_that_does_not_exist_becomes_the_nearest() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, SET | BINARY | HOURS_24, 0);
    set_date(&mut rtc, [255, 255, 13, 99, 9, 24, 60, 255], 0);
    set(&mut rtc, 0x0b, BINARY | HOURS_24, 0);
    assert_eq!(shown(&mut rtc, 0), [99, 99, 12, 31, 7, 23, 59, 59]);
    set(&mut rtc, 0x0b, SET | BINARY | HOURS_24, 0);
    set_date(&mut rtc, [20, 23, 2, 30, 0, 0, 0, 0], 0);
    set(&mut rtc, 0x0b, BINARY | HOURS_24, 0);
    assert_eq!(shown(&mut rtc, 0), [20, 23, 2, 28, 1, 0, 0, 0]);
}

#[test]
fn date_written_byte_by_byte_while_it_moves_on_arrives() {
    let mut rtc = showing(951_696_000 - 28 * 86_400);
    set(&mut rtc, 0x0b, BINARY | HOURS_24, 5 * SECOND);
    assert_eq!(shown(&mut rtc, 5 * SECOND)[..4], [20, 0, 1, 31]);
    set_date(&mut rtc, [20, 1, 2, 28, 4, 1, 2, 3], 5 * SECOND);
    assert_eq!(shown(&mut rtc, 5 * SECOND), [20, 1, 2, 28, 4, 1, 2, 3]);
}

#[test]
fn weekday_is_the_guests_and_counts_on() {
    let mut rtc = rtc();
    set(&mut rtc, 6, 7, 5 * SECOND);
    assert_eq!(shown(&mut rtc, 6 * SECOND)[3..5], [0x28, 7]);
    assert_eq!(shown(&mut rtc, 7 * SECOND)[3..5], [0x29, 1]);
}

#[test]
fn years_start_again_after_9999() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, SET | HOURS_24, 0);
    set_date(&mut rtc, [0x99, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x59], 0);
    set(&mut rtc, 0x0b, HOURS_24, 0);
    assert_eq!(shown(&mut rtc, 6 * SECOND)[..4], [0, 0, 1, 1]);
}

#[test]
fn divider_in_reset_stops_the_date_and_its_first_second_is_half_a_one() {
    let mut rtc = rtc();
    let now = 5 * SECOND + 123;
    set(&mut rtc, 0x0a, 0x76, now);
    assert_eq!(get(&mut rtc, 0, now + 10 * SECOND), 0x58);
    let now = now + 10 * SECOND;
    set(&mut rtc, 0x0a, 0x26, now);
    assert_eq!(get(&mut rtc, 0, now + 500 * MS - 1), 0x58);
    assert_eq!(get(&mut rtc, 0, now + 500 * MS), 0x59);
    assert_eq!(get(&mut rtc, 0, now + 1500 * MS - 1), 0x59);
    assert_eq!(get(&mut rtc, 0, now + 1500 * MS), 0x00);
}

#[test]
fn date_waits_for_both_of_set_and_divider() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, SET | HOURS_24, 5 * SECOND);
    set(&mut rtc, 0x0a, 0x76, 5 * SECOND);
    set(&mut rtc, 0, 0x11, 5 * SECOND);
    set(&mut rtc, 0x0b, HOURS_24, 5 * SECOND);
    assert_eq!(get(&mut rtc, 0, 50 * SECOND), 0x11);
    set(&mut rtc, 0x0a, 0x26, 50 * SECOND);
    assert_eq!(get(&mut rtc, 0, 51 * SECOND), 0x12);
}

#[test]
fn time_that_goes_backwards_is_the_latest_seen() {
    let mut rtc = rtc();
    assert_eq!(get(&mut rtc, 0, 6 * SECOND), 0x59);
    assert_eq!(get(&mut rtc, 0, 6 * SECOND - 1), 0x59);
    assert_eq!(get(&mut rtc, 0, 0), 0x59);
    assert_eq!(get(&mut rtc, 0x0c, 6 * SECOND) & UPDATE, UPDATE);
    assert_eq!(get(&mut rtc, 0x0c, 0) & UPDATE, 0);
    assert_eq!(get(&mut rtc, 0x0c, 6 * SECOND) & UPDATE, 0, "the same second is no second one");
}
