//! Behaviour of the clock, through its ports.

mod dates;
mod interrupts;
mod properties;
mod registers;

use super::*;

/// 2024-02-28 23:59:58 UTC, a Wednesday.
const LEAP_DAYS_EVE: u64 = 1_709_164_798;
const MS: u64 = 1_000_000;
const HOURS_24: u8 = 2;
const BINARY: u8 = 4;

const CONFIG: RtcConfig = RtcConfig {
    host_ns: 5 * SECOND,
    unix_ns: LEAP_DAYS_EVE * SECOND,
    memory_below_4g: 2 << 30,
    memory_above_4g: 0,
    least_period_ns: 0,
};

/// A clock whose date moves on at whole seconds of host time, of which `SECOND * 5` is the first.
fn rtc() -> Rtc {
    Rtc::new(&CONFIG)
}

fn showing(unix_seconds: u64) -> Rtc {
    Rtc::new(&RtcConfig { unix_ns: unix_seconds * SECOND, ..CONFIG })
}

fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
    rtc.write(0x70, index, now);
    rtc.read(0x71, now)
}

fn set(rtc: &mut Rtc, index: u8, value: u8, now: u64) {
    rtc.write(0x70, index, now);
    rtc.write(0x71, value, now);
}

/// Century, year, month, day, weekday, hour, minute, second as bytes.
fn shown(rtc: &mut Rtc, now: u64) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| get(rtc, index, now))
}

fn set_date(rtc: &mut Rtc, date: [u8; 8], now: u64) {
    for (index, byte) in [0x32, 9, 8, 7, 6, 4, 2, 0].into_iter().zip(date) {
        set(rtc, index, byte, now);
    }
}
