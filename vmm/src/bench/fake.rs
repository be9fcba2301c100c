//! A host, its user and guests in virtual time, all following one script.

use std::cell::RefCell;
use std::rc::Rc;

use super::counters::{Counters, CpuTime, Footprint};
use super::host::HostFacts;
use super::launch::{
    Fleet, GroupSample, GuestSample, Launch, LaunchError, LevelSample, Mode, RunSpec, Sample,
};
use super::measure::Instruments;
use super::progress::Progress;

const SEC: u64 = 1_000_000_000;
/// Rounds a busy guest does in a second of CPU time.
pub const SPEED: u64 = 8_000_000;

/// What goes otherwise than well. Launches are counted from 0, which is the first busy guest alone;
/// the later ones are not counted.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// This launch is refused.
    pub refuse: Option<usize>,
    /// A guest of this launch fails after so many nanoseconds.
    pub fail: Option<(usize, u64)>,
    /// Others take so many percent of one CPU during this launch.
    pub foreign: Option<(usize, u64)>,
    /// The user wants to end it at this time, in nanoseconds.
    pub interrupt_ns: Option<u64>,
    /// Busy guests do nothing.
    pub lazy: bool,
    /// Ticks are ten times as late with more guests than this in a mode.
    pub carries: Option<fn(Mode) -> u32>,
    /// With more guests than this one of them never ticks.
    pub stuck_above: Option<u32>,
    /// More guests than this cannot be started.
    pub refuse_above: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    script: Script,
    now_ns: u64,
    running: Option<RunSpec>,
    ran_ns: u64,
    launched: Vec<RunSpec>,
    counters: Counters,
    sample: Sample,
    shown: Vec<String>,
    clears: u32,
}

/// The fake; clones share their state.
#[derive(Clone, Debug, Default)]
pub struct World(Rc<RefCell<State>>);

impl World {
    pub fn new(script: Script) -> World {
        World(Rc::new(RefCell::new(State { script, ..State::default() })))
    }

    pub fn launched(&self) -> Vec<RunSpec> {
        self.0.borrow().launched.clone()
    }

    pub fn is_running(&self) -> bool {
        self.0.borrow().running.is_some()
    }

    pub fn now_ns(&self) -> u64 {
        self.0.borrow().now_ns
    }

    pub fn shown(&self) -> (Vec<String>, u32) {
        let state = self.0.borrow();
        (state.shown.clone(), state.clears)
    }
}

impl State {
    fn number(&self) -> usize {
        self.launched.len().saturating_sub(1)
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        let foreign = self.script.foreign.filter(|&(number, _)| number == self.number());
        let foreign_ns = foreign.map_or(0, |(_, percent)| ns * percent / 100);
        let mut own_ns = 0;
        if let Some(spec) = self.running.clone() {
            self.ran_ns += ns;
            own_ns = self.run(&spec, ns);
        }
        self.counters.host.get_or_insert(CpuTime { cpus: 2, ..CpuTime::default() });
        *self.counters.others_ns.get_or_insert(0) += foreign_ns;
        self.counters.process.cpu_ns += own_ns;
    }

