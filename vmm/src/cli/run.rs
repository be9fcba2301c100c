//! `siesta run`: starts VMs and waits until they have ended.
//!
//! Owns the order of things and what is said about each VM's end. Must not know how VMs run.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;

use super::devices::DeviceOptions;
use super::options::{self, GuestOptions, TimerOptions};
use super::placement::PlacementOptions;
use super::{Failure, images, values};
use crate::assemble::VmConfig;
use crate::boot;
use crate::clock;
use crate::console::{Sink, socket};
use crate::fleet::{Fleet, FleetConfig, Woken};
use crate::gdb::stream::{Address, Listener};
use crate::signals::Signals;
use crate::vm::{Outcome, VmShared};

/// Arguments of `siesta run`.
#[derive(Args)]
#[command(after_help = super::STATUSES, allow_negative_numbers = true)]
pub(super) struct RunArguments {
    #[command(flatten)]
    source: Source,
    /// Initial RAM disk, or module of a multiboot kernel
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    #[command(flatten)]
    guest: GuestOptions,
    #[command(flatten)]
    devices: DeviceOptions,
    /// Serial output goes into this file instead of standard output, or to whoever connects to a unix
    /// socket; with --count into FILE.0, FILE.1, ...
    #[arg(long, value_name = "FILE|unix:SOCKET")]
    serial: Option<PathBuf>,
    /// End the VMs after this time, with status 6
    #[arg(long, value_parser = values::time_limit, value_name = "SECS")]
    timeout: Option<Duration>,
    /// Wait for gdb at this socket before the first instruction: PATH or tcp:HOST:PORT
    #[arg(long, value_name = "SOCKET", conflicts_with = "count")]
    gdb: Option<Address>,
    /// Start this many VMs, all alike
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    count: u32,
    #[command(flatten)]
    timer: TimerOptions,
    #[command(flatten)]
    place: PlacementOptions,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A kernel: ELF (PVH, multiboot, or 64-bit), bzImage, or multiboot
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// An embedded kernel (see 'siesta images')
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
}

impl Source {
    fn load(&self) -> Result<(Arc<[u8]>, String), Failure> {
        match (&self.kernel, &self.image) {
            (Some(path), _) => {
                let bytes = boot::read_kernel(path).map_err(Failure::input)?;
                Ok((bytes.into(), path.display().to_string()))
            }
            (None, Some(name)) => {
                let image = images::find(name)?;
                Ok((image.elf.into(), image.name.to_owned()))
            }
            (None, None) => Err(Failure::input("--kernel FILE or --image NAME is needed")),
        }
    }
}

pub(super) fn run(device: &Path, arguments: &RunArguments) -> Result<u8, Failure> {
    // Before any thread exists, so that all inherit the mask.
    let mut signals = Signals::take().map_err(Failure::input)?;
    let (kernel, kernel_name) = arguments.source.load()?;
    let initrd = match &arguments.initrd {
        Some(path) => Some(boot::read_initrd(path).map_err(Failure::input)?.into()),
        None => None,
    };
    let (host, facts) = options::open_host(device)?;
    arguments.timer.tell(&[arguments.guest.timers], &facts);
    let config = VmConfig {
        kernel,
        kernel_name,
        initrd,
        cmdline: arguments.guest.cmdline.clone(),
        cpus: arguments.guest.cpus,
        memory: arguments.guest.memory,
        apic_timer: arguments.timer.apic_timer,
        cpu_features: arguments.guest.cpu_features.clone(),
        debug: arguments.gdb.is_some(),
        limits: arguments.guest.limits.limits(),
        placement: arguments.place.placement(),
        virtio: arguments.devices.config(),
    };
    let listener = arguments.listen()?;
    let mut vms = Vec::new();
    for index in 0..arguments.count {
        let mut config = config.clone();
        if arguments.count > 1 {
            config.virtio = config.virtio.numbered(index).map_err(Failure::input)?;
        }
        vms.push((config, arguments.sink(index)?));
    }
    // The VMs have their own files of the images.
    drop(config);
    let mut policy = arguments.timer.policy(arguments.guest.timers, &facts);
    // A vCPU that is debugged is run by its own thread alone.
    policy.inline &= listener.is_none();
    let fleet = FleetConfig { policy, sharing: arguments.timer.share, vms };
    let mut fleet = Fleet::launch(&host, &facts, fleet).map_err(Failure::input)?;
    if let Some(listener) = listener {
        fleet.serve_debugger(0, listener).map_err(Failure::guest)?;
    }
    let watched = fleet.watch_signals(&signals);
    let ended_by = match watched {
        Ok(()) => wait(&fleet, &mut signals, arguments.timeout),
        Err(error) => {
            return Err(Failure::guest(error));
        }
    };
    if ended_by == Some(Woken::TimeOut) {
        for vm in fleet.vms().iter().filter(|vm| !vm.has_ended()) {
            for vcpu in fleet.vcpus_of(vm) {
                tracing::info!("{}: {vcpu}", vm.name);
            }
        }
    }
    fleet.stop(|| match ended_by {
        Some(Woken::TimeOut) => Outcome::TimedOut,
        _ => Outcome::Interrupted,
    });
    figures(&fleet);
    Ok(report(&fleet))
}

