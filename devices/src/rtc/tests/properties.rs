//! The calendar and the alarm against the plainest ways to compute them.

use proptest::prelude::*;

use super::calendar::{Date, weekday};
use super::*;

/// Counts days from 1970-01-01, one by one but for whole runs of 400 years.
fn date_of_unix_day(mut day: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(400) || (year.is_multiple_of(4) && !year.is_multiple_of(100))
    };
    let mut year = 1970 + day / 146_097 * 400;
    day %= 146_097;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    (year, month, day + 1)
}

fn two_digits(byte: u8) -> u64 {
    u64::from(byte >> 4) * 10 + u64::from(byte & 0xf)
}

#[test]
fn every_day_of_ten_thousand_years_has_its_date_and_back() {
    // Saturday, the first day of year 0.
    let (mut year, mut month, mut day, mut of_week) = (0, 1, 1, 6);
    for days in 0..25 * 146_097 {
        let seconds = days * 86_400 + days % 86_400;
        let date = Date { year, month, day, seconds: days % 86_400 };
        assert_eq!(Date::of_seconds(seconds), date);
        assert_eq!(date.to_seconds(), seconds);
        assert_eq!(weekday(seconds), of_week);
        of_week = (of_week + 1) % 7;
        day += 1;
        if day > calendar::days_in(year, month) {
            (day, month) = (1, month + 1);
        }
        if month > 12 {
            (month, year) = (1, year + 1);
        }
    }
    assert_eq!((year, month, day), (10_000, 1, 1));
}

proptest! {
    #[test]
    fn date_agrees_with_a_count_of_days(unix in 0_u64..18_000_000_000, host_ns in any::<u64>()) {
        let mut rtc = Rtc::new(&RtcConfig { host_ns, unix_ns: unix * SECOND, ..CONFIG });
        let bytes = shown(&mut rtc, host_ns).map(two_digits);
        let (year, month, day) = date_of_unix_day(unix / 86_400);
        // The first day of 1970 was a Thursday, the fifth of the week.
        let of_week = (unix / 86_400 + 4) % 7 + 1;
        let (hour, minute, second) = (unix / 3600 % 24, unix / 60 % 60, unix % 60);
        prop_assert_eq!(bytes, [year / 100, year % 100, month, day, of_week, hour, minute, second]);
    }

    #[test]
    fn date_that_is_set_is_shown_in_every_notation(
        unix in 0_u64..18_000_000_000, b in 0_u8..4, other in 0_u8..4, now in 0..1_u64 << 40,
    ) {
        let mut right = Rtc::new(&RtcConfig { host_ns: now, unix_ns: unix * SECOND, ..CONFIG });
        let mut rtc = Rtc::new(&RtcConfig { host_ns: now, unix_ns: 12_345 * SECOND, ..CONFIG });
        set(&mut right, 0x0b, b << 1, now);
        set(&mut rtc, 0x0b, SET | b << 1, now);
        set_date(&mut rtc, shown(&mut right, now), now);
        set(&mut rtc, 0x0b, b << 1, now);
        set(&mut right, 0x0b, other << 1, now);
        set(&mut rtc, 0x0b, other << 1, now);
        for later in [0, SECOND - 1, SECOND, 1_000_000 * SECOND] {
            prop_assert_eq!(shown(&mut rtc, now + later), shown(&mut right, now + later));
        }
    }

    #[test]
    fn alarm_comes_with_the_first_second_that_shows_it(
        start in 0_u64..86_400, b in 0_u8..4, time in 0_u64..86_400, any in 0_u8..8,
    ) {
        let mut rtc = showing(start);
        let mut pattern = showing(time);
        let (b, now) = (b << 1, 5 * SECOND);
        set(&mut pattern, 0x0b, b, now);
        let mut alarm = [0, 2, 4].map(|index| get(&mut pattern, index, now));
        for (i, byte) in alarm.iter_mut().enumerate() {
            if any >> i & 1 != 0 {
                *byte = 0xc0;
            }
            set(&mut rtc, 2 * i as u8 + 1, *byte, now);
        }
        set(&mut rtc, 0x0b, b | ALARM, now);
        let due = rtc.next_event().unwrap();
        // Look at the seconds one by one, but for no longer than a test may take.
        let matches = |rtc: &mut Rtc, now: u64| {
            let shown = [0, 2, 4].map(|index| get(rtc, index, now));
            shown.iter().zip(alarm).all(|(shown, alarm)| alarm >= 0xc0 || *shown == alarm)
        };
        let mut looker = showing(start);
        set(&mut looker, 0x0b, b, now);
        let seconds = (due - now) / SECOND;
        prop_assert!((1..=86_400).contains(&seconds) && due.is_multiple_of(SECOND));
        for second in (1..seconds).take(4000) {
            prop_assert!(!matches(&mut looker, now + second * SECOND), "{second}");
        }
        prop_assert!(matches(&mut looker, due));
        rtc.advance(due - 1);
        prop_assert!(!rtc.line());
        rtc.advance(due);
        prop_assert!(rtc.line());
    }
}
