//! What guests cost on this host: kicks, and ticks in each mode.
//!
//! Owns a handful of embedded guests at a time. Must not know threads and timers by themselves.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::measure::{allowed_cpus, confine_thread, median};
use crate::assemble::{ApicTimer, VmConfig};
use crate::bench::{Launch, LaunchError, Rates, RunSpec, TickGuest, TickMode, Usage};
use crate::clock;
use crate::console::Sink;
use crate::domain::{Policy, TimerMode};
use crate::fleet::{Fleet, FleetConfig, Sharing};
use crate::kvm::Host;
use crate::placement::Placement;
use crate::probe::Facts;
use crate::tiny_guests::TinyGuests;
use crate::vcpu::Vcpu;

const MEMORY_BYTES: u64 = 16 << 20;
/// Ticking guests, few enough that they seldom meet.
const TICKING: u32 = 8;
const HZ: u32 = 100;
/// How long guests run before they are measured, and while they are.
const SETTLE: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(1_200);
const KICKS: usize = 300;
const BETWEEN_KICKS: Duration = Duration::from_micros(500);
/// A kick whose effect is not seen by then found its thread outside the guest.
const KICK_PATIENCE_NS: u64 = 1_000_000;

/// Launches what is measured.
pub(super) struct Guests {
    tiny: TinyGuests,
}

fn policy(mode: TimerMode, facts: &Facts) -> Policy {
    Policy {
        mode,
        inline: true,
        slack_ns: 0,
        // Far more than a tick takes: none is to be cut off.
        borrow_limit_ns: 1_000_000 + 1_000 * facts.exit_cost_ns,
        borrow_share_percent: 100,
        // None is handed off for being late, either.
        lateness_goal_ns: 1_000_000_000,
        wakeup_ns: 50_000,
    }
}

impl Guests {
    pub(super) fn new(host: Host, facts: Facts) -> Guests {
        let tiny = TinyGuests {
            host,
            facts,
            policy: Box::new(policy),
            sharing: Sharing::Host,
            apic_timer: ApicTimer::Auto,
        };
        Guests { tiny }
    }

    fn launch(&self, mode: TimerMode, ticking: u32) -> Result<Fleet, LaunchError> {
        let guest = |name: &'static str, cmdline: String| {
            let image = guest_images::find(name).ok_or("the image is not embedded")?;
            let config = VmConfig {
                kernel: Arc::from(image.elf),
                kernel_name: image.name.to_owned(),
                initrd: None,
                cmdline,
                cpus: 1,
                memory: MEMORY_BYTES,
                apic_timer: self.tiny.apic_timer,
                cpu_features: Default::default(),
                debug: false,
                limits: Default::default(),
                placement: Placement::default(),
                virtio: Default::default(),
            };
            Ok::<_, LaunchError>((config, Sink::Null))
        };
        let mut vms = vec![guest("busy", String::new())?];
        for number in 0..ticking {
            vms.push(guest("tick", format!("hz={HZ} phase={}", phase_ns(number)))?);
        }
        let policy = policy(mode, &self.tiny.facts);
        let config = FleetConfig { policy, sharing: Sharing::Host, vms };
        Ok(Fleet::launch(&self.tiny.host, &self.tiny.facts, config)?)
    }

    /// From the signal of another thread until a thread has left its guest.
    /// `None`: there is one CPU only.
    pub(super) fn kick_ns(&mut self) -> Result<Option<u64>, LaunchError> {
        let cpus = allowed_cpus()?;
        let (Some(&here), Some(&there)) = (cpus.first(), cpus.last()) else { return Ok(None) };
        if here == there {
            return Ok(None);
        }
        let fleet = self.launch(TimerMode::Kernel, 0)?;
        thread::sleep(SETTLE);
        let vm = fleet.vms().first().ok_or("no VM")?;
        let vcpu = fleet.vcpus_of(vm).next().ok_or("no vCPU")?;
        confine_thread(vcpu.thread.tid(), there)?;
        let kicks = || {
            confine_thread(0, here)?;
            let mut times = Vec::new();
            for _ in 0..KICKS {
                thread::sleep(BETWEEN_KICKS);
                times.extend(kicked(vcpu));
            }
            Ok::<_, io::Error>(times)
        };
        let times = thread::scope(|scope| scope.spawn(kicks).join());
        let times = times.map_err(|_| "a thread died")??;
        Ok((!times.is_empty()).then(|| median(times)))
    }

    /// CPU time of a halted vCPU's tick on another vCPU's thread.
    pub(super) fn tick_inline_ns(&mut self) -> Result<u64, LaunchError> {
        let fleet = self.launch(TimerMode::Migrate, TICKING)?;
        let read = || {
            let mut sums = (0, 0);
            for vcpu in fleet.vms().iter().flat_map(|vm| fleet.vcpus_of(vm)) {
                sums.0 += vcpu.stats.lent_ns.load(Ordering::Relaxed);
                sums.1 += vcpu.stats.inline.load(Ordering::Relaxed);
            }
            sums
        };
        thread::sleep(SETTLE);
        let before = read();
        thread::sleep(INTERVAL);
        let after = read();
        per_tick(after.0 - before.0, after.1 - before.1)
    }

    /// CPU time of a tick in mode `thread`.
    pub(super) fn tick_thread_ns(&mut self) -> Result<u64, LaunchError> {
        self.cpu_time_ns(TimerMode::Thread)
    }

    /// CPU time of a tick in mode `kernel`.
    pub(super) fn tick_kernel_ns(&mut self) -> Result<u64, LaunchError> {
        self.cpu_time_ns(TimerMode::Kernel)
    }

    fn cpu_time_ns(&mut self, mode: TimerMode) -> Result<u64, LaunchError> {
        let spec = RunSpec {
            mode,
            rates: Rates::same(HZ, TICKING),
            ticking: (0..TICKING)
                .map(|number| TickGuest { group: 0, phase_ns: phase_ns(number) })
                .collect(),
            tick: TickMode::Auto,
            busy: 0,
            slack_ns: 0,
            borrow_share_percent: 100,
        };
        let mut fleet = self.tiny.launch(&spec)?;
        let mut read = |usage: Usage| (fleet.sample().delivered(), usage);
        thread::sleep(SETTLE);
        let (ticks_before, before) = read(Usage::of_process());
        thread::sleep(INTERVAL);
        let (ticks_after, after) = read(Usage::of_process());
        let spent = per_tick(after.less(before).cpu_ns, ticks_after - ticks_before);
        fleet.stop()?;
        spent
    }
}

/// Evenly spread, and not at the beginning of a period.
fn phase_ns(number: u32) -> u64 {
    let period = 1_000_000_000 / u64::from(HZ);
    period * u64::from(2 * number + 1) / u64::from(2 * TICKING)
}

fn per_tick(ns: u64, ticks: u64) -> Result<u64, LaunchError> {
    ns.checked_div(ticks).ok_or_else(|| "guests do not tick".into())
}

/// Kicks the thread; how long it took to leave its guest, if it was in it.
fn kicked(vcpu: &Vcpu) -> Option<u64> {
    let exits = vcpu.stats.exits.load(Ordering::Relaxed);
    let before = clock::now_ns();
    vcpu.thread.kick();
    loop {
        let spent = clock::now_ns().saturating_sub(before);
        if vcpu.stats.exits.load(Ordering::Relaxed) != exits {
            return Some(spent);
        }
        if spent > KICK_PATIENCE_NS {
            return None;
        }
        std::hint::spin_loop();
    }
}
