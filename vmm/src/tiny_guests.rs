//! The guests of the density benchmark: embedded images, run by this process.
//!
//! Owns how a run's guests are configured and how their reports are read from their memory. Must
//! not know what is made of the figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guest_images::report::{REPORT_BYTES, Report, bucket_top, report_address};
use vm_memory::{Bytes, GuestAddress};

use crate::assemble::{ApicTimer, VmConfig};
use crate::bench::{
    self, GroupSample, GuestSample, HostFacts, Lateness, LaunchError, LevelSample, RunSpec, Sample,
};
use crate::clock;
use crate::console::Sink;
use crate::domain::{Policy, TimerMode};
use crate::fleet::{Fleet, FleetConfig, Sharing};
use crate::kvm::Host;
use crate::placement::Placement;
use crate::probe::Facts;
use crate::vm::{Outcome, VmShared};

/// Far more than the images use; memory that is not touched costs nothing.
const MEMORY_BYTES: u64 = 16 << 20;
/// How long a guest may take to its first tick.
const PATIENCE_NS: u64 = 20_000_000_000;
/// How often the guests are looked at while they start.
const LOOK: Duration = Duration::from_millis(1);

/// How vCPUs are run in a mode, on a host of which these are the facts.
pub type PolicyOf = Box<dyn Fn(TimerMode, &Facts) -> Policy>;

/// Launches the benchmark's guests.
pub struct TinyGuests {
    /// KVM.
    pub host: Host,
    /// What it does.
    pub facts: Facts,
    /// How vCPUs are run in a mode.
    pub policy: PolicyOf,
    /// Who shares a hierarchy.
    pub sharing: Sharing,
    /// Timer modes offered to the guests.
    pub apic_timer: ApicTimer,
}

impl TinyGuests {
    fn guest(&self, name: &'static str, cmdline: String) -> Result<(VmConfig, Sink), LaunchError> {
        let image = guest_images::find(name).ok_or("the image is not embedded")?;
        let config = VmConfig {
            kernel: Arc::from(image.elf),
            kernel_name: image.name.to_owned(),
            initrd: None,
            cmdline,
            cpus: 1,
            memory: MEMORY_BYTES,
            apic_timer: self.apic_timer,
            cpu_features: Default::default(),
            debug: false,
            limits: Default::default(),
            placement: Placement::default(),
            virtio: Default::default(),
        };
        Ok((config, Sink::Null))
    }
}

impl bench::Launch for TinyGuests {
    fn launch(&mut self, spec: &RunSpec) -> Result<Box<dyn bench::Fleet>, LaunchError> {
        let mut vms = Vec::new();
        let groups = spec.rates.groups();
        let mut ticking = Vec::new();
        for guest in &spec.ticking {
            let hz = groups.get(guest.group).ok_or("a guest of no rate")?.hz;
            let (phase, mode) = (guest.phase_ns, spec.tick.name());
            vms.push(self.guest("tick", format!("hz={hz} phase={phase} mode={mode}"))?);
            ticking.push(Ticking { group: guest.group, hz: f64::from(hz) });
        }
        for _ in 0..spec.busy {
            vms.push(self.guest("busy", String::new())?);
        }
        let policy = Policy {
            borrow_share_percent: spec.borrow_share_percent,
            ..(self.policy)(spec.mode, &self.facts)
        };
        let config = FleetConfig { policy, sharing: self.sharing, vms };
        let began = clock::now_ns();
        let fleet = Fleet::launch(&self.host, &self.facts, config)?;
        let mut running = Running { fleet, groups: groups.len(), ticking, boot_ns: Vec::new() };
        running.boot_ns = running.first_signs(began)?;
        Ok(Box::new(running))
    }

    fn host_facts(&self) -> HostFacts {
        HostFacts::read(Some(self.facts.exit_cost_ns))
    }
}

/// A guest that ticks.
#[derive(Clone, Copy)]
struct Ticking {
    group: usize,
    /// What it was asked for.
    hz: f64,
}

struct Running {
    fleet: Fleet,
    groups: usize,
    /// The first so many VMs tick, the others compute.
    ticking: Vec<Ticking>,
    boot_ns: Vec<u64>,
}

