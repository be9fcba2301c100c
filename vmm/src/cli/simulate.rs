//! `siesta simulate`.
//!
//! Owns the arguments. Must not know how anything is simulated.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Failure, INTERRUPTED, OK, bench, values};
use crate::bench::Line;
use crate::costs::Costs;
use crate::domain::TimerMode;
use crate::signals::Signals;
use crate::simulate::{self, Plan, SimulateError};

/// Arguments of `siesta simulate`.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct SimulateArguments {
    /// vCPUs of all VMs together
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(simulate::MOST_VCPUS)))]
    vcpus: u32,
    /// Ticks a second of an idle vCPU; several rates are shared out equally
    #[arg(long, default_value = "100", value_delimiter = ',', value_name = "HZ,..", value_parser = clap::value_parser!(u32).range(1..=i64::from(simulate::MOST_HZ)))]
    hz: Vec<u32>,
    /// Share of the vCPUs that compute without pause, in percent
    #[arg(long, default_value = "1", value_parser = percent, value_name = "PERCENT")]
    busy_share: f64,
    /// CPUs of the host
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(simulate::MOST_CPUS)))]
    cpus: u32,
    /// NUMA nodes of the host
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(simulate::MOST_NODES)))]
    nodes: u32,
    /// Simulated time
    #[arg(long, default_value = "10", value_parser = interval, value_name = "SECS")]
    secs: f64,
    /// How late a host timer may fire, so that one wakeup serves several (not in mode kernel)
    #[arg(long, value_parser = values::duration, default_value = "0", value_name = "DURATION")]
    slack: Duration,
    /// Share of a running vCPU's time that may go to others, in percent; 0: none, 100: no limit
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100), default_value_t = 25, value_name = "PERCENT")]
    borrow_share: u8,
    /// Longest time for which a halted vCPU is run on another's thread [default: 100us, more where exits are slow]
    #[arg(long, value_parser = values::duration, value_name = "DURATION")]
    borrow_limit: Option<Duration>,
    /// What if a migrator left a tick that is later than this to the vCPU's own thread? [default: it does not]
    #[arg(long, value_parser = values::duration, value_name = "DURATION")]
    late_goal: Option<Duration>,
    /// Idle times of a CPU from this length on count as eligible for a deep C-state
    #[arg(long, value_parser = values::duration, default_value = "600us", value_name = "DURATION")]
    residency: Duration,
    /// Timer modes to compare, in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "kernel,thread,migrate",
        value_name = "MODES"
    )]
    modes: Vec<TimerMode>,
    /// Seed of the phases of the ticks and of who is busy
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    seed: u64,
    /// What things cost, as 'siesta bench costs' wrote it on a real host [default: built-in figures of no host]
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Also write the figures into this file (schema siesta.simulate/1, see docs/simulation.md)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn interval(text: &str) -> Result<f64, String> {
    let secs = values::seconds_up_to(text, simulate::LONGEST_SECS)?;
    if secs < 0.001 { Err("write at least 0.001".into()) } else { Ok(secs) }
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "write a number of percent".to_string())?;
    match (0.0..=100.0).contains(&value) {
        true => Ok(value),
        false => Err("write a number of percent, 0 to 100".into()),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn simulate(arguments: &SimulateArguments) -> Result<u8, Failure> {
    let signals = RefCell::new(Signals::take().map_err(Failure::input)?);
    let plan = arguments.plan()?;
    let mut progress = Line::on_stderr(|| signals.borrow_mut().came());
    let mut out = io::stdout().lock();
    let simulated = simulate::simulate(&plan, &mut out, &mut progress);
    drop(progress);
    let _ = out.flush();
    match simulated {
        Ok(_) => Ok(OK),
        Err(error) => Err(Failure { message: bench::chain(&error), status: status(&error) }),
    }
}

impl SimulateArguments {
    fn plan(&self) -> Result<Plan, Failure> {
        let costs = self.costs.as_deref().map(Costs::read).transpose();
        let costs =
            costs.map_err(|error| Failure::input(format!("--costs {error}")))?.unwrap_or_default();
        let limit = self.borrow_limit.map_or(simulate::borrow_limit_ns(&costs), nanos);
        Ok(Plan {
            vcpus: self.vcpus,
            hz: self.hz.clone(),
            busy_share_percent: self.busy_share,
            cpus: self.cpus,
            nodes: self.nodes,
            secs: self.secs,
            slack_ns: nanos(self.slack),
            borrow_share_percent: self.borrow_share,
            borrow_limit_ns: limit,
            late_goal_ns: self.late_goal.map(nanos),
            residency_ns: nanos(self.residency),
            seed: self.seed,
            modes: self.modes.clone(),
            costs,
            costs_file: self.costs.clone(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            json: self.json.clone(),
        })
    }
}

fn status(error: &SimulateError) -> u8 {
    match error {
        SimulateError::Interrupted(_) => INTERRUPTED,
        _ => super::BAD_INPUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: SimulateArguments,
    }

    #[test]
    fn the_defaults_are_those_of_the_engine() {
        let plan = Program::parse_from(["simulate"]).arguments.plan().ok().unwrap();
        let of = |plan: &Plan| serde_json::to_string(plan).unwrap();
        assert_eq!(of(&plan), of(&Plan::default()));
        assert_eq!(plan.modes, Plan::default().modes);
    }

    #[test]
    fn percents_and_intervals_have_ranges() {
        assert_eq!(percent("0.01"), Ok(0.01));
        for wrong in ["-1", "100.1", "NaN", "x", "inf"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
        assert_eq!(interval("0.001"), Ok(0.001));
        for wrong in ["0", "0.0001", "3601", "x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
