//! One counter of the 8254: what it counts and what its output does, in ticks.
//!
//! Owns the count register, the counting element, the gate and OUT. Must not know bytes, ports,
//! latches or nanoseconds. A tick is one pulse of CLK; ticks are numbered, and the part of a tick in
//! which a register is written does not matter.
//!
//! Nothing here runs tick by tick. [`Counter::settle`] brings the state to a tick in a bounded number
//! of steps, and every other method works on the settled state.
//!
//! **Modes** (8254 datasheet, "Mode definitions"): 0 and 4 are started by the count, 1 and 5 by the
//! gate's rising edge, 2 and 3 are periodic. A count takes one tick to get into the counting element.
//! The element of modes 0, 1, 4 and 5 goes on below zero and wraps.
//!
//! **What the datasheet leaves open.** From a control word to the count the element stands still. A
//! count of one in modes 2 and 3, which the datasheet forbids, is two.

/// The six modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 0: OUT rises when the count has passed.
    TerminalCount,
    /// 1: the gate's edge begins a low pulse.
    OneShot,
    /// 2: OUT is low for the last tick of each period.
    RateGenerator,
    /// 3: OUT is high for half of each period.
    SquareWave,
    /// 4: OUT is low for one tick when the count has passed.
    SoftwareStrobe,
    /// 5: the same, begun by the gate's edge.
    HardwareStrobe,
}

impl Mode {
    /// From the three mode bits, of which two values stand for modes 2 and 3 again.
    pub(super) fn of_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Mode::TerminalCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Mode::RateGenerator | Mode::SquareWave)
    }

    fn is_strobe(self) -> bool {
        matches!(self, Mode::SoftwareStrobe | Mode::HardwareStrobe)
    }

    /// Begun by the gate's rising edge, whose level then does not matter.
    fn is_triggered(self) -> bool {
        matches!(self, Mode::OneShot | Mode::HardwareStrobe)
    }
}

/// The counting element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// Stands still until a count is loaded.
    Idle(u32),
    /// Stands still while the gate is low.
    Paused(u32),
    /// `phase` ticks past the start at tick `origin`. `from` is the count, 1 to the modulus (0 too
    /// when it goes on after a pause), and in the periodic modes the period.
    Counting { origin: u64, from: u32, phase: u32 },
}

/// One counter.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    mode: Mode,
    /// 65536, or 10000 when counting in decimal.
    modulus: u32,
    /// Least ticks from one reported rise to the next in the periodic modes.
    least_ticks: u64,
    gate: bool,
    /// The count register, 1 to the modulus; `None` from a control word to the count.
    register: Option<u32>,
    /// The register's count is not in the element yet (the status byte's "null count").
    null: bool,
    /// The next tick moves the register into the element.
    loading: bool,
    /// The state is that of this tick.
    tick: u64,
    element: Element,
    /// The count has not passed yet (modes 0, 1, 4, 5).
    armed: bool,
    out: bool,
    rose: bool,
}

impl Counter {
    /// Stopped in mode 3 with OUT high, so that no control word makes OUT rise before a count does.
    pub(super) fn new(gate: bool, least_ticks: u64) -> Self {
        Counter {
            mode: Mode::SquareWave,
            modulus: super::channel::BINARY,
            least_ticks,
            gate,
            register: None,
            null: true,
            loading: false,
            tick: 0,
            element: Element::Idle(0),
            armed: false,
            out: true,
            rose: false,
        }
    }

    /// OUT.
    pub(super) fn out(&self) -> bool {
        self.out
    }

    /// Whether the count last written, or to be written, is not counted from yet.
    pub(super) fn null(&self) -> bool {
        self.null
    }

    /// 65536 or 10000.
    pub(super) fn modulus(&self) -> u32 {
        self.modulus
    }

    /// Whether OUT has risen since the last call; in the periodic modes at the least spacing.
    pub(super) fn take_rise(&mut self) -> bool {
        std::mem::take(&mut self.rose)
    }

    /// Whether [`Counter::take_rise`] has something to tell.
    pub(super) fn has_risen(&self) -> bool {
        self.rose
    }

    /// What the counting element holds, below the modulus.
    pub(super) fn value(&self) -> u32 {
        let value = match self.element {
            Element::Idle(value) | Element::Paused(value) => u64::from(value),
            Element::Counting { origin, from, phase } => {
                let passed = self.tick - origin + u64::from(phase);
                let (count, modulus) = (u64::from(from), u64::from(self.modulus));
                match self.mode {
                    Mode::RateGenerator => count - passed % count,
                    Mode::SquareWave => {
                        let at = passed % count;
                        let high = u64::from(high_ticks(from));
                        (count & !1) - 2 * if at < high { at } else { at - high }
                    }
                    _ => count + modulus - passed % modulus,
                }
            }
        };
        u32::try_from(value % u64::from(self.modulus)).expect("less than the modulus")
    }

    /// A control word: stops the count, and OUT takes the mode's first level.
    pub(super) fn set_mode(&mut self, mode: Mode, modulus: u32) {
        self.element = Element::Idle(self.value());
        self.mode = mode;
        self.modulus = modulus;
        self.register = None;
        self.null = true;
        self.loading = false;
        self.armed = false;
        if mode == Mode::TerminalCount {
            self.out = false;
        } else {
            self.raise();
        }
    }

    /// The first byte of two: stops the count in mode 0, and nothing else.
    pub(super) fn half_written(&mut self) {
        if self.mode == Mode::TerminalCount {
            self.element = Element::Idle(self.value());
            self.loading = false;
            self.out = false;
        }
    }