fn report(vm: &VmShared) -> Option<Report> {
    let mut page = [0; REPORT_BYTES];
    vm.memory.read_slice(&mut page, GuestAddress(report_address(0))).ok()?;
    Report::decode(&page)
}

impl Running {
    /// Waits until each guest has ticked or computed; answers how long each took.
    fn first_signs(&self, began: u64) -> Result<Vec<u64>, LaunchError> {
        let vms = self.fleet.vms();
        let mut times = vec![None; vms.len()];
        while times.contains(&None) {
            std::thread::sleep(LOOK);
            let passed = clock::now_ns().saturating_sub(began);
            for (vm, time) in vms.iter().zip(&mut times).filter(|(_, time)| time.is_none()) {
                let alive = report(vm).is_some_and(|report| report.ticks + report.progress > 0);
                *time = alive.then_some(passed);
            }
            if let Some(failure) = bench::Fleet::failure(self) {
                return Err(failure.into());
            }
            if passed > PATIENCE_NS {
                return Err("guests do not start: no tick within 20 s".into());
            }
        }
        Ok(times.into_iter().flatten().collect())
    }
}

impl Ticking {
    /// Ticks a second by the cycles between two of them, if the guest's word is near enough to what
    /// it was asked for to be believed.
    fn hz(self, report: &Report) -> f64 {
        let said = report.tsc_khz as f64 * 1e3 / report.period as f64;
        if (said / self.hz - 1.0).abs() < 0.01 { said } else { self.hz }
    }

    fn sample(self, vm: &VmShared, group: &mut GroupSample) {
        let began = clock::now_ns();
        let report = report(vm);
        let mut guest = GuestSample { hz: self.hz, ..GuestSample::default() };
        guest.read_ns = (began, clock::now_ns());
        if let Some(report) = report {
            guest.ticks = report.ticks;
            guest.early = report.early;
            guest.lost = report.lost;
            guest.hz = self.hz(&report);
            add_lateness(&mut group.lateness, &report);
        }
        group.guests.push(guest);
    }
}

fn add_lateness(lateness: &mut Lateness, report: &Report) {
    for (index, count) in report.histogram.iter().enumerate() {
        lateness.add(report.nanoseconds(bucket_top(index)), *count);
    }
    lateness.seen_max(report.nanoseconds(report.max_lateness));
}

impl bench::Fleet for Running {
    fn sample(&mut self) -> Sample {
        let mut sample = Sample::default();
        sample.groups.resize(self.groups, GroupSample::default());
        for (index, vm) in self.fleet.vms().iter().enumerate() {
            let ticking = self.ticking.get(index);
            let busy = ticking.is_none();
            match ticking.and_then(|of| Some((of, sample.groups.get_mut(of.group)?))) {
                Some((of, group)) => of.sample(vm, group),
                None => sample.busy_progress += report(vm).map_or(0, |report| report.progress),
            }
            for vcpu in self.fleet.vcpus_of(vm) {
                if busy {
                    sample.busy_threads.push(vcpu.thread.tid());
                }
                sample.inline += vcpu.stats.inline.load(Ordering::Relaxed);
                sample.by_helper += vcpu.stats.by_helper.load(Ordering::Relaxed);
                sample.handed_off += vcpu.stats.handed_off.load(Ordering::Relaxed);
                sample.kicks += vcpu.stats.kicks.load(Ordering::Relaxed);
            }
        }
        for domain in self.fleet.domains() {
            let levels = domain.hierarchy().map(|h| h.level_counters()).unwrap_or_default();
            if sample.levels.len() < levels.len() {
                sample.levels.resize(levels.len(), LevelSample::default());
            }
            for (sum, level) in sample.levels.iter_mut().zip(levels) {
                sum.walks += level.walks;
                sum.passes += level.passes;
                sum.expiries += level.expiries;
            }
        }
        sample
    }

    fn boot_ns(&self) -> Vec<u64> {
        self.boot_ns.clone()
    }

    fn failure(&self) -> Option<String> {
        let ended = self.fleet.vms().iter().find(|vm| vm.has_ended())?;
        let why = ended.outcome().map_or_else(|| "ended".to_owned(), ToString::to_string);
        Some(format!("{}: {why}", ended.name))
    }

    fn stop(mut self: Box<Self>) -> Result<(), LaunchError> {
        self.fleet.stop(|| Outcome::Interrupted);
        Ok(())
    }
}
