//! The real-time clock: an MC146818A with 128 bytes of memory behind ports 0x70 and 0x71.
//!
//! Owns registers A to D, the alarm, the memory, and the offset from the host's clock to the date.
//! Must not know what its interrupt line is wired to, nor threads or locks. Facts are from Motorola's
//! MC146818A datasheet; what firmware leaves in the memory is as SeaBIOS and Linux read it.
//!
//! **Time.** `now` is the host's monotonic clock in ns; one that is earlier than another seen before
//! counts as the latest seen. Setting the date changes an offset. The date moves on and its flags are
//! set in one moment, 244 us after UIP; the 2 ms in which the chip's bytes are undefined are left out.
//! Any time base but the divider's reset is 32,768 Hz.
//!
//! **Interrupts.** [`Rtc::line`] is a level, from the flag until register C is read. With no interrupt
//! enabled, [`Rtc::next_event`] is none: flags are found out when a guest looks.
//!
//! | threat | answer |
//! |---|---|
//! | an interrupt rate of 8192 Hz | while it is enabled, the periodic flag comes only every so many periods that these are the least period apart |
//! | an interrupt that nobody clears | the line stays up, and no event is due until it is cleared |
//! | a host that was away for long | each flag is set once, in a bounded number of steps |
//! | dates and alarms that do not exist | a date out of range is the nearest in range; such an alarm never matches |
//! | years beyond 9999 | start again at 0 |
//! | another port than the two | reads as all ones, writes are ignored |
//! | time going backwards, or to its end | the latest time seen; an event beyond 64 bits of ns is none |

mod alarm;
mod calendar;
mod clock;
mod firmware;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use alarm::Alarm;
use clock::{Clock, SECOND};

/// The ports: index and NMI mask, then data.
pub const PORTS: RangeInclusive<u16> = 0x70..=0x71;

const INDEX_PORT: u16 = 0x70;
const DATA_PORT: u16 = 0x71;
/// Index port: no NMI.
const NMI_MASK: u8 = 1 << 7;

const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;

/// A: the date is about to move on.
const UIP: u8 = 1 << 7;
/// A: both upper bits of the divider control, which are its reset.
const DIVIDER_RESET: u8 = 0b110 << 4;
/// A: rate select.
const RATE: u8 = 0x0f;
/// B: the date stands still to be set.
const SET: u8 = 1 << 7;
/// B and C: periodic interrupt.
const PERIODIC: u8 = 1 << 6;
/// B and C: alarm interrupt.
const ALARM: u8 = 1 << 5;
/// B and C: update-ended interrupt.
const UPDATE: u8 = 1 << 4;
/// B: square wave, which goes nowhere.
const SQUARE_WAVE: u8 = 1 << 3;
/// C: an interrupt is requested.
const IRQF: u8 = 1 << 7;
/// D: the memory and the time are valid.
const VALID: u8 = 1 << 7;

/// A after power-on, as firmware leaves it: 32,768 Hz, 1024 interrupts a second.
const FIRST_A: u8 = 0x26;

/// UIP comes that many ns before the date moves on.
const UIP_NS: u64 = 244_000;
/// What the rates are taken from.
const BASE_HZ: u128 = 32_768;

/// What a clock starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcConfig {
    /// A moment on the host's monotonic clock, in ns.
    pub host_ns: u64,
    /// The time that the clock shows at that moment, in ns since 1970. Guests expect UTC.
    pub unix_ns: u64,
    /// Bytes of memory below 4 GiB.
    pub memory_below_4g: u64,
    /// Bytes of memory from 4 GiB on.
    pub memory_above_4g: u64,
    /// Least ns from one periodic interrupt to the next; 122,071 or less leaves all rates alone.
    pub least_period_ns: u64,
}

