//! What `siesta bench density --find-max` found, as JSON and as a table.
//!
//! Owns the schema `siesta.density-max/1` (see `docs/density.md`). Must not measure or search.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::figures::{Figure, Figures};
use super::host::HostFacts;
use super::launch::Mode;
use super::plan::Plan;
use super::report::disturbances;
use super::search::Found;
use super::table::{guests, short};

/// The schema's name. Its number changes when a name or a unit does; fields may be added.
pub const MAX_SCHEMA: &str = "siesta.density-max/1";

/// One number of guests, tried once.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// The mode.
    pub mode: Mode,
    /// Which of the mode's trials, from 1.
    pub trial: u32,
    /// Tick guests.
    pub vms: u32,
    /// Whether all ticks came, and within the goal.
    pub passes: bool,
    /// Why not.
    pub why_not: Option<String>,
    /// The figures; none if the guests could not be started.
    pub figures: Option<Figures>,
}

/// What was found for a mode.
#[derive(Clone, Debug, Serialize)]
pub struct Maximum {
    /// The largest number of tick guests that passed; 0: not even one.
    pub vms: u32,
    /// The smallest larger number that failed; none where the limit was reached.
    pub fails: Option<u32>,
    /// Why that one failed, the last time.
    pub why: Option<String>,
    /// Both numbers gave the same verdict twice.
    pub settled: bool,
    /// Trials.
    pub trials: usize,
    /// The figures of the last trial of that number that passed.
    pub figures: Option<Figures>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct MaxReport {
    /// Always [`MAX_SCHEMA`].
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// The host.
    pub host: HostFacts,
    /// What was asked for; the guests of the plan are the limit.
    pub plan: Plan,
    /// Both what may be the 99th percentile of lateness and the policy's own goal, in microseconds.
    pub lateness_goal_us: Figure,
    /// By the mode's name.
    pub maxima: BTreeMap<&'static str, Maximum>,
    /// All trials, in the order in which they took place.
    pub trials: Vec<Trial>,
    /// What makes a trial or a maximum less trustworthy, in sentences.
    pub marks: Vec<String>,
}

impl MaxReport {
    /// Sums up the trials of a plan with its goal in nanoseconds.
    #[must_use]
    pub(super) fn new(
        (plan, goal_ns): (&Plan, u64),
        host: HostFacts,
        found: Vec<(Mode, Found)>,
        trials: Vec<Trial>,
    ) -> MaxReport {
        let maxima: BTreeMap<_, _> = found
            .iter()
            .map(|&(mode, found)| (mode.name(), maximum(mode, found, &trials)))
            .collect();
        let unsettled = found.iter().filter(|(_, found)| !found.settled).map(|(mode, _)| {
            format!("{}: trials of one number contradicted each other too often", mode.name())
        });
        let disturbed = plan.modes.iter().filter_map(|&mode| mark(mode, &trials));
        let marks = disturbed.chain(unsettled).collect();
        MaxReport {
            schema: MAX_SCHEMA,
            command: plan.command.clone(),
            host,
            plan: plan.clone(),
            lateness_goal_us: Figure::of(goal_ns as f64 / 1e3),
            maxima,
            trials,
            marks,
        }
    }
}

fn maximum(mode: Mode, found: Found, trials: &[Trial]) -> Maximum {
    let of_mode = || trials.iter().filter(|trial| trial.mode == mode);
    let last = |vms: u32, passes: bool| {
        of_mode().rfind(move |trial| trial.vms == vms && trial.passes == passes)
    };
    Maximum {
        vms: found.most,
        fails: found.fails,
        why: found.fails.and_then(|fails| last(fails, false)?.why_not.clone()),
        settled: found.settled,
        trials: of_mode().count(),
        figures: last(found.most, true).and_then(|trial| trial.figures.clone()),
    }
}

/// One line for a mode, as its trials may be many: how many were disturbed, and the last of them.
fn mark(mode: Mode, trials: &[Trial]) -> Option<String> {
    let of_mode = || trials.iter().filter(|trial| trial.mode == mode);
    let said = |trial: &Trial| trial.figures.as_ref().map(disturbances).unwrap_or_default();
    let disturbed: Vec<_> = of_mode().filter(|trial| !said(trial).is_empty()).collect();
    let last = disturbed.last()?;
    Some(format!(
        "{}: {} of {} trials were disturbed, as number {} with {} guests: {}",
        mode.name(),
        disturbed.len(),
        of_mode().count(),
        last.trial,
        last.vms,
        said(last).join("; ")
    ))
}

const LEGEND: &str = "\
max VMs: the most idle guests of which no tick is lost and 99 % of all are at most the goal late,
tried twice. /k: as a multiple of kernel. The figures are those of that number, tried last.
";

/// Writes facts, table, marks and legend.
///
/// # Errors
/// Those of `out`.
pub(super) fn write(report: &MaxReport, out: &mut dyn Write) -> io::Result<()> {
    let plan = &report.plan;
    super::table::opening(&report.command, &report.host, out)?;
    writeln!(
        out,
        "up to {}; {} s a trial; seed {}; --timer-slack {} us, --borrow-share {} %",
        guests(plan),
        plan.secs,
        plan.seed,
        plan.slack_ns as f64 / 1e3,
        plan.borrow_share_percent,
    )?;
    writeln!(out, "--lateness-goal {} us\n", short(report.lateness_goal_us))?;
    let columns = ["max VMs", "/k", "p99, us", "CPUs used", "wakeups/s", "trials"];
    writeln!(out, "{:<9}{}   ended by", "", columns.map(|name| format!("{name:>10}")).concat())?;
    let kernel = report.maxima.get(Mode::Kernel.name()).map(|of| f64::from(of.vms));
    for mode in &plan.modes {
        let Some(of) = report.maxima.get(mode.name()) else { continue };
        let figure = |get: fn(&Figures) -> Figure| of.figures.as_ref().map_or(Figure::UNKNOWN, get);
        let ratio =
            kernel.filter(|_| *mode != Mode::Kernel).map(|kernel| f64::from(of.vms) / kernel);
        let cells = [
            of.vms.to_string(),
            ratio.map_or(String::new(), |ratio| short(Figure::of(ratio))),
            short(figure(|figures| figures.lateness_us.p99)),
            short(figure(|figures| figures.process_cpus)),
            short(figure(|figures| figures.thread_wakeups_per_sec)),
            of.trials.to_string(),
        ];
        let cells = cells.map(|cell| format!("{cell:>10}")).concat();
        writeln!(out, "{:<9}{cells}   {}", mode.name(), end(of))?;
    }
    writeln!(out)?;
    for mark in &report.marks {
        writeln!(out, "! {mark}")?;
    }
    if !report.marks.is_empty() {
        writeln!(out)?;
    }
    write!(out, "{LEGEND}")
}

/// What keeps a maximum from being larger.
fn end(of: &Maximum) -> String {
    let even = if of.vms == 0 { "not even one; " } else { "" };
    match (of.fails, &of.why) {
        (None, _) => "the limit --vms".to_owned(),
        (Some(fails), Some(why)) => format!("{even}{fails}: {why}"),
        (Some(fails), None) => format!("{even}{fails}"),
    }
}
