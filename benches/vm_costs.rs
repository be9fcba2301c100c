//! What a VM costs besides its guest's work: to start and stop one, and to have one more that idles.
//!
//! ```text
//! cargo bench -p siesta-benches --bench vm_costs -- --repeat 7
//! ```
//!
//! | figure | how |
//! |---|---|
//! | start | from the call of `Fleet::create` until the guest (image `tick`) has opened its report page |
//! | stop | `Fleet::remove`: until its threads have ended and its descriptors and memory are given back |
//! | bare | the KVM calls alone, in the same run: VM, memory of the same size, vCPU, its first exit; then all closed |
//! | RSS | `Rss` of `/proc/self/smaps_rollup`, less the pages of guest memory that `/proc/self/pagemap` says are present |
//! | fds | entries of `/proc/self/fd` |
//! | threads | entries of `/proc/self/task`, without those of KVM |
//! | KVM's threads | those named `kvm-nx-lpage-re*`: KVM starts one for each VM, whatever the VMM does |
//!
//! A guest's start contains its own way from the entry to the report page; that of the bare vCPU is
//! one HLT. What KVM itself allocates is in no process's RSS. The figures of one idle VM more are
//! differences of two states of a process of its own, as an allocator keeps what was freed before.
//! Owns the VMs and those processes. Ratios are of neighbours in one run; the spread is printed.

#![allow(clippy::disallowed_methods)] // a benchmark measures time

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use guest_images::report::{REPORT_BYTES, Report, report_address};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm::assemble::{ApicTimer, VmConfig};
use vmm::console::Sink;
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing};
use vmm::kvm::{self, Host};
use vmm::memory::{self, GuestMemory, PAGE};
use vmm::probe::{self, Facts};
use vmm::vm::{Outcome, VmShared};

const MODES: [TimerMode; 3] = [TimerMode::Kernel, TimerMode::Thread, TimerMode::Migrate];
const MEMORY_BYTES: u64 = 16 << 20;
/// What a guest may take until it opens its report page.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long idle VMs are left alone before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);
/// Figures of a process that holds VMs.
const HELD: [&str; 4] = ["RSS, KiB", "fds", "threads", "KVM's threads"];

#[derive(Parser)]
struct Options {
    /// How often each figure is taken; the subjects take turns
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// VMs that tick at 100 Hz beside the one that is started, in the second half
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    beside: u32,
    /// Idle VMs that are there already when others are added
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    first: u32,
    /// Idle VMs that are added
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    more: u32,
    /// Prints what VMs of this subject take in a process of their own
    #[arg(long, hide = true)]
    held_by: Option<String>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A VM by KVM's calls alone.
struct Bare {
    // Closed in this order.
    _vcpu: VcpuFd,
    _vm: VmFd,
    memory: GuestMemory,
}

impl Bare {
    fn create(host: &Host) -> Result<Bare, String> {
        const CODE: u64 = 0x1000;
        let memory = memory::create(MEMORY_BYTES).map_err(text)?;
        memory.write_obj(0xf4_u8, GuestAddress(CODE)).map_err(text)?; // hlt
        let vm = host.kvm.create_vm().map_err(text)?;
        memory::register(&vm, &memory).map_err(text)?;
        let mut vcpu = vm.create_vcpu(0).map_err(text)?;
        let mut sregs = vcpu.get_sregs().map_err(text)?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs).map_err(text)?;
        let mut regs = vcpu.get_regs().map_err(text)?;
        (regs.rip, regs.rflags) = (CODE, 2);
        vcpu.set_regs(&regs).map_err(text)?;
        match vcpu.run().map_err(text)? {
            VcpuExit::Hlt => {}
            other => return Err(format!("the bare guest ended with {other:?}")),
        }
        Ok(Bare { _vcpu: vcpu, _vm: vm, memory })
    }
}

struct Bench {
    host: Host,
    facts: Facts,
}

impl Bench {
    fn open() -> Result<Bench, String> {
        let host = kvm::open().map_err(text)?;
        let facts = probe::run(&host).map_err(text)?;
        Ok(Bench { host, facts })
    }

    fn fleet(&self, mode: TimerMode, room: u32) -> Result<Fleet, String> {
        let policy = Policy::unmeasured(mode);
        let config = FleetConfig { policy, sharing: Sharing::Host, vms: Vec::new() };
        Fleet::launch_with_room(&self.host, &self.facts, config, room).map_err(text)
    }

