//! What is to be measured: how many guests, in which modes, how often, for how long.
//!
//! Owns the order of the runs and the phases of the ticks. Must not know how anything is measured.

use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use thiserror::Error;

use super::launch::{Mode, RunSpec, TickGuest, TickMode};
use super::rates::Rates;

/// How long the guests of a run are left alone before the measured interval, in nanoseconds.
pub const WARM_UP_NS: u64 = 500_000_000;
/// How long a busy guest is left alone before its speed is measured, in nanoseconds.
pub const CALIBRATION_WARM_UP_NS: u64 = 50_000_000;
/// How long a busy guest alone is measured before each run, in nanoseconds.
pub const CALIBRATION_NS: u64 = 300_000_000;

/// Most ticks a second of a periodic timer: Siesta and KVM have no shorter periods than 200 us.
pub const MOST_PERIODIC_HZ: u32 = 5_000;

/// A benchmark. What serde leaves out is the JSON report's own business or said elsewhere in it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Tick guests, at least 1 (`--vms`), and their rates (`--hz`).
    #[serde(flatten)]
    pub rates: Rates,
    /// How they use their timer (`--tick`).
    pub tick: TickMode,
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
            rates: Rates::same(100, 64),
            tick: TickMode::Auto,
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
    /// Siesta and KVM stretch shorter periods.
    #[error(
        "--tick periodic goes up to {MOST_PERIODIC_HZ} Hz: shorter periods of a periodic timer are \
         stretched to 200 us"
    )]
    Periodic,
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
    /// Nothing would be swept.
    #[error("no share to sweep")]
    NoShares,
    /// The share is that of a guest that wants to run.
    #[error("--sweep-borrow-share needs --busy: the share is that of a busy guest's thread")]
    NobodysShare,
    /// No mode has one.
    #[error("--sweep-borrow-share changes mode migrate alone; name it in --modes")]
    ShareOfNoMode,
    /// A share is named twice.
    #[error("share {0} is named twice")]
    ShareTwice(u8),
    /// No lateness would be within it.
    #[error("--find-max needs a --lateness-goal above 0")]
    NoGoal,
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
        let periodic = self.tick == TickMode::Periodic;
        let groups = self.rates.groups().iter();
        let checks = [
            (groups.clone().all(|of| of.vms >= 1) && self.rates.vms() >= 1, PlanError::NoGuests),
            (groups.clone().all(|of| (1..=1_000_000).contains(&of.hz)), PlanError::Frequency),
            (!periodic || groups.clone().all(|of| of.hz <= MOST_PERIODIC_HZ), PlanError::Periodic),
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
        RunSpec {
            mode: turn.mode,
            rates: self.rates.clone(),
            ticking: self.ticking(self.seed.wrapping_add(u64::from(turn.repeat))),
            tick: self.tick,
            busy: self.busy,
            slack_ns: self.slack_ns,
            borrow_share_percent: self.borrow_share_percent,
        }
    }

    /// Draws phases; of several rates also who comes when, as neighbours look after each other in
    /// the hierarchy.
    fn ticking(&self, seed: u64) -> Vec<TickGuest> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut ticking = Vec::new();
        for (group, of) in self.rates.groups().iter().enumerate() {
            let period_ns = (1_000_000_000 / u64::from(of.hz.max(1))).max(1);
            let phase = |_| TickGuest { group, phase_ns: rng.random_range(0..period_ns) };
            ticking.extend((0..of.vms).map(phase));
        }
        if self.rates.groups().len() > 1 {
            ticking.shuffle(&mut rng);
        }
        ticking
    }

    /// One busy guest alone. The mode does not matter to it, as it never halts.
    #[must_use]
    pub fn calibration(&self) -> RunSpec {
        RunSpec {
            mode: Mode::Kernel,
            rates: Rates::default(),
            ticking: Vec::new(),
            tick: self.tick,
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
    use crate::bench::rates::Group;

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
        let plan = Plan { rates: Rates::same(100, 200), ..Plan::default() };
        let spec = plan.spec(Turn { mode: Mode::Kernel, repeat: 1 });
        assert_eq!(spec.ticking.len(), 200);
        assert!(spec.ticking.iter().all(|guest| guest.phase_ns < 10_000_000));
        let late = spec.ticking.iter().any(|guest| guest.phase_ns > 9_000_000);
        assert!(late, "spread over the period");
        let other = plan.spec(Turn { mode: Mode::Migrate, repeat: 1 });
        assert_eq!(spec.ticking, other.ticking);
        let second = plan.spec(Turn { mode: Mode::Kernel, repeat: 2 });
        assert_ne!(spec.ticking, second.ticking);
        let seed = Plan { seed: 7, ..plan }.spec(Turn { mode: Mode::Kernel, repeat: 1 });
        assert_ne!(spec.ticking, seed.ticking);
    }

    #[test]
    fn guests_of_a_mix_are_neighbours_and_have_phases_of_their_own_period() {
        let (slow, fast) = (Group { hz: 10, vms: 40 }, Group { hz: 1_000, vms: 160 });
        let plan = Plan { rates: Rates::mix(vec![slow, fast]), ..Plan::default() };
        let ticking = plan.spec(Turn { mode: Mode::Kernel, repeat: 1 }).ticking;
        let of = |group| ticking.iter().filter(move |guest| guest.group == group);
        assert_eq!((of(0).count(), of(1).count()), (40, 160));
        assert!(of(0).all(|guest| guest.phase_ns < 100_000_000));
        assert!(of(0).any(|guest| guest.phase_ns > 50_000_000));
        assert!(of(1).all(|guest| guest.phase_ns < 1_000_000));
        let first: Vec<_> = ticking[..40].iter().map(|guest| guest.group).collect();
        assert!(first.contains(&0) && first.contains(&1), "not one group behind the other");
    }

    #[test]
    fn figures_out_of_range_are_refused() {
        let check = |change: fn(&mut Plan)| {
            let mut plan = Plan::default();
            change(&mut plan);
            plan.check()
        };
        let rates = |groups: &[(u32, u32)]| {
            let groups = groups.iter().map(|&(hz, vms)| Group { hz, vms }).collect();
            Plan { rates: Rates::mix(groups), ..Plan::default() }
        };
        assert_eq!(rates(&[(100, 0)]).check(), Err(PlanError::NoGuests));
        assert_eq!(rates(&[]).check(), Err(PlanError::NoGuests));
        assert_eq!(rates(&[(0, 1)]).check(), Err(PlanError::Frequency));
        assert_eq!(rates(&[(100, 1), (1_000_001, 1)]).check(), Err(PlanError::Frequency));
        let fast = Plan { tick: TickMode::Periodic, ..rates(&[(5_000, 1), (5_001, 1)]) };
        assert_eq!(fast.check(), Err(PlanError::Periodic));
        assert_eq!(Plan { tick: TickMode::Oneshot, ..fast }.check(), Ok(()));
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
