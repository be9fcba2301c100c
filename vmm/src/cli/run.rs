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
use super::watch::{End, Plan, Watch};
use super::{Failure, images, values};
use crate::assemble::VmConfig;
use crate::boot;
use crate::console::stdio::{Stdin, Wishes};
use crate::console::terminal::{self, Raw};
use crate::console::{Sink, socket};
use crate::fleet::{Fleet, FleetConfig, OnReboot};
use crate::gdb::stream::{Address, Listener};
use crate::signals::{self, Signals};
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
    /// Where the serial port is: 'stdio' is standard output and input, 'none' nowhere; with --count
    /// FILE.0, FILE.1, ... [default: standard output, and on a terminal what is typed]
    #[arg(long, value_name = "stdio|FILE|unix:SOCKET|none")]
    serial: Option<PathBuf>,
    /// End the VMs after this time, with status 6
    #[arg(long, value_parser = values::time_limit, value_name = "SECS")]
    timeout: Option<Duration>,
    /// How long guests that look at their power buttons may take to power off after SIGTERM
    #[arg(long, default_value = "10", value_parser = values::time_limit, value_name = "SECS")]
    shutdown_timeout: Duration,
    /// What a guest's reset of its machine leads to
    #[arg(long, value_enum, default_value = "exit", value_name = "exit|restart")]
    on_reboot: OnReboot,
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

/// `--serial stdio`.
const STDIO: &str = "stdio";
/// `--serial none`.
const NONE: &str = "none";

/// What standard input is to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// Nothing: it is not read.
    None,
    /// Its console, typed at.
    Terminal,
    /// Its serial port's other end.
    Other,
}

/// Takes in what ends the process or stops it. To be called before any thread is started.
fn take_signals(stdin: Input) -> io::Result<Signals> {
    let mut more = signals::not_ignored(&[libc::SIGHUP, libc::SIGQUIT]);
    if stdin == Input::Terminal {
        more.extend([libc::SIGTSTP, libc::SIGCONT]);
        terminal::is_never_stopped_by_it();
    }
    Signals::take_with(&more)
}

