//! One counter of the 8254.
//!
//! Owns its mode, its count and its latches. Time is in ticks of the chip's clock, counted from the
//! chip's start, so nothing is rounded twice. Must not know what its output is wired to.
//!
//! A count takes effect in the tick in which it is written (the chip takes one clock more); in the
//! periodic modes at the end of the period (the chip changes a square wave at the end of its half).

/// The counter's mode, 0 to 5; the datasheet's "Mode Definitions".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 0: low until the count has passed, then high.
    Terminal,
    /// 1: low for the count after each rise of the gate.
    OneShot,
    /// 2: high, low for one tick in each period.
    Rate,
    /// 3: high and low for half a period each.
    Square,
    /// 4: high, low for one tick when the count has passed.
    Strobe,
    /// 5: the same after each rise of the gate.
    GateStrobe,
}

impl Mode {
    fn of(bits: u8) -> Self {
        match bits & 7 {
            0 => Mode::Terminal,
            1 => Mode::OneShot,
            2 | 6 => Mode::Rate,
            3 | 7 => Mode::Square,
            4 => Mode::Strobe,
            _ => Mode::GateStrobe,
        }
    }

    fn bits(self) -> u8 {
        self as u8
    }

    fn periodic(self) -> bool {
        matches!(self, Mode::Rate | Mode::Square)
    }

    fn by_gate(self) -> bool {
        matches!(self, Mode::OneShot | Mode::GateStrobe)
    }
}

/// Counting, `reload` ticks (1 to 65536) from `start` on.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    reload: u32,
    /// A new count that counts from this tick on.
    next: Option<(u64, u32)>,
    /// The gate is low since this many ticks after `start`.
    frozen: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Channel {
    mode: Mode,
    /// 1: low byte, 2: high byte, 3: low, then high.
    access: u8,
    bcd: bool,
    gate: bool,
    /// A count was written; modes 1 and 5 start with the gate.
    reload: Option<u32>,
    run: Option<Run>,
    low_written: Option<u8>,
    high_next: bool,
    latched: Option<u16>,
    status: Option<u8>,
}

impl Channel {
    pub(super) fn new(gate: bool) -> Self {
        Channel {
            mode: Mode::Square,
            access: 3,
            bcd: false,
            gate,
            reload: None,
            run: None,
            low_written: None,
            high_next: false,
            latched: None,
            status: None,
        }
    }

    /// A control word that is not a latch command.
    pub(super) fn set_control(&mut self, word: u8) {
        let Channel {
            mode,
            access,
            bcd,
            gate: _,
            reload,
            run,
            low_written,
            high_next,
            latched,
            status,
        } = self;
        *mode = Mode::of(word >> 1);
        *access = (word >> 4) & 3;
        *bcd = word & 1 != 0;
        *reload = None;
        *run = None;
        *low_written = None;
        *high_next = false;
        *latched = None;
        *status = None;
    }

