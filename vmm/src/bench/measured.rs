//! From what was counted in one run to its figures.
//!
//! Owns the formulas. Must not read anything, and must not trust what guests say: their totals may
//! jump or fall.

use super::counters::{Counters, Footprint};
use super::figures::{
    Expiries, Figure, Figures, GroupFigures, LatenessFigures, LevelFigures, Ticks,
};
use super::lateness::Lateness;
use super::launch::{GroupSample, GuestSample, LevelSample, Sample};
use super::rates::{Group, Rates};
use super::stats::median;

/// All that was counted up to one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The moment, in nanoseconds.
    pub now_ns: u64,
    /// By the host.
    pub counters: Counters,
    /// By guests and VMM.
    pub sample: Sample,
    /// CPU time of the busy guests' threads, in nanoseconds; `None` if that of one is unknown.
    pub busy_cpu_ns: Option<u64>,
}

/// What a run's figures come from.
#[derive(Debug)]
pub struct Measured {
    /// At the start of the interval.
    pub before: Reading,
    /// At its end.
    pub after: Reading,
    /// Before the guests were started.
    pub bare: Footprint,
    /// While they ran.
    pub full: Footprint,
    /// How long each guest took to start, in nanoseconds.
    pub boot_ns: Vec<u64>,
    /// Tick guests.
    pub rates: Rates,
    /// Busy guests.
    pub busy: u32,
    /// Rounds that a busy guest alone does in a second of the process's CPU time; unknown if there
    /// are no busy guests.
    pub alone_per_cpu_sec: Figure,
}

