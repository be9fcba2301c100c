//! Behaviour of the timer, through its ports. Only the oracle knows how a counter works.

mod modes;
mod oracle;
mod ports;
mod properties;

use super::*;

const BOTH: u8 = 0x30;
const LATCH_STATUS: u8 = 0xe0;
const LATCH_COUNT: u8 = 0xd0;
const NULL: u8 = 1 << 6;
const OUT: u8 = 1 << 7;

/// The first nanosecond of a tick.
fn at(tick: u64) -> u64 {
    let ns = (u128::from(tick) * 1_000_000_000).div_ceil(1_193_182);
    u64::try_from(ns).unwrap()
}

fn control(pit: &mut Pit, channel: u8, mode: u8, tick: u64) {
    pit.write(0x43, channel << 6 | BOTH | mode << 1, at(tick));
}

fn count(pit: &mut Pit, channel: u16, count: u16, tick: u64) {
    for byte in count.to_le_bytes() {
        pit.write(0x40 + channel, byte, at(tick));
    }
}

fn gate_2(pit: &mut Pit, high: bool, tick: u64) {
    pit.write(0x61, u8::from(high), at(tick));
}

/// A timer whose channel was given a mode and a count at tick 0.
fn counting(channel: u8, mode: u8, initial: u16) -> Pit {
    let mut pit = Pit::new(0);
    gate_2(&mut pit, true, 0);
    control(&mut pit, channel, mode, 0);
    count(&mut pit, channel.into(), initial, 0);
    pit
}

/// The count, latched by the read-back command and read at once.
fn get(pit: &mut Pit, channel: u16, tick: u64) -> u16 {
    pit.write(0x43, LATCH_COUNT | 2 << channel, at(tick));
    u16::from_le_bytes([pit.read(0x40 + channel, at(tick)), pit.read(0x40 + channel, at(tick))])
}

fn status(pit: &mut Pit, channel: u16, tick: u64) -> u8 {
    pit.write(0x43, LATCH_STATUS | 2 << channel, at(tick));
    pit.read(0x40 + channel, at(tick))
}

fn out_2(pit: &mut Pit, tick: u64) -> bool {
    pit.read(0x61, at(tick)) & 0x20 != 0
}

/// OUT of channel 2 at ticks 0, 1, 2, ...: `_` low and `-` high.
fn wave(pit: &mut Pit, ticks: std::ops::Range<u64>) -> String {
    ticks.map(|tick| if out_2(pit, tick) { '-' } else { '_' }).collect()
}

/// Counts of channel 2 at these ticks.
fn counts(pit: &mut Pit, ticks: std::ops::Range<u64>) -> Vec<u16> {
    ticks.map(|tick| get(pit, 2, tick)).collect()
}
