//! How many idle guests a host carries in each mode, if their ticks may be so late and no later.
//!
//! Owns the order of the trials and the verdict on one. Must not know how the next number is chosen
//! (`search.rs`), nor how a trial is run.

use std::io::Write;

use super::figures::{Figure, Figures};
use super::launch::{Launch, Mode, RunSpec};
use super::maxima::{self, MaxReport, Trial};
use super::measure::{Bench, Instruments, What};
use super::plan::{Plan, PlanError, Turn, WARM_UP_NS};
use super::progress::Progress;
use super::search::{Search, Step};
use super::{BenchError, JsonOut, chain};

/// A guest may miss so many ticks of those that were due in the interval: the last one may be in
/// its handler, or late by what the goal allows.
const BEHIND_ALLOWED: f64 = 1.0;

/// Finds the largest number of tick guests in each mode whose 99th percentile of lateness is at most
/// `goal_ns`, with none of their ticks lost. Writes the table to `out` and the JSON report to where
/// the plan says. The plan's tick guests are the limit, and what the numbers are in proportion to;
/// its `repeat` has no meaning.
///
/// Modes take turns, trial by trial. Must be called by a thread that runs no guest.
///
/// # Errors
/// As [`super::density`]. That guests cannot be started is a failed trial, unless it is one guest.
pub fn find_max(
    launch: &mut dyn Launch,
    instruments: &mut dyn Instruments,
    (plan, goal_ns): (&Plan, u64),
    out: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<MaxReport, BenchError> {
    plan.check()?;
    if goal_ns == 0 {
        return Err(PlanError::NoGoal.into());
    }
    let json = JsonOut::open(plan)?;
    let facts = launch.host_facts();
    let mut bench = Bench { launch, instruments, progress: &mut *progress };
    let tried = all_trials(&mut bench, plan, goal_ns as f64 / 1e3);
    progress.clear();
    let (found, trials) = tried?;
    let report = MaxReport::new((plan, goal_ns), facts, found, trials);
    maxima::write(&report, out).and_then(|()| out.flush()).map_err(BenchError::Output)?;
    json.finish(&report)?;
    Ok(report)
}

/// What each mode's search found, and all trials in the order of time.
type Tried = (Vec<(Mode, super::search::Found)>, Vec<Trial>);

fn all_trials(bench: &mut Bench<'_>, plan: &Plan, goal_us: f64) -> Result<Tried, BenchError> {
    let search = |&mode: &Mode| (mode, Search::new(plan.rates.vms()));
    let mut searches: Vec<_> = plan.modes.iter().map(search).collect();
    let mut trials = Vec::new();
    for round in 1.. {
        let before = trials.len();
        for (mode, search) in &mut searches {
            let Step::Try(vms) = search.next() else { continue };
            let trial = try_once(bench, plan, (*mode, round, vms), goal_us)?;
            search.tell(trial.passes);
            trials.push(trial);
        }
        if trials.len() == before {
            break;
        }
    }
    let found = searches.into_iter().filter_map(|(mode, search)| match search.next() {
        Step::Done(found) => Some((mode, found)),
        Step::Try(_) => None,
    });
    Ok((found.collect(), trials))
}

fn try_once(
    bench: &mut Bench<'_>,
    plan: &Plan,
    (mode, round, vms): (Mode, u32, u32),
    goal_us: f64,
) -> Result<Trial, BenchError> {
    let scaled = Plan { rates: plan.rates.scaled(vms), ..plan.clone() };
    let spec: RunSpec = scaled.spec(Turn { mode, repeat: round });
    let what = What {
        name: format!("trial {round} of {}, {vms} guests", mode.name()),
        place: String::new(),
        warm_up_ns: WARM_UP_NS,
    };
    let (figures, why_not) = match bench.run(&spec, plan.interval_ns(), &what) {
        Ok(measured) => {
            let figures = measured.figures();
            let why_not = why_not(&figures, goal_us);
            (Some(figures), why_not)
        }
        // Limits of the host are what is looked for. One guest must be possible, though.
        Err(BenchError::Launch { source, .. }) if vms > 1 => {
            (None, Some(format!("cannot be started: {}", chain(source.as_ref()))))
        }
        Err(error) => return Err(error),
    };
    Ok(Trial { mode, trial: round, vms, passes: why_not.is_none(), why_not, figures })
}

/// Why a trial does not pass; `None` if it does.
fn why_not(figures: &Figures, goal_us: f64) -> Option<String> {
    let above = |figure: Figure, most: f64| figure.get().filter(|&value| value > most);
    let Some(p99) = figures.lateness_us.p99.get() else {
        return Some("no tick came".to_owned());
    };
    if let Some(lost) = above(figures.ticks.lost, 0.0) {
        return Some(format!("{lost:.0} ticks were lost"));
    }
    if let Some(behind) = above(figures.ticks.behind, BEHIND_ALLOWED) {
        return Some(format!("a guest is {behind:.0} ticks behind"));
    }
    (p99 > goal_us).then(|| format!("lateness p99 {p99:.0} us"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{LatenessFigures, Ticks};

    fn figures(p99: f64, behind: f64, lost: f64) -> Figures {
        let (behind, lost) = (Figure::of(behind), Figure::of(lost));
        Figures {
            ticks: Ticks { behind, lost, ..Ticks::default() },
            lateness_us: LatenessFigures { p99: Figure::of(p99), ..LatenessFigures::default() },
            ..Figures::default()
        }
    }

    #[test]
    fn a_trial_passes_with_all_ticks_and_the_99th_percentile_within_the_goal() {
        let why = |of: &Figures| why_not(of, 500.0).unwrap_or_else(|| "passes".to_owned());
        assert_eq!(why(&figures(500.0, 1.0, 0.0)), "passes");
        assert_eq!(why(&figures(501.0, 0.0, 0.0)), "lateness p99 501 us");
        assert_eq!(why(&figures(20.0, 2.0, 0.0)), "a guest is 2 ticks behind");
        assert_eq!(why(&figures(20.0, 0.0, 1.0)), "1 ticks were lost");
        assert_eq!(why(&Figures::default()), "no tick came");
    }
}