impl RunArguments {
    /// The socket that a debugger connects to.
    fn listen(&self) -> Result<Option<Listener>, Failure> {
        let Some(address) = &self.gdb else { return Ok(None) };
        Listener::bind(address).map(Some).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => "remove it or name another",
                _ => "name a socket that can be created",
            };
            Failure::input(format!("--gdb {address}: {error}; {advice}"))
        })
    }

    fn sink(&self, index: u32) -> Result<Sink, Failure> {
        let Some(path) = &self.serial else {
            let prefix = if self.count > 1 { format!("vm{index}: ") } else { String::new() };
            return Ok(Sink::Stdout(prefix));
        };
        let mut name = path.clone().into_os_string();
        if self.count > 1 {
            name.push(format!(".{index}"));
        }
        let refused =
            |what| Failure::input(format!("--serial {}: {what}", Path::new(&name).display()));
        if let Some(socket) = name.as_bytes().strip_prefix(b"unix:") {
            let path = Path::new(OsStr::from_bytes(socket));
            return socket::Listener::bind(path).map(Sink::Socket).map_err(refused);
        }
        let file =
            File::create(&name).map_err(|error| refused(format!("cannot be written: {error}")))?;
        Ok(Sink::File(file))
    }
}

/// Waits until all VMs have ended (`None`) or something else ends them.
fn wait(fleet: &Fleet, signals: &mut Signals, limit: Option<Duration>) -> Option<Woken> {
    let until = limit.map(|limit| {
        clock::now_ns().saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
    });
    let mut told = vec![false; fleet.vms().len()];
    loop {
        for (vm, told) in fleet.vms().iter().zip(&mut told) {
            if vm.has_ended() && !*told {
                *told = true;
                tell(vm);
            }
        }
        if told.iter().all(|told| *told) {
            return None;
        }
        let left = until.map(|at| Duration::from_nanos(at.saturating_sub(clock::now_ns())));
        if left == Some(Duration::ZERO) {
            return Some(Woken::TimeOut);
        }
        if fleet.wait(left) == Woken::Signal && signals.came() {
            return Some(Woken::Signal);
        }
    }
}

/// Says what a person should know of a VM's end, at once: others may go on for long.
pub(super) fn tell(vm: &VmShared) {
    let name = &vm.name;
    match vm.outcome() {
        Some(Outcome::Crashed(crash)) => {
            let outcome = Outcome::to_string(vm.outcome().unwrap_or(&Outcome::Interrupted));
            eprintln!("siesta: {name}: {outcome}");
            for line in crash.registers.lines() {
                eprintln!("  {line}");
            }
            for line in crash.apic.lines() {
                eprintln!("  {line}");
            }
            eprintln!("  last exits, oldest first:");
            for line in crash.trail.lines() {
                eprintln!("    {line}");
            }
        }
        Some(outcome @ Outcome::HostError(_)) => eprintln!("siesta: {name}: {outcome}"),
        Some(outcome) => tracing::info!("{name}: {outcome}"),
        None => {}
    }
}

/// What each VM did, for those who want to know.
fn figures(fleet: &Fleet) {
    for vm in fleet.vms() {
        for vcpu in fleet.vcpus_of(vm) {
            let stats = &vcpu.stats;
            let [exits, timer, served] = [&stats.exits, &stats.timer_interrupts, &stats.served]
                .map(|counter| counter.load(Ordering::Relaxed));
            tracing::info!(
                "{}: vCPU {}: {exits} exits, {timer} timer interrupts, {served} served by others",
                vm.name,
                vcpu.index
            );
        }
        let (msrs, addresses) = (vm.faults.msrs(), vm.faults.addresses());
        tracing::info!("{}: {msrs} unknown MSRs, {addresses} absent devices", vm.name);
    }
}

/// The first status that is not 0, in VM order.
fn report(fleet: &Fleet) -> u8 {
    let outcomes = || fleet.vms().iter().filter_map(|vm| vm.outcome());
    for (what, cut) in [
        ("ended by --timeout", outcomes().filter(|o| matches!(o, Outcome::TimedOut)).count()),
        ("interrupted", outcomes().filter(|o| matches!(o, Outcome::Interrupted)).count()),
    ] {
        match cut {
            0 => {}
            1 => eprintln!("siesta: {what}"),
            n => eprintln!("siesta: {what}, {n} VMs still running"),
        }
    }
    outcomes().map(Outcome::status).find(|status| *status != 0).unwrap_or(super::OK)
}