impl Measured {
    /// All figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (before, after) = (&self.before, &self.after);
        let secs = self.secs();
        let rate = |of: fn(&Counters) -> Option<u64>| {
            let delta = of(&after.counters)?.wrapping_sub(of(&before.counters)?);
            Some(delta as f64 / secs)
        };
        let total = |of: fn(&Sample) -> u64| {
            Figure::of(of(&after.sample).saturating_sub(of(&before.sample)) as f64)
        };
        let (foreign, stolen) = self.other_cpu_shares();
        let groups = self.groups();
        Figures {
            secs: Figure::of(secs),
            ticks: self.ticks(&groups),
            thread_wakeups_per_sec: Figure::maybe(rate(|of| Some(of.process.voluntary))),
            involuntary_switches_per_sec: Figure::maybe(rate(|of| Some(of.process.involuntary))),
            host_idle_entries_per_sec: Figure::maybe(rate(|of| of.idle_entries)),
            host_timer_interrupts_per_sec: Figure::maybe(rate(|of| of.timer_interrupts)),
            cpu_us_per_tick: self.cpu_us_per_tick(),
            process_cpus: Figure::of(self.process_cpu_secs() / secs),
            lateness_us: self.lateness(),
            groups,
            busy_progress_per_sec: self.if_busy(Some(self.busy_rounds() / secs)),
            busy_progress_per_cpu_sec: self.if_busy(self.busy_rounds_per_cpu_sec()),
            expiries: Expiries {
                inline: total(|sample| sample.inline),
                by_helper: total(|sample| sample.by_helper),
                handed_off: total(|sample| sample.handed_off),
            },
            kicks: total(|sample| sample.kicks),
            levels: levels(&before.sample.levels, &after.sample.levels),
            foreign_cpu_share: foreign,
            stolen_cpu_share: stolen,
            pss_kib_per_vm: self.per_vm(|of| of.pss_kib),
            fds_per_vm: self.per_vm(|of| of.fds),
            threads_per_vm: self.per_vm(|of| of.threads),
            boot_ms: self.boot_ms(),
        }
    }

    /// Rounds of the busy guests for each second of CPU time of the whole process.
    #[must_use]
    pub fn rounds_per_process_cpu_sec(&self) -> Figure {
        Figure::of(self.busy_rounds() / self.process_cpu_secs())
    }

    fn secs(&self) -> f64 {
        self.after.now_ns.saturating_sub(self.before.now_ns) as f64 / 1e9
    }

    fn process_cpu_secs(&self) -> f64 {
        let used = self.after.counters.process.less(self.before.counters.process);
        used.cpu_ns as f64 / 1e9
    }

    fn busy_rounds(&self) -> f64 {
        let (before, after) = (&self.before.sample, &self.after.sample);
        after.busy_progress.saturating_sub(before.busy_progress) as f64
    }

    fn if_busy(&self, value: Option<f64>) -> Figure {
        if self.busy > 0 { Figure::maybe(value) } else { Figure::UNKNOWN }
    }

    fn busy_rounds_per_cpu_sec(&self) -> Option<f64> {
        let used_ns = self.after.busy_cpu_ns?.saturating_sub(self.before.busy_cpu_ns?);
        Some(self.busy_rounds() / (used_ns as f64 / 1e9))
    }

    /// CPU time of the process, without what the busy guests' work would have taken had each of
    /// them been alone, for each tick delivered; 0 where a busy guest was faster than alone, as the
    /// ticks' share is then lost in the noise.
    fn cpu_us_per_tick(&self) -> Figure {
        let work_secs = match self.busy {
            0 => Some(0.0),
            _ => self.alone_per_cpu_sec.get().map(|rate| self.busy_rounds() / rate),
        };
        let (before, after) = (&self.before.sample, &self.after.sample);
        let ticks = after.delivered().saturating_sub(before.delivered()) as f64;
        let secs = work_secs.map(|work_secs| self.process_cpu_secs() - work_secs);
        Figure::maybe(secs.map(|secs| secs.max(0.0) * 1e6 / ticks))
    }

    /// The two samples of each group.
    fn group_samples(&self) -> impl Iterator<Item = (&GroupSample, &GroupSample)> {
        self.before.sample.groups.iter().zip(&self.after.sample.groups)
    }

    fn groups(&self) -> Vec<GroupFigures> {
        let of = |(rate, (before, after)): (&Group, (&GroupSample, &GroupSample))| GroupFigures {
            hz: rate.hz,
            ticks: group_ticks(before, after, self.secs()),
            lateness_us: quantiles(&after.lateness.since(&before.lateness)),
        };
        self.rates.groups().iter().zip(self.group_samples()).map(of).collect()
    }

    fn ticks(&self, groups: &[GroupFigures]) -> Ticks {
        let all = |of: fn(&Ticks) -> Figure, add: fn(f64, f64) -> f64| {
            Figure::of(groups.iter().filter_map(|group| of(&group.ticks).get()).fold(0.0, add))
        };
        let sum = |of| all(of, |sum, more| sum + more);
        Ticks {
            delivered: sum(|of| of.delivered),
            expected: sum(|of| of.expected),
            early: sum(|of| of.early),
            lost: sum(|of| of.lost),
            behind: all(|of| of.behind, f64::max),
        }
    }

    fn lateness(&self) -> LatenessFigures {
        let mut all = Lateness::default();
        for (before, after) in self.group_samples() {
            all.merge(&after.lateness.since(&before.lateness));
        }
        quantiles(&all)
    }

    /// The shares of the host's CPU time that others took and that the hypervisor below withheld.
    fn other_cpu_shares(&self) -> (Figure, Figure) {
        let (before, after) = (&self.before.counters, &self.after.counters);
        let (Some(host), Some(host_before)) = (after.host, before.host) else {
            return (Figure::UNKNOWN, Figure::UNKNOWN);
        };
        let all_secs = self.secs() * f64::from(host.cpus.max(1));
        let secs = |after: u64, before: u64| after.saturating_sub(before) as f64 / 1e9;
        let others = after.others_ns.zip(before.others_ns);
        let foreign = others.map(|(after, before)| secs(after, before) / all_secs);
        let stolen = secs(host.stolen_ns, host_before.stolen_ns);
        (Figure::maybe(foreign), Figure::of(stolen / all_secs))
    }

    fn per_vm(&self, of: fn(&Footprint) -> Option<u64>) -> Figure {
        let vms = f64::from(self.rates.vms()) + f64::from(self.busy);
        let added = |full: u64, bare: u64| full as f64 - bare as f64;
        Figure::maybe(
            of(&self.full).zip(of(&self.bare)).map(|(full, bare)| added(full, bare) / vms),
        )
    }

    fn boot_ms(&self) -> Figure {
        let boots: Vec<f64> = self.boot_ns.iter().map(|&ns| ns as f64 / 1e6).collect();
        Figure::maybe(median(&boots))
    }
}

