//! The programmable interval timer: an 8254 at 1,193,182 Hz, and port 0x61 next to it.
//!
//! Owns the three channels and the two bits of port 0x61 that are kept. Must not know what OUT of
//! channel 0 is wired to, nor threads or locks. Facts are from Intel's 8254 datasheet (order number
//! 231164), and for port 0x61 from the ICH datasheets' NMI_SC register.
//!
//! **Time.** The ticks of CLK are those of a clock of that rate since host nanosecond 0, the same for
//! all channels. A write takes effect in the tick it falls into, and a count starts with the next one,
//! as in the chip. Everything is computed from numbers of ticks, so counts stay in step with the host's
//! clock for ever. `now` is the host's monotonic clock in ns; one that is earlier than another seen
//! before (threads read the clock before they take a lock) counts as the latest seen.
//!
//! **Interrupts.** [`Pit::advance`] reports rising edges of channel 0's OUT, any number since the last
//! call as one. To be called when [`Pit::next_edge`] is due and after each write. A control word can
//! itself raise OUT (mode 0 to any other), as in the chip.
//!
//! | threat | answer |
//! |---|---|
//! | a periodic count of a few ticks, for an endless stream of interrupts | in modes 2 and 3 only every so many edges is reported that they are the least period apart; the count that is read keeps its pace. Reprogramming gives one edge for each write at most |
//! | a host that was away for long | however many periods have passed, they are one edge and a bounded number of steps |
//! | a count of 1 in mode 2 or 3 | counts as 2 |
//! | decimal counts with digits above nine | count for what they are, modulo 10000 |
//! | half-written counts, latches on latches, reads in the middle | flip-flops for each channel, bounded state |
//! | another port than the five | reads as all ones, writes are ignored |
//! | time going backwards, or to its end | the latest time seen; an edge beyond 64 bits of ns is none |

mod channel;
mod counter;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use crate::time::Rate;
use channel::Channel;

/// Frequency of CLK.
pub const HZ: u32 = 1_193_182;
/// Ports of the chip: the counts of channels 0 to 2, and the control word.
pub const PORTS: RangeInclusive<u16> = 0x40..=0x43;
/// Gate and output of channel 2, the speaker, and the refresh toggle.
pub const SPEAKER_PORT: u16 = 0x61;

const CONTROL_PORT: u16 = 0x43;
const CLK: Rate = Rate::of_hz(HZ);

/// Port 0x61: gate of channel 2.
const GATE_2: u8 = 1 << 0;
/// Port 0x61: the speaker is on.
const SPEAKER: u8 = 1 << 1;
/// Port 0x61: changes with each refresh of the memory.
const REFRESH: u8 = 1 << 4;
/// Port 0x61: output of channel 2.
const OUT_2: u8 = 1 << 5;
/// One refresh (15.085 us) is a period of channel 1 as firmware sets it.
const REFRESH_TICKS: u64 = 18;

/// Read-back command, in place of a channel.
const READ_BACK: u8 = 3;
/// Read-back: do not latch the count.
const NO_COUNT: u8 = 1 << 5;
/// Read-back: do not latch the status.
const NO_STATUS: u8 = 1 << 4;

/// The timer.
#[derive(Clone, Debug)]
pub struct Pit {
    channels: [Channel; 3],
    /// The bits of port 0x61 that are written.
    speaker: u8,
    least_ticks: u64,
    /// The latest time seen.
    now: u64,
}

impl Pit {
    /// A timer whose channels stand still. In modes 2 and 3, channel 0 reports edges at least
    /// `least_period_ns` apart.
    #[must_use]
    pub fn new(least_period_ns: u64) -> Self {
        // Rounded up, so that the spacing in nanoseconds is never below the least.
        let least_ticks = CLK.ticks(least_period_ns).saturating_add(1);
        Pit { channels: channels(least_ticks), speaker: 0, least_ticks, now: 0 }
    }

    /// As after power-on, which the datasheet leaves undefined: all channels stand still with OUT
    /// high, and the gate of channel 2 is low. Time goes on.
    pub fn reset(&mut self) {
        let Pit { channels: all, speaker, least_ticks, now: _ } = self;
        *all = channels(*least_ticks);
        *speaker = 0;
    }

    /// Reads a byte from one of the ports.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        let tick = self.tick(now);
        match (self.channel(port), port) {
            (Some(channel), _) => {
                channel.at(tick);
                channel.read()
            }
            (None, SPEAKER_PORT) => {
                let out = self.channels[2].at(tick).out();
                let refresh = (tick / REFRESH_TICKS) % 2 == 1;
                let bit = |set: bool, bit: u8| if set { bit } else { 0 };
                self.speaker | bit(out, OUT_2) | bit(refresh, REFRESH)
            }
            // The control word cannot be read back.
            _ => 0xff,
        }
    }

    /// Writes a byte to one of the ports.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        let tick = self.tick(now);
        match (self.channel(port), port) {
            (Some(channel), _) => {
                channel.at(tick);
                channel.write(value);
            }
            (None, CONTROL_PORT) => self.control(value, tick),
            (None, SPEAKER_PORT) => {
                self.speaker = value & (GATE_2 | SPEAKER);
                self.channels[2].at(tick).set_gate(value & GATE_2 != 0);
            }
            _ => {}
        }
    }

    /// Brings channel 0 to `now` and says whether its OUT has risen since the last call. Afterwards
    /// [`Pit::next_edge`] is later than `now`.
    #[must_use]
    pub fn advance(&mut self, now: u64) -> bool {
        let tick = self.tick(now);
        self.channels[0].at(tick).take_rise()
    }

    /// OUT of channel 0, at the time of the last call of any method that takes one.
    #[must_use]
    pub fn line(&self) -> bool {
        self.channels[0].counter().out()
    }

    /// Host ns of the next edge that [`Pit::advance`] will report, rounded up; the latest time seen
    /// if one has not been reported yet. `None` while there is none to come.
    #[must_use]
    pub fn next_edge(&self) -> Option<u64> {
        let counter = self.channels[0].counter();
        if counter.has_risen() {
            return Some(self.now);
        }
        CLK.ns_of(counter.next_rise()?)
    }

    /// Takes note of the time; the tick it falls into.
    fn tick(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        let tick = CLK.ticks(self.now);
        // Channel 0 is what `line` and `next_edge` speak of.
        self.channels[0].at(tick);
        tick
    }

    fn channel(&mut self, port: u16) -> Option<&mut Channel> {
        let index = usize::from(port.checked_sub(*PORTS.start())?);
        self.channels.get_mut(index)
    }

    /// A write to the control port.
    fn control(&mut self, word: u8, tick: u64) {
        let select = word >> 6;
        if select == READ_BACK {
            for (i, channel) in self.channels.iter_mut().enumerate() {
                if word & 2 << i != 0 {
                    channel.at(tick);
                    if word & NO_COUNT == 0 {
                        channel.latch_count();
                    }
                    if word & NO_STATUS == 0 {
                        channel.latch_status();
                    }
                }
            }
        } else if let Some(channel) = self.channels.get_mut(usize::from(select)) {
            channel.at(tick);
            // No access mode: a latch command.
            if word & 0x30 == 0 {
                channel.latch_count();
            } else {
                channel.set_control(word);
            }
        }
    }
}

/// Channels that stand still; the gates of 0 and 1 are always high.
fn channels(least_ticks: u64) -> [Channel; 3] {
    [Channel::new(true, least_ticks), Channel::new(true, 0), Channel::new(false, 0)]
}
