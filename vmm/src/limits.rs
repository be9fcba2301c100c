//! What one VM may ask of the host, so that it cannot use up what is everybody's.
//!
//! Owns a VM's limits and the meters that hold it to them. Pure but for its atomics: time is an
//! argument. Must not know vCPUs, threads or the hierarchy.
//!
//! | variable | writers | readers | ordering |
//! |---|---|---|---|
//! | `Rate::full_at` | whoever has run a vCPU of the VM | whoever is about to | relaxed: a figure that is compared with the clock; additions are exchanges, so none is lost |

use std::sync::atomic::{AtomicU64, Ordering};

/// The limits of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Shortest period of a guest's periodic timers, in nanoseconds, as KVM's `min_timer_period_us`; and
    /// the shortest time between two services of a vCPU on others' threads: one whose timer fires more
    /// often is left to its own thread (`--min-timer-period`).
    pub min_timer_period_ns: u64,
    /// Share of one CPU for which the VM may run on others' threads, in percent
    /// (`--served-share`, 1 to 100).
    pub served_share_percent: u32,
    /// Share of one CPU that the VM may use in all, on whatever threads, in percent; 250 is two and a
    /// half CPUs (`--cpu-cap`). `None`: no limit.
    pub cpu_cap_percent: Option<u32>,
    /// How much later than they are due its timers may expire beyond what `--timer-slack` says for
    /// all, in nanoseconds (`timer-slack` of a VM's description).
    pub slack_ns: u64,
}

/// As KVM's `min_timer_period_us`.
pub const MIN_TIMER_PERIOD_NS: u64 = 200_000;
/// A guest that ticks 1000 times a second needs 5 % on hosts where exits are slow.
pub const SERVED_SHARE_PERCENT: u32 = 10;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            min_timer_period_ns: MIN_TIMER_PERIOD_NS,
            served_share_percent: SERVED_SHARE_PERCENT,
            cpu_cap_percent: None,
            slack_ns: 0,
        }
    }
}

impl Limits {
    /// The time within the VM's own slack after `at` (ns) that timers of other VMs are most likely to
    /// share: the last multiple of the largest power of two that has one for certain.
    #[must_use]
    pub fn stretch(&self, at: u64) -> u64 {
        match self.slack_ns.checked_ilog2() {
            None => at,
            Some(log) => at.saturating_add(self.slack_ns) >> log << log,
        }
    }
}

/// The meters of a VM.
#[derive(Debug)]
pub struct Meters {
    /// Runs on others' threads.
    pub served: Rate,
    /// All runs.
    pub cap: Option<Rate>,
}

/// What may be used at once, as a time in which it is earned.
const SERVED_BURST_NS: u64 = 20_000_000;
const CAP_BURST_NS: u64 = 100_000_000;

impl Meters {
    /// Meters that hold a VM to `limits`.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Meters {
            served: Rate::new(limits.served_share_percent, SERVED_BURST_NS),
            cap: limits.cpu_cap_percent.map(|percent| Rate::new(percent, CAP_BURST_NS)),
        }
    }
}

/// CPU time at a constant rate, some of it at once (the generic cell rate algorithm).
#[derive(Debug)]
pub struct Rate {
    percent: u32,
    burst_ns: u64,
    /// When all that was used will have been earned, in host ns.
    full_at: AtomicU64,
}

impl Rate {
    /// So many percent of a CPU (at least 1), of which what is earned in `burst_ns` may be used at once.
    #[must_use]
    pub fn new(percent: u32, burst_ns: u64) -> Self {
        Rate { percent: percent.max(1), burst_ns, full_at: AtomicU64::new(0) }
    }

    /// Takes in that `used` nanoseconds were used until `now`.
    pub fn charge(&self, used: u64, now: u64) {
        let earned_in = used.saturating_mul(100) / u64::from(self.percent);
        let later = |at: u64| Some(at.max(now).saturating_add(earned_in));
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Whether more was used at `now` than was earned and may be used at once, and until when that is so.
    #[must_use]
    pub fn over_until(&self, now: u64) -> Option<u64> {
        let until = self.full_at.load(Ordering::Relaxed).saturating_sub(self.burst_ns);
        (until > now).then_some(until)
    }

    /// How many nanoseconds may be used from `now` on before it is too much.
    #[must_use]
    pub fn left(&self, now: u64) -> u64 {
        let full_at = self.full_at.load(Ordering::Relaxed).max(now);
        let burst = now.saturating_add(self.burst_ns).saturating_sub(full_at);
        // What is used meanwhile is earned meanwhile, too; nobody is hurt by an exit too early.
        burst.saturating_mul(u64::from(self.percent)) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_cpu_lasts_at_a_half_and_not_beyond() {
        for (used, fits) in [(40_000, true), (50_000, true), (60_000, false)] {
            let rate = Rate::new(50, 10_000_000);
            let mut now = 0;
            let mut over = false;
            for _ in 0..2_000 {
                now += 100_000;
                rate.charge(used, now);
                over |= rate.over_until(now).is_some();
            }
            assert_eq!(!over, fits, "{used} of every 100000 ns");
        }
    }

    #[test]
    fn a_guest_that_waits_until_told_gets_just_its_share() {
        let rate = Rate::new(25, 100_000_000);
        let (mut now, mut used) = (0, 0);
        while now < 10_000_000_000_u64 {
            if let Some(until) = rate.over_until(now) {
                now = until;
                continue;
            }
            let run = rate.left(now).max(1_000);
            now += run;
            used += run;
            rate.charge(run, now);
        }
        let share = used as f64 / now as f64;
        assert!((0.24..0.27).contains(&share), "{share}");
    }

    #[test]
    fn more_than_one_cpu_is_a_share_of_one_cpu_for_each_thread() {
        let rate = Rate::new(200, 100_000_000);
        for now in (0..1_000_000_000).step_by(1_000_000) {
            // Two threads, all the time.
            rate.charge(1_000_000, now);
            rate.charge(1_000_000, now);
        }
        assert_eq!(rate.over_until(1_000_000_000), None);
    }

    #[test]
    fn stretched_times_are_within_the_slack_and_coincide() {
        for slack_ns in [0, 1, 2, 3, 999, 1_000_000, 5_000_000, u64::MAX] {
            let limits = Limits { slack_ns, ..Limits::default() };
            for at in [0, 1, 77, 123_456_789, 1 << 40, u64::MAX - 5] {
                let stretched = limits.stretch(at);
                let latest = at.saturating_add(slack_ns);
                let lossy = latest == u64::MAX;
                assert!(stretched <= latest && (stretched >= at || lossy), "{at} {slack_ns}");
            }
        }
        let limits = Limits { slack_ns: 1_000_000, ..Limits::default() };
        let times: std::collections::HashSet<_> =
            (0..5_000_000).step_by(1_000).map(|at| limits.stretch(at)).collect();
        assert!(times.len() < 12, "{}", times.len());
    }

    #[test]
    fn absurd_figures_do_not_overflow() {
        let rate = Rate::new(0, u64::MAX);
        rate.charge(u64::MAX, u64::MAX);
        assert_eq!(rate.over_until(1), None);
        let _ = rate.left(u64::MAX);
    }
}