    /// Adds a VM and waits for its guest. Answers its number.
    fn add(&self, fleet: &mut Fleet, hz: u32) -> Result<u32, String> {
        let elf = guest_images::find("tick").ok_or("no image tick")?.elf;
        let config = VmConfig {
            kernel: elf.into(),
            initrd: None,
            kernel_name: "tick".into(),
            cmdline: format!("hz={hz}"),
            cpus: 1,
            memory: MEMORY_BYTES,
            apic_timer: ApicTimer::Auto,
            cpu_features: Default::default(),
            debug: false,
            limits: Default::default(),
            placement: Default::default(),
            virtio: Default::default(),
        };
        let began = Instant::now();
        let id = fleet.create(&self.host, &self.facts, &config, Sink::Null, None).map_err(text)?;
        let vm = fleet.vm(id).ok_or("the VM is gone")?;
        while !has_opened_its_report(vm) {
            if vm.has_ended() || began.elapsed() > PATIENCE {
                return Err("a guest does not start".into());
            }
            // Its own thread may need this CPU.
            std::thread::yield_now();
        }
        Ok(id)
    }

    /// Microseconds that a VM takes to start and to stop.
    fn once(&self, fleet: &mut Fleet) -> Result<[f64; 2], String> {
        let began = Instant::now();
        let id = self.add(fleet, 100)?;
        let started = Instant::now();
        fleet.remove(id, || Outcome::Interrupted).ok_or("the VM is gone")?;
        Ok([micros(started - began), micros(started.elapsed())])
    }

    fn once_bare(&self) -> Result<[f64; 2], String> {
        let began = Instant::now();
        let bare = Bare::create(&self.host)?;
        let started = Instant::now();
        drop(bare);
        Ok([micros(started - began), micros(started.elapsed())])
    }

    /// What holding `first` VMs more, and then `more`, adds to this process, for each of the latter.
    fn held(&self, subject: &str, first: u32, more: u32) -> Result<[f64; 4], String> {
        let delta = |before: [f64; 4], after: [f64; 4]| {
            let mut each = after;
            for (each, before) in each.iter_mut().zip(before) {
                *each = (*each - before) / f64::from(more);
            }
            each
        };
        if subject == "bare" {
            let mut all = Vec::new();
            let mut hold = |vms: u32| {
                for _ in 0..vms {
                    all.push(Bare::create(&self.host)?);
                }
                holds(all.iter().map(|bare| &bare.memory))
            };
            let before = hold(first)?;
            return Ok(delta(before, hold(more)?));
        }
        let mode = MODES.into_iter().find(|mode| mode.name() == subject).ok_or("no such mode")?;
        let mut fleet = self.fleet(mode, first + more)?;
        let mut hold = |vms: u32| {
            for _ in 0..vms {
                self.add(&mut fleet, 1)?;
            }
            std::thread::sleep(SETTLE);
            holds(fleet.vms().iter().map(|vm| &vm.memory))
        };
        let before = hold(first)?;
        Ok(delta(before, hold(more)?))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn has_opened_its_report(vm: &VmShared) -> bool {
    let mut page = [0; REPORT_BYTES];
    let read = vm.memory.read_slice(&mut page, GuestAddress(report_address(0)));
    read.is_ok() && Report::decode(&page).is_some()
}

/// [`HELD`] of this process, whose guests have these memories.
fn holds<'a>(memories: impl Iterator<Item = &'a GuestMemory>) -> Result<[f64; 4], String> {
    let guests = memories.map(present_kib).sum::<Result<u64, _>>()?;
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").map_err(text)?;
    let rss = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let rss = rss.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let rss = rss.ok_or("smaps_rollup has no Rss")?;
    let fds = fs::read_dir("/proc/self/fd").map_err(text)?.count();
    let (mut threads, mut of_kvm) = (0, 0);
    for task in fs::read_dir("/proc/self/task").map_err(text)?.flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        *if name.starts_with("kvm-nx-lpage") { &mut of_kvm } else { &mut threads } += 1;
    }
    Ok([rss as f64 - guests as f64, fds as f64, f64::from(threads), f64::from(of_kvm)])
}

