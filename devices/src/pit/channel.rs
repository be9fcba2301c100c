//! One channel of the 8254, as the processor sees it: bytes.
//!
//! Owns the control word, the order of bytes, and what was latched. Must not know ports or
//! nanoseconds, nor how the counter counts.

use super::counter::{Counter, Mode};

/// What a counter counts modulo, in binary.
pub(super) const BINARY: u32 = 0x1_0000;
/// And in decimal.
const DECIMAL: u32 = 10_000;

/// Control word and status byte: binary coded decimal.
const BCD: u8 = 1;
/// Control word: what is in the status byte too (access, mode, BCD).
const SETTINGS: u8 = 0x3f;

/// Which bytes of a count are written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

/// One channel.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// Bits 5:0 of the control word.
    settings: u8,
    /// The first byte of a count, waiting for the second.
    written: Option<u8>,
    /// The next byte read is the second.
    read_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    counter: Counter,
}

impl Channel {
    /// A channel that stands still. Rises of OUT are reported at least `least_ticks` apart in modes
    /// 2 and 3.
    pub(super) fn new(gate: bool, least_ticks: u64) -> Self {
        Channel {
            settings: 0x36,
            written: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
            counter: Counter::new(gate, least_ticks),
        }
    }

    /// Brings the counter to a tick, and hands it out for what has no bytes.
    pub(super) fn at(&mut self, tick: u64) -> &mut Counter {
        self.counter.settle(tick);
        &mut self.counter
    }

    /// The counter as it was last settled.
    pub(super) fn counter(&self) -> &Counter {
        &self.counter
    }

    /// A control word for this channel that is no latch command. Undoes whatever was latched or half
    /// written.
    pub(super) fn set_control(&mut self, word: u8) {
        self.settings = word & SETTINGS;
        self.written = None;
        self.read_high = false;
        self.latched_count = None;
        self.latched_status = None;
        let modulus = if word & BCD == 0 { BINARY } else { DECIMAL };
        self.counter.set_mode(Mode::of_bits(word >> 1), modulus);
    }

    /// A byte of a count.
    pub(super) fn write(&mut self, byte: u8) {
        let count = match (self.access(), self.written.take()) {
            (Access::Low, _) => u16::from(byte),
            (Access::High, _) => u16::from(byte) << 8,
            (Access::LowThenHigh, Some(low)) => u16::from_le_bytes([low, byte]),
            (Access::LowThenHigh, None) => {
                self.written = Some(byte);
                return self.counter.half_written();
            }
        };
        self.counter.set_count(self.ticks_of(count));
    }

    /// The next byte of what was latched, or else of the count.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.count()).to_le_bytes();
        let (byte, more) = match self.access() {
            Access::Low => (low, false),
            Access::High => (high, false),
            Access::LowThenHigh if self.read_high => (high, false),
            Access::LowThenHigh => (low, true),
        };
        self.read_high = more;
        if !more {
            self.latched_count = None;
        }
        byte
    }

    /// Latches the count, unless one is latched already.
    pub(super) fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count());
        }
    }

    /// Latches the status, unless one is latched already.
    pub(super) fn latch_status(&mut self) {
        if self.latched_status.is_none() {
            let counter = &self.counter;
            let flags = u8::from(counter.out()) << 7 | u8::from(counter.null()) << 6;
            self.latched_status = Some(flags | self.settings);
        }
    }

    fn access(&self) -> Access {
        match self.settings >> 4 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        }
    }

    /// The counting element in the channel's notation.
    fn count(&self) -> u16 {
        let value = self.counter.value();
        let shown = if self.settings & BCD == 0 {
            value
        } else {
            (0..4).fold(0, |shown, digit| shown | (value / 10_u32.pow(digit) % 10) << (4 * digit))
        };
        u16::try_from(shown).expect("less than the modulus")
    }

    /// A count as written, in ticks: 1 to the modulus. A digit above nine counts for what it is.
    fn ticks_of(&self, count: u16) -> u32 {
        let count = u32::from(count);
        let ticks = if self.settings & BCD == 0 {
            count
        } else {
            (0..4).map(|digit| (count >> (4 * digit) & 0xf) * 10_u32.pow(digit)).sum()
        };
        match ticks % self.counter.modulus() {
            0 => self.counter.modulus(),
            ticks => ticks,
        }
    }
}
