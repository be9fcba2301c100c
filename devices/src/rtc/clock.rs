//! Time of day as an offset to the host's clock.
//!
//! Owns the divider's phase, the offset between its seconds and the date, and the bytes of the date
//! while the guest has stopped them. Must not know interrupts, alarms or ports.
//!
//! **Phase.** The divider is a counter of nanoseconds that is a whole second whenever the date is to
//! move on: host ns plus `phase`. Its seconds are numbered. Setting the date changes only the offset
//! `seconds` from those numbers to the date, so the phase survives, as in the chip; the divider's own
//! reset is what changes the phase.

use super::calendar::{self, Date, UNIX_EPOCH};

/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// The divider's first second after its reset is that short (datasheet, "Divider control").
const AFTER_RESET: u64 = SECOND / 2;

/// Bytes of the date.
pub(super) const SECONDS: usize = 0;
pub(super) const MINUTES: usize = 1;
pub(super) const HOURS: usize = 2;
pub(super) const WEEKDAY: usize = 3;
pub(super) const DAY: usize = 4;
pub(super) const MONTH: usize = 5;
pub(super) const YEAR: usize = 6;
pub(super) const CENTURY: usize = 7;

/// The bytes of date and time as a guest sees them, by the indices above.
pub(super) type Bytes = [u8; 8];

/// The clock.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// Less than a second.
    phase: u64,
    /// From the divider's seconds to seconds since the start of year 0.
    seconds: i64,
    /// From the date's day of the week to the one shown, 0 to 6.
    weekdays: i64,
    /// What is shown while the date stands still.
    stopped: Option<Bytes>,
}

impl Clock {
    /// A running clock that shows `unix_ns` (ns since 1970) at `host_ns`.
    pub(super) fn new(host_ns: u64, unix_ns: u64) -> Self {
        let phase = (unix_ns % SECOND + SECOND - host_ns % SECOND) % SECOND;
        let mut clock = Clock { phase, seconds: 0, weekdays: 0, stopped: None };
        let date = UNIX_EPOCH + (unix_ns / SECOND).cast_signed();
        clock.seconds = date - clock.second(host_ns);
        clock
    }

    /// The divider's nanoseconds.
    pub(super) fn divider(&self, now: u64) -> u128 {
        u128::from(now) + u128::from(self.phase)
    }

    /// Host ns of a time of the divider that is not past; `None` beyond the end of time.
    pub(super) fn host_ns(&self, divider: u128) -> Option<u64> {
        u64::try_from(divider - u128::from(self.phase)).ok()
    }

    /// Number of the divider's second.
    pub(super) fn second(&self, now: u64) -> i64 {
        i64::try_from(self.divider(now) / u128::from(SECOND)).expect("2^64 ns are 2^35 s")
    }

    /// Seconds since midnight in one of the divider's seconds.
    pub(super) fn time_of_day(&self, second: i64) -> i64 {
        (second + self.seconds).rem_euclid(calendar::DAY)
    }

    /// The divider begins anew, while the date is stopped.
    pub(super) fn restart_divider(&mut self, now: u64) {
        self.phase = (AFTER_RESET + SECOND - now % SECOND) % SECOND;
    }

    /// The date as shown with register B's notation.
    pub(super) fn bytes(&self, now: u64, b: u8) -> Bytes {
        if let Some(bytes) = self.stopped {
            return bytes;
        }
        let seconds = self.second(now) + self.seconds;
        let date = Date::of_seconds(seconds);
        let mut bytes = [0; 8];
        bytes[SECONDS] = calendar::encode(date.seconds % 60, b);
        bytes[MINUTES] = calendar::encode(date.seconds / 60 % 60, b);
        bytes[HOURS] = calendar::encode_hour(date.seconds / 3600, b);
        let weekday = (calendar::weekday(seconds) + self.weekdays) % 7;
        bytes[WEEKDAY] = calendar::encode(weekday + 1, b);
        bytes[DAY] = calendar::encode(date.day, b);
        bytes[MONTH] = calendar::encode(date.month, b);
        bytes[YEAR] = calendar::encode(date.year % 100, b);
        bytes[CENTURY] = calendar::encode(date.year / 100, b);
        bytes
    }

    /// Writes one byte of the date.
    pub(super) fn set_byte(&mut self, index: usize, byte: u8, now: u64, b: u8) {
        if let Some(bytes) = &mut self.stopped {
            bytes[index] = byte;
            return;
        }
        let mut bytes = self.bytes(now, b);
        bytes[index] = byte;
        self.set(&bytes, now, b);
    }

    /// Whether the date stands still.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Stops the date.
    pub(super) fn stop(&mut self, now: u64, b: u8) {
        self.stopped = Some(self.bytes(now, b));
    }

    /// Lets the date go on from what is shown.
    pub(super) fn go_on(&mut self, now: u64, b: u8) {
        if let Some(bytes) = self.stopped.take() {
            self.set(&bytes, now, b);
        }
    }

    /// Takes the bytes for the date. What is out of range is the nearest that is not, so that a date
    /// written byte by byte never runs over into the next month on the way.
    fn set(&mut self, bytes: &Bytes, now: u64, b: u8) {
        let value = |index: usize| calendar::decode(bytes[index], b);
        let year = value(CENTURY).min(99) * 100 + value(YEAR).min(99);
        let month = value(MONTH).clamp(1, 12);
        let seconds = calendar::decode_hour(bytes[HOURS], b) * 3600
            + value(MINUTES).min(59) * 60
            + value(SECONDS).min(59);
        let day = value(DAY).clamp(1, calendar::days_in(year, month));
        let date = Date { year, month, day, seconds }.to_seconds();
        self.seconds = date - self.second(now);
        self.weekdays = (value(WEEKDAY).clamp(1, 7) - 1 - calendar::weekday(date)).rem_euclid(7);
    }
}
