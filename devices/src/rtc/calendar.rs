//! Dates: days since 1970 to year, month and day, and back.
//!
//! Owns the Gregorian calendar. Must not know registers.

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    /// 0 to 9999.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// Seconds since midnight.
    pub second: u32,
}

pub(super) const DAY: i64 = 86_400;
/// Days of 400 years.
const ERA: i64 = 146_097;
/// 0000-03-01 is this many days before 1970-01-01.
const MARCH_0: i64 = 719_468;
/// The first second after the year 9999, and that of the year 0.
const END: i64 = 253_402_300_800;
const BEGIN: i64 = -62_167_219_200;

impl Date {
    /// From seconds since 1970; what lies beyond the years 0 to 9999 is cut off.
    pub(super) fn at(unix: i64) -> Self {
        let unix = unix.clamp(BEGIN, END - 1);
        let days = unix.div_euclid(DAY) + MARCH_0;
        let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        // Years begin in March, so that the leap day is the last one.
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        Date {
            year: year as u32,
            month: month as u32,
            day: day as u32,
            second: unix.rem_euclid(DAY) as u32,
        }
    }

    /// Seconds since 1970. A day or month out of range is counted on from the last one in range.
    pub(super) fn unix(&self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let shifted = if month > 2 { month - 3 } else { month + 9 };
        let of_year = (153 * shifted + 2) / 5 + i64::from(self.day.max(1)) - 1;
        let days = era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - MARCH_0;
        days * DAY + i64::from(self.second)
    }

    /// 1: Sunday, to 7, of seconds since 1970.
    pub(super) fn weekday(unix: i64) -> u8 {
        // 1970-01-01 was a Thursday.
        ((unix.div_euclid(DAY) + 4).rem_euclid(7) + 1) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leap(year: u32) -> bool {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    }

    #[test]
    fn every_day_of_five_centuries_is_the_day_after_the_last() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..500 * 365 {
            let date = Date::at(days * DAY + 3);
            assert_eq!((date.year, date.month, date.day, date.second), (year, month, day, 3));
            assert_eq!(date.unix(), days * DAY + 3);
            let length = match month {
                2 => 28 + u32::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn ends_of_time_are_cut_off() {
        assert_eq!(Date::at(i64::MAX).year, 9999);
        assert_eq!(Date::at(i64::MIN).year, 0);
        assert_eq!(Date::at(END - 1).unix(), END - 1);
        assert_eq!(Date::at(BEGIN).unix(), BEGIN);
    }

    #[test]
    fn weekdays() {
        assert_eq!(Date::weekday(0), 5);
        assert_eq!(Date::weekday(3 * DAY), 1);
        assert_eq!(Date::weekday(-DAY), 4);
    }
}
