//! One run: start the guests, let them settle, read everything, wait, read everything again.
//!
//! Owns the order of those steps. Must not know what the figures mean. Reading costs wake-ups of
//! its own, hence it happens twice, not all along.

use super::BenchError;
use super::counters::{Counters, Footprint};
use super::figures::Figure;
use super::launch::{Fleet, Launch, RunSpec};
use super::measured::{Measured, Reading};
use super::plan::{CALIBRATION_NS, CALIBRATION_WARM_UP_NS, Plan, Turn, WARM_UP_NS};
use super::progress::Progress;

/// Longest sleep between two looks at the guests and at the user, in nanoseconds. Each look is a
/// host wake-up, hence there are few of them.
const STEP_NS: u64 = 250_000_000;

/// Time, and what the host counts.
pub trait Instruments {
    /// Monotonic time, in nanoseconds.
    fn now_ns(&mut self) -> u64;

    /// Sleeps for about so many nanoseconds.
    fn sleep_ns(&mut self, ns: u64);

    /// The host's and the process's totals.
    fn counters(&mut self) -> Counters;

    /// What the process holds now.
    fn footprint(&mut self) -> Footprint;

    /// CPU time of a thread of the process, in nanoseconds, if it is known.
    fn thread_cpu_ns(&mut self, tid: i32) -> Option<u64>;
}

/// What all runs need.
pub(super) struct Bench<'a> {
    pub(super) launch: &'a mut dyn Launch,
    pub(super) instruments: &'a mut dyn Instruments,
    pub(super) progress: &'a mut dyn Progress,
}

/// What is run, for whoever watches, and how long it is left alone before it is measured.
pub(super) struct What {
    pub(super) name: String,
    /// How many such runs there are and which this is; empty if that is not known.
    pub(super) place: String,
    pub(super) warm_up_ns: u64,
}

impl What {
    fn line(&self, left_ns: u64) -> String {
        format!("{}{}: {} s left", self.place, self.name, left_ns.div_ceil(1_000_000_000))
    }
}

impl Bench<'_> {
    /// Rounds that a busy guest alone does in a second of the process's CPU time; unknown if the
    /// plan has no busy guests.
    pub(super) fn calibrate(&mut self, plan: &Plan) -> Result<Figure, BenchError> {
        if plan.busy == 0 {
            return Ok(Figure::UNKNOWN);
        }
        let spec = plan.calibration();
        let what = What {
            name: "a busy guest alone".to_owned(),
            place: String::new(),
            warm_up_ns: CALIBRATION_WARM_UP_NS,
        };
        let measured = self.run(&spec, CALIBRATION_NS, &what)?;
        let rate = measured.rounds_per_process_cpu_sec();
        if rate.get().is_some_and(|rate| rate > 0.0) { Ok(rate) } else { Err(BenchError::NoWork) }
    }

    /// One run of a plan; `place` as in [`What`].
    pub(super) fn turn(
        &mut self,
        plan: &Plan,
        turn: Turn,
        place: String,
    ) -> Result<Measured, BenchError> {
        let name = format!("run {} of {}", turn.repeat, turn.mode.name());
        let what = What { name, place, warm_up_ns: WARM_UP_NS };
        self.run(&plan.spec(turn), plan.interval_ns(), &what)
    }

    /// Starts guests, measures an interval of their lives, and stops them.
    pub(super) fn run(
        &mut self,
        spec: &RunSpec,
        interval_ns: u64,
        what: &What,
    ) -> Result<Measured, BenchError> {
        self.progress.show(&format!("{}: starting", what.name));
        let bare = self.instruments.footprint();
        let launched = self.launch.launch(spec);
        let mut fleet =
            launched.map_err(|source| BenchError::Launch { run: what.name.clone(), source })?;
        self.wait(fleet.as_ref(), what.warm_up_ns, interval_ns, what)?;
        let before = self.read(fleet.as_mut());
        self.wait(fleet.as_ref(), interval_ns, 0, what)?;
        let after = self.read(fleet.as_mut());
        if let Some(why) = fleet.failure() {
            return Err(BenchError::Guest { run: what.name.clone(), why });
        }
        let full = self.instruments.footprint();
        let boot_ns = fleet.boot_ns();
        fleet.stop().map_err(|source| BenchError::Stop { run: what.name.clone(), source })?;
        Ok(Measured {
            before,
            after,
            bare,
            full,
            boot_ns,
            rates: spec.rates.clone(),
            busy: spec.busy,
            alone_per_cpu_sec: Figure::UNKNOWN,
        })
    }

    /// Both readings take place in the same order, so that each counter sees an interval of the
    /// same length.
    fn read(&mut self, fleet: &mut dyn Fleet) -> Reading {
        let now_ns = self.instruments.now_ns();
        let counters = self.instruments.counters();
        let sample = fleet.sample();
        let busy_cpu_ns = sample
            .busy_threads
            .iter()
            .map(|&tid| self.instruments.thread_cpu_ns(tid))
            .try_fold(0_u64, |sum, ns| ns.map(|ns| sum.saturating_add(ns)))
            .filter(|_| !sample.busy_threads.is_empty());
        Reading { now_ns, counters, sample, busy_cpu_ns }
    }

    /// Waits for `ns` nanoseconds, unless a guest fails or the user has had enough; `more_ns` of
    /// the run follow.
    fn wait(
        &mut self,
        fleet: &dyn Fleet,
        ns: u64,
        more_ns: u64,
        what: &What,
    ) -> Result<(), BenchError> {
        let end_ns = self.instruments.now_ns().saturating_add(ns);
        loop {
            if self.progress.interrupted() {
                return Err(BenchError::Interrupted);
            }
            if let Some(why) = fleet.failure() {
                return Err(BenchError::Guest { run: what.name.clone(), why });
            }
            let left_ns = end_ns.saturating_sub(self.instruments.now_ns());
            if left_ns == 0 {
                return Ok(());
            }
            self.progress.show(&what.line(left_ns.saturating_add(more_ns)));
            self.instruments.sleep_ns(left_ns.min(STEP_NS));
        }
    }
}
