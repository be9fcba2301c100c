//! What is to be simulated.
//!
//! Owns the ranges of all figures. Must not know how anything is simulated.

use std::path::PathBuf;

use serde::Serialize;
use thiserror::Error;

use crate::costs::Costs;
use crate::domain::TimerMode;

/// The most vCPUs; one slot more belongs to none of them.
pub const MOST_VCPUS: u32 = 1_000_000;
/// The most host CPUs.
pub const MOST_CPUS: u32 = 4_096;
/// The most NUMA nodes.
pub const MOST_NODES: u32 = 64;
/// The most ticks a second of a vCPU.
pub const MOST_HZ: u32 = 10_000;
/// The longest simulated interval, in seconds.
pub const LONGEST_SECS: f64 = 3_600.0;

/// A simulation.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// All vCPUs, 1 to [`MOST_VCPUS`] (`--vcpus`).
    pub vcpus: u32,
    /// Ticks a second of the idle vCPUs, each 1 to [`MOST_HZ`]; they have them in turns (`--hz`).
    pub hz: Vec<u32>,
    /// Share of the vCPUs that compute without pause, 0 to 100 percent, rounded to whole vCPUs
    /// (`--busy-share`).
    pub busy_share_percent: f64,
    /// Host CPUs, 1 to [`MOST_CPUS`] (`--cpus`).
    pub cpus: u32,
    /// NUMA nodes, 1 to [`MOST_NODES`] and to `cpus` (`--nodes`).
    pub nodes: u32,
    /// Simulated time in seconds, 0.001 to [`LONGEST_SECS`] (`--secs`).
    pub secs: f64,
    /// How late a host timer may fire, in nanoseconds (`--slack`).
    pub slack_ns: u64,
    /// Share of a busy vCPU's thread that may go to others, 0 to 100 percent (`--borrow-share`).
    pub borrow_share_percent: u8,
    /// Longest borrowed run, in nanoseconds (`--borrow-limit`).
    pub borrow_limit_ns: u64,
    /// A migrator leaves a tick that is later than this to the vCPU's own thread, in nanoseconds;
    /// `None`: never, as the VMM (`--late-goal`).
    pub late_goal_ns: Option<u64>,
    /// Idle times of a CPU from this length on count as eligible for a deep C-state, in nanoseconds
    /// (`--residency`).
    pub residency_ns: u64,
    /// Seed of phases and of who is busy (`--seed`).
    pub seed: u64,
    /// The modes, each once (`--modes`).
    #[serde(skip)]
    pub modes: Vec<TimerMode>,
    /// The costs.
    #[serde(skip)]
    pub costs: Costs,
    /// The file they come from; `None`: the defaults (`--costs`).
    #[serde(skip)]
    pub costs_file: Option<PathBuf>,
    /// The command line, for the report.
    #[serde(skip)]
    pub command: String,
    /// Where the JSON report goes (`--json`).
    #[serde(skip)]
    pub json: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Self {
        let costs = Costs::default();
        Plan {
            vcpus: 10_000,
            hz: vec![100],
            busy_share_percent: 1.0,
            cpus: 128,
            nodes: 2,
            secs: 10.0,
            slack_ns: 0,
            borrow_share_percent: 25,
            borrow_limit_ns: borrow_limit_ns(&costs),
            late_goal_ns: None,
            residency_ns: 600_000,
            seed: 1,
            modes: vec![TimerMode::Kernel, TimerMode::Thread, TimerMode::Migrate],
            costs,
            costs_file: None,
            command: String::new(),
            json: None,
        }
    }
}

/// The VMM's default: a hundred microseconds, or a hundred exits where those are dear.
#[must_use]
pub fn borrow_limit_ns(costs: &Costs) -> u64 {
    100_000.max(100 * costs.exit_ns)
}

/// Why a plan cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No vCPUs, or too many.
    #[error("--vcpus must be 1 to {MOST_VCPUS}")]
    Vcpus,
    /// No rate, or one that is out of range.
    #[error("--hz must be 1 to {MOST_HZ}, and at most 16 rates")]
    Frequency,
    /// No such share.
    #[error("--busy-share must be 0 to 100 percent")]
    BusyShare,
    /// No CPUs, or too many.
    #[error("--cpus must be 1 to {MOST_CPUS}")]
    Cpus,
    /// No nodes, or too many.
    #[error("--nodes must be 1 to {MOST_NODES}")]
    Nodes,
    /// A node without a CPU.
    #[error("--nodes {nodes} is more than --cpus {cpus}: each node needs a CPU")]
    EmptyNodes {
        /// Nodes asked for.
        nodes: u32,
        /// CPUs asked for.
        cpus: u32,
    },
    /// The interval is too short or absurdly long.
    #[error("--secs must be 0.001 to {LONGEST_SECS}")]
    Interval,
    /// No such share.
    #[error("--borrow-share must be 0 to 100 percent")]
    BorrowShare,
    /// Nothing would be simulated.
    #[error("no mode to simulate")]
    NoModes,
    /// A mode is named twice.
    #[error("mode {} is named twice", .0.name())]
    Twice(TimerMode),
}

