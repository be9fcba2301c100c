//! Interrupts between vCPUs, and how often a tick leaves the guest, with whole VMs.
//!
//! ```text
//! cargo bench -p siesta-benches --bench interrupts -- --repeat 7
//! ```
//!
//! | figure | how |
//! |---|---|
//! | IPI round trip | image `ipi`: two vCPUs that sleep in HLT pass a token; the time of many rounds less that of few, `migrate` and `thread` in turns |
//! | exits a tick | image `tick`: the exits of a long run less those of a short one, in each mode of the APIC's timer |
//! | CPU time a tick | image `tick`: the process's CPU time for many ticks less that for few, with paravirtual EOI and without, in turns |
//! | start of vCPUs | image `start`: from the SIPI to all until the last one is alive, by the guest's TSC |
//!
//! Owns the VMs, one at a time. Ratios are of neighbours in one run; the spread is printed.

#![allow(clippy::disallowed_methods)] // a benchmark measures time

use std::io::{Read, Seek};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use vmm::assemble::{ApicTimer, VmConfig};
use vmm::bench::Usage;
use vmm::console::Sink;
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing};
use vmm::kvm::{self, Host};
use vmm::placement::Placement;
use vmm::probe::{self, Facts};
use vmm::vm::Outcome;

#[derive(Parser)]
struct Options {
    /// How often each figure is taken
    #[arg(long, default_value_t = 7)]
    repeat: usize,
    /// vCPUs that are started
    #[arg(long, default_value_t = 64)]
    cpus: u32,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

struct Bench {
    host: Host,
    facts: Facts,
}

/// What one VM took, from its launch to its end.
struct Taken {
    seconds: f64,
    /// CPU time of the process meanwhile.
    cpu_seconds: f64,
    exits: u64,
    output: String,
}

impl Bench {
    fn run(&self, mode: TimerMode, cpus: u32, image: &str, cmdline: &str) -> Result<Taken, String> {
        let elf = guest_images::find(image).ok_or_else(|| format!("no image {image}"))?.elf;
        let config = VmConfig {
            kernel: elf.into(),
            initrd: None,
            kernel_name: image.into(),
            cmdline: cmdline.into(),
            cpus,
            memory: 64 << 20,
            apic_timer: ApicTimer::Auto,
            cpu_features: Default::default(),
            debug: false,
            limits: Default::default(),
            placement: Placement::default(),
            virtio: Default::default(),
        };
        let mut file = tempfile::tempfile().map_err(|e| e.to_string())?;
        let sink = Sink::File(file.try_clone().map_err(|e| e.to_string())?);
        let policy = Policy::unmeasured(mode);
        let fleet = FleetConfig { policy, sharing: Sharing::Host, vms: vec![(config, sink)] };
        let (started, cpu_before) = (Instant::now(), Usage::of_process());
        let mut fleet = Fleet::launch(&self.host, &self.facts, fleet).map_err(|e| e.to_string())?;
        while !fleet.vms()[0].has_ended() {
            let _ = fleet.wait(Some(Duration::from_secs(60)));
            if started.elapsed() > Duration::from_secs(60) {
                return Err(format!("{image} does not end"));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let cpu_seconds = Usage::of_process().less(cpu_before).cpu_ns as f64 / 1e9;
        let vm = &fleet.vms()[0];
        let exits = fleet.vcpus_of(vm).map(|vcpu| vcpu.stats.exits.load(Ordering::Relaxed)).sum();
        if !matches!(vm.outcome(), Some(Outcome::PowerOff | Outcome::Exit(0))) {
            let outcome = vm.outcome().map_or_else(String::new, Outcome::to_string);
            return Err(format!("{image}: {outcome}"));
        }
        // The event loop has written everything when it ends.
        fleet.stop(|| Outcome::Interrupted);
        let mut output = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut output));
        read.map_err(|e| e.to_string())?;
        Ok(Taken { seconds, cpu_seconds, exits, output })
    }

