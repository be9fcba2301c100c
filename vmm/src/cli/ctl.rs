//! `siesta ctl`: asks a running `siesta serve`.
//!
//! Owns how answers are shown. Must not know how requests are carried out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::devices::DeviceOptions;
use super::options::LimitOptions;
use super::placement::PlacementOptions;
use super::{Failure, OK, values};
use crate::control::client::Client;
use crate::control::protocol::{BalloonSize, Isolate, Named, Request, Response, VmLine};
use crate::control::spec::{MOST, VmSpec};
use crate::control::stats::Stats;
use crate::cpu_features::CpuFeatures;
use crate::fleet::OnReboot;
use crate::kvm::LARGEST_VM;
use crate::placement::Placement;
use crate::virtio::disk::DiskConfig;
use crate::virtio::net::{Cable, NetConfig};
use crate::virtio::terminal::TerminalConfig;
use crate::virtio::vsock::VsockConfig;

/// Arguments of `siesta ctl`.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct CtlArguments {
    /// The socket of 'siesta serve'
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// Print the answer as it came, one line of JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Subcommand)]
enum Ask {
    /// The VMs there are, and the last ones that ended
    List,
    /// Start VMs
    Create(Box<CreateArguments>),
    /// Stop a VM's vCPUs until it is resumed
    Pause(Vm),
    /// Let a paused VM go on
    Resume(Vm),
    /// Press a VM's power button, and end it if it does not power off in time
    Shutdown(Vm),
    /// End a VM at once
    Stop(Vm),
    /// Keep vCPUs from serving others and from being served; those not named do both again
    Isolate {
        #[command(flatten)]
        vm: Vm,
        /// Numbers of vCPUs, as 0,2; none: no vCPU is isolated any more
        #[arg(long, value_delimiter = ',', value_name = "N,...")]
        vcpus: Vec<u32>,
    },
    /// Ask a VM to give this much of its memory back to the host, which it may do or not; 0 lets it have all
    Balloon {
        #[command(flatten)]
        vm: Vm,
        /// The size of the balloon: 64M, 2G; a plain number is MiB
        #[arg(value_name = "SIZE", value_parser = values::balloon_size)]
        size: u64,
    },
    /// Counters of the VMs and of the timer hierarchy
    Stats,
    /// End all VMs and the process
    Quit,
}

#[derive(Args)]
struct Vm {
    /// The VM's name
    #[arg(value_name = "NAME")]
    vm: String,
}

#[derive(Args)]
struct CreateArguments {
    /// Its name; with --count NAME-0, NAME-1, ... [default: vm and a number]
    #[arg(long)]
    name: Option<String>,
    /// An embedded kernel (see 'siesta images')
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    image: Option<String>,
    /// A kernel file, as seen from the running process
    #[arg(long, value_name = "FILE", required_unless_present = "image")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk, or module of a multiboot kernel
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line [default: nothing; for Linux: console=ttyS0 panic=-1 pci=off]
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// CPU features to add or to take away, by Linux's names: +rdrand,-avx2
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        value_name = "+X,-Y"
    )]
    cpu_features: CpuFeatures,
    /// vCPUs of each VM
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_VM)))]
    cpus: u32,
    /// Memory of each VM: 64M, 2G; a plain number is MiB
    #[arg(long, default_value = "64M", value_parser = values::memory_size, value_name = "SIZE")]
    memory: u64,
    /// How many VMs
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    count: u32,
    /// Where serial output goes [default: nowhere]
    #[arg(long, value_name = "FILE|unix:SOCKET|none")]
    serial: Option<String>,
    /// What a guest's reset of its machine leads to
    #[arg(long, value_enum, default_value = "exit", value_name = "exit|restart")]
    on_reboot: OnReboot,
    /// As --isolate all
    #[arg(long, conflicts_with = "isolate")]
    isolated: bool,
    #[command(flatten)]
    limits: LimitOptions,
    /// How much later than others' its timers may expire
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timer_slack: Option<Duration>,
    #[command(flatten)]
    place: PlacementOptions,
    #[command(flatten)]
    devices: DeviceOptions,
}

/// A duration as a description has it.
fn written(duration: Duration) -> String {
    format!("{}ns", duration.as_nanos())
}

/// The disk as another process finds it, which may have another working directory.
fn absolute(disk: &DiskConfig) -> DiskConfig {
    DiskConfig { path: absolute_path(&disk.path), ..disk.clone() }
}

