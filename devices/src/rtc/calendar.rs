//! The Gregorian calendar, and how the clock's bytes show it.
//!
//! Owns no state. Must not know registers, ports or interrupts. Years run from 0 to 9999, which two
//! bytes of two digits can show, and begin again after that; rules of the calendar hold for all of
//! them, whatever history did.

/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;
/// Seconds from the start of year 0 to the start of 1970.
pub(super) const UNIX_EPOCH: i64 = 719_528 * DAY;

const DAYS_IN_400_YEARS: i64 = 146_097;
const SECONDS_IN_10_000_YEARS: i64 = 25 * DAYS_IN_400_YEARS * DAY;

/// Register B: hours from 0 to 23 (else 1 to 12 and a bit for the afternoon).
pub(super) const HOURS_24: u8 = 1 << 1;
/// Register B: binary (else binary coded decimal).
pub(super) const BINARY: u8 = 1 << 2;
/// An hour byte's bit for the afternoon.
const AFTERNOON: u8 = 1 << 7;

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    /// 0 to 9999.
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: i64,
    /// 1 to 31.
    pub(super) day: i64,
    /// Since midnight.
    pub(super) seconds: i64,
}

impl Date {
    /// From seconds since the start of year 0.
    pub(super) fn of_seconds(seconds: i64) -> Self {
        let seconds = seconds.rem_euclid(SECONDS_IN_10_000_YEARS);
        let days = seconds / DAY;
        // The mean year is short of 365.25 days, so this is the year or the one after.
        let guess = days * 400 / DAYS_IN_400_YEARS;
        let year = if days_before(guess + 1) <= days {
            guess + 1
        } else if days_before(guess) <= days {
            guess
        } else {
            guess - 1
        };
        let mut day = days - days_before(year);
        let mut month = 1;
        while day >= days_in(year, month) {
            day -= days_in(year, month);
            month += 1;
        }
        Date { year, month, day: day + 1, seconds: seconds % DAY }
    }

    /// Seconds since the start of year 0.
    pub(super) fn to_seconds(self) -> i64 {
        let months: i64 = (1..self.month).map(|month| days_in(self.year, month)).sum();
        (days_before(self.year) + months + self.day - 1) * DAY + self.seconds
    }
}

/// Day of the week of a second since the start of year 0: 0 is Sunday, 6 Saturday.
pub(super) fn weekday(seconds: i64) -> i64 {
    // The first day of year 0 is a Saturday.
    (seconds.div_euclid(DAY) + 6).rem_euclid(7)
}

/// Days from the start of year 0 to that of `year`.
fn days_before(year: i64) -> i64 {
    // Leap years before it; year 0 is one.
    let past = year + 3;
    365 * year + past / 4 - (year + 99) / 100 + (year + 399) / 400
}

/// Days in a month from 1 to 12.
pub(super) fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A number from 0 to 99 in register B's notation.
pub(super) fn encode(value: i64, b: u8) -> u8 {
    let value = u8::try_from(value.rem_euclid(100)).expect("less than 100");
    if b & BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
}

/// What a byte stands for in register B's notation; digits above nine count for what they are.
pub(super) fn decode(byte: u8, b: u8) -> i64 {
    i64::from(if b & BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 0xf) })
}

/// An hour from 0 to 23.
pub(super) fn encode_hour(hour: i64, b: u8) -> u8 {
    if b & HOURS_24 != 0 {
        return encode(hour, b);
    }
    let shown = encode((hour + 11) % 12 + 1, b);
    if hour >= 12 { shown | AFTERNOON } else { shown }
}

/// The hour that a byte stands for, the nearest for one that stands for none.
pub(super) fn decode_hour(byte: u8, b: u8) -> i64 {
    if b & HOURS_24 != 0 {
        return decode(byte, b).min(23);
    }
    let hour = decode(byte & !AFTERNOON, b).clamp(1, 12) % 12;
    if byte & AFTERNOON != 0 { hour + 12 } else { hour }
}