/// The clock.
#[derive(Clone, Debug)]
pub struct Rtc {
    clock: Clock,
    alarm: Alarm,
    a: u8,
    b: u8,
    /// The flags of C, without IRQF.
    c: u8,
    index: u8,
    nmi_masked: bool,
    memory: [u8; 128],
    least_period_ns: u64,
    /// The latest time seen.
    now: u64,
}

impl Rtc {
    /// A running clock, 24 hours, binary coded decimal, no interrupt enabled.
    #[must_use]
    pub fn new(config: &RtcConfig) -> Self {
        Rtc {
            clock: Clock::new(config.host_ns, config.unix_ns),
            alarm: Alarm::default(),
            a: FIRST_A,
            b: calendar::HOURS_24,
            c: 0,
            index: 0,
            nmi_masked: false,
            memory: firmware::memory(config.memory_below_4g, config.memory_above_4g),
            least_period_ns: config.least_period_ns,
            now: config.host_ns,
        }
    }

    /// The chip's RESET pin: disables the interrupts and clears their flags. Time, memory and
    /// settings are the battery's and stay.
    pub fn reset(&mut self) {
        let Rtc {
            clock: _,
            alarm: _,
            a: _,
            b,
            c,
            index,
            nmi_masked,
            memory: _,
            least_period_ns: _,
            now: _,
        } = self;
        *b &= !(PERIODIC | ALARM | UPDATE | SQUARE_WAVE);
        *c = 0;
        *index = 0;
        *nmi_masked = false;
    }

