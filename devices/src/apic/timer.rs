//! The timer's counter and deadline, in virtual time.
//!
//! Owns the initial count, the divisor, what is counting, and the host time of the next expiry. Must
//! not know vectors, masks or what an expiry causes: a masked timer counts all the same (SDM 12.5.4).
//!
//! **Rounding.** The counter runs at `hz / divisor`. `e` nanoseconds after it was started it has
//! counted `floor(e * hz / (10^9 * divisor))` ticks, and expiry number `n` of a period of `c` ticks
//! is at `ceil(n * c * 10^9 * divisor / hz)` nanoseconds. Both are computed from the start, so no
//! error adds up, and they agree: the current count of a one-shot reaches zero in the very nanosecond
//! of the expiry. A new divisor takes effect at once and keeps the current count; the part of a tick
//! that had passed is lost, so the expiry is late by less than one tick of the old rate, never early.
//!
//! **Shortest period.** A guest that asks for a periodic tick of some nanoseconds would have its host
//! do nothing but expire it. So the period has a least length; a shorter one is stretched to it.
//!
//! **TSC deadline.** The guest compares with its TSC, so that is what decides. The host time of the
//! expiry is an estimate, rounded up; where the two clocks disagree (a slewed monotonic clock, a TSC
//! frequency known in whole kHz only) and the time comes before the TSC value, the rest is estimated
//! anew.

use super::regs::TDCR_WRITABLE;
use crate::time::Moment;

const NS_PER_SECOND: u128 = 1_000_000_000;
const NS_PER_MS: u128 = 1_000_000;
/// Products of a time (64 bits) and a frequency stay far below 128 bits.
const MOST_HZ: u64 = 1 << 40;

/// How the timer is armed (SDM table 12-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Counts down once from the initial count.
    OneShot,
    /// Counts down from the initial count again and again.
    Periodic,
    /// Fires when the TSC reaches a value.
    TscDeadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Idle,
    /// Counting since `origin` (host ns); the next expiry is `next` ticks (at least one) after it.
    /// All periods count from one origin, so that no rounding adds up.
    Counting {
        origin: u64,
        next: u128,
    },
    /// Armed for a TSC value other than zero.
    Deadline {
        tsc: u64,
    },
}

/// The timer.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    hz: u64,
    tsc_khz: u32,
    least_period_ns: u64,
    mode: Mode,
    initial: u32,
    divide: u32,
    run: Run,
    /// Host ns of the next expiry; `Some` exactly when `run` is not `Idle`.
    expiry: Option<u64>,
}

impl Timer {
    /// Frequencies of zero count as one, those above 2^40 Hz as 2^40 Hz.
    pub(super) fn new(hz: u64, tsc_khz: u32, least_period_ns: u64) -> Self {
        Timer {
            hz: hz.clamp(1, MOST_HZ),
            tsc_khz: tsc_khz.max(1),
            least_period_ns,
            mode: Mode::OneShot,
            initial: 0,
            divide: 0,
            run: Run::Idle,
            expiry: None,
        }
    }

    pub(super) fn reset(&mut self) {
        let Timer { hz: _, tsc_khz: _, least_period_ns: _, mode, initial, divide, run, expiry } =
            self;
        *mode = Mode::OneShot;
        *initial = 0;
        *divide = 0;
        *run = Run::Idle;
        *expiry = None;
    }

    /// Host ns of the next expiry, masked or not.
    pub(super) fn expiry(&self) -> Option<u64> {
        self.expiry
    }

    /// TMICT.
    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    /// TDCR.
    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// A change to or from TSC-deadline mode disarms (SDM 12.5.4.1). One-shot and periodic mode go on
    /// with each other's count: what the SDM said to the contrary until 2019 was an error, and a count
    /// that has ended stays at zero. The caller has settled the timer.
    pub(super) fn set_mode(&mut self, mode: Mode) {
        if mode == self.mode {
            return;
        }
        if mode == Mode::TscDeadline || self.mode == Mode::TscDeadline {
            self.disarm();
        }
        self.mode = mode;
    }

    /// Writes TMICT: starts the count, or stops it with zero. Ignored in TSC-deadline mode.
    pub(super) fn set_initial(&mut self, initial: u32, now: Moment) {
        if self.mode == Mode::TscDeadline {
            return;
        }
        self.disarm();
        self.initial = initial;
        if initial != 0 {
            self.count_to(now.ns, u128::from(initial));
        }
    }

    /// Writes TDCR. The caller has settled the timer at `now`.
    pub(super) fn set_divide(&mut self, divide: u32, now: Moment) {
        let divide = divide & TDCR_WRITABLE;
        if divide == self.divide {
            return;
        }
        let current = self.current(now);
        self.divide = divide;
        if let Run::Counting { .. } = self.run {
            // A settled counter is above zero; a clock that ran backwards must not stop it either.
            self.count_to(now.ns, u128::from(current.max(1)));
        }
    }

