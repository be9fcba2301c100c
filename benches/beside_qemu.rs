//! What a tick costs in mode `kernel`, beside QEMU's microvm with KVM's interrupt controllers: shows
//! that the baseline of the density benchmark is a fair one.
//!
//! The same image, one VM a process, both sides in turns:
//!
//! ```text
//! cargo bench -p siesta-benches --bench beside_qemu -- --vms 16 --secs 5 --repeat 5
//! ```
//!
//! Owns the processes it starts and ends them. CPU time is that of all threads of all processes
//! (`/proc/PID/task/TID/schedstat`) between two moments while all guests tick.

#![allow(clippy::disallowed_methods)] // a benchmark measures time

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

const QEMU: &str = "qemu-system-x86_64";
const HZ: u64 = 100;
/// Until all guests tick.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Parser)]
struct Options {
    /// VMs of each side, one a process
    #[arg(long, default_value_t = 16)]
    vms: u64,
    /// Length of a measured interval
    #[arg(long, default_value_t = 5)]
    secs: u64,
    /// How often each side is measured; they take turns
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// Children that end with this value.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Processes {
    fn start(vms: u64, command: impl Fn(&str) -> Command) -> std::io::Result<Self> {
        let mut processes = Processes(Vec::new());
        for vm in 0..vms {
            // Phases that are spread without a pattern, the same for both sides.
            let phase = vm * 6_180_339 % (1_000_000_000 / HZ);
            let mut command = command(&format!("hz={HZ} phase={phase}"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            processes.0.push(command.spawn()?);
        }
        Ok(processes)
    }

    /// CPU time so far, in nanoseconds; `None` if one of them has ended.
    fn cpu_ns(&self) -> Option<u64> {
        let of = |child: &Child| {
            let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
            tasks.flatten().map(|task| schedstat(&task.path())).sum::<Option<u64>>()
        };
        self.0.iter().map(of).sum()
    }
}

fn schedstat(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
}

/// CPU time of a tick, in microseconds.
fn measure(options: &Options, command: impl Fn(&str) -> Command) -> Result<f64, String> {
    let processes = Processes::start(options.vms, command).map_err(|e| e.to_string())?;
    std::thread::sleep(SETTLE);
    let ended = || "a VM has ended; try it by hand".to_owned();
    let (began, before) = (Instant::now(), processes.cpu_ns().ok_or_else(ended)?);
    std::thread::sleep(Duration::from_secs(options.secs));
    let (passed, after) = (began.elapsed(), processes.cpu_ns().ok_or_else(ended)?);
    let ticks = options.vms as f64 * HZ as f64 * passed.as_secs_f64();
    Ok(after.saturating_sub(before) as f64 / 1e3 / ticks)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn run(options: &Options) -> Result<(), String> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "-p", "vmm", "--bin", "siesta"])
        .status()
        .map_err(|e| format!("cannot build siesta: {e}"))?;
    if !status.success() {
        return Err("cannot build siesta".into());
    }
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let kernel = folder.path().join("tick.elf");
    let image = guest_images::find("tick").ok_or("the image is not embedded")?;
    fs::write(&kernel, image.elf).map_err(|e| e.to_string())?;
    let siesta = |cmdline: &str| {
        let mut command =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/siesta"));
        command.args(["run", "--timers", "kernel", "--memory", "64M", "--cmdline", cmdline]);
        command.arg("--kernel").arg(&kernel);
        command
    };
    let qemu = |cmdline: &str| {
        let mut command = Command::new(QEMU);
        command
            .args(["-accel", "kvm,kernel-irqchip=on", "-M", "microvm", "-m", "64"])
            .args(["-cpu", "qemu64,+x2apic,+tsc-deadline", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-monitor", "none"])
            .args(["-append", cmdline])
            .arg("-kernel")
            .arg(&kernel);
        command
    };
    let mut results = [Vec::new(), Vec::new()];
    for turn in 1..=options.repeat {
        let ours = measure(options, siesta)?;
        let theirs = measure(options, qemu)?;
        println!("{turn}: siesta {ours:.1} us a tick, qemu {theirs:.1}");
        results[0].push(ours);
        results[1].push(theirs);
    }
    let [ours, theirs] = results.map(|values| {
        let spread = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
        let (least, most) = (spread(f64::min), spread(f64::max));
        (median(&values), least.unwrap_or(f64::NAN), most.unwrap_or(f64::NAN))
    });
    println!("siesta, --timers kernel: {:.1} ({:.1}..{:.1}) us a tick", ours.0, ours.1, ours.2);
    println!(
        "qemu, kernel-irqchip=on: {:.1} ({:.1}..{:.1}) us a tick",
        theirs.0, theirs.1, theirs.2
    );
    println!("ratio of the medians: {:.2}", ours.0 / theirs.0);
    Ok(())
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.vms == 0 || options.secs == 0 || options.repeat == 0 {
        eprintln!("beside_qemu: --vms, --secs and --repeat must be at least 1");
        return ExitCode::from(2);
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("beside_qemu: {why} ({QEMU} and /dev/kvm are needed)");
            ExitCode::FAILURE
        }
    }
}
