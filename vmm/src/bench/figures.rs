//! The figures of one run or of several.
//!
//! Owns their names, units and places in the JSON report. Must not know where they come from.

use serde::{Serialize, Serializer};

/// A number that may be unknown; always finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Figure(Option<f64>);

impl Figure {
    /// Not known on this host, or without meaning in this run.
    pub const UNKNOWN: Figure = Figure(None);

    /// A known number; unknown if it is infinite or not a number.
    #[must_use]
    pub fn of(value: f64) -> Figure {
        Figure(Some(value).filter(|value| value.is_finite()))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        self.0
    }

    /// The number, if there is one.
    #[must_use]
    pub fn maybe(value: Option<f64>) -> Figure {
        value.map_or(Figure::UNKNOWN, Figure::of)
    }
}

impl Serialize for Figure {
    /// To three decimals; a whole number without any.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(value) = self.0 else {
            return serializer.serialize_none();
        };
        if value.fract() == 0.0 && value.abs() < 9e15 {
            serializer.serialize_i64(value as i64)
        } else {
            serializer.serialize_f64((value * 1e3).round() / 1e3)
        }
    }
}

/// Ticks of all tick guests in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ticks {
    /// That the guests handled.
    pub delivered: Figure,
    /// That their timers were set for.
    pub expected: Figure,
    /// That came before their deadline, which must not happen.
    pub early: Figure,
    /// Deadlines of periodic timers that passed without a tick of their own.
    pub lost: Figure,
    /// By how many whole ticks the guest that is furthest behind its timer misses what was due.
    pub behind: Figure,
}

/// The guests of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct GroupFigures {
    /// Ticks a second of each.
    pub hz: u32,
    /// Their ticks.
    pub ticks: Ticks,
    /// Lateness that they saw.
    pub lateness_us: LatenessFigures,
}

/// Lateness that the guests saw, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatenessFigures {
    /// Median.
    pub p50: Figure,
    /// Exceeded by one tick in a hundred.
    pub p99: Figure,
    /// Of the latest tick.
    pub max: Figure,
}

/// Timers of halted vCPUs that another vCPU's thread expired, in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Expiries {
    /// The vCPU was entered on another's thread.
    pub inline: Figure,
    /// Of those, by a helper rather than by the migrator.
    pub by_helper: Figure,
    /// The vCPU's own thread was woken.
    pub handed_off: Figure,
}

/// What one level of the hierarchy did in the interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LevelFigures {
    /// Walks that reached the level.
    pub walks: Figure,
    /// Remote passes.
    pub passes: Figure,
    /// Timers expired.
    pub expiries: Figure,
}

/// The figures of one run, or a statistic of several; names and units are those of
/// `siesta.density/1` (`docs/density.md`).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Length of the measured interval, in seconds.
    pub secs: Figure,
    /// Ticks.
    pub ticks: Ticks,
    /// Voluntary switches of the process's threads, each of which a wake-up follows.
    pub thread_wakeups_per_sec: Figure,
    /// Involuntary switches of the process's threads.
    pub involuntary_switches_per_sec: Figure,
    /// Times a host CPU went idle.
    pub host_idle_entries_per_sec: Figure,
    /// Local timer interrupts of the host.
    pub host_timer_interrupts_per_sec: Figure,
    /// CPU time of the process less that of the busy guests' work, for each tick.
    pub cpu_us_per_tick: Figure,
    /// CPUs that the process used, busy guests included.
    pub process_cpus: Figure,
    /// Lateness.
    pub lateness_us: LatenessFigures,
    /// By rate, in the order of the command line.
    pub groups: Vec<GroupFigures>,
    /// Rounds of the busy guests a second.
    pub busy_progress_per_sec: Figure,
    /// Rounds of the busy guests for each second of CPU time of their vCPUs' threads.
    pub busy_progress_per_cpu_sec: Figure,
    /// Remote expiries.
    pub expiries: Expiries,
    /// Signals that made a vCPU leave the guest.
    pub kicks: Figure,
    /// By level of the hierarchy, the lowest first.
    pub levels: Vec<LevelFigures>,
    /// Share of the host's CPU time that other processes and the kernel's own work took, 0 to 1.
    pub foreign_cpu_share: Figure,
    /// Share of the host's CPU time that the hypervisor below withheld, 0 to 1.
    pub stolen_cpu_share: Figure,
    /// Proportional set size, for each guest.
    pub pss_kib_per_vm: Figure,
    /// File descriptors, for each guest.
    pub fds_per_vm: Figure,
    /// Threads, for each guest.
    pub threads_per_vm: Figure,
    /// Median time from the start of a guest's creation to its first sign of life.
    pub boot_ms: Figure,
}

/// A number that sums up several; `None` of nothing.
pub type Statistic = fn(&[f64]) -> Option<f64>;