fn absolute_path(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn absolute_net(net: &NetConfig) -> NetConfig {
    let cable = match &net.cable {
        Cable::Socket(path) => Cable::Socket(absolute_path(path)),
        other => other.clone(),
    };
    NetConfig { cable, ..net.clone() }
}

fn absolute_console(console: &TerminalConfig) -> TerminalConfig {
    match console {
        TerminalConfig::File(path) => TerminalConfig::File(absolute_path(path)),
        TerminalConfig::Socket(path) => TerminalConfig::Socket(absolute_path(path)),
        TerminalConfig::Stdout(prefix) => TerminalConfig::Stdout(prefix.clone()),
    }
}

impl From<&CreateArguments> for VmSpec {
    fn from(from: &CreateArguments) -> Self {
        let Placement { pin, sched, nice, numa, hugepages, isolate } = from.place.placement();
        VmSpec {
            name: from.name.clone(),
            image: from.image.clone(),
            // The running process may have another working directory.
            kernel: from
                .kernel
                .as_ref()
                .map(|path| std::path::absolute(path).unwrap_or(path.clone())),
            initrd: from
                .initrd
                .as_ref()
                .map(|path| std::path::absolute(path).unwrap_or(path.clone())),
            cmdline: from.cmdline.clone(),
            cpus: from.cpus,
            cpu_features: from.cpu_features.clone(),
            memory: from.memory,
            count: from.count,
            serial: from.serial.clone(),
            on_reboot: from.on_reboot,
            isolated: from.isolated,
            cpu_cap: from.limits.cpu_cap,
            served_share: from.limits.served_share,
            min_timer_period: from.limits.min_timer_period.map(written),
            timer_slack: from.timer_slack.map(written),
            isolate,
            pin,
            sched,
            nice,
            numa,
            hugepages,
            rng: from.devices.rng,
            disk: from.devices.disks.iter().map(absolute).collect(),
            net: from.devices.nets.iter().map(absolute_net).collect(),
            vsock: from
                .devices
                .vsock
                .as_ref()
                .map(|vsock| VsockConfig { path: absolute_path(&vsock.path), ..vsock.clone() }),
            virtio_console: from.devices.virtio_console.as_ref().map(absolute_console),
            balloon: from.devices.balloon,
        }
    }
}

impl From<&Ask> for Request {
    fn from(ask: &Ask) -> Self {
        let named = |vm: &Vm| Named { vm: vm.vm.clone() };
        match ask {
            Ask::List => Request::List,
            Ask::Create(create) => Request::Create(Box::new(create.as_ref().into())),
            Ask::Pause(vm) => Request::Pause(named(vm)),
            Ask::Resume(vm) => Request::Resume(named(vm)),
            Ask::Shutdown(vm) => Request::Shutdown(named(vm)),
            Ask::Stop(vm) => Request::Stop(named(vm)),
            Ask::Isolate { vm, vcpus } => {
                Request::Isolate(Isolate { vm: vm.vm.clone(), vcpus: vcpus.clone() })
            }
            Ask::Balloon { vm, size } => {
                Request::Balloon(BalloonSize { vm: vm.vm.clone(), size: *size })
            }
            Ask::Stats => Request::Stats,
            Ask::Quit => Request::Quit,
        }
    }
}

pub(super) fn ctl(arguments: &CtlArguments) -> Result<u8, Failure> {
    let mut client = Client::connect(&arguments.control)
        .map_err(|error| Failure::input(format!("--control {error}")))?;
    let response = client.ask(&(&arguments.ask).into()).map_err(Failure::guest)?;
    let text = match &response {
        Response::Error(what) => return Err(Failure::input(what)),
        _ if arguments.json => serde_json::to_string(&response).map_err(Failure::guest)? + "\n",
        Response::Done => String::new(),
        Response::Created(names) => names.join("\n") + "\n",
        Response::Vms(vms) => list(vms),
        Response::Stats(stats) => table(stats),
    };
    // A reader that closed the pipe has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(OK)
}

fn list(vms: &[VmLine]) -> String {
    let mut text = format!("{:<20} {:<8} {:>5} {:>9}\n", "VM", "STATE", "VCPUS", "MEMORY");
    for vm in vms {
        let state = format!("{:?}", vm.state).to_lowercase();
        let memory = format!("{} MiB", vm.memory >> 20);
        let line = format!("{:<20} {state:<8} {:>5} {memory:>9}  {}", vm.vm, vm.cpus, vm.outcome);
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn table(stats: &Stats) -> String {
    let mut text = format!(
        "timers {}, {} VMs, {} created, {} ended\n",
        stats.timers,
        stats.vms.len(),
        stats.created,
        stats.ended
    );
    for (level, counters) in stats.levels.iter().enumerate() {
        text += &format!(
            "level {level}: {} walks, {} passes, {} expiries\n",
            counters.walks, counters.passes, counters.expiries
        );
    }
    text += &format!(
        "{:<24} {:<9} {:>11} {:>11} {:>10} {:>9} {:>11} {:>11}\n",
        "VCPU", "STATE", "EXITS", "SERVED", "HANDED OFF", "KICKS", "LENT", "BORROWED"
    );
    for vm in &stats.vms {
        if let Some(balloon) = &vm.balloon {
            let (actual, target) = (balloon.actual >> 20, balloon.target >> 20);
            text += &format!("{:<24} balloon {actual} MiB of {target} MiB\n", vm.vm);
        }
        for (index, vcpu) in vm.vcpus.iter().enumerate() {
            let mark = if vcpu.isolated { "*" } else { "" };
            text += &format!(
                "{:<24} {:<9} {:>11} {:>11} {:>10} {:>9} {:>8} ms {:>8} ms\n",
                format!("{}/{index}{mark}", vm.vm),
                vcpu.state,
                vcpu.counters.exits,
                vcpu.counters.inline,
                vcpu.counters.handed_off,
                vcpu.counters.kicks,
                vcpu.counters.lent_ns / 1_000_000,
                vcpu.counters.served_ns / 1_000_000
            );
        }
    }
    text
}
