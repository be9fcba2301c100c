//! The programmable interval timer: an 8254 at ports 0x40 to 0x43, and port 0x61 beside it.
//!
//! Owns the three counters and the clock's ticks. Counter 0 drives ISA interrupt 0, counter 2 the
//! speaker, whose gate and output are in port 0x61 (that of a PC/AT). Must not know interrupt
//! controllers. Source: Intel's 8254 datasheet, sections "Programming" and "Mode Definitions".
//!
//! **Ticks.** The clock runs at 1,193,182 Hz. Tick `n` after the start begins at `ceil(n * 10^9 /
//! 1193182)` ns. Everything is computed from ticks since the start, so no error adds up. An earlier
//! `now` than the last is taken for the last.
//!
//! **Shortest period.** The rises of a periodic counter 0 that follow each other faster than
//! [`Pit::new`] allows are reported together; the counter itself runs as programmed.
//!
//! | threat | answer |
//! |---|---|
//! | a count of 1 in a periodic mode (illegal) | a period of one tick; nothing divides by zero |
//! | a period of microseconds | the shortest period, and passed rises are one |
//! | a time that runs backwards, or to the end of 64 bits | the last time counts; 128-bit arithmetic |
//! | half-written counts, latches on top of latches | as the datasheet: the first latch counts, a control word drops all |

mod channel;
#[cfg(test)]
mod tests;

use self::channel::Channel;

/// Frequency of the clock, in Hz.
pub const HZ: u64 = 1_193_182;
/// The data port of counter 0.
pub const CHANNEL_0: u16 = 0x40;
/// The control port.
pub const CONTROL: u16 = 0x43;
const PORT_B: u16 = 0x61;

const NS_PER_SECOND: u128 = 1_000_000_000;
/// Port 0x61, bit 4 changes with every refresh of the memory: 18 ticks of this clock.
const REFRESH_TICKS: u64 = 18;

/// The timer.
#[derive(Clone, Debug)]
pub struct Pit {
    channels: [Channel; 3],
    speaker: bool,
    /// The last tick that was seen.
    tick: u64,
    /// The latest time that was seen, in ns.
    now: u64,
    least_period_ns: u64,
    /// Counter 0 rose and it was not reported, as the last report was too recent.
    owed: bool,
    /// Host ns of the last report.
    reported: Option<u64>,
}

fn tick_at(ns: u64) -> u64 {
    (u128::from(ns) * u128::from(HZ) / NS_PER_SECOND) as u64
}

fn ns_of(tick: u64) -> u64 {
    let ns = (u128::from(tick) * NS_PER_SECOND).div_ceil(u128::from(HZ));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

impl Pit {
    /// A timer after power-up: no counter counts. Interrupts of a periodic counter 0 come at most
    /// once in `least_period_ns`.
    #[must_use]
    pub fn new(least_period_ns: u64) -> Self {
        Pit {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            speaker: false,
            tick: 0,
            now: 0,
            least_period_ns,
            owed: false,
            reported: None,
        }
    }

    /// Reads port 0x40 to 0x43 or 0x61; others read as all ones.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        self.follow(now);
        let tick = self.tick;
        match port {
            CHANNEL_0..CONTROL => self.channels[usize::from(port - CHANNEL_0)].read(tick),
            PORT_B => {
                let [_, _, second] = &self.channels;
                u8::from(second.gate())
                    | u8::from(self.speaker) << 1
                    | ((tick / REFRESH_TICKS) as u8 & 1) << 4
                    | u8::from(second.out(tick)) << 5
            }
            _ => 0xff,
        }
    }

    /// Writes port 0x40 to 0x43 or 0x61; others are ignored.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        self.follow(now);
        let tick = self.tick;
        match port {
            CHANNEL_0..CONTROL => {
                self.channels[usize::from(port - CHANNEL_0)].write(value, tick);
            }
            CONTROL => self.control(value),
            PORT_B => {
                self.speaker = value & 2 != 0;
                self.channels[2].set_gate(value & 1 != 0, tick);
            }
            _ => {}
        }
    }

    fn control(&mut self, word: u8) {
        let tick = self.tick;
        let select = usize::from(word >> 6);
        if select == 3 {
            for (i, channel) in self.channels.iter_mut().enumerate() {
                if word & (2 << i) == 0 {
                    continue;
                }
                if word & 0x20 == 0 {
                    channel.latch_count(tick);
                }
                if word & 0x10 == 0 {
                    channel.latch_status(tick);
                }
            }
        } else if word & 0x30 == 0 {
            self.channels[select].latch_count(tick);
        } else {
            self.channels[select].set_control(word);
            if select == 0 {
                self.owed = false;
            }
        }
    }

    /// Brings the timer up to `now`. True: counter 0's output rose, once or more, and it is time to
    /// say so.
    pub fn advance(&mut self, now: u64) -> bool {
        self.follow(now);
        if !self.owed || self.earliest_report() > self.now {
            return false;
        }
        self.owed = false;
        self.reported = Some(self.now);
        true
    }

    /// Counter 0's output.
    #[must_use]
    pub fn line(&self) -> bool {
        self.channels[0].out(self.tick)
    }

    /// Host ns at which [`Pit::advance`] has a rise to report next. Later than the last time seen,
    /// unless one is due.
    #[must_use]
    pub fn next_edge(&self) -> Option<u64> {
        let rise = if self.owed {
            Some(self.now)
        } else {
            self.channels[0].next_rise(self.tick).map(ns_of)
        };
        rise.map(|at| at.max(self.earliest_report()))
    }

    fn earliest_report(&self) -> u64 {
        match self.reported {
            Some(at) if self.channels[0].periodic() => at.saturating_add(self.least_period_ns),
            _ => 0,
        }
    }

    /// Counts up to `now`.
    fn follow(&mut self, now: u64) {
        self.now = self.now.max(now);
        let tick = tick_at(self.now);
        let first = &mut self.channels[0];
        if first.next_rise(self.tick).is_some_and(|at| at <= tick) {
            self.owed = true;
        }
        self.tick = tick;
        for channel in &mut self.channels {
            channel.settle(tick);
        }
    }
}