    /// Microseconds of one round of the token.
    fn round_trip(&self, mode: TimerMode) -> Result<f64, String> {
        const FEW: u32 = 500;
        const MANY: u32 = 10_500;
        let few = self.run(mode, 2, "ipi", &format!("rounds={FEW}"))?;
        let many = self.run(mode, 2, "ipi", &format!("rounds={MANY}"))?;
        Ok((many.seconds - few.seconds) * 1e6 / f64::from(MANY - FEW))
    }

    fn exits_a_tick(&self, mode: &str) -> Result<f64, String> {
        let run = |secs: u32| {
            let cmdline = format!("mode={mode} hz=200 secs={secs}");
            self.run(TimerMode::Migrate, 1, "tick", &cmdline)
        };
        let (short, long) = (run(1)?, run(3)?);
        Ok((long.exits - short.exits) as f64 / 400.0)
    }

    /// Microseconds of CPU time for one tick.
    fn tick_us(&self, cmdline: &str) -> Result<f64, String> {
        let run = |secs: u32| {
            let cmdline = format!("{cmdline} hz=1000 secs={secs}");
            self.run(TimerMode::Migrate, 1, "tick", &cmdline)
        };
        let (short, long) = (run(1)?, run(3)?);
        Ok((long.cpu_seconds - short.cpu_seconds) * 1e6 / 2000.0)
    }

    /// Milliseconds from the SIPI until the last vCPU is alive.
    fn start(&self, mode: TimerMode, cpus: u32) -> Result<f64, String> {
        let taken = self.run(mode, cpus, "start", &format!("cpus={cpus}"))?;
        let us = taken.output.split(" us=").nth(1).map(str::trim);
        let us: f64 = us.and_then(|us| us.parse().ok()).ok_or("image start says no time")?;
        Ok(us / 1e3)
    }
}

/// Least, median and largest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    (at(0), at(last / 2), at(last))
}

fn show(name: &str, goal: &str, unit: &str, values: Vec<f64>) {
    let (least, median, most) = spread(values);
    println!("| {name} | {goal} | {median:.2} {unit} ({least:.2}..{most:.2}) |");
}

fn measure(options: &Options) -> Result<(), String> {
    let host = kvm::open().map_err(|e| e.to_string())?;
    let facts = probe::run(&host).map_err(|e| e.to_string())?;
    let bench = Bench { host, facts };
    println!("| figure | goal | median (least..most) |\n| --- | --- | --- |");
    let (mut ratios, mut migrate, mut thread) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.repeat {
        let pair = (bench.round_trip(TimerMode::Migrate)?, bench.round_trip(TimerMode::Thread)?);
        ratios.push(pair.0 / pair.1);
        migrate.push(pair.0);
        thread.push(pair.1);
    }
    show("IPI round trip, migrate", "", "us", migrate);
    show("IPI round trip, thread", "", "us", thread);
    show("migrate / thread", "<= 1.0", "x", ratios);
    let deadline = if bench.facts.tsc_deadline_exits { "deadline" } else { "oneshot" };
    for (mode, goal) in [(deadline, "2"), ("oneshot", "2"), ("periodic", "1")] {
        let exits: Result<Vec<_>, _> = (0..3).map(|_| bench.exits_a_tick(mode)).collect();
        show(&format!("exits a tick, {mode}, PV EOI"), goal, "", exits?);
    }
    for mode in [deadline, "periodic"] {
        let (mut with, mut saved) = (Vec::new(), Vec::new());
        for _ in 0..options.repeat {
            let plain = bench.tick_us(&format!("mode={mode} eoi=plain"))?;
            let paravirtual = bench.tick_us(&format!("mode={mode}"))?;
            with.push(paravirtual);
            saved.push(100.0 * (1.0 - paravirtual / plain));
        }
        show(&format!("CPU time a tick, {mode}, PV EOI"), "", "us", with);
        show(&format!("saved by PV EOI, {mode}"), "", "%", saved);
    }
    for mode in [TimerMode::Migrate, TimerMode::Thread] {
        let starts: Result<Vec<_>, _> =
            (0..options.repeat).map(|_| bench.start(mode, options.cpus)).collect();
        let name = format!("start of {} vCPUs, {}", options.cpus, mode.name());
        show(&name, "<= 200 ms", "ms", starts?);
    }
    Ok(())
}

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("interrupts: {error}");
            ExitCode::FAILURE
        }
    }
}
