//! The density benchmark: what idle guests cost, by the place where their timers are kept.
//!
//! Owns the sequence of runs and the reading of this host's clock. Must not know how guests are
//! run: they come from a [`Launch`]. The figures and the JSON report are described in
//! `docs/density.md`.

mod counters;
mod figures;
mod find_max;
mod host;
mod idle_events;
mod lateness;
mod launch;
mod maxima;
mod measure;
mod measured;
mod others;
mod plan;
mod progress;
mod rates;
mod report;
mod search;
mod stats;
mod sweep;
mod table;
mod usage;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

pub use counters::{Counters, CpuTime, Footprint};
pub use figures::{Expiries, Figure, Figures, GroupFigures, LatenessFigures, LevelFigures, Ticks};
pub use find_max::find_max;
pub use host::HostFacts;
pub use idle_events::IdleEvents;
pub use lateness::Lateness;
pub use launch::{
    Fleet, GroupSample, GuestSample, Launch, LaunchError, LevelSample, Mode, RunSpec, Sample,
    TickGuest, TickMode,
};
pub use maxima::{MAX_SCHEMA, MaxReport, Maximum, Trial};
pub use measure::Instruments;
pub use plan::{Plan, PlanError, Turn};
pub use progress::{Line, Progress};
pub use rates::{Group, Rates};
pub use report::{JsonFile, Report, Run, SCHEMA, Spread};
pub use sweep::{SWEEP_SCHEMA, SweepReport, sweep};
pub(crate) use table::short;
pub use usage::Usage;

/// Why there is no result.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The plan is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The JSON report cannot be written.
    #[error("cannot write {}", path.display())]
    Json {
        /// Where it was to go.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The table cannot be written.
    #[error("cannot write the table")]
    Output(#[source] io::Error),
    /// Guests could not be started.
    #[error("cannot start the guests of {run}")]
    Launch {
        /// Which run.
        run: String,
        /// What the launcher says.
        #[source]
        source: LaunchError,
    },
    /// A guest failed while it was measured.
    #[error("a guest of {run} failed: {why}")]
    Guest {
        /// Which run.
        run: String,
        /// What the launcher says.
        why: String,
    },
    /// Guests could not be stopped.
    #[error("cannot stop the guests of {run}")]
    Stop {
        /// Which run.
        run: String,
        /// What the launcher says.
        #[source]
        source: LaunchError,
    },
    /// The busy guest alone did nothing, hence its speed is unknown.
    #[error("a busy guest alone made no progress")]
    NoWork,
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// Whether the command line is at fault, not the run.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, BenchError::Plan(_) | BenchError::Json { .. })
    }
}

/// This host, read through the kernel's clock and files.
#[derive(Debug)]
pub struct ThisHost {
    idle: Option<IdleEvents>,
}

impl ThisHost {
    /// Starts what has to be counted by ourselves.
    #[must_use]
    pub fn open() -> Self {
        let counts_itself = Counters::read(None).idle_entries.is_some();
        ThisHost { idle: if counts_itself { None } else { IdleEvents::open() } }
    }
}

impl Instruments for ThisHost {
    fn now_ns(&mut self) -> u64 {
        crate::clock::now_ns()
    }

    fn sleep_ns(&mut self, ns: u64) {
        std::thread::sleep(Duration::from_nanos(ns));
    }

    fn counters(&mut self) -> Counters {
        Counters::read(self.idle.as_ref())
    }

    fn footprint(&mut self) -> Footprint {
        Footprint::read()
    }

    fn thread_cpu_ns(&mut self, tid: i32) -> Option<u64> {
        counters::thread_cpu_ns(tid)
    }
}

/// Carries out a plan, writes the table to `out` and the JSON report to where the plan says.
///
/// Must be called by a thread that runs no guest, as its own CPU time and switches are left out.
///
/// # Errors
/// The plan is refused or the JSON report not writable, both before anything is run; a guest could
/// not be run; the user interrupted. There is no table and no JSON report then.
pub fn density(
    launch: &mut dyn Launch,
    instruments: &mut dyn Instruments,
    plan: &Plan,
    out: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<Report, BenchError> {
    plan.check()?;
    let json = JsonOut::open(plan)?;
    let facts = launch.host_facts();
    let mut bench = measure::Bench { launch, instruments, progress: &mut *progress };
    let measured = all_runs(&mut bench, plan);
    progress.clear();
    let (alone, runs) = measured?;
    let report = Report::new(plan, facts, alone, runs);
    table::write(&report, out).and_then(|()| out.flush()).map_err(BenchError::Output)?;
    json.finish(&report)?;
    Ok(report)
}

/// Where a plan's JSON report goes, if anywhere.
struct JsonOut {
    path: PathBuf,
    file: Option<JsonFile>,
}

impl JsonOut {
    fn open(plan: &Plan) -> Result<JsonOut, BenchError> {
        let path = plan.json.clone().unwrap_or_default();
        match plan.json.as_deref().map(JsonFile::open).transpose() {
            Ok(file) => Ok(JsonOut { path, file }),
            Err(source) => Err(BenchError::Json { path, source }),
        }
    }

    fn finish(self, report: &impl Serialize) -> Result<(), BenchError> {
        let JsonOut { path, file } = self;
        let finished = file.map_or(Ok(()), |file| file.finish(report));
        finished.map_err(|source| BenchError::Json { path, source })
    }
}

/// An error and what it came from, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

/// One run, and the speed of a busy guest alone before it: anew each time, as the speed of a shared
/// host's CPUs changes from minute to minute.
fn one_run(
    bench: &mut measure::Bench<'_>,
    plan: &Plan,
    turn: Turn,
    place: String,
) -> Result<(Figure, Figures), BenchError> {
    let alone = bench.calibrate(plan)?;
    let mut measured = bench.turn(plan, turn, place)?;
    measured.alone_per_cpu_sec = alone;
    Ok((alone, measured.figures()))
}

/// The median speed of a busy guest alone, and the figures of all runs.
type Runs = (Figure, Vec<(Turn, Figures)>);

fn all_runs(bench: &mut measure::Bench<'_>, plan: &Plan) -> Result<Runs, BenchError> {
    let (mut speeds, mut runs) = (Vec::new(), Vec::new());
    let of = plan.turns().count();
    for (number, turn) in (1..).zip(plan.turns()) {
        let (alone, figures) = one_run(bench, plan, turn, format!("{number}/{of}: "))?;
        speeds.extend(alone.get());
        runs.push((turn, figures));
    }
    Ok((Figure::maybe(stats::median(&speeds)), runs))
}