impl Plan {
    /// Checks the ranges of all figures.
    ///
    /// # Errors
    /// The first figure that is out of range.
    pub fn check(&self) -> Result<(), PlanError> {
        let rates = (1..=16).contains(&self.hz.len())
            && self.hz.iter().all(|hz| (1..=MOST_HZ).contains(hz));
        let empty = PlanError::EmptyNodes { nodes: self.nodes, cpus: self.cpus };
        let checks = [
            ((1..=MOST_VCPUS).contains(&self.vcpus), PlanError::Vcpus),
            (rates, PlanError::Frequency),
            ((0.0..=100.0).contains(&self.busy_share_percent), PlanError::BusyShare),
            ((1..=MOST_CPUS).contains(&self.cpus), PlanError::Cpus),
            ((1..=MOST_NODES).contains(&self.nodes), PlanError::Nodes),
            (self.nodes <= self.cpus, empty),
            ((0.001..=LONGEST_SECS).contains(&self.secs), PlanError::Interval),
            (self.borrow_share_percent <= 100, PlanError::BorrowShare),
            (!self.modes.is_empty(), PlanError::NoModes),
        ];
        if let Some((_, error)) = checks.into_iter().find(|(good, _)| !good) {
            return Err(error);
        }
        let twice = self.modes.iter().enumerate().find(|&(i, mode)| self.modes[..i].contains(mode));
        twice.map_or(Ok(()), |(_, &mode)| Err(PlanError::Twice(mode)))
    }

    /// Simulated time, in nanoseconds.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        (self.secs * 1e9) as u64
    }

    /// How many vCPUs are busy.
    #[must_use]
    pub fn busy(&self) -> u32 {
        (f64::from(self.vcpus) * self.busy_share_percent / 100.0).round() as u32
    }

    /// How late a host timer is armed, in nanoseconds: half the slack.
    #[must_use]
    pub fn armed_late_ns(&self) -> u64 {
        self.slack_ns / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_plan() {
        assert_eq!(Plan::default().check(), Ok(()));
        assert_eq!(Plan::default().busy(), 100);
    }

    #[test]
    fn figures_out_of_range_are_refused() {
        let check = |change: fn(&mut Plan)| {
            let mut plan = Plan::default();
            change(&mut plan);
            plan.check()
        };
        assert_eq!(check(|plan| plan.vcpus = 0), Err(PlanError::Vcpus));
        assert_eq!(check(|plan| plan.vcpus = MOST_VCPUS + 1), Err(PlanError::Vcpus));
        assert_eq!(check(|plan| plan.hz = vec![]), Err(PlanError::Frequency));
        assert_eq!(check(|plan| plan.hz = vec![100, 0]), Err(PlanError::Frequency));
        assert_eq!(check(|plan| plan.busy_share_percent = f64::NAN), Err(PlanError::BusyShare));
        assert_eq!(check(|plan| plan.busy_share_percent = 100.5), Err(PlanError::BusyShare));
        assert_eq!(check(|plan| plan.cpus = 0), Err(PlanError::Cpus));
        assert_eq!(check(|plan| plan.nodes = 0), Err(PlanError::Nodes));
        assert_eq!(check(|plan| plan.secs = f64::INFINITY), Err(PlanError::Interval));
        assert_eq!(check(|plan| plan.secs = 0.0), Err(PlanError::Interval));
        assert_eq!(check(|plan| plan.borrow_share_percent = 101), Err(PlanError::BorrowShare));
        assert_eq!(check(|plan| plan.modes.clear()), Err(PlanError::NoModes));
        let twice = check(|plan| plan.modes = vec![TimerMode::Thread, TimerMode::Thread]);
        assert_eq!(twice, Err(PlanError::Twice(TimerMode::Thread)));
        let empty = check(|plan| (plan.cpus, plan.nodes) = (2, 3));
        assert_eq!(empty, Err(PlanError::EmptyNodes { nodes: 3, cpus: 2 }));
    }

    #[test]
    fn a_borrowed_run_may_take_a_hundred_exits_but_never_less_than_100_us() {
        let costs = |exit_ns| Costs { exit_ns, ..Costs::default() };
        assert_eq!(borrow_limit_ns(&costs(500)), 100_000);
        assert_eq!(borrow_limit_ns(&costs(7_000)), 700_000);
    }
}