impl Figures {
    /// Sums up several runs, figure by figure. A figure that is unknown in some of them is summed
    /// up over the others.
    #[must_use]
    pub fn sum_up(runs: &[&Figures], statistic: Statistic) -> Figures {
        let all = |of: &dyn Fn(&Figures) -> Figure| {
            let known: Vec<f64> = runs.iter().filter_map(|run| of(run).get()).collect();
            Figure::maybe(statistic(&known))
        };
        let level = |index: usize, of: fn(&LevelFigures) -> Figure| {
            all(&|run: &Figures| run.levels.get(index).map_or(Figure::UNKNOWN, of))
        };
        let ticks = |of: &dyn Fn(&Figures) -> Ticks| Ticks {
            delivered: all(&|run| of(run).delivered),
            expected: all(&|run| of(run).expected),
            early: all(&|run| of(run).early),
            lost: all(&|run| of(run).lost),
            behind: all(&|run| of(run).behind),
        };
        let lateness = |of: &dyn Fn(&Figures) -> LatenessFigures| LatenessFigures {
            p50: all(&|run| of(run).p50),
            p99: all(&|run| of(run).p99),
            max: all(&|run| of(run).max),
        };
        let group =
            |run: &Figures, index: usize| run.groups.get(index).copied().unwrap_or_default();
        let rates = runs.iter().map(|run| &run.groups).max_by_key(|groups| groups.len());
        let groups = rates.into_iter().flatten().enumerate().map(|(index, of)| GroupFigures {
            hz: of.hz,
            ticks: ticks(&|run| group(run, index).ticks),
            lateness_us: lateness(&|run| group(run, index).lateness_us),
        });
        let depth = runs.iter().map(|run| run.levels.len()).max().unwrap_or(0);
        Figures {
            secs: all(&|run| run.secs),
            ticks: ticks(&|run| run.ticks),
            thread_wakeups_per_sec: all(&|run| run.thread_wakeups_per_sec),
            involuntary_switches_per_sec: all(&|run| run.involuntary_switches_per_sec),
            host_idle_entries_per_sec: all(&|run| run.host_idle_entries_per_sec),
            host_timer_interrupts_per_sec: all(&|run| run.host_timer_interrupts_per_sec),
            cpu_us_per_tick: all(&|run| run.cpu_us_per_tick),
            process_cpus: all(&|run| run.process_cpus),
            lateness_us: lateness(&|run| run.lateness_us),
            groups: groups.collect(),
            busy_progress_per_sec: all(&|run| run.busy_progress_per_sec),
            busy_progress_per_cpu_sec: all(&|run| run.busy_progress_per_cpu_sec),
            expiries: Expiries {
                inline: all(&|run| run.expiries.inline),
                by_helper: all(&|run| run.expiries.by_helper),
                handed_off: all(&|run| run.expiries.handed_off),
            },
            kicks: all(&|run| run.kicks),
            levels: (0..depth)
                .map(|index| LevelFigures {
                    walks: level(index, |of| of.walks),
                    passes: level(index, |of| of.passes),
                    expiries: level(index, |of| of.expiries),
                })
                .collect(),
            foreign_cpu_share: all(&|run| run.foreign_cpu_share),
            stolen_cpu_share: all(&|run| run.stolen_cpu_share),
            pss_kib_per_vm: all(&|run| run.pss_kib_per_vm),
            fds_per_vm: all(&|run| run.fds_per_vm),
            threads_per_vm: all(&|run| run.threads_per_vm),
            boot_ms: all(&|run| run.boot_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::{greatest, median};

    #[test]
    fn a_figure_in_json_is_short_and_never_infinite() {
        let json = |figure: Figure| serde_json::to_string(&figure).expect("can be written");
        assert_eq!(json(Figure::of(32_000.0)), "32000");
        assert_eq!(json(Figure::of(1.0 / 3.0)), "0.333");
        assert_eq!(json(Figure::of(-2.5)), "-2.5");
        assert_eq!(json(Figure::of(f64::NAN)), "null");
        assert_eq!(json(Figure::of(1.0 / 0.0)), "null");
        assert_eq!(json(Figure::UNKNOWN), "null");
    }

    #[test]
    fn runs_are_summed_up_figure_by_figure() {
        let rate = |delivered: f64| {
            let ticks = Ticks { delivered: Figure::of(delivered), ..Ticks::default() };
            vec![GroupFigures { hz: 400, ticks, ..GroupFigures::default() }]
        };
        let run = |wakeups: f64, idle: Option<f64>, walks: &[f64]| Figures {
            thread_wakeups_per_sec: Figure::of(wakeups),
            host_idle_entries_per_sec: Figure::maybe(idle),
            groups: rate(wakeups / 10.0),
            levels: walks
                .iter()
                .map(|&walks| LevelFigures { walks: Figure::of(walks), ..LevelFigures::default() })
                .collect(),
            ..Figures::default()
        };
        let runs = [
            run(10.0, None, &[1.0]),
            run(30.0, Some(5.0), &[2.0, 7.0]),
            run(20.0, Some(9.0), &[4.0]),
        ];
        let runs: Vec<&Figures> = runs.iter().collect();
        let middle = Figures::sum_up(&runs, median);
        assert_eq!(middle.thread_wakeups_per_sec, Figure::of(20.0));
        assert_eq!(middle.host_idle_entries_per_sec, Figure::of(7.0));
        assert_eq!(middle.cpu_us_per_tick, Figure::UNKNOWN);
        assert_eq!(middle.levels.len(), 2);
        assert_eq!(middle.levels[0].walks, Figure::of(2.0));
        assert_eq!(middle.levels[1].walks, Figure::of(7.0));
        assert_eq!(middle.groups, rate(2.0));
        let most = Figures::sum_up(&runs, greatest);
        assert_eq!(most.thread_wakeups_per_sec, Figure::of(30.0));
    }
}
