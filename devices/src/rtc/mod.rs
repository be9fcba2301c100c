//! The CMOS clock: an MC146818A at ports 0x70 and 0x71.
//!
//! Owns the time of day, its alarm and interrupts, and 128 bytes of memory. Drives ISA interrupt 8.
//! Must not know interrupt controllers, nor where the time comes from: the host's time of day is told
//! once, and counted on by the monotonic clock. Source: Motorola's MC146818A data sheet; the bytes
//! that say how much memory there is are those that PC firmware leaves.
//!
//! The time is not stored but computed, until the guest stops it (SET, or the divider's reset): then
//! the ten registers are what the guest writes, and become the time when it goes on. What the guest
//! changes is a difference to the host's time.
//!
//! | threat | answer |
//! |---|---|
//! | a date that does not exist | counted on: February 30 is March 1 or 2 |
//! | an alarm that never comes (second 61) | there is none |
//! | a time that runs backwards, or to the end of 64 bits | the last time counts; 128-bit arithmetic |
//! | the fastest periodic interrupt | one for each read of register C, and [`RtcConfig::least_period_ns`] |

mod alarm;
mod calendar;
#[cfg(test)]
mod tests;

use self::calendar::Date;

const NS: i128 = 1_000_000_000;
/// Register A's UIP is set this long before an update.
const UIP_NS: i128 = 244_000;
const PORT_INDEX: u16 = 0x70;
const PORT_DATA: u16 = 0x71;

const SECONDS: usize = 0;
const SECONDS_ALARM: usize = 1;
const MINUTES: usize = 2;
const MINUTES_ALARM: usize = 3;
const HOURS: usize = 4;
const HOURS_ALARM: usize = 5;
const WEEKDAY: usize = 6;
const DAY: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const REG_A: usize = 10;
const REG_B: usize = 11;
const REG_C: usize = 12;
const REG_D: usize = 13;
const CENTURY: usize = 0x32;

const A_WRITABLE: u8 = 0x7f;
const A_UIP: u8 = 0x80;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24H: u8 = 0x02;
const B_UIE: u8 = 0x10;
/// The bits of the three interrupts, in register B as in register C.
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE: u8 = 0x10;
const C_IRQF: u8 = 0x80;
const D_VALID: u8 = 0x80;

/// What is decided about a clock before it exists.
#[derive(Clone, Copy, Debug)]
pub struct RtcConfig {
    /// A moment on the host's monotonic clock, in ns,
    pub host_ns: u64,
    /// and the time of day at it, in ns since 1970-01-01 UTC.
    pub unix_ns: u64,
    /// Bytes of memory below 4 GiB.
    pub low_memory: u64,
    /// Bytes of memory from 4 GiB up.
    pub high_memory: u64,
    /// Shortest time between two periodic interrupts, in ns.
    pub least_period_ns: u64,
}

/// The clock.
#[derive(Clone, Debug)]
pub struct Rtc {
    index: u8,
    nmi_masked: bool,
    ram: [u8; 128],
    /// Flags of register C.
    flags: u8,
    /// The time of day is the host's monotonic time plus this, in ns.
    delta: i128,
    /// The clock stands: the time registers are in `ram`, and the part of a second that had passed.
    stopped: Option<i128>,
    /// The latest time that was seen, in host ns.
    now: u64,
    start: u64,
    /// Second (since 1970) of the next alarm.
    alarm_at: Option<i64>,
    least_period_ns: u64,
    reported: Option<u64>,
}

impl Rtc {
    /// A clock that goes, in BCD and 24-hour mode, with no interrupt enabled.
    #[must_use]
    pub fn new(config: RtcConfig) -> Self {
        let mut ram = [0; 128];
        ram[REG_A] = 0x26;
        ram[REG_B] = B_24H;
        ram[REG_D] = D_VALID;
        remember_memory(&mut ram, config.low_memory, config.high_memory);
        let mut rtc = Rtc {
            index: 0,
            nmi_masked: false,
            ram,
            flags: 0,
            delta: i128::from(config.unix_ns) - i128::from(config.host_ns),
            stopped: None,
            now: config.host_ns,
            start: config.host_ns,
            alarm_at: None,
            least_period_ns: config.least_period_ns,
            reported: None,
        };
        rtc.find_alarm();
        rtc
    }