    /// Reads a byte from one of the ports.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        self.advance(now);
        match port {
            INDEX_PORT => self.index | if self.nmi_masked { NMI_MASK } else { 0 },
            DATA_PORT => self.read_register(),
            _ => 0xff,
        }
    }

    /// Writes a byte to one of the ports.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        self.advance(now);
        match port {
            INDEX_PORT => {
                self.index = value & !NMI_MASK;
                self.nmi_masked = value & NMI_MASK != 0;
            }
            DATA_PORT => self.write_register(value),
            _ => {}
        }
    }

    /// Brings the flags to `now`. Afterwards [`Rtc::next_event`] is later than `now`.
    pub fn advance(&mut self, now: u64) {
        let (before, now) = (self.now, self.now.max(now));
        self.now = now;
        if let Some(period) = self.period()
            && self.clock.divider(now) * BASE_HZ / period
                > self.clock.divider(before) * BASE_HZ / period
        {
            self.c |= PERIODIC;
        }
        if self.clock.is_stopped() {
            return;
        }
        let (from, to) = (self.clock.second(before), self.clock.second(now));
        if to > from {
            self.c |= UPDATE;
            if self.c & ALARM == 0 && self.next_alarm(from).is_some_and(|alarm| alarm <= to) {
                self.c |= ALARM;
            }
        }
    }

    /// Whether an interrupt is requested (IRQF), as of the latest time seen. The pin's level is the
    /// opposite.
    #[must_use]
    pub fn line(&self) -> bool {
        self.b & self.c & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// Whether the guest has masked NMI (bit 7 of port 0x70).
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// Host ns at which the line goes up next if nothing is written, rounded up. `None` while it is
    /// up, and while no interrupt is enabled.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        if self.line() {
            return None;
        }
        let divider = [
            self.period().filter(|_| self.b & PERIODIC != 0).map(|period| {
                let passed = self.clock.divider(self.now) * BASE_HZ / period;
                ((passed + 1) * period).div_ceil(BASE_HZ)
            }),
            self.next_second()
                .map(|second| u128::from(second.cast_unsigned()) * u128::from(SECOND)),
        ];
        divider.into_iter().flatten().min().and_then(|at| self.clock.host_ns(at))
    }

    /// Number of the divider's second in which an enabled interrupt of the date is due.
    fn next_second(&self) -> Option<i64> {
        if self.clock.is_stopped() {
            return None;
        }
        let second = self.clock.second(self.now);
        if self.b & UPDATE != 0 {
            Some(second + 1)
        } else if self.b & ALARM != 0 {
            self.next_alarm(second)
        } else {
            None
        }
    }

    /// Number of the divider's first second after `second` that the alarm matches.
    fn next_alarm(&self, second: i64) -> Option<i64> {
        let wait = self.alarm.next(self.clock.time_of_day(second), self.b)?;
        Some(second + wait)
    }

    /// What the divider's nanoseconds, times the base rate, are to be divided by to get the number of
    /// the periodic flag; `None` when there is none.
    fn period(&self) -> Option<u128> {
        if self.is_divider_reset() {
            return None;
        }
        let log2 = match self.a & RATE {
            0 => return None,
            // The two lowest of the codes are rates of 256 and 128 Hz.
            rate @ 1..=2 => rate + 6,
            rate => rate - 1,
        };
        let period = u128::from(SECOND) << log2;
        if self.b & PERIODIC == 0 {
            return Some(period);
        }
        let periods = (u128::from(self.least_period_ns) * BASE_HZ).div_ceil(period);
        Some(period * periods.max(1))
    }

    fn is_divider_reset(&self) -> bool {
        self.a & DIVIDER_RESET == DIVIDER_RESET
    }

    /// Whether the date moves on within the time of UIP.
    fn is_update_near(&self) -> bool {
        let left = u128::from(SECOND) - self.clock.divider(self.now) % u128::from(SECOND);
        !self.clock.is_stopped() && left <= u128::from(UIP_NS)
    }

    fn read_register(&mut self) -> u8 {
        match self.index {
            0x01 => self.alarm.seconds,
            0x03 => self.alarm.minutes,
            0x05 => self.alarm.hours,
            REGISTER_A => self.a | if self.is_update_near() { UIP } else { 0 },
            REGISTER_B => self.b,
            REGISTER_C => {
                let requested = if self.line() { IRQF } else { 0 };
                std::mem::take(&mut self.c) | requested
            }
            REGISTER_D => VALID,
            index => match date_byte(index) {
                Some(byte) => self.clock.bytes(self.now, self.b)[byte],
                None => self.memory[usize::from(index)],
            },
        }
    }

    fn write_register(&mut self, value: u8) {
        match self.index {
            0x01 => self.alarm.seconds = value,
            0x03 => self.alarm.minutes = value,
            0x05 => self.alarm.hours = value,
            REGISTER_A => self.write_a(value),
            REGISTER_B => self.write_b(value),
            REGISTER_C | REGISTER_D => {}
            index => match date_byte(index) {
                Some(byte) => self.clock.set_byte(byte, value, self.now, self.b),
                None => self.memory[usize::from(index)] = value,
            },
        }
    }

    fn write_a(&mut self, value: u8) {
        let was_reset = self.is_divider_reset();
        self.a = value & !UIP;
        if was_reset && !self.is_divider_reset() {
            self.clock.restart_divider(self.now);
        }
        self.stop_or_go();
    }

    fn write_b(&mut self, value: u8) {
        // Setting the date disables the interrupt of its moving on (datasheet, "UIE").
        self.b = if value & SET != 0 { value & !UPDATE } else { value };
        self.stop_or_go();
    }

    /// The date stands still while it is set or the divider is in reset.
    fn stop_or_go(&mut self) {
        let stop = self.b & SET != 0 || self.is_divider_reset();
        if !stop {
            self.clock.go_on(self.now, self.b);
        } else if !self.clock.is_stopped() {
            self.clock.stop(self.now, self.b);
        }
    }
}

/// Which byte of the date an index is.
fn date_byte(index: u8) -> Option<usize> {
    Some(match index {
        0x00 => clock::SECONDS,
        0x02 => clock::MINUTES,
        0x04 => clock::HOURS,
        0x06 => clock::WEEKDAY,
        0x07 => clock::DAY,
        0x08 => clock::MONTH,
        0x09 => clock::YEAR,
        0x32 => clock::CENTURY,
        _ => return None,
    })
}
