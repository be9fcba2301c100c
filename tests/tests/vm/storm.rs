//! Guests that do one wrong thing very often, beside one that wants its ticks.
//!
//! The image `storm` checks by itself that its timers and interrupts work afterwards. Owns the
//! neighbour, and what is asked of the host's process: memory and CPU time.

#![allow(clippy::disallowed_methods)] // a test has to know how long a storm took

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use siesta_tests::{PATIENCE, Running, command, figures, guest, needs_kvm};
use vmm::assemble::VmConfig;
use vmm::console::{Sink, capture::Capture};
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing, Woken};
use vmm::vm::Outcome;

/// How much more memory a storm of ten times the length may take, in KiB: stacks and buffers that are
/// touched later or earlier, and nothing for each blow.
const MORE_KIB: u64 = 1024;

fn captured(image: &str, cmdline: &str, cpus: u32) -> ((VmConfig, Sink), Arc<Capture>) {
    let capture = Arc::new(Capture::new(0));
    let (config, _) = guest(image, cmdline);
    ((VmConfig { cpus, ..config }, Sink::Memory(Arc::clone(&capture))), capture)
}

fn text(capture: &Capture) -> String {
    String::from_utf8_lossy(&capture.take().tail).into_owned()
}

/// A storm in one VM; another one gets all its ticks meanwhile, none early, and none by as much late
/// as if it had to wait for the storm's end.
fn beside_a_neighbour(storm: &str, apic: &str, mode: TimerMode, cpus: u32) {
    let host = vmm::kvm::open().expect("KVM");
    let facts = vmm::probe::run(&host).expect("a probed host");
    let policy = Policy::unmeasured(mode);
    let cmdline = format!("storm={storm} apic={apic} cpus={cpus}");
    let (stormy, said) = captured("storm", &cmdline, cpus);
    let (neighbour, ticked) = captured("tick", "hz=100 secs=1", 1);
    let began = Instant::now();
    let vms = vec![stormy, neighbour];
    let config = FleetConfig { policy, sharing: Sharing::Host, vms };
    let mut fleet = Fleet::launch(&host, &facts, config).expect("a fleet");
    let mut lasted = None;
    loop {
        if fleet.vms()[0].has_ended() {
            lasted.get_or_insert_with(|| began.elapsed());
        }
        if fleet.vms().iter().all(|vm| vm.has_ended()) {
            break;
        }
        let woken = fleet.wait(Some(PATIENCE));
        assert_eq!(woken, Woken::VmEnded, "{cmdline} in {mode:?}: a guest stands still");
    }
    let ended: Vec<_> = fleet.vms().iter().map(|vm| format!("{:?}", vm.outcome())).collect();
    let well = matches!(fleet.vms()[0].outcome(), Some(Outcome::Exit(0)));
    // The consoles are carried to their ends here.
    fleet.stop(|| Outcome::Interrupted);
    let (said, ticked) = (text(&said), text(&ticked));
    let all = format!("{cmdline} in {mode:?}: {ended:#?}\n{said}\n{ticked}");
    assert!(well && said.contains("storm: ok") && !said.contains("FAIL"), "{all}");
    let ticks = figures(&ticked, "ticks");
    assert!(matches!(ticks[..], [ticks] if (100.0..=150.0).contains(&ticks)), "{all}");
    assert_eq!(figures(&ticked, "early"), [0.0], "{all}");
    let late = figures(&ticked, "max_us")[0];
    let lasted = lasted.expect("the storm has ended").as_micros() as f64;
    assert!(late < lasted / 2.0, "{late} us late, in {lasted} us\n{all}");
}

/// CPU time of all threads of a process, in nanoseconds.
fn cpu_ns(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let of_thread = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(of_thread).sum()
}

/// The most memory that the process ever had, in KiB.
fn peak_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    // A process that has just ended has no memory.
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What a process was seen to use.
#[derive(Debug)]
struct Used {
    peak_kib: u64,
    /// CPU time until the storm was over, and in the halt behind it.
    storm_ns: u64,
    halt_ns: u64,
}

