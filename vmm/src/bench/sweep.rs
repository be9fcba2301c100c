//! The same runs for several shares of a busy vCPU's thread (`--sweep-borrow-share`).
//!
//! Owns the order of the runs, the schema `siesta.density-sweep/1` (see `docs/density.md`) and the
//! table of one line a share. Must not know how a run is measured.

use std::io::{self, Write};

use serde::Serialize;

use super::figures::{Figure, Figures};
use super::host::HostFacts;
use super::launch::{Launch, Mode};
use super::measure::{Bench, Instruments};
use super::plan::{Plan, PlanError};
use super::progress::Progress;
use super::report::Report;
use super::table::{guests, short};
use super::{BenchError, JsonOut, Runs, one_run, stats};

/// The schema's name. Its number changes when a name or a unit does; fields may be added.
pub const SWEEP_SCHEMA: &str = "siesta.density-sweep/1";

/// The result: a whole report for each share.
#[derive(Clone, Debug, Serialize)]
pub struct SweepReport {
    /// Always [`SWEEP_SCHEMA`].
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// The host.
    pub host: HostFacts,
    /// The shares in percent, in the order of the command line.
    pub borrow_shares_percent: Vec<u8>,
    /// For each share a report of the schema `siesta.density/1`.
    pub shares: Vec<Report>,
}

/// Carries out a plan once for each share, in percent, writes the table to `out` and the JSON report
/// to where the plan says. Shares and modes take turns: all of them once, then all again. The
/// plan's own share has no meaning.
///
/// # Errors
/// As [`super::density`]. The plan is also refused without a share, without a busy guest, whose
/// share it is, and without mode `migrate`, which alone has one.
pub fn sweep(
    launch: &mut dyn Launch,
    instruments: &mut dyn Instruments,
    (plan, shares): (&Plan, &[u8]),
    out: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<SweepReport, BenchError> {
    let plans: Vec<Plan> =
        shares.iter().map(|&share| Plan { borrow_share_percent: share, ..plan.clone() }).collect();
    check(plan, &plans, shares)?;
    let json = JsonOut::open(plan)?;
    let facts = launch.host_facts();
    let mut bench = Bench { launch, instruments, progress: &mut *progress };
    let measured = all_runs(&mut bench, plan, &plans);
    progress.clear();
    let reports = plans.iter().zip(measured?);
    let report = SweepReport {
        schema: SWEEP_SCHEMA,
        command: plan.command.clone(),
        host: facts.clone(),
        borrow_shares_percent: shares.to_vec(),
        shares: reports
            .map(|(plan, (alone, runs))| Report::new(plan, facts.clone(), alone, runs))
            .collect(),
    };
    write(&report, plan, out).and_then(|()| out.flush()).map_err(BenchError::Output)?;
    json.finish(&report)?;
    Ok(report)
}

fn check(plan: &Plan, plans: &[Plan], shares: &[u8]) -> Result<(), PlanError> {
    plan.check()?;
    plans.iter().try_for_each(Plan::check)?;
    let twice = shares.iter().enumerate().find(|&(i, share)| shares[..i].contains(share));
    match twice {
        _ if shares.is_empty() => Err(PlanError::NoShares),
        _ if plan.busy == 0 => Err(PlanError::NobodysShare),
        _ if !plan.modes.contains(&Mode::Migrate) => Err(PlanError::ShareOfNoMode),
        Some((_, &share)) => Err(PlanError::ShareTwice(share)),
        None => Ok(()),
    }
}

fn all_runs(bench: &mut Bench<'_>, plan: &Plan, plans: &[Plan]) -> Result<Vec<Runs>, BenchError> {
    let mut speeds = vec![Vec::new(); plans.len()];
    let mut runs = vec![Vec::new(); plans.len()];
    let (mut number, of) = (0, plan.turns().count() * plans.len());
    for repeat in 1..=plan.repeat {
        for (index, plan) in plans.iter().enumerate() {
            for turn in plan.turns().filter(|turn| turn.repeat == repeat) {
                number += 1;
                let place = format!("{number}/{of}: {} %: ", plan.borrow_share_percent);
                let (alone, figures) = one_run(bench, plan, turn, place)?;
                speeds[index].extend(alone.get());
                runs[index].push((turn, figures));
            }
        }
    }
    let alone = speeds.iter().map(|speeds| Figure::maybe(stats::median(speeds)));
    Ok(alone.zip(runs).collect())
}

/// The columns of a mode.
type Column = (&'static str, fn(&Figures) -> Figure);

const COLUMNS: [Column; 4] = [
    ("wake/s", |of| of.thread_wakeups_per_sec),
    ("busy/s", |of| of.busy_progress_per_sec),
    ("p99,us", |of| of.lateness_us.p99),
    ("CPUs", |of| of.process_cpus),
];

const WIDTH: usize = 6;

const LEGEND: &str = "\
Medians of the runs of one share: thread wakeups, rounds of the busy guests, lateness, CPUs used.
The share is that of a busy guest's thread, so only migrate knows it: the others show the noise.
";

fn write(report: &SweepReport, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    super::table::opening(&report.command, &report.host, out)?;
    writeln!(
        out,
        "{}; {} s, {} times; seed {}; --timer-slack {} us\n",
        guests(plan),
        plan.secs,
        plan.repeat,
        plan.seed,
        plan.slack_ns as f64 / 1e3,
    )?;
    let group = COLUMNS.len() * (WIDTH + 1);
    let modes: String =
        plan.modes.iter().map(|mode| format!("  {:<group$}", mode.name())).collect();
    writeln!(out, "{:<8}{}", "borrow", modes.trim_end())?;
    let names: String = COLUMNS.iter().map(|(name, _)| format!(" {name:>WIDTH$}")).collect();
    writeln!(out, "{:<8}{}", "share, %", format!("  {names}").repeat(plan.modes.len()))?;
    for (share, of) in report.borrow_shares_percent.iter().zip(&report.shares) {
        let cells = plan.modes.iter().map(|mode| {
            let figures = of.medians.get(mode.name());
            let cell = |&(_, get): &Column| figures.map_or(Figure::UNKNOWN, get);
            let cells = COLUMNS.iter().map(|column| format!(" {:>WIDTH$}", short(cell(column))));
            format!("  {}", cells.collect::<String>())
        });
        writeln!(out, "{share:>8}{}", cells.collect::<String>())?;
    }
    writeln!(out)?;
    let marked = report.borrow_shares_percent.iter().zip(&report.shares);
    let marks = marked.flat_map(|(share, of)| of.marks.iter().map(move |mark| (share, mark)));
    let mut any = false;
    for (share, mark) in marks {
        any = true;
        writeln!(out, "! {share} %: {mark}")?;
    }
    if any {
        writeln!(out)?;
    }
    write!(out, "{LEGEND}")
}
