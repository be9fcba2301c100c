//! Everything at once, for a while: guests that check their own ticks while others come and go, are
//! paused, isolated, stopped in mid-run by a tracer, and the host is busy with something else.
//!
//! `SOAK_SECS` (8) and `SOAK_SEED` (the clock) say how long and what.

#![allow(clippy::disallowed_methods)] // a soak has to know what time it is

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest_images::report::{REPORT_BYTES, Report, report_address};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use siesta_tests::tracer::StoppedThread;
use siesta_tests::{PATIENCE, Running, guest, needs_kvm};
use vm_memory::{Bytes, GuestAddress};
use vmm::assemble::VmConfig;
use vmm::console::Sink;
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing};
use vmm::limits::Limits;
use vmm::vm::Outcome;

const CHECKING: u32 = 64;
const ROOM: u32 = 16;
const INNER: &str = "SIESTA_SOAK_INNER";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// The threads of vCPUs in a process, by their names.
fn vcpu_threads(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let of_vcpu = |comm: &str| comm.starts_with("vm") && comm.contains('/');
    tasks
        .flatten()
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|c| of_vcpu(&c)))
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

#[test]
fn no_tick_is_lost_early_or_doubled_whatever_happens_around() {
    needs_kvm!();
    let (secs, seed) = (number("SOAK_SECS", 8), number("SOAK_SEED", vmm::clock::now_ns()));
    if std::env::var_os(INNER).is_some() {
        return soak(secs, seed);
    }
    println!("SOAK_SECS={secs} SOAK_SEED={seed}");
    // The tracer has to be another process.
    let mut inner = std::process::Command::new(std::env::current_exe().expect("this program"));
    inner.args(["soak::no_tick_is_lost_early_or_doubled_whatever_happens_around", "--exact"]);
    inner.args(["--nocapture"]).env(INNER, "1");
    inner.env("SOAK_SECS", secs.to_string()).env("SOAK_SEED", seed.to_string());
    let inner = Running::start(inner);
    let mut rng = StdRng::seed_from_u64(seed);
    let until = Instant::now() + Duration::from_secs(secs);
    let mut stops = 0;
    while Instant::now() < until {
        let threads = vcpu_threads(inner.pid());
        if !threads.is_empty() {
            let tid = threads[rng.random_range(0..threads.len())];
            // It may have ended just now.
            if let Ok(stopped) = StoppedThread::stop(tid) {
                stops += 1;
                std::thread::sleep(Duration::from_millis(rng.random_range(1..40)));
                drop(stopped);
            }
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(1..100)));
    }
    let ended = inner.wait_for(Duration::from_secs(2 * secs) + PATIENCE);
    assert_eq!(ended.status, 0, "{stops} stops; {ended:#?}");
    assert!(stops > secs, "{stops} stops in {secs} s");
}

fn soak(secs: u64, seed: u64) {
    let mut rng = StdRng::seed_from_u64(!seed);
    let hz = |index: u32| [100u64, 50, 250, 20][index as usize % 4];
    let checking = |index: u32| {
        let mode = ["deadline", "oneshot"][index as usize / 4 % 2];
        let (config, sink) = guest("tick", &format!("hz={} secs={secs} mode={mode}", hz(index)));
        let slack_ns = [0, 0, 500_000, 3_000_000][index as usize / 8 % 4];
        let limits = Limits { slack_ns, ..Limits::default() };
        (VmConfig { limits, ..config }, sink)
    };
    let host = vmm::kvm::open().expect("KVM");
    let facts = vmm::probe::run(&host).expect("a probed host");
    let policy = Policy { slack_ns: seed % 3 * 200_000, ..Policy::unmeasured(TimerMode::Migrate) };
    let vms = (0..CHECKING).map(checking).collect();
    let config = FleetConfig { policy, sharing: Sharing::Host, vms };
    let mut fleet =
        Fleet::launch_with_room(&host, &facts, config, CHECKING + ROOM).expect("a fleet");
    let stop = AtomicBool::new(false);
    let loaded = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if !loaded.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            stir(&mut fleet, &mut rng, &loaded, Duration::from_secs(secs), |fleet, vm| {
                fleet.create(&host, &facts, &vm.0, vm.1, None).expect("there is room")
            });
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    for index in 0..CHECKING {
        let vm = fleet.vm(index).expect("a VM");
        assert!(matches!(vm.outcome(), Some(Outcome::PowerOff)), "{index}: {:?}", vm.outcome());
        let mut page = [0; REPORT_BYTES];
        vm.memory.read_slice(&mut page, GuestAddress(report_address(0))).expect("it is memory");
        let report = Report::decode(&page).expect("a report");
        assert_eq!((report.ticks, report.early), (hz(index) * secs, 0), "{index}");
    }
}

/// Until all that check have ended, and for at least `least`.
fn stir(
    fleet: &mut Fleet,
    rng: &mut StdRng,
    loaded: &AtomicBool,
    least: Duration,
    mut create: impl FnMut(&mut Fleet, (VmConfig, Sink)) -> u32,
) {
    let began = Instant::now();
    let mut others: Vec<u32> = Vec::new();
    let ended = |fleet: &Fleet| fleet.vms()[..CHECKING as usize].iter().all(|vm| vm.has_ended());
    while !ended(fleet) {
        assert!(began.elapsed() < 2 * least + PATIENCE, "a tick was lost: {}", standing(fleet));
        let any = rng.random_range(0..CHECKING);
        match rng.random_range(0..8) {
            0 | 1 if others.len() < ROOM as usize / 2 => {
                let kinds = [
                    guest("tick", "hz=1000"),
                    guest("tick", "hz=20000"),
                    guest("busy", ""),
                    guest("hello", "fault=triple"),
                ];
                let kind = rng.random_range(0..kinds.len());
                let vm = kinds.into_iter().nth(kind).expect("in range");
                others.push(create(fleet, vm));
            }
            0..3 => {
                if let Some(vm) = others.pop() {
                    fleet.remove(vm, || Outcome::Interrupted).expect("it was created");
                }
            }
            3 | 4 => {
                if fleet.pause(any) {
                    std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
                    let _ = fleet.resume(any);
                }
            }
            5 => {
                let isolated = rng.random_bool(0.5);
                let _ = fleet.isolate(any, |_| isolated);
            }
            6 => loaded.store(rng.random_bool(0.3), Ordering::Relaxed),
            _ => std::thread::sleep(Duration::from_millis(rng.random_range(0..30))),
        }
    }
    for vm in others {
        fleet.remove(vm, || Outcome::Interrupted).expect("it was created");
    }
}

fn standing(fleet: &Fleet) -> String {
    let running = fleet.vms().iter().filter(|vm| !vm.has_ended());
    running.flat_map(|vm| fleet.vcpus_of(vm).map(|vcpu| format!("{}: {vcpu}\n", vm.name))).collect()
}
