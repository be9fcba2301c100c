//! What is to be measured: how many guests, in which modes, how often, for how long.
//!
//! Owns the order of the runs and the phases of the ticks. Must not know how anything is measured.

use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use thiserror::Error;

use super::launch::{Mode, RunSpec};

/// How long the guests of a run are left alone before the measured interval, in nanoseconds.
pub const WARM_UP_NS: u64 = 500_000_000;
/// How long a busy guest is left alone before its speed is measured, in nanoseconds.
pub const CALIBRATION_WARM_UP_NS: u64 = 50_000_000;
/// How long a busy guest alone is measured before each run, in nanoseconds.
pub const CALIBRATION_NS: u64 = 300_000_000;

/// A benchmark. What serde leaves out is the JSON report's own business or said elsewhere in it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Tick guests, at least 1 (`--vms`).
    pub vms: u32,
    /// Ticks a second of each, 1 to 1,000,000 (`--hz`).
    pub hz: u32,
    /// Busy guests (`--busy`).
    pub busy: u32,
    /// Length of a measured interval in seconds, 0.1 to 86,400 (`--secs`).
    pub secs: f64,
    /// The modes, each once (`--modes`).
    #[serde(skip)]
    pub modes: Vec<Mode>,
    /// How often each mode is measured, at least 1 (`--repeat`).
    pub repeat: u32,
    /// Seed of the phases (`--seed`).
    pub seed: u64,
    /// How late a host timer may be armed, in nanoseconds (`--timer-slack`).
    #[serde(rename = "timer_slack_ns")]
    pub slack_ns: u64,
    /// Share of a busy vCPU's thread that may go to other vCPUs, in percent (`--borrow-share`).
    pub borrow_share_percent: u8,
    /// The command line, for the report.
    #[serde(skip)]
    pub command: String,
    /// Where the JSON report goes (`--json`).
    #[serde(skip)]
    pub json: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            vms: 64,
            hz: 100,
            busy: 1,
            secs: 4.0,
            modes: vec![Mode::Kernel, Mode::Thread, Mode::Migrate],
            repeat: 3,
            seed: 1,
            slack_ns: 0,
            borrow_share_percent: 50,
            command: String::new(),
            json: None,
        }
    }
}

/// Why a plan cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Nothing would tick.
    #[error("at least one tick guest is needed")]
    NoGuests,
    /// No such frequency.
    #[error("ticks a second must be 1 to 1000000")]
    Frequency,
    /// The interval is too short to measure anything, or absurdly long.
    #[error("the measured interval must be 0.1 to 86400 seconds")]
    Interval,
    /// Nothing would run.
    #[error("no mode to measure")]
    NoModes,
    /// A mode is named twice.
    #[error("mode {} is named twice", .0.name())]
    Twice(Mode),
    /// Nothing would run.
    #[error("each mode must be measured at least once")]
    NoRepeat,
    /// More than everything.
    #[error("the borrow share must be 0 to 100 percent")]
    BorrowShare,
}

/// One run of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The mode.
    pub mode: Mode,
    /// Which of its runs, from 1.
    pub repeat: u32,
}

