//! The figures of one simulated mode.
//!
//! Owns their names, units and places in the JSON report. Must not know how they came about.

use serde::Serialize;

use super::tally::Outcome;
use crate::bench::Figure;

/// What became of the ticks. `served + merged + pending` is `expected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TickFigures {
    /// Deadlines within the simulated time.
    pub expected: u64,
    /// Ticks whose handler ran.
    pub served: u64,
    /// Ticks that were due again before the one before was served: one handler for both.
    pub merged: u64,
    /// Ticks that were due, but not served when the time was up.
    pub pending: u64,
    /// Ticks before their deadline; must be 0.
    pub early: u64,
}

/// From a tick's deadline to its handler, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatenessFigures {
    /// Median.
    pub p50: Figure,
    /// Exceeded by one tick in a hundred.
    pub p99: Figure,
    /// Exceeded by one in a thousand.
    pub p999: Figure,
    /// Of the latest tick.
    pub max: Figure,
}

/// How loaded the threads are that work for others; unknown where none does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MigratorFigures {
    /// Threads that worked for others at some time.
    pub threads: Figure,
    /// Share of the time that the most loaded one worked, in percent.
    pub busiest_percent: Figure,
    /// The most that one worked within 100 ms, in percent of the time it had.
    pub peak_percent: Figure,
    /// How often one worked more than 95 % of such 100 ms.
    pub overloaded_windows: Figure,
    /// Times that a busy vCPU's share was used up and its slot left the hierarchy.
    pub relieved: Figure,
}

/// Timers of halted vCPUs that another vCPU's thread expired; unknown where none does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ExpiryFigures {
    /// Served on another vCPU's thread.
    pub inline: Figure,
    /// Of those, by a thread whose own vCPU was halted.
    pub by_helper: Figure,
    /// Of those, by a thread of another node.
    pub cross_node: Figure,
    /// Left to the vCPU's own thread.
    pub handed_off: Figure,
}

/// The figures of one mode; names and units are those of `siesta.simulate/1`
/// (`docs/simulation.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Ticks.
    pub ticks: TickFigures,
    /// Sleeping threads that were woken.
    pub thread_wakeups_per_sec: Figure,
    /// Of those, the ones that found nothing to do.
    pub stale_wakeups_per_sec: Figure,
    /// Times a host CPU left idle.
    pub host_idle_exits_per_sec: Figure,
    /// Host timers that fired.
    pub host_timer_interrupts_per_sec: Figure,
    /// Threads told that their responsibility became earlier.
    pub kicks_per_sec: Figure,
    /// Lateness.
    pub lateness_us: LatenessFigures,
    /// CPU time that the ticks cost, leaving idle included, for each served.
    pub cpu_us_per_tick: Figure,
    /// CPUs that the ticks took.
    pub tick_cpus: Figure,
    /// Share of the time that the CPU with most work worked, in percent.
    pub busiest_cpu_percent: Figure,
    /// CPUs that worked more than 95 % of the time.
    pub overloaded_cpus: u32,
    /// Share of all CPU time in idle periods long enough for a deep C-state, in percent.
    pub cstate_eligible_percent: Figure,
    /// What ticks left of the CPUs that have busy vCPUs, in percent; unknown if none has.
    pub left_to_busy_percent: Figure,
    /// Migrators.
    pub migrators: MigratorFigures,
    /// Remote expiries.
    pub expiries: ExpiryFigures,
}

impl Figures {
    /// Those of an outcome on `cpus` CPUs, of which `expected` ticks were expected.
    pub(super) fn of(outcome: &Outcome, cpus: u32, expected: u64) -> Figures {
        let Outcome { tally, cpus: host, loads } = outcome;
        let secs = tally.end as f64 / 1e9;
        let rate = |count: u64| Figure::of(count as f64 / secs);
        let part =
            |ns: u64, of: u32| Figure::of(ns as f64 * 100.0 / (tally.end as f64 * f64::from(of)));
        let late = |q| Figure::maybe(tally.lateness_ns(q).map(|ns| ns as f64 / 1e3));
        let left = part(host.taken_from_busy_ns, host.with_busy).get().map(|taken| 100.0 - taken);
        let remote = |count: u64| Figure::maybe(loads.map(|_| count as f64));
        let load = |of: fn(&super::tally::LoadTotals) -> f64| Figure::maybe(loads.as_ref().map(of));
        Figures {
            ticks: TickFigures {
                expected,
                served: tally.served,
                merged: tally.merged,
                pending: tally.pending,
                early: tally.early,
            },
            thread_wakeups_per_sec: rate(tally.wakeups),
            stale_wakeups_per_sec: rate(tally.stale),
            host_idle_exits_per_sec: rate(host.idle_exits),
            host_timer_interrupts_per_sec: rate(tally.timer_interrupts),
            kicks_per_sec: rate(tally.kicks),
            lateness_us: LatenessFigures {
                p50: late(0.5),
                p99: late(0.99),
                p999: late(0.999),
                max: late(1.0),
            },
            cpu_us_per_tick: Figure::of(host.worked_ns as f64 / 1e3 / tally.served as f64),
            tick_cpus: Figure::of(host.worked_ns as f64 / tally.end as f64),
            busiest_cpu_percent: part(host.busiest_ns, 1),
            overloaded_cpus: host.overloaded,
            cstate_eligible_percent: part(host.eligible_ns, cpus),
            left_to_busy_percent: Figure::maybe(left),
            migrators: MigratorFigures {
                threads: load(|of| f64::from(of.migrators)),
                busiest_percent: load(|of| of.busiest * 100.0),
                peak_percent: load(|of| of.peak * 100.0),
                overloaded_windows: load(|of| of.overloaded_windows as f64),
                relieved: remote(tally.relieved),
            },
            expiries: ExpiryFigures {
                inline: remote(tally.inline),
                by_helper: remote(tally.by_helper),
                cross_node: remote(tally.cross_node),
                handed_off: remote(tally.handed_off),
            },
        }
    }
}
