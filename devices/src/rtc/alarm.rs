//! When the alarm comes.
//!
//! Owns the search for the next second that the three alarm registers allow, each of which is a
//! value or anything (0xc0 to 0xff). Must not know interrupts.

use super::calendar::DAY;
use super::{HOURS_ALARM, MINUTES_ALARM, NS, Rtc, SECONDS_ALARM};

/// One alarm register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Any,
    Only(u32),
}

impl Field {
    /// The values below `end` that are allowed, from `from` on.
    fn from(self, from: u32, end: u32) -> impl Iterator<Item = u32> {
        let (first, last) = match self {
            Field::Any => (from, end),
            Field::Only(value) if value >= from => (value, (value + 1).min(end)),
            Field::Only(_) => (end, end),
        };
        first..last
    }
}

/// The first second of a day, from `from` on, that is allowed.
fn first_match(hour: Field, minute: Field, second: Field, from: u32) -> Option<u32> {
    for h in hour.from(from / 3600, 24) {
        let from_minute = if h == from / 3600 { from / 60 % 60 } else { 0 };
        for m in minute.from(from_minute, 60) {
            let same = h == from / 3600 && m == from / 60 % 60;
            if let Some(s) = second.from(if same { from % 60 } else { 0 }, 60).next() {
                return Some(h * 3600 + m * 60 + s);
            }
        }
    }
    None
}

impl Rtc {
    /// Finds the next alarm after the present second.
    pub(super) fn find_alarm(&mut self) {
        let field = |at: usize, decoded: u32| {
            if self.ram[at] >= 0xc0 { Field::Any } else { Field::Only(decoded) }
        };
        let second = field(SECONDS_ALARM, self.decoded(self.ram[SECONDS_ALARM]));
        let minute = field(MINUTES_ALARM, self.decoded(self.ram[MINUTES_ALARM]));
        let hour = field(HOURS_ALARM, self.decoded_hour(self.ram[HOURS_ALARM]));
        let next = self.wall().div_euclid(NS) as i64 + 1;
        let (day, from) = (next.div_euclid(DAY) * DAY, next.rem_euclid(DAY) as u32);
        let today = first_match(hour, minute, second, from).map(|at| day + i64::from(at));
        let tomorrow = || first_match(hour, minute, second, 0).map(|at| day + DAY + i64::from(at));
        self.alarm_at = today.or_else(tomorrow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_match_is_what_a_search_second_by_second_finds() {
        let fields = [Field::Any, Field::Only(0), Field::Only(7), Field::Only(59), Field::Only(61)];
        let fits = |field: Field, value: u32| field == Field::Any || field == Field::Only(value);
        for hour in fields {
            for minute in fields {
                for second in fields {
                    for from in [0, 1, 59, 60, 3599, 3600, 7 * 3600 + 7 * 60 + 8, 86_399] {
                        let slow = (from..86_400).find(|at| {
                            fits(hour, at / 3600)
                                && fits(minute, at / 60 % 60)
                                && fits(second, at % 60)
                        });
                        assert_eq!(first_match(hour, minute, second, from), slow);
                    }
                }
            }
        }
    }
}
