//! How figures are written for people: a few characters, with their unit.
//!
//! Pure. Owns nothing.

use crate::bench::{Figure, short};

/// A number; `-`: unknown.
#[must_use]
pub fn number(value: Option<f64>) -> String {
    short(Figure::maybe(value))
}

/// A short time in nanoseconds, with three digits or so: `850 ns`, `37.2 us`, `1.25 ms`, `12.0 s`; `-`:
/// unknown.
#[must_use]
pub fn time(ns: Option<u64>) -> String {
    let Some(ns) = ns else { return "-".to_owned() };
    let value = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", number(Some(value / 1e3))),
        1_000_000..1_000_000_000 => format!("{} ms", number(Some(value / 1e6))),
        _ => format!("{} s", number(Some(value / 1e9))),
    }
}

/// How long something has been there, from nanoseconds: `12 s`, `3:05`, `26:03:05`.
#[must_use]
pub fn uptime(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let times = [None, Some(0), Some(999), Some(37_200), Some(1_250_000), Some(12_000_000_000)];
        let texts = times.map(time);
        assert_eq!(texts, ["-", "0 ns", "999 ns", "37.2 us", "1.25 ms", "12.0 s"]);
        assert_eq!(time(Some(u64::MAX)), "18.4G s");
    }

    #[test]
    fn uptimes_are_seconds_minutes_or_hours() {
        let of = |seconds: u64| uptime(seconds * 1_000_000_000 + 999_999_999);
        assert_eq!([of(12), of(185), of(93_785)], ["12 s", "3:05", "26:03:05"]);
    }
}