pub(super) fn run(device: &Path, arguments: &RunArguments) -> Result<u8, Failure> {
    // Before any thread exists, so that all inherit the mask.
    let stdin = arguments.stdin();
    let mut signals = take_signals(stdin).map_err(Failure::input)?;
    let (kernel, kernel_name) = arguments.source.load()?;
    let initrd = match &arguments.initrd {
        Some(path) => Some(boot::read_initrd(path).map_err(Failure::input)?.into()),
        None => None,
    };
    let (host, facts) = options::open_host(device)?;
    arguments.timer.tell(&[arguments.guest.timers], &facts);
    let cmdline = match &arguments.guest.cmdline {
        Some(cmdline) => cmdline.clone(),
        None => boot::usual_cmdline(&kernel).to_owned(),
    };
    let config = VmConfig {
        kernel,
        kernel_name,
        initrd,
        cmdline,
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
    let wishes = Arc::new(Wishes::new().map_err(Failure::input)?);
    let mut vms = Vec::new();
    for index in 0..arguments.count {
        let mut config = config.clone();
        if arguments.count > 1 {
            config.virtio = config.virtio.numbered(index).map_err(Failure::input)?;
        }
        vms.push((config, arguments.sink(index, stdin, &wishes)?));
    }
    // Unless it is needed once more: the VMs have their own files of the images.
    let again = match arguments.on_reboot {
        OnReboot::Restart if listener.is_some() => {
            let what =
                "a debugger stays with the VM that it was attached to; leave one of them out";
            return Err(Failure::input(format!("--on-reboot restart, --gdb: {what}")));
        }
        OnReboot::Restart => Some(config),
        OnReboot::Exit => None,
    };
    let mut policy = arguments.timer.policy(arguments.guest.timers, &facts);
    // A vCPU that is debugged is run by its own thread alone.
    policy.inline &= listener.is_none();
    // Before a guest says anything.
    let raw = match stdin {
        Input::Terminal => Some(Raw::enter().map_err(Failure::guest)?),
        Input::None | Input::Other => None,
    };
    if raw.is_some() && terminal::is_terminal(libc::STDERR_FILENO) {
        eprintln!("siesta: Ctrl-A X ends the VM, Ctrl-A H shows all keys");
    }
    let fleet = FleetConfig { policy, sharing: arguments.timer.share, vms };
    let mut fleet = Fleet::launch(&host, &facts, fleet).map_err(Failure::input)?;
    if let Some(listener) = listener {
        fleet.serve_debugger(0, listener).map_err(Failure::guest)?;
    }
    fleet.watch_signals(&signals).map_err(Failure::guest)?;
    fleet.watch_signals(&*wishes).map_err(Failure::guest)?;
    let watch = Watch {
        signals: &mut signals,
        wishes: &wishes,
        raw: raw.as_ref(),
        restart: again.as_ref().map(|config| Plan { host: &host, facts: &facts, config }),
        shutdown: arguments.shutdown_timeout,
        ends_at: None,
    };
    let ended_by = watch.wait(&mut fleet, arguments.timeout).map_err(Failure::guest)?;
    if ended_by == End::TimeOut {
        for vm in fleet.vms().iter().filter(|vm| !vm.has_ended()) {
            for vcpu in fleet.vcpus_of(vm) {
                tracing::info!("{}: {vcpu}", vm.name);
            }
        }
    }
    fleet.stop(|| match ended_by {
        End::TimeOut => Outcome::TimedOut,
        End::Quit => Outcome::Quit,
        End::Interrupted | End::All => Outcome::Interrupted,
    });
    figures(&fleet);
    // The console has said its last words by now.
    drop(raw);
    // One that was about to start again has not ended by itself.
    let cut = match ended_by {
        End::All => None,
        End::TimeOut => Some(Outcome::TimedOut),
        End::Quit => Some(Outcome::Quit),
        End::Interrupted => Some(Outcome::Interrupted),
    };
    Ok(report(&fleet, cut.as_ref().filter(|_| again.is_some())))
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

    /// What standard input is to the guest.
    fn stdin(&self) -> Input {
        let ours = terminal::is_ours();
        match &self.serial {
            Some(path) if path.as_os_str() != STDIO => Input::None,
            Some(_) if ours => Input::Terminal,
            // A terminal in the background is another process's.
            Some(_) if terminal::is_terminal(libc::STDIN_FILENO) => Input::None,
            Some(_) => Input::Other,
            // What is at the other end of a pipe may use the terminal itself, as a pager does.
            None if ours && self.count == 1 && terminal::is_terminal(libc::STDOUT_FILENO) => {
                Input::Terminal
            }
            None => Input::None,
        }
    }

    fn sink(&self, index: u32, stdin: Input, wishes: &Arc<Wishes>) -> Result<Sink, Failure> {
        if self.serial.as_ref().is_some_and(|path| path.as_os_str() == NONE) {
            return Ok(Sink::Null);
        }
        let stdio = self.serial.as_ref().is_none_or(|path| path.as_os_str() == STDIO);
        let path = match &self.serial {
            Some(path) if !stdio => path,
            Some(_) if self.count > 1 => {
                return Err(Failure::input(format!(
                    "--serial stdio is for one VM, and --count {} starts more; name a file or \
                     unix:SOCKET",
                    self.count
                )));
            }
            _ if stdin == Input::None => {
                let prefix = if self.count > 1 { format!("vm{index}: ") } else { String::new() };
                return Ok(Sink::Stdout(prefix));
            }
            _ => {
                let stdin = Stdin::open(Arc::clone(wishes)).map_err(Failure::input)?;
                return Ok(Sink::Stdio(stdin));
            }
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
        Some(outcome @ (Outcome::HostError(_) | Outcome::Panicked)) => {
            eprintln!("siesta: {name}: {outcome}");
        }
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

/// The first status that is not 0, in VM order. A reset counts as `for_reset`, if that is given.
fn report(fleet: &Fleet, for_reset: Option<&Outcome>) -> u8 {
    let outcomes = || {
        fleet.vms().iter().filter_map(|vm| match vm.outcome() {
            Some(Outcome::Reset) if for_reset.is_some() => for_reset,
            outcome => outcome,
        })
    };
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
