//! A host larger than the one at hand: what its idle vCPUs would cost, in virtual time.
//!
//! Owns the order of things: who ticks where is drawn from a seed, each mode is run on that by a
//! model of its own, the figures are written. Must not read a clock or open KVM; costs are numbers
//! that it is handed. The figures, the model and its limits are described in `docs/simulation.md`.
//!
//! # The model
//!
//! - **Load.** A vCPU is busy (it computes without pause, has no timer and never halts) or idle (it
//!   is halted but for a strictly periodic tick whose phase is drawn). A tick whose predecessor is
//!   handled only after it is due is merged with it, as a guest's timer code does.
//! - **CPUs** are servers (`cpus`). Work is done in the order in which it comes; leaving idle takes
//!   time first. Threads stay on their CPU: those of idle vCPUs are spread evenly over the CPUs of
//!   their node that have no busy vCPU, or over all if none is free. Several busy vCPUs on one CPU
//!   run in turns of 3 ms.
//! - **`thread` and `kernel`** (`own_timers`): each tick is a timer interrupt, a thread wakeup and
//!   its service, on the CPU of its thread.
//! - **`migrate`** (`migrate`): the real [`tmigr::Hierarchy`] and the real budget of borrowed runs;
//!   threads do what `vcpu::home` and `vcpu::duty` do: exit for the host timer, run passes, wait
//!   for what is nearer than a timer can be aimed, give their guest a turn, leave when their share
//!   is used up, keep watch when all are idle.
//! - **Costs** are constants; nothing varies by chance but phases and who is busy. No cache, no
//!   memory bandwidth, no host work besides, no preemption of a thread within its turn.

mod cpus;
mod duty;
mod figures;
mod layout;
mod migrate;
mod own_timers;
mod plan;
mod queue;
mod report;
mod table;
mod tally;
mod watch;
mod world;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::bench::{JsonFile, Progress};
use crate::domain::TimerMode;
use layout::Layout;
use tally::Outcome;
use watch::Watch;

pub use figures::{ExpiryFigures, Figures, LatenessFigures, MigratorFigures, TickFigures};
pub use plan::{
    LONGEST_SECS, MOST_CPUS, MOST_HZ, MOST_NODES, MOST_VCPUS, Plan, PlanError, borrow_limit_ns,
};
pub use report::{CostsUsed, Report, SCHEMA};

/// How often whoever watches is told, and may interrupt.
const LOOK: Duration = Duration::from_millis(100);

/// The user ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Why there is no result.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// The plan is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The JSON report cannot be written.
    #[error("--json {}: cannot be written", path.display())]
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
    /// A hierarchy of that size cannot be made.
    #[error(transparent)]
    Hierarchy(tmigr::CreateError),
    /// Its slots cannot be prepared.
    #[error(transparent)]
    Prepare(tmigr::PrepareError),
    /// Its slots cannot take part.
    #[error(transparent)]
    Slot(tmigr::SlotError),
    /// The user ended it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// Carries out a plan, writes the table to `out` and the JSON report to where the plan says. Uses
/// two threads: one for `migrate`, one for the other modes.
///
/// # Errors
/// The plan is refused or the JSON report not writable, both before anything is simulated; the
/// memory does not suffice; the user interrupted. There is no table and no JSON report then.
pub fn simulate(
    plan: &Plan,
    out: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<Report, SimulateError> {
    plan.check()?;
    let unwritable =
        |source| SimulateError::Json { path: plan.json.clone().unwrap_or_default(), source };
    let json = plan.json.as_deref().map(JsonFile::open).transpose().map_err(unwritable)?;
    let outcome = run(plan, progress);
    progress.clear();
    let report = Report::new(plan, outcome?);
    table::write(&report, out).and_then(|()| out.flush()).map_err(SimulateError::Output)?;
    if let Some(json) = json {
        json.finish(&report).map_err(unwritable)?;
    }
    Ok(report)
}

fn run(
    plan: &Plan,
    progress: &mut dyn Progress,
) -> Result<Vec<(TimerMode, Figures)>, SimulateError> {
    let layout = &Layout::new(plan);
    let watch = &Watch::default();
    let (migrate, own): (Vec<TimerMode>, Vec<TimerMode>) =
        plan.modes.iter().partition(|mode| **mode == TimerMode::Migrate);
    let (done, results) = mpsc::channel();
    thread::scope(|scope| {
        for modes in [migrate, own] {
            let done = done.clone();
            scope.spawn(move || {
                for mode in modes {
                    // Nobody takes it after an interruption, which ends this as well.
                    let _ = done.send((mode, one_mode(plan, layout, mode, watch)));
                }
            });
        }
        drop(done);
        let mut all = Vec::new();
        loop {
            match results.recv_timeout(LOOK) {
                Ok((mode, outcome)) => {
                    let figures = Figures::of(&outcome?, plan.cpus, layout.expected);
                    all.push((mode, figures));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(all),
                Err(mpsc::RecvTimeoutError::Timeout) => progress.show(&watch.line(&plan.modes)),
            }
            if progress.interrupted() {
                watch.stop();
            }
        }
    })
}

fn one_mode(
    plan: &Plan,
    layout: &Layout,
    mode: TimerMode,
    watch: &Watch,
) -> Result<Outcome, SimulateError> {
    let outcome = match mode {
        TimerMode::Migrate => migrate::run(plan, layout, watch)?,
        TimerMode::Thread | TimerMode::Kernel => own_timers::run(plan, layout, mode, watch)?,
    };
    watch.progress(mode, 1.0)?;
    Ok(outcome)
}