    /// TMCCT: zero when nothing counts, and in TSC-deadline mode. The caller has settled the timer.
    pub(super) fn current(&self, now: Moment) -> u32 {
        let Run::Counting { origin, next } = self.run else {
            return 0;
        };
        let left = next.saturating_sub(self.ticks(now.ns.saturating_sub(origin)));
        // More than the initial count is left of a period that was stretched, and of any that began
        // later than `now`.
        u32::try_from(left).map_or(self.initial, |left| left.min(self.initial))
    }

    /// IA32_TSC_DEADLINE: zero when disarmed.
    pub(super) fn tsc_deadline(&self) -> u64 {
        match self.run {
            Run::Deadline { tsc } => tsc,
            Run::Idle | Run::Counting { .. } => 0,
        }
    }

    /// Writes IA32_TSC_DEADLINE. Zero disarms; ignored outside TSC-deadline mode (SDM 12.5.4.1).
    pub(super) fn set_tsc_deadline(&mut self, tsc: u64, now: Moment) {
        if self.mode != Mode::TscDeadline {
            return;
        }
        self.disarm();
        if tsc != 0 {
            self.run = Run::Deadline { tsc };
            self.expiry = Some(self.ns_of_tsc(tsc, now));
        }
    }

    /// Lets the timer expire if it is due, once for however many periods have passed, and says
    /// whether it was. Afterwards the next expiry is later than `now`.
    pub(super) fn settle(&mut self, now: Moment) -> bool {
        match self.run {
            Run::Idle => false,
            Run::Deadline { tsc } if now.tsc >= tsc => {
                self.disarm();
                true
            }
            Run::Deadline { tsc } => {
                if self.expiry.is_some_and(|at| at <= now.ns) {
                    self.expiry = Some(self.ns_of_tsc(tsc, now));
                }
                false
            }
            Run::Counting { .. } if self.expiry.is_none_or(|at| at > now.ns) => false,
            Run::Counting { origin, next } => {
                if self.mode == Mode::Periodic {
                    self.count_to(origin, self.later_period(origin, next, now));
                } else {
                    self.run = Run::Idle;
                    self.expiry = None;
                }
                true
            }
        }
    }

    /// The guest's TSC was moved: a deadline is estimated anew.
    pub(super) fn tsc_changed(&mut self, now: Moment) {
        if let Run::Deadline { tsc } = self.run {
            self.expiry = Some(self.ns_of_tsc(tsc, now));
        }
    }

    fn disarm(&mut self) {
        self.run = Run::Idle;
        self.expiry = None;
        self.initial = 0;
    }

    fn count_to(&mut self, origin: u64, next: u128) {
        self.run = Run::Counting { origin, next };
        self.expiry = Some(self.ns_of_ticks(origin, next));
    }

    /// The first point of the grid after `now`, which is not before `due`, the last known one.
    fn later_period(&self, origin: u64, due: u128, now: Moment) -> u128 {
        let period = self.period();
        let ticks = self.ticks(now.ns.saturating_sub(origin));
        due + (ticks.saturating_sub(due) / period + 1) * period
    }

    /// Ticks from one periodic expiry to the next.
    fn period(&self) -> u128 {
        let least = u128::from(self.least_period_ns) * u128::from(self.hz);
        u128::from(self.initial.max(1)).max(least.div_ceil(NS_PER_SECOND * self.divisor()))
    }

    /// Divide-by value, 1 to 128 (SDM figure 12-10).
    fn divisor(&self) -> u128 {
        let code = (self.divide & 0b11) | (self.divide & 0b1000) >> 1;
        1 << ((code + 1) & 0b111)
    }

    fn ticks(&self, elapsed_ns: u64) -> u128 {
        u128::from(elapsed_ns) * u128::from(self.hz) / (NS_PER_SECOND * self.divisor())
    }

    fn ns_of_ticks(&self, origin: u64, ticks: u128) -> u64 {
        let ns = ticks.saturating_mul(NS_PER_SECOND * self.divisor()).div_ceil(u128::from(self.hz));
        u64::try_from(ns).map_or(u64::MAX, |ns| origin.saturating_add(ns))
    }

    fn ns_of_tsc(&self, tsc: u64, now: Moment) -> u64 {
        let cycles = u128::from(tsc.saturating_sub(now.tsc));
        let ns = (cycles * NS_PER_MS).div_ceil(u128::from(self.tsc_khz));
        u64::try_from(ns).map_or(u64::MAX, |ns| now.ns.saturating_add(ns))
    }
}