    /// Writes the count register, with a count from 1 to the modulus.
    pub(super) fn set_count(&mut self, count: u32) {
        let first = self.register.is_none();
        self.register = Some(if self.mode.is_periodic() { count.max(2) } else { count });
        self.null = true;
        match self.mode {
            Mode::TerminalCount => {
                self.out = false;
                self.loading = true;
            }
            Mode::SoftwareStrobe => self.loading = true,
            Mode::RateGenerator | Mode::SquareWave => self.loading |= first,
            Mode::OneShot | Mode::HardwareStrobe => {}
        }
    }

    /// Drives the gate.
    pub(super) fn set_gate(&mut self, gate: bool) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, self.element) {
            (Mode::TerminalCount | Mode::SoftwareStrobe, Element::Paused(from)) if gate => {
                self.element = Element::Counting { origin: self.tick, from, phase: 0 };
            }
            (mode, _) if gate && (mode.is_periodic() || mode.is_triggered()) => {
                self.loading |= self.register.is_some();
            }
            (mode, Element::Counting { .. }) if !gate && !mode.is_triggered() => {
                self.element = Element::Paused(self.value());
            }
            _ => {}
        }
        if !gate && self.mode.is_periodic() {
            self.raise();
        }
    }

    /// Brings the state to tick `to`; nothing if it is there already.
    pub(super) fn settle(&mut self, to: u64) {
        if to <= self.tick {
            return;
        }
        if self.mode.is_strobe() {
            self.raise();
        }
        if self.loading {
            self.tick += 1;
            self.load();
        }
        if let Some((at, rising)) = self.adoption()
            && at <= to
        {
            self.adopt(at, rising);
        }
        if let Element::Counting { origin, from, phase } = self.element {
            let passed = |tick: u64| tick - origin + u64::from(phase);
            self.count(passed(self.tick), passed(to), from);
        }
        self.tick = to;
    }

    /// The tick of the next rise of OUT that is reported, after the settled one, if nothing is
    /// written until then.
    pub(super) fn next_rise(&self) -> Option<u64> {
        if self.mode.is_strobe() && !self.out {
            return Some(self.tick + 1);
        }
        if self.loading {
            return self.settled_at(self.tick + 1).next_rise();
        }
        match self.adoption() {
            Some((at, true)) => return Some(at),
            Some((at, false)) => return self.settled_at(at).next_rise(),
            None => {}
        }
        let Element::Counting { origin, from, phase } = self.element else {
            return None;
        };
        let end = origin + u64::from(from);
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => self.armed.then_some(end),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => self.armed.then_some(end + 1),
            Mode::RateGenerator | Mode::SquareWave => {
                let spacing = self.spacing(from);
                let passed = self.tick - origin + u64::from(phase);
                Some(origin + (passed / spacing + 1) * spacing - u64::from(phase))
            }
        }
    }

    fn settled_at(&self, tick: u64) -> Self {
        let mut later = self.clone();
        later.settle(tick);
        later
    }

    fn raise(&mut self) {
        self.rose |= !self.out;
        self.out = true;
    }

    /// The register's count gets into the element.
    fn load(&mut self) {
        self.loading = false;
        let Some(from) = self.register else {
            return;
        };
        self.null = false;
        self.armed = true;
        self.element = if self.gate || self.mode.is_triggered() {
            Element::Counting { origin: self.tick, from, phase: 0 }
        } else if self.mode == Mode::SquareWave {
            Element::Paused(from & !1)
        } else {
            Element::Paused(from)
        };
        if self.mode == Mode::OneShot {
            self.out = false;
        }
    }

    /// When a new count takes effect in the periodic modes, and whether OUT rises then: at the end of
    /// the period (mode 2) or of the half period (mode 3).
    fn adoption(&self) -> Option<(u64, bool)> {
        let Element::Counting { origin, from, phase } = self.element else {
            return None;
        };
        if !self.null || !self.mode.is_periodic() {
            return None;
        }
        let (period, high) = (u64::from(from), u64::from(high_ticks(from)));
        let at = (self.tick - origin + u64::from(phase)) % period;
        let falls_first = self.mode == Mode::SquareWave && at < high;
        let ahead = if falls_first { high - at } else { period - at };
        Some((self.tick + ahead, !falls_first))
    }

    /// A new count takes effect. Its rise is reported whatever the least spacing is: the guest can
    /// have one for each count it writes, and no more.
    fn adopt(&mut self, at: u64, rising: bool) {
        let Some(from) = self.register else {
            return;
        };
        self.tick = at;
        self.null = false;
        self.out = rising;
        self.rose |= rising;
        let phase = if rising { 0 } else { high_ticks(from) };
        self.element = Element::Counting { origin: at, from, phase };
    }

    /// Moves OUT on, from `before` to `after` ticks past the start.
    fn count(&mut self, before: u64, after: u64, from: u32) {
        let count = u64::from(from);
        match self.mode {
            Mode::RateGenerator | Mode::SquareWave => {
                let spacing = self.spacing(from);
                self.rose |= after / spacing > before / spacing;
                let at = after % count;
                self.out = match self.mode {
                    Mode::RateGenerator => at != count - 1,
                    _ => at < u64::from(high_ticks(from)),
                };
            }
            _ if !self.armed || after < count => {}
            Mode::TerminalCount | Mode::OneShot => {
                self.armed = false;
                self.raise();
            }
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                self.armed = false;
                self.out = false;
                if after > count {
                    self.raise();
                }
            }
        }
    }

    /// Ticks from one reported rise to the next: the least whole number of periods that is enough.
    fn spacing(&self, period: u32) -> u64 {
        let period = u64::from(period);
        self.least_ticks.div_ceil(period).max(1) * period
    }
}

/// Ticks of a square wave's period in which OUT is high.
fn high_ticks(period: u32) -> u32 {
    period.div_ceil(2)
}