fn used(storm: &str, mode: &str, cpus: u32, count: u32) -> Used {
    let folder = tempfile::tempdir().expect("a folder");
    let serial = folder.path().join("serial");
    let serial = serial.to_str().expect("a plain name");
    let cmdline = format!("storm={storm} cpus={cpus} count={count} idle=500");
    let cpus = cpus.to_string();
    let child = Running::start(command(&[
        "run",
        "--image",
        "storm",
        "--cmdline",
        &cmdline,
        "--cpus",
        &cpus,
        "--timers",
        mode,
        "--serial",
        serial,
    ]));
    // Looks until the guest has said this, and answers the most that it saw before: of a process that
    // has ended there is nothing to see.
    let until = |line: &str| {
        let began = Instant::now();
        let mut seen = (0, 0);
        loop {
            let text = fs::read_to_string(serial).unwrap_or_default();
            if text.contains(line) {
                return seen;
            }
            let ended = text.contains("failed=") || text.contains("FAILED");
            assert!(!ended && began.elapsed() < PATIENCE, "no '{line}' in {text}");
            seen = (cpu_ns(child.pid()).max(seen.0), peak_kib(child.pid()).max(seen.1));
            thread::sleep(Duration::from_millis(2));
        }
    };
    until("storm: halts");
    let storm_ns = cpu_ns(child.pid());
    let (all_ns, peak_kib) = until("storm: is back");
    let halt_ns = all_ns.saturating_sub(storm_ns);
    let _ = child.wait().expect(1);
    Used { peak_kib, storm_ns, halt_ns }
}

/// Ten times the storm takes no more memory; and what the guest did is over when it is over.
fn leaves_nothing_behind(storm: &str, mode: &str, cpus: u32, count: u32) {
    let short = used(storm, mode, cpus, count);
    let long = used(storm, mode, cpus, 10 * count);
    let all = format!("{storm} in mode {mode}: {short:?} {long:?}");
    assert!(short.peak_kib > 0 && long.peak_kib > 0, "{all}");
    assert!(long.peak_kib < short.peak_kib + MORE_KIB, "{all}");
    assert!(long.storm_ns > short.storm_ns, "ten times as much is more: {all}");
    assert!(long.halt_ns < long.storm_ns / 10, "{all}");
}

/// Of each kind: numbers of vCPUs, and a count of which ten times as many take about a second.
macro_rules! storms {
    ($($name:ident $storm:literal: $cpus:expr, $count:expr;)*) => {$(
        mod $name {
            use super::*;

            /// The number of vCPUs decides in which mode the APICs are, so that both have both.
            fn beside(mode: TimerMode, apics: [&str; 2]) {
                needs_kvm!();
                for cpus in $cpus {
                    let apic = apics[usize::from(cpus > 2)];
                    beside_a_neighbour($storm, apic, mode, cpus);
                }
            }

            #[test]
            fn beside_a_neighbour_in_mode_thread() {
                beside(TimerMode::Thread, ["x2apic", "xapic"]);
            }

            #[test]
            fn beside_a_neighbour_in_mode_migrate() {
                beside(TimerMode::Migrate, ["xapic", "x2apic"]);
            }

            #[test]
            fn leaves_no_memory_and_no_load_behind() {
                needs_kvm!();
                for mode in ["thread", "migrate"] {
                    leaves_nothing_behind($storm, mode, 2, $count);
                }
            }
        }
    )*};
}

storms! {
    init "init": [2, 4], 500;
    nmi "nmi": [1, 2, 4], 500;
    own "self": [1, 2], 5000;
    modes "modes": [1, 2, 4], 200;
    nobody "nobody": [1, 2, 4], 1000;
    mmio "mmio": [1, 4], 1000;
    lines "lines": [1, 2, 4], 300;
}
