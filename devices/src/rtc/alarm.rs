//! When an alarm's bytes match the time of day.
//!
//! Owns no state. Must not know dates, flags or nanoseconds.

use super::calendar::{self, DAY};

/// A byte of the alarm from here on matches everything (datasheet, "don't care").
const ANY: u8 = 0xc0;

/// The bytes of an alarm, as written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alarm {
    pub(super) seconds: u8,
    pub(super) minutes: u8,
    pub(super) hours: u8,
}

impl Alarm {
    /// Seconds (1 to a day) from a time of day to the next match in register B's notation; `None`
    /// when a byte is no time at all.
    pub(super) fn next(self, time_of_day: i64, b: u8) -> Option<i64> {
        let second = only(self.seconds, 60, |value| calendar::encode(value, b))?;
        let minute = only(self.minutes, 60, |value| calendar::encode(value, b))?;
        let hour = only(self.hours, 24, |value| calendar::encode_hour(value, b))?;

        let mut at = time_of_day + 1;
        if let Some(second) = second {
            at += (second - at % 60).rem_euclid(60);
        }
        let minutes = minute.map_or(0, |minute| (minute - at / 60 % 60).rem_euclid(60));
        if minutes > 0 {
            at = (at / 60 + minutes) * 60 + second.unwrap_or(0);
        }
        let hours = hour.map_or(0, |hour| (hour - at / 3600 % 24).rem_euclid(24));
        if hours > 0 {
            at = (at / 3600 + hours) * 3600 + minute.unwrap_or(0) * 60 + second.unwrap_or(0);
        }
        debug_assert!((1..=DAY).contains(&(at - time_of_day)));
        Some(at - time_of_day)
    }
}

/// `Some(None)` for a byte that matches everything, else the value that is shown so, if any.
fn only(byte: u8, values: i64, show: impl Fn(i64) -> u8) -> Option<Option<i64>> {
    if byte >= ANY {
        return Some(None);
    }
    (0..values).find(|value| show(*value) == byte).map(Some)
}