fn quantiles(lateness: &Lateness) -> LatenessFigures {
    let us = |ns: Option<u64>| Figure::maybe(ns.map(|ns| ns as f64 / 1e3));
    LatenessFigures {
        p50: us(lateness.quantile_ns(0.5)),
        p99: us(lateness.quantile_ns(0.99)),
        max: us(lateness.max_ns()),
    }
}

fn group_ticks(before: &GroupSample, after: &GroupSample, secs: f64) -> Ticks {
    let total = |of| Figure::of(after.sum(of).saturating_sub(before.sum(of)) as f64);
    let pairs = before.guests.iter().zip(&after.guests);
    Ticks {
        delivered: total(|guest| guest.ticks),
        expected: Figure::of(after.guests.iter().map(|guest| guest.hz * secs).sum()),
        early: total(|guest| guest.early),
        lost: total(|guest| guest.lost),
        behind: Figure::of(pairs.map(|(before, after)| behind(before, after)).fold(0.0, f64::max)),
    }
}

/// How many whole ticks a guest misses of those that were due between the two readings. Wherever
/// its phase lies, at least the whole periods' number is due; and the time is that from the end of
/// the first reading to the start of the second, so that a reading that takes long blames nobody.
fn behind(before: &GuestSample, after: &GuestSample) -> f64 {
    let passed_ns = after.read_ns.0.saturating_sub(before.read_ns.1);
    let due = (passed_ns as f64 / 1e9 * after.hz).floor();
    (due - after.ticks.saturating_sub(before.ticks) as f64).max(0.0)
}