    /// Runs the guests and returns their CPU time. Later launches need a little more of it.
    fn run(&mut self, spec: &RunSpec, ns: u64) -> u64 {
        let each = |hz: u32| u64::from(hz) * ns / SEC;
        let rates = spec.rates.groups();
        let ticks = rates.iter().map(|of| u64::from(of.vms) * each(of.hz)).sum::<u64>();
        let (cost_us, mut late_us) = match spec.mode {
            Mode::Kernel => (65, 80),
            Mode::Thread => (90, 160),
            Mode::Migrate => (84, 5),
        };
        if self.script.carries.is_some_and(|most| spec.rates.vms() > most(spec.mode)) {
            late_us *= 10;
        }
        let wakeups = if spec.mode == Mode::Migrate { 0 } else { ticks };
        let counters = &mut self.counters;
        counters.process.voluntary += wakeups;
        counters.process.involuntary += 4 * ns / SEC;
        *counters.idle_entries.get_or_insert(0) += wakeups / 2;
        *counters.timer_interrupts.get_or_insert(0) += ticks + 4;
        let sample = &mut self.sample;
        sample.groups.resize(rates.len(), GroupSample::default());
        for (group, of) in sample.groups.iter_mut().zip(rates) {
            group.guests.resize(of.vms as usize, GuestSample::default());
            for guest in &mut group.guests {
                guest.ticks += each(of.hz);
                guest.hz = f64::from(of.hz);
                guest.read_ns = (self.now_ns, self.now_ns);
            }
            group.lateness.add(late_us * 1_000, u64::from(of.vms) * each(of.hz));
        }
        let vms = spec.rates.vms();
        if self.script.stuck_above.is_some_and(|most| vms > most) {
            sample.groups[0].guests[0].ticks = 0;
        }
        sample.busy_threads = (0..spec.busy as i32).collect();
        let busy_ns = ns * u64::from(spec.busy);
        if !self.script.lazy {
            sample.busy_progress += SPEED * busy_ns / SEC;
        }
        if spec.mode == Mode::Migrate {
            sample.inline += ticks;
            sample.kicks += ticks / 50;
            sample.levels.resize(2, LevelSample::default());
            sample.levels[0].expiries += ticks;
            sample.levels[1].walks += ticks / 10;
        }
        busy_ns + ticks * (cost_us + self.launched.len() as u64) * 1_000
    }
}

impl Instruments for World {
    fn now_ns(&mut self) -> u64 {
        World::now_ns(self)
    }

    fn sleep_ns(&mut self, ns: u64) {
        self.0.borrow_mut().pass(ns);
    }

    fn counters(&mut self) -> Counters {
        self.0.borrow().counters
    }

    fn footprint(&mut self) -> Footprint {
        let running = self.0.borrow().running.clone();
        let vms = running.map_or(0, |spec| u64::from(spec.rates.vms() + spec.busy));
        Footprint {
            pss_kib: Some(3_000 + 250 * vms),
            fds: Some(9 + 4 * vms),
            threads: Some(1 + vms),
        }
    }

    fn thread_cpu_ns(&mut self, _tid: i32) -> Option<u64> {
        Some(self.0.borrow().ran_ns)
    }
}

impl Launch for World {
    fn launch(&mut self, spec: &RunSpec) -> Result<Box<dyn Fleet>, LaunchError> {
        let mut state = self.0.borrow_mut();
        assert!(state.running.is_none(), "one fleet at a time");
        if spec.rates.vms() > 0 || state.launched.is_empty() {
            state.launched.push(spec.clone());
        }
        let many = state.script.refuse_above.is_some_and(|most| spec.rates.vms() > most);
        if many || state.script.refuse == Some(state.number()) {
            return Err("no memory left".into());
        }
        state.running = Some(spec.clone());
        state.ran_ns = 0;
        state.sample = Sample::default();
        Ok(Box::new(Running(self.clone())))
    }

    fn host_facts(&self) -> HostFacts {
        HostFacts {
            kernel: Some("6.18.0".to_owned()),
            cpu_model: Some("Some CPU".to_owned()),
            cpus: Some(2),
            halt_poll_ns: Some(200_000),
            exit_cost_ns: Some(1_200),
            ..HostFacts::default()
        }
    }
}

impl Progress for World {
    fn show(&mut self, line: &str) {
        self.0.borrow_mut().shown.push(line.to_owned());
    }

    fn clear(&mut self) {
        self.0.borrow_mut().clears += 1;
    }

    fn interrupted(&self) -> bool {
        let state = self.0.borrow();
        state.script.interrupt_ns.is_some_and(|ns| state.now_ns >= ns)
    }
}

struct Running(World);

impl Fleet for Running {
    fn sample(&mut self) -> Sample {
        self.0.0.borrow().sample.clone()
    }

    fn boot_ns(&self) -> Vec<u64> {
        vec![2_000_000]
    }

    fn failure(&self) -> Option<String> {
        let state = self.0.0.borrow();
        let (number, after_ns) = state.script.fail?;
        let failed = number == state.number() && state.ran_ns >= after_ns;
        failed.then(|| "vm 3: triple fault".to_owned())
    }

    fn stop(self: Box<Self>) -> Result<(), LaunchError> {
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.borrow_mut().running = None;
    }
}
