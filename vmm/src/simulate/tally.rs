//! What is counted while a model runs.
//!
//! Owns counts, the histogram of lateness and the load of threads. Must not know which model it is.

use hdrhistogram::Histogram;

use super::cpus::{CpuTotals, OVERLOADED};

/// Length of the windows in which a thread's load is looked at, in nanoseconds.
pub(super) const WINDOW_NS: u64 = 100_000_000;
/// Latenesses above this are counted as this much.
const LATEST_NS: u64 = 3_600_000_000_000;

/// Counts of one model.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// The simulated time.
    pub end: u64,
    /// Ticks whose handler ran.
    pub served: u64,
    /// Ticks that were due again before the one before was served: one handler for both.
    pub merged: u64,
    /// Ticks that were due, but not served when the time was up.
    pub pending: u64,
    /// Ticks that a model would have expired before their deadline. A defect if not 0.
    pub early: u64,
    /// Sleeping threads that were woken, by whatever.
    pub wakeups: u64,
    /// Of those, the ones that found nothing to do.
    pub stale: u64,
    /// Host timers that fired.
    pub timer_interrupts: u64,
    /// Threads called because of a notice.
    pub kicks: u64,
    /// Ticks served on another vCPU's thread.
    pub inline: u64,
    /// Of those, the ones by a thread whose own vCPU was halted.
    pub by_helper: u64,
    /// Of those, the ones by a thread of another node.
    pub cross_node: u64,
    /// Ticks that a migrator left to the vCPU's own thread.
    pub handed_off: u64,
    /// Times that a busy thread's share was used up.
    pub relieved: u64,
    lateness: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(end: u64) -> Tally {
        let lateness = Histogram::new_with_bounds(1, LATEST_NS, 2)
            .expect("the bounds and the precision are constants that fit");
        Tally {
            end,
            served: 0,
            merged: 0,
            pending: 0,
            early: 0,
            wakeups: 0,
            stale: 0,
            timer_interrupts: 0,
            kicks: 0,
            inline: 0,
            by_helper: 0,
            cross_node: 0,
            handed_off: 0,
            relieved: 0,
            lateness,
        }
    }

    /// The handler of a tick that is due at `deadline` runs at `handled`, and with it all further
    /// ticks of the vCPU that are due by then. Answers the next deadline. What is due or handled
    /// after the end does not count.
    #[inline]
    pub(super) fn tick(&mut self, deadline: u64, period_ns: u64, handled: u64) -> u64 {
        if deadline < self.end {
            if handled <= self.end {
                self.early += u64::from(handled < deadline);
                self.served += 1;
                self.lateness.saturating_record(handled.saturating_sub(deadline));
            } else {
                self.pending += 1;
            }
        }
        let mut next = deadline + period_ns;
        while next <= handled {
            self.merged += u64::from(next < self.end);
            next += period_ns;
        }
        next
    }

    /// The lateness, in nanoseconds, that a share `q` (0 to 1) of the ticks does not exceed; `None`
    /// if none was served.
    pub(super) fn lateness_ns(&self, q: f64) -> Option<u64> {
        (self.served > 0).then(|| self.lateness.value_at_quantile(q))
    }
}

/// The work of one thread for others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    total_ns: u64,
    window: u32,
    in_window_ns: u64,
}

/// How loaded the threads of a model were.
#[derive(Clone, Debug)]
pub(super) struct Loads {
    threads: Vec<Load>,
    peak: f64,
    overloaded_windows: u64,
}

/// What became of the loads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LoadTotals {
    /// Threads that worked for others at all.
    pub migrators: u32,
    /// Share of the time that the most loaded thread worked, 0 to 1.
    pub busiest: f64,
    /// Share of the time it had that a thread worked in its worst window, 0 to 1.
    pub peak: f64,
    /// Windows of threads with a share of more than [`OVERLOADED`].
    pub overloaded_windows: u64,
}

impl Loads {
    pub(super) fn new(threads: usize) -> Loads {
        Loads { threads: vec![Load::default(); threads], peak: 0.0, overloaded_windows: 0 }
    }

    /// A thread that has one of `parts` parts of its CPU worked for `spent` nanoseconds from `at`
    /// on.
    pub(super) fn add(&mut self, thread: usize, at: u64, spent: u64, parts: u32) {
        let window = (at / WINDOW_NS) as u32;
        let load = &mut self.threads[thread];
        load.total_ns += spent;
        if load.window == window {
            load.in_window_ns += spent;
            return;
        }
        let share = share(load.in_window_ns, parts);
        (load.window, load.in_window_ns) = (window, spent);
        self.close(share);
    }

    fn close(&mut self, share: f64) {
        self.peak = self.peak.max(share);
        self.overloaded_windows += u64::from(share > OVERLOADED);
    }

    /// Sums up at `end`; `parts_of` is what was told to [`Loads::add`].
    pub(super) fn totals(mut self, end: u64, parts_of: impl Fn(usize) -> u32) -> LoadTotals {
        for thread in 0..self.threads.len() {
            let share = share(self.threads[thread].in_window_ns, parts_of(thread));
            self.close(share);
        }
        let busiest = self.threads.iter().map(|load| load.total_ns).max().unwrap_or(0);
        LoadTotals {
            migrators: self.threads.iter().filter(|load| load.total_ns > 0).count() as u32,
            busiest: (busiest as f64 / end as f64).min(1.0),
            peak: self.peak.min(1.0),
            overloaded_windows: self.overloaded_windows,
        }
    }
}

fn share(in_window_ns: u64, parts: u32) -> f64 {
    in_window_ns as f64 * f64::from(parts.max(1)) / WINDOW_NS as f64
}

/// The result of one model.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub tally: Tally,
    pub cpus: CpuTotals,
    /// Only where threads work for others.
    pub loads: Option<LoadTotals>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_handler_takes_the_ticks_that_came_due_meanwhile_along() {
        let mut tally = Tally::new(1_000);
        assert_eq!(tally.tick(100, 100, 150), 200);
        assert_eq!(tally.tick(200, 100, 400), 500);
        assert_eq!((tally.served, tally.merged, tally.pending, tally.early), (2, 2, 0, 0));
        assert_eq!(tally.lateness_ns(0.5), Some(50));
        assert_eq!(tally.lateness_ns(1.0), Some(200));
    }

    #[test]
    fn what_is_handled_after_the_end_was_pending_at_the_end() {
        let mut tally = Tally::new(1_000);
        assert_eq!(tally.tick(800, 100, 1_250), 1_300);
        assert_eq!((tally.served, tally.merged, tally.pending), (0, 1, 1));
        assert_eq!(tally.tick(1_300, 100, 1_310), 1_400);
        assert_eq!((tally.served, tally.merged, tally.pending), (0, 1, 1));
    }

    #[test]
    fn an_early_handler_is_counted() {
        let mut tally = Tally::new(1_000);
        let _next = tally.tick(500, 100, 499);
        assert_eq!(tally.early, 1);
    }

    #[test]
    fn load_is_of_the_time_that_the_thread_has() {
        let mut loads = Loads::new(3);
        loads.add(0, 0, WINDOW_NS / 2, 1);
        loads.add(1, 0, WINDOW_NS / 2, 2);
        loads.add(1, WINDOW_NS, 1_000, 2);
        let totals = loads.totals(2 * WINDOW_NS, |thread| [1, 2, 1][thread]);
        assert_eq!((totals.migrators, totals.overloaded_windows), (2, 1));
        assert_eq!(totals.peak, 1.0);
        assert!((totals.busiest - 0.25).abs() < 0.001);
    }
}