fn levels(before: &[LevelSample], after: &[LevelSample]) -> Vec<LevelFigures> {
    let zero = LevelSample::default();
    let delta = |after: u64, before: u64| Figure::of(after.saturating_sub(before) as f64);
    after
        .iter()
        .zip(before.iter().chain(std::iter::repeat(&zero)))
        .map(|(after, before)| LevelFigures {
            walks: delta(after.walks, before.walks),
            passes: delta(after.passes, before.passes),
            expiries: delta(after.expiries, before.expiries),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::counters::CpuTime;
    use crate::bench::usage::Usage;

    const SEC: u64 = 1_000_000_000;

    fn guest(ticks: u64, early: u64, secs: u64) -> GuestSample {
        GuestSample { read_ns: (secs * SEC, secs * SEC), ticks, early, lost: 0, hz: 500.0 }
    }

    fn reading(secs: u64) -> Reading {
        Reading {
            now_ns: 7 * SEC + secs * SEC,
            counters: Counters {
                process: Usage { cpu_ns: secs * SEC, voluntary: 100 * secs, involuntary: 3 * secs },
                measuring_ns: secs * SEC / 100,
                idle_entries: Some(50 * secs),
                timer_interrupts: Some(70 * secs),
                others_ns: Some(secs * SEC / 5),
                host: Some(CpuTime { stolen_ns: secs * SEC / 10, cpus: 2 }),
            },
            sample: Sample {
                groups: vec![GroupSample {
                    guests: vec![guest(900 * secs, secs, secs), guest(100 * secs, 0, secs)],
                    lateness: Lateness::default(),
                }],
                busy_progress: 4_000 * secs,
                inline: 600 * secs,
                by_helper: 20 * secs,
                handed_off: 5 * secs,
                kicks: 8 * secs,
                levels: vec![LevelSample { walks: 9 * secs, passes: 6 * secs, expiries: 4 * secs }],
                ..Sample::default()
            },
            busy_cpu_ns: Some(secs * SEC / 2),
        }
    }

    fn measured() -> Measured {
        let mut measured = Measured {
            before: reading(2),
            after: reading(6),
            bare: Footprint { pss_kib: Some(1_000), fds: Some(10), threads: Some(1) },
            full: Footprint { pss_kib: Some(12_000), fds: Some(43), threads: None },
            boot_ns: vec![3_000_000, 1_000_000, 200_000_000],
            rates: Rates::same(500, 10),
            busy: 1,
            alone_per_cpu_sec: Figure::of(5_000.0),
        };
        let lateness = &mut measured.after.sample.groups[0].lateness;
        lateness.add(4_000, 99);
        lateness.add(90_000, 1);
        lateness.seen_max(88_000);
        measured
    }

    #[test]
    fn rates_are_per_second_of_the_real_interval() {
        let figures = measured().figures();
        assert_eq!(figures.secs, Figure::of(4.0));
        assert_eq!(figures.thread_wakeups_per_sec, Figure::of(100.0));
        assert_eq!(figures.involuntary_switches_per_sec, Figure::of(3.0));
        assert_eq!(figures.host_idle_entries_per_sec, Figure::of(50.0));
        assert_eq!(figures.host_timer_interrupts_per_sec, Figure::of(70.0));
        assert_eq!(figures.process_cpus, Figure::of(1.0));
        assert_eq!(figures.busy_progress_per_sec, Figure::of(4_000.0));
        assert_eq!(figures.busy_progress_per_cpu_sec, Figure::of(8_000.0));
    }

    #[test]
    fn counts_are_of_the_interval() {
        let figures = measured().figures();
        let of = Figure::of;
        let ticks = Ticks {
            delivered: of(4_000.0),
            expected: of(4_000.0),
            early: of(4.0),
            lost: of(0.0),
            // One of the two guests had 400 of its 2,000 ticks; the other's many make up for none.
            behind: of(1_600.0),
        };
        assert_eq!(figures.ticks, ticks);
        let expiries = Expiries { inline: of(2_400.0), by_helper: of(80.0), handed_off: of(20.0) };
        assert_eq!(figures.expiries, expiries);
        assert_eq!(figures.kicks, of(32.0));
        let level = LevelFigures { walks: of(36.0), passes: of(24.0), expiries: of(16.0) };
        assert_eq!(figures.levels, [level]);
        let lateness = LatenessFigures { p50: of(4.0), p99: of(4.0), max: of(88.0) };
        assert_eq!(figures.lateness_us, lateness);
    }

    #[test]
    fn a_guest_is_behind_by_whole_periods_of_the_time_between_the_readings() {
        let at = |read_ns, ticks| GuestSample { read_ns, ticks, hz: 100.0, ..<_>::default() };
        let missing = |passed_ns: u64, ticks: u64| {
            behind(&at((0, SEC), 7), &at((SEC + passed_ns, 9 * SEC), 7 + ticks))
        };
        assert_eq!(missing(SEC, 100), 0.0);
        assert_eq!(missing(SEC, 97), 3.0);
        assert_eq!(missing(SEC - 1, 99), 0.0, "only 99 periods are whole");
        assert_eq!(missing(SEC, 500), 0.0, "catching up");
        assert_eq!(behind(&at((0, SEC), 7), &at((0, SEC), 7)), 0.0);
    }

    #[test]
    fn groups_are_told_apart_and_added_up() {
        let mut mixed = measured();
        mixed.rates = Rates::mix(vec![Group { hz: 400, vms: 1 }, Group { hz: 100, vms: 2 }]);
        let of = |hz: f64, ticks: [u64; 2], secs: u64, late_ns: u64| {
            let guest = |ticks| GuestSample { hz, ..guest(ticks, 0, secs) };
            let mut lateness = Lateness::default();
            lateness.add(late_ns, ticks[0] + ticks[1]);
            GroupSample { guests: ticks.map(guest).to_vec(), lateness }
        };
        mixed.before.sample.groups = vec![of(400.0, [0, 0], 2, 1), of(100.1, [0, 0], 2, 1)];
        mixed.after.sample.groups =
            vec![of(400.0, [1_600, 1_600], 6, 5_000), of(100.1, [400, 395], 6, 70_000)];
        let figures = mixed.figures();
        let [fast, slow] = figures.groups.as_slice() else { panic!("{figures:?}") };
        assert_eq!((fast.hz, slow.hz), (400, 100));
        assert_eq!(fast.ticks.delivered, Figure::of(3_200.0));
        assert_eq!(slow.ticks.delivered, Figure::of(795.0));
        let expected = slow.ticks.expected.get().expect("is known");
        assert!((expected - 800.8).abs() < 1e-6, "the guests' own rate: {expected}");
        assert_eq!(slow.ticks.behind, Figure::of(5.0));
        assert_eq!(fast.lateness_us.p99, Figure::of(5.0));
        assert_eq!(slow.lateness_us.p99, Figure::of(70.0));
        assert_eq!(figures.ticks.delivered, Figure::of(3_995.0));
        assert_eq!(figures.ticks.behind, Figure::of(5.0));
        assert_eq!(figures.lateness_us.p50, Figure::of(5.0));
        assert_eq!(figures.lateness_us.p99, Figure::of(70.0));
    }

    #[test]
    fn cpu_time_of_a_tick_leaves_out_the_busy_guests_work() {
        // 4 s of CPU time; 16,000 rounds at 5,000 a second are 3.2 s; 0.8 s for 4,000 ticks.
        let us = measured().figures().cpu_us_per_tick.get().expect("is known");
        assert!((us - 200.0).abs() < 1e-6, "{us}");
        let idle = Measured { busy: 0, alone_per_cpu_sec: Figure::UNKNOWN, ..measured() }.figures();
        assert_eq!(idle.cpu_us_per_tick, Figure::of(1_000.0));
        assert_eq!(idle.busy_progress_per_sec, Figure::UNKNOWN);
        let unknown = Measured { alone_per_cpu_sec: Figure::UNKNOWN, ..measured() };
        assert_eq!(unknown.figures().cpu_us_per_tick, Figure::UNKNOWN);
    }

    #[test]
    fn a_busy_guest_faster_than_alone_leaves_nothing_for_ticks() {
        let noise = Measured { alone_per_cpu_sec: Figure::of(3_999.0), ..measured() };
        assert_eq!(noise.figures().cpu_us_per_tick, Figure::of(0.0));
    }

    #[test]
    fn no_tick_has_no_cpu_time() {
        let mut dead = measured();
        dead.after.sample.groups[0].guests = dead.before.sample.groups[0].guests.clone();
        assert_eq!(dead.figures().cpu_us_per_tick, Figure::UNKNOWN);
        dead.after.sample.groups[0].guests[0].ticks = 0;
        assert_eq!(dead.figures().ticks.delivered, Figure::of(0.0), "a guest counts backwards");
    }

    #[test]
    fn what_others_took_is_a_share_of_all_cpus() {
        // Of 8 s (2 CPUs), 0.8 s.
        let figures = measured().figures();
        let share = figures.foreign_cpu_share.get().expect("is known");
        assert!((share - 0.1).abs() < 1e-9, "{share}");
        assert_eq!(figures.stolen_cpu_share, Figure::of(0.05));
        let mut fewer = measured();
        fewer.after.counters.others_ns = Some(0);
        assert_eq!(fewer.figures().foreign_cpu_share, Figure::of(0.0), "never below nothing");
    }

    #[test]
    fn what_a_guest_takes() {
        let figures = measured().figures();
        assert_eq!(figures.pss_kib_per_vm, Figure::of(1_000.0));
        assert_eq!(figures.fds_per_vm, Figure::of(3.0));
        assert_eq!(figures.threads_per_vm, Figure::UNKNOWN);
        assert_eq!(figures.boot_ms, Figure::of(3.0));
    }

    #[test]
    fn a_host_without_counters_has_unknown_figures() {
        let mut poor = measured();
        poor.after.counters = Counters { process: poor.after.counters.process, ..<_>::default() };
        let figures = poor.figures();
        assert_eq!(figures.host_idle_entries_per_sec, Figure::UNKNOWN);
        assert_eq!(figures.host_timer_interrupts_per_sec, Figure::UNKNOWN);
        assert_eq!(figures.foreign_cpu_share, Figure::UNKNOWN);
        assert_eq!(figures.thread_wakeups_per_sec, Figure::of(100.0));
    }
}