/// Guest memory that is present, in KiB: bit 63 of each page's entry in `/proc/self/pagemap`.
fn present_kib(memory: &GuestMemory) -> Result<u64, String> {
    let pagemap = File::open("/proc/self/pagemap").map_err(text)?;
    let mut pages = 0;
    for region in memory.iter() {
        let address = memory.get_host_address(region.start_addr()).map_err(text)? as u64;
        let mut entries = vec![0_u8; (region.len() / PAGE * 8) as usize];
        pagemap.read_exact_at(&mut entries, address / PAGE * 8).map_err(text)?;
        pages += entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count() as u64;
    }
    Ok(pages * PAGE / 1024)
}

/// Least, median and largest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    (at(0), at(last / 2), at(last))
}

fn shown(values: &[f64]) -> String {
    let (least, median, most) = spread(values);
    format!("{median:.2} ({least:.2}..{most:.2})")
}

/// A line: the subject's values, and their ratios to the baseline's of the same round, if it has any.
fn line(name: &str, values: &[f64], baseline: &[f64]) {
    let ratios: Vec<f64> = values.iter().zip(baseline).map(|(value, bare)| value / bare).collect();
    let any = ratios.iter().all(|ratio| ratio.is_finite());
    let ratios = if any { shown(&ratios) } else { "-".into() };
    println!("| {name} | {} | {ratios} |", shown(values));
}

fn starts_and_stops(bench: &Bench, options: &Options) -> Result<(), String> {
    println!("| figure | us, median (least..most) | / bare |\n| --- | --- | --- |");
    for beside in [0, options.beside] {
        let mut values = [const { Vec::<[f64; 2]>::new() }; MODES.len()];
        let mut bare = Vec::new();
        for _ in 0..options.repeat {
            for (mode, values) in MODES.into_iter().zip(&mut values) {
                let mut fleet = bench.fleet(mode, beside + 1)?;
                for _ in 0..beside {
                    bench.add(&mut fleet, 100)?;
                }
                // The first of a fleet pays for what the others find there.
                bench.once(&mut fleet)?;
                values.push(bench.once(&mut fleet)?);
            }
            bare.push(bench.once_bare()?);
        }
        let place = if beside == 0 { "alone".into() } else { format!("beside {beside}") };
        for (index, what) in ["start", "stop"].into_iter().enumerate() {
            let column = |of: &[[f64; 2]]| of.iter().map(|pair| pair[index]).collect::<Vec<_>>();
            let baseline = column(&bare);
            println!("| {what}, bare | {} | |", shown(&baseline));
            for (mode, values) in MODES.into_iter().zip(&values) {
                let name = format!("{what}, {}, {place}", mode.name());
                line(&name, &column(values), &baseline);
            }
        }
    }
    Ok(())
}

/// Asks a process of its own.
fn held_by(subject: &str, options: &Options) -> Result<[f64; 4], String> {
    let own = std::env::current_exe().map_err(text)?;
    let (first, more) = (options.first.to_string(), options.more.to_string());
    let arguments = ["--held-by", subject, "--first", &first, "--more", &more];
    let output = Command::new(own).args(arguments).output().map_err(text)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = printed.split_whitespace().flat_map(str::parse).collect();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    <[f64; 4]>::try_from(numbers).map_err(|_| format!("{subject}: {}", why.trim()))
}

fn one_more(options: &Options) -> Result<(), String> {
    println!(
        "\n| one idle VM more, {} beside {} | median (least..most) | / bare |\n| --- | --- | --- |",
        options.more, options.first
    );
    let subjects = ["bare", "kernel", "thread", "migrate"];
    let mut values = subjects.map(|_| Vec::new());
    for _ in 0..options.repeat {
        for (subject, values) in subjects.into_iter().zip(&mut values) {
            values.push(held_by(subject, options)?);
        }
    }
    for (index, what) in HELD.into_iter().enumerate() {
        let column = |of: &[[f64; 4]]| of.iter().map(|held| held[index]).collect::<Vec<_>>();
        let baseline = column(&values[0]);
        for (subject, values) in subjects.into_iter().zip(&values) {
            line(&format!("{what}, {subject}"), &column(values), &baseline);
        }
    }
    Ok(())
}

fn measure(options: &Options) -> Result<(), String> {
    let bench = Bench::open()?;
    if let Some(subject) = &options.held_by {
        let held = bench.held(subject, options.first, options.more)?;
        println!("{}", held.map(|value| value.to_string()).join(" "));
        return Ok(());
    }
    starts_and_stops(&bench, options)?;
    one_more(options)
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm_costs: {error}");
            ExitCode::FAILURE
        }
    }
}