impl Plan {
    /// Checks the ranges of all figures.
    ///
    /// # Errors
    /// The first figure that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        let twice = self.modes.iter().enumerate().find(|&(i, mode)| self.modes[..i].contains(mode));
        let checks = [
            (self.vms >= 1, PlanError::NoGuests),
            ((1..=1_000_000).contains(&self.hz), PlanError::Frequency),
            ((0.1..=86_400.0).contains(&self.secs), PlanError::Interval),
            (!self.modes.is_empty(), PlanError::NoModes),
            (self.repeat >= 1, PlanError::NoRepeat),
            (self.borrow_share_percent <= 100, PlanError::BorrowShare),
        ];
        let bad = checks.into_iter().find(|(good, _)| !good).map(|(_, error)| error);
        match bad.or(twice.map(|(_, &mode)| PlanError::Twice(mode))) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The runs in order. Modes take turns, so that what changes on the host while the benchmark
    /// runs does not favour one of them.
    pub fn turns(&self) -> impl Iterator<Item = Turn> + '_ {
        (1..=self.repeat)
            .flat_map(|repeat| self.modes.iter().map(move |&mode| Turn { mode, repeat }))
    }

    /// Length of the measured interval, in nanoseconds.
    #[must_use]
    pub fn interval_ns(&self) -> u64 {
        (self.secs * 1e9) as u64
    }

    /// The guests of a run. All modes of one repeat have the same phases.
    #[must_use]
    pub fn spec(&self, turn: Turn) -> RunSpec {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(turn.repeat)));
        let period_ns = 1_000_000_000 / u64::from(self.hz.max(1));
        RunSpec {
            mode: turn.mode,
            tick_vms: self.vms,
            phases_ns: (0..self.vms).map(|_| rng.random_range(0..period_ns.max(1))).collect(),
            hz: self.hz,
            busy: self.busy,
            slack_ns: self.slack_ns,
            borrow_share_percent: self.borrow_share_percent,
        }
    }

    /// One busy guest alone. The mode does not matter to it, as it never halts.
    #[must_use]
    pub fn calibration(&self) -> RunSpec {
        RunSpec {
            mode: Mode::Kernel,
            tick_vms: 0,
            phases_ns: Vec::new(),
            hz: self.hz,
            busy: 1,
            slack_ns: self.slack_ns,
            borrow_share_percent: self.borrow_share_percent,
        }
    }

    /// How long all of it takes, not counting the start of guests, in nanoseconds.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        let runs = u64::from(self.repeat).saturating_mul(self.modes.len() as u64);
        let calibration = if self.busy > 0 { CALIBRATION_WARM_UP_NS + CALIBRATION_NS } else { 0 };
        runs.saturating_mul(calibration + WARM_UP_NS + self.interval_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_take_turns() {
        let plan = Plan { repeat: 2, ..Plan::default() };
        let turns: Vec<_> = plan.turns().map(|turn| (turn.mode.name(), turn.repeat)).collect();
        let expected = [("kernel", 1), ("thread", 1), ("migrate", 1)];
        assert_eq!(turns[..3], expected);
        assert_eq!(turns[3..], expected.map(|(name, _)| (name, 2)));
    }

    #[test]
    fn the_default_takes_less_than_a_minute() {
        let plan = Plan::default();
        assert_eq!(plan.check(), Ok(()));
        assert!(plan.length_ns() < 48_000_000_000, "{}", plan.length_ns());
    }

    #[test]
    fn phases_are_below_a_period_and_the_same_in_every_mode() {
        let plan = Plan { vms: 200, ..Plan::default() };
        let spec = plan.spec(Turn { mode: Mode::Kernel, repeat: 1 });
        assert_eq!(spec.phases_ns.len(), 200);
        assert!(spec.phases_ns.iter().all(|&phase| phase < 10_000_000));
        assert!(spec.phases_ns.iter().any(|&phase| phase > 9_000_000), "spread over the period");
        let other = plan.spec(Turn { mode: Mode::Migrate, repeat: 1 });
        assert_eq!(spec.phases_ns, other.phases_ns);
        let second = plan.spec(Turn { mode: Mode::Kernel, repeat: 2 });
        assert_ne!(spec.phases_ns, second.phases_ns);
        let seed = Plan { seed: 7, ..plan }.spec(Turn { mode: Mode::Kernel, repeat: 1 });
        assert_ne!(spec.phases_ns, seed.phases_ns);
    }

    #[test]
    fn figures_out_of_range_are_refused() {
        let check = |change: fn(&mut Plan)| {
            let mut plan = Plan::default();
            change(&mut plan);
            plan.check()
        };
        assert_eq!(check(|plan| plan.vms = 0), Err(PlanError::NoGuests));
        assert_eq!(check(|plan| plan.hz = 0), Err(PlanError::Frequency));
        assert_eq!(check(|plan| plan.secs = f64::NAN), Err(PlanError::Interval));
        assert_eq!(check(|plan| plan.secs = 0.0), Err(PlanError::Interval));
        assert_eq!(check(|plan| plan.modes.clear()), Err(PlanError::NoModes));
        assert_eq!(check(|plan| plan.repeat = 0), Err(PlanError::NoRepeat));
        assert_eq!(check(|plan| plan.borrow_share_percent = 101), Err(PlanError::BorrowShare));
        let twice = check(|plan| plan.modes.push(Mode::Kernel));
        assert_eq!(twice, Err(PlanError::Twice(Mode::Kernel)));
        assert_eq!(PlanError::Twice(Mode::Kernel).to_string(), "mode kernel is named twice");
    }
}