    pub(super) fn latch_count(&mut self, t: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.count(t));
            self.high_next = false;
        }
    }

    pub(super) fn latch_status(&mut self, t: u64) {
        if self.status.is_none() {
            let null = self.run.is_none_or(|run| run.next.is_some());
            self.status = Some(
                u8::from(self.out(t)) << 7
                    | u8::from(null) << 6
                    | self.access << 4
                    | self.mode.bits() << 1
                    | u8::from(self.bcd),
            );
        }
    }

    pub(super) fn read(&mut self, t: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let count = self.latched.unwrap_or_else(|| self.count(t));
        let high = self.access == 2 || (self.access == 3 && self.high_next);
        let more = self.access == 3 && !self.high_next;
        self.high_next = more;
        if !more {
            self.latched = None;
        }
        if high { (count >> 8) as u8 } else { count as u8 }
    }

    pub(super) fn write(&mut self, value: u8, t: u64) {
        let count = match (self.access, self.low_written) {
            (1, _) => u16::from(value),
            (2, _) => u16::from(value) << 8,
            (_, None) => {
                self.low_written = Some(value);
                if self.mode == Mode::Terminal {
                    // The first byte stops the counter, and its output stays low.
                    self.run = None;
                }
                return;
            }
            (_, Some(low)) => u16::from(value) << 8 | u16::from(low),
        };
        self.low_written = None;
        self.load(self.decoded(count), t);
    }

    fn load(&mut self, reload: u32, t: u64) {
        self.settle(t);
        self.reload = Some(reload);
        match &mut self.run {
            // What counts goes on to the end of its period.
            Some(run) if self.mode.periodic() && run.frozen.is_none() => {
                let periods = t.saturating_sub(run.start) / u64::from(run.reload) + 1;
                run.next = Some((run.start + periods * u64::from(run.reload), reload));
            }
            _ if self.mode.by_gate() => {}
            _ => self.start(reload, t),
        }
    }

    fn start(&mut self, reload: u32, t: u64) {
        let frozen = (!self.gate).then_some(0);
        self.run = Some(Run { start: t, reload, next: None, frozen });
    }

    /// Takes over a new count whose time has come.
    pub(super) fn settle(&mut self, t: u64) {
        if let Some(run) = &mut self.run
            && let Some((at, reload)) = run.next
            && at <= t
        {
            *run = Run { start: at, reload, next: None, frozen: None };
        }
    }

    pub(super) fn set_gate(&mut self, gate: bool, t: u64) {
        if gate == self.gate {
            return;
        }
        self.settle(t);
        self.gate = gate;
        let reload = self.reload.unwrap_or(1);
        match (self.mode, &mut self.run) {
            (Mode::OneShot | Mode::GateStrobe, _) if gate && self.reload.is_some() => {
                self.run = Some(Run { start: t, reload, next: None, frozen: None });
            }
            (Mode::OneShot | Mode::GateStrobe, _) | (_, None) => {}
            (_, Some(run)) if !gate => run.frozen = Some(t - run.start),
            (Mode::Rate | Mode::Square, Some(_)) => self.start(reload, t),
            (_, Some(run)) => {
                let passed = run.frozen.take().unwrap_or(0);
                run.start = t.saturating_sub(passed);
            }
        }
    }

    pub(super) fn gate(&self) -> bool {
        self.gate
    }

    fn passed(run: &Run, t: u64) -> u64 {
        run.frozen.unwrap_or_else(|| t.saturating_sub(run.start))
    }

    /// The output.
    pub(super) fn out(&self, t: u64) -> bool {
        let Some(run) = &self.run else { return self.mode != Mode::Terminal };
        let passed = Self::passed(run, t);
        let reload = u64::from(run.reload);
        match self.mode {
            Mode::Terminal | Mode::OneShot => passed >= reload,
            Mode::Rate => run.frozen.is_some() || reload == 1 || passed % reload != reload - 1,
            Mode::Square => {
                run.frozen.is_some() || passed % reload < u64::from(first_half(run.reload))
            }
            Mode::Strobe | Mode::GateStrobe => passed != reload,
        }
    }

    /// The first tick after `t` in which the output rises.
    pub(super) fn next_rise(&self, t: u64) -> Option<u64> {
        let run = self.run.as_ref().filter(|run| run.frozen.is_none())?;
        let reload = u64::from(run.reload);
        let once = |at: u64| (at > t).then_some(at);
        match self.mode {
            Mode::Terminal | Mode::OneShot => once(run.start + reload),
            Mode::Strobe | Mode::GateStrobe => once(run.start + reload + 1),
            Mode::Rate | Mode::Square => {
                let periods = t.saturating_sub(run.start) / reload + 1;
                Some(run.start + periods * reload)
            }
        }
    }

    /// Whether interrupts may come again and again.
    pub(super) fn periodic(&self) -> bool {
        self.mode.periodic()
    }

    /// The count that a read shows.
    fn count(&self, t: u64) -> u16 {
        let Some(run) = &self.run else { return self.encoded(self.reload.unwrap_or(0)) };
        let passed = Self::passed(run, t);
        let reload = u64::from(run.reload);
        let modulus = if self.bcd { 10_000 } else { 0x1_0000 };
        let value = match self.mode {
            Mode::Rate => reload - passed % reload,
            Mode::Square => {
                let half = u64::from(first_half(run.reload));
                let within = passed % reload;
                let within = if within < half { within } else { within - half };
                (reload & !1).saturating_sub(2 * within)
            }
            _ => (reload + modulus - passed % modulus) % modulus,
        };
        self.encoded(value as u32)
    }

    fn decoded(&self, count: u16) -> u32 {
        let binary = if self.bcd {
            (0..4)
                .rev()
                .fold(0, |sum, digit| sum * 10 + u32::from(count >> (4 * digit) & 0xf).min(9))
        } else {
            u32::from(count)
        };
        match binary {
            0 if self.bcd => 10_000,
            0 => 0x1_0000,
            count => count,
        }
    }

    fn encoded(&self, count: u32) -> u16 {
        if !self.bcd {
            return count as u16;
        }
        (0..4).fold(0, |sum, digit| sum | (count / 10_u32.pow(digit) % 10) << (4 * digit)) as u16
    }
}

/// The high part of a square wave: the longer one if the count is odd.
fn first_half(reload: u32) -> u32 {
    reload.div_ceil(2)
}