    /// Reads port 0x70 (all ones) or 0x71.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        self.advance(now);
        if port != PORT_DATA {
            return 0xff;
        }
        match usize::from(self.index) {
            at if is_time(at) => self.time_register(at),
            REG_A => self.ram[REG_A] | if self.updating() { A_UIP } else { 0 },
            REG_C => {
                let irqf = if self.line() { C_IRQF } else { 0 };
                irqf | std::mem::take(&mut self.flags)
            }
            at => self.ram[at],
        }
    }

    /// Writes port 0x70 (index, and the NMI's mask in bit 7) or 0x71.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        self.advance(now);
        match port {
            PORT_INDEX => {
                self.index = value & 0x7f;
                self.nmi_masked = value & 0x80 != 0;
            }
            PORT_DATA => self.write_register(usize::from(self.index), value),
            _ => {}
        }
    }

    fn write_register(&mut self, at: usize, value: u8) {
        match at {
            REG_C | REG_D => return,
            REG_A => self.ram[REG_A] = value & A_WRITABLE,
            // A clock that stands has no update to end.
            REG_B if value & B_SET != 0 => self.ram[REG_B] = value & !B_UIE,
            REG_B => {
                // The modes say how the registers are to be read, so they change first.
                self.ram[REG_B] = value;
            }
            at if is_time(at) && self.stopped.is_none() => {
                self.show_time();
                self.ram[at] = value;
                self.take_time(self.wall().rem_euclid(NS));
            }
            at => self.ram[at] = value,
        }
        self.stop_or_go();
        self.find_alarm();
    }

    /// The NMI is masked by bit 7 of port 0x70.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// Brings the clock up to `now`.
    pub fn advance(&mut self, now: u64) {
        let before = self.now;
        self.now = before.max(now);
        if let Some(rate) = self.rate()
            && periods(self.now - self.start, rate) > periods(before - self.start, rate)
        {
            self.raise(PERIODIC);
        }
        if self.stopped.is_some() {
            return;
        }
        let delta = self.delta;
        let second = |at: u64| (i128::from(at) + delta).div_euclid(NS);
        if second(self.now) > second(before) {
            self.raise(UPDATE);
        }
        if self.alarm_at.is_some_and(|at| i128::from(at) <= second(self.now)) {
            self.raise(ALARM);
            self.find_alarm();
        }
    }

    fn raise(&mut self, flag: u8) {
        if flag == PERIODIC && self.flags & PERIODIC == 0 {
            self.reported = Some(self.now);
        }
        self.flags |= flag;
    }

    /// The interrupt line: an enabled flag is set.
    #[must_use]
    pub fn line(&self) -> bool {
        self.flags & self.ram[REG_B] & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// Host ns at which the line may rise next: none while it is asserted, or no interrupt enabled.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        if self.line() {
            return None;
        }
        let enabled = |flag| self.ram[REG_B] & flag != 0;
        let periodic = self.rate().filter(|_| enabled(PERIODIC)).map(|rate| {
            let next = periods(self.now - self.start, rate) + 1;
            let at = (next * NS as u128).div_ceil(u128::from(rate)) + u128::from(self.start);
            let least = self.reported.map_or(0, |at| at.saturating_add(self.least_period_ns));
            u64::try_from(at).unwrap_or(u64::MAX).max(least)
        });
        let goes = self.stopped.is_none();
        let update = (goes && enabled(UPDATE))
            .then(|| self.host_ns_of((self.wall().div_euclid(NS) + 1) * NS));
        let alarm = self.alarm_at.filter(|_| goes && enabled(ALARM));
        let alarm = alarm.map(|second| self.host_ns_of(i128::from(second) * NS));
        [periodic, update, alarm].into_iter().flatten().min()
    }

    /// The guest's time of day, in ns since 1970.
    fn wall(&self) -> i128 {
        i128::from(self.now) + self.delta
    }

    fn host_ns_of(&self, wall: i128) -> u64 {
        u64::try_from((wall - self.delta).max(0)).unwrap_or(u64::MAX)
    }

    /// Rate of the periodic interrupt, in Hz.
    fn rate(&self) -> Option<u32> {
        match self.ram[REG_A] & 0xf {
            0 => None,
            // With the 32.768 kHz crystal the first two repeat 256 and 128 Hz.
            select @ 1..=2 => Some(512 >> select),
            select => Some(32_768 >> (select - 1)),
        }
    }

    fn updating(&self) -> bool {
        self.stopped.is_none() && self.wall().rem_euclid(NS) >= NS - UIP_NS
    }

    /// Stops the clock or lets it go on, as registers A and B say.
    fn stop_or_go(&mut self) {
        let divider_reset = self.ram[REG_A] & 0x60 == 0x60;
        let stop = self.ram[REG_B] & B_SET != 0 || divider_reset;
        match self.stopped {
            None if stop => {
                self.show_time();
                self.stopped = Some(self.wall().rem_euclid(NS));
            }
            Some(part) if !stop => {
                self.stopped = None;
                self.take_time(part);
            }
            _ => {}
        }
    }

    fn time_register(&self, at: usize) -> u8 {
        if self.stopped.is_some() {
            return self.ram[at];
        }
        let unix = self.wall().div_euclid(NS) as i64;
        let date = Date::at(unix);
        match at {
            SECONDS => self.encoded(date.second % 60),
            MINUTES => self.encoded(date.second / 60 % 60),
            HOURS => self.encoded_hour(date.second / 3600),
            WEEKDAY => self.encoded(u32::from(Date::weekday(unix))),
            DAY => self.encoded(date.day),
            MONTH => self.encoded(date.month),
            YEAR => self.encoded(date.year % 100),
            _ => self.encoded(date.year / 100),
        }
    }

    /// Puts the time into the registers.
    fn show_time(&mut self) {
        for at in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            self.ram[at] = self.time_register(at);
        }
    }

    /// Takes the time from the registers; `part` of a second, in ns, has passed.
    fn take_time(&mut self, part: i128) {
        let value = |at: usize| self.decoded(self.ram[at]);
        let date = Date {
            year: value(CENTURY) * 100 + value(YEAR),
            month: value(MONTH),
            day: value(DAY),
            second: self.decoded_hour(self.ram[HOURS]) * 3600
                + value(MINUTES) * 60
                + value(SECONDS),
        };
        self.delta = i128::from(date.unix()) * NS + part - i128::from(self.now);
    }

    fn encoded(&self, value: u32) -> u8 {
        let value = value as u8;
        if self.ram[REG_B] & B_BINARY != 0 {
            value
        } else {
            ((value / 10 % 10) << 4) | (value % 10)
        }
    }

    fn decoded(&self, value: u8) -> u32 {
        if self.ram[REG_B] & B_BINARY != 0 {
            return u32::from(value);
        }
        u32::from(value >> 4).min(9) * 10 + u32::from(value & 0xf).min(9)
    }

    fn encoded_hour(&self, hour: u32) -> u8 {
        if self.ram[REG_B] & B_24H != 0 {
            return self.encoded(hour);
        }
        let pm = if hour >= 12 { 0x80 } else { 0 };
        self.encoded((hour + 11) % 12 + 1) | pm
    }

    fn decoded_hour(&self, value: u8) -> u32 {
        if self.ram[REG_B] & B_24H != 0 {
            return self.decoded(value);
        }
        self.decoded(value & 0x7f) % 12 + if value & 0x80 != 0 { 12 } else { 0 }
    }
}

fn is_time(at: usize) -> bool {
    matches!(at, SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY)
}

/// Periods of `rate` Hz that have passed in `ns`.
fn periods(ns: u64, rate: u32) -> u128 {
    u128::from(ns) * u128::from(rate) / NS as u128
}

/// Where PC firmware leaves the size of memory.
fn remember_memory(ram: &mut [u8; 128], low: u64, high: u64) {
    let mut word = |at: usize, value: u64| {
        let [first, second, ..] = value.min(0xffff).to_le_bytes();
        (ram[at], ram[at + 1]) = (first, second);
    };
    let above = |start: u64, unit: u64| low.saturating_sub(start) / unit;
    word(0x15, 640);
    word(0x17, above(1 << 20, 1 << 10));
    word(0x30, above(1 << 20, 1 << 10));
    word(0x34, above(16 << 20, 64 << 10));
    let [a, b, c, ..] = (high >> 16).min(0xff_ffff).to_le_bytes();
    [ram[0x5b], ram[0x5c], ram[0x5d]] = [a, b, c];
}
