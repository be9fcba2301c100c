//! What a VM may ask of the host, and that its neighbours have the rest.

#![allow(clippy::disallowed_methods)] // a test has to know when a guest stands still

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use guest_images::report::{REPORT_BYTES, Report, report_address};
use siesta_tests::{PATIENCE, command, guest, needs_kvm, siesta};
use vm_memory::{Bytes, GuestAddress};
use vmm::assemble::VmConfig;
use vmm::console::Sink;
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing};
use vmm::limits::Limits;
use vmm::vcpu::Vcpu;
use vmm::vm::Outcome;

fn limited((config, sink): (VmConfig, Sink), limits: Limits) -> (VmConfig, Sink) {
    (VmConfig { limits, ..config }, sink)
}

fn fleet(policy: Policy, vms: Vec<(VmConfig, Sink)>) -> Fleet {
    let host = vmm::kvm::open().expect("KVM");
    let facts = vmm::probe::run(&host).expect("a probed host");
    let config = FleetConfig { policy, sharing: Sharing::Host, vms };
    Fleet::launch(&host, &facts, config).expect("a fleet")
}

fn report(fleet: &Fleet, id: u32) -> Option<Report> {
    let mut page = [0; REPORT_BYTES];
    let vm = fleet.vm(id).expect("a VM");
    vm.memory.read_slice(&mut page, GuestAddress(report_address(0))).expect("it is memory");
    Report::decode(&page)
}

fn ticks(fleet: &Fleet, id: u32) -> u64 {
    report(fleet, id).map_or(0, |report| report.ticks)
}

fn progress(fleet: &Fleet, id: u32) -> u64 {
    report(fleet, id).map_or(0, |report| report.progress)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// CPU time of a thread of this process, in ns.
fn cpu_time(tid: i32) -> u64 {
    let path = format!("/proc/self/task/{tid}/schedstat");
    let text = std::fs::read_to_string(path).expect("a thread");
    text.split(' ').next().expect("three figures").parse().expect("a figure")
}

#[test]
fn capped_vm_gets_its_share_and_can_be_paused_and_stopped_meanwhile() {
    needs_kvm!();
    for mode in [TimerMode::Migrate, TimerMode::Thread, TimerMode::Kernel] {
        let cap = Limits { cpu_cap_percent: Some(10), ..Limits::default() };
        let vms = vec![limited(guest("busy", ""), cap), guest("tick", "hz=50")];
        let mut fleet = fleet(Policy::unmeasured(mode), vms);
        until("it computes", || progress(&fleet, 0) > 0);
        // What may be used at once is gone by then.
        std::thread::sleep(Duration::from_millis(300));
        let tid = fleet.vcpus_of(&fleet.vms()[0]).next().expect("a vCPU").thread.tid();
        let (before, began) = ((cpu_time(tid), progress(&fleet, 0)), Instant::now());
        std::thread::sleep(Duration::from_millis(1500));
        let used = (cpu_time(tid) - before.0) as f64 / began.elapsed().as_nanos() as f64;
        assert!(used < 0.2, "{mode:?}: it may use 0.1 of a CPU and uses {used}");
        assert!(progress(&fleet, 0) > before.1, "{mode:?}: it stands still");
        let throttled = |vcpu: &Vcpu| vcpu.stats.throttled.load(Ordering::Relaxed);
        assert!(fleet.vcpus_of(&fleet.vms()[0]).map(throttled).sum::<u64>() > 0, "{mode:?}");
        assert!(fleet.pause(0) && fleet.resume(0), "{mode:?}");
        let seen = ticks(&fleet, 1);
        until("the neighbour ticks", || ticks(&fleet, 1) > seen + 10);
        fleet.remove(0, || Outcome::Interrupted).expect("a VM");
        fleet.stop(|| Outcome::Interrupted);
    }
}

/// How many of a guest's 1000 ticks a second the busy neighbour's thread serves.
fn served_share(limits: Limits) -> f64 {
    let policy = Policy {
        borrow_share_percent: 100,
        // Whatever a loaded host makes of it, which stops threads for long.
        lateness_goal_ns: 10_000_000_000,
        borrow_limit_ns: 1_000_000_000,
        ..Policy::unmeasured(TimerMode::Migrate)
    };
    let vms = vec![limited(guest("tick", "hz=1000"), limits), guest("busy", "")];
    let mut fleet = fleet(policy, vms);
    until("it ticks", || ticks(&fleet, 0) > 300);
    let vm = fleet.vms()[1].clone();
    let inline = |fleet: &Fleet| {
        fleet.vcpus_of(&vm).map(|vcpu| vcpu.stats.inline.load(Ordering::Relaxed)).sum::<u64>()
    };
    let before = (ticks(&fleet, 0), inline(&fleet));
    until("it goes on", || ticks(&fleet, 0) > before.0 + 1000);
    let after = (ticks(&fleet, 0), inline(&fleet));
    assert_eq!(report(&fleet, 0).expect("it ticks").early, 0);
    fleet.stop(|| Outcome::Interrupted);
    (after.1 - before.1) as f64 / (after.0 - before.0) as f64
}

#[test]
fn guest_whose_timer_fires_too_often_or_that_takes_too_long_is_left_to_its_own_thread() {
    needs_kvm!();
    let generous =
        Limits { min_timer_period_ns: 10_000, served_share_percent: 100, ..Limits::default() };
    let inline = served_share(generous);
    // A guest that is behind, as on a loaded host, takes many ticks without a halt.
    assert!(inline > 0.02, "{inline} of the ticks are served by the neighbour");
    let often = Limits { min_timer_period_ns: 20_000_000, ..generous };
    let share = served_share(often);
    assert!(share < inline / 2.0, "timers too often: {share}, without limits {inline}");
    let dear = Limits { served_share_percent: 1, ..generous };
    let share = served_share(dear);
    assert!(share < inline / 2.0, "more than 1 % of a CPU: {share}, without limits {inline}");
}

/// The half of the ticks that is served in time is served within this, in cycles.
fn median(report: &Report) -> usize {
    let mut left = report.ticks.div_ceil(2);
    report
        .histogram
        .iter()
        .position(|&count| {
            left = left.saturating_sub(count);
            left == 0
        })
        .expect("it has ticked")
}

#[test]
fn slack_of_one_vm_makes_its_ticks_late_never_early_and_no_others() {
    needs_kvm!();
    for mode in [TimerMode::Migrate, TimerMode::Thread] {
        let slack = Limits { slack_ns: 6_000_000, ..Limits::default() };
        let vms = vec![
            limited(guest("tick", "hz=100 secs=1 mode=deadline phase=123456"), slack),
            guest("tick", "hz=100 secs=1 mode=deadline phase=654321"),
        ];
        let fleet = fleet(Policy::unmeasured(mode), vms);
        until("they end", || fleet.vms().iter().all(|vm| vm.has_ended()));
        let [slow, exact] = [0, 1].map(|id| report(&fleet, id).expect("it has ended"));
        for report in [&slow, &exact] {
            assert_eq!((report.ticks, report.early), (100, 0), "{mode:?}");
        }
        assert!(median(&slow) > median(&exact), "{mode:?}");
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    needs_kvm!();
    for (option, value) in [
        ("--cpu-cap", "0"),
        ("--cpu-cap", "much"),
        ("--served-share", "101"),
        ("--min-timer-period", "10ns"),
        ("--min-timer-period", "200"),
    ] {
        let ended = siesta(&["run", "--image", "hello", option, value]);
        assert_eq!(ended.status, 2, "{ended:#?}");
        ended.one_line(&[option, value]);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control");
    let config = folder.path().join("hosts.toml");
    for (line, parts) in [
        ("cpu-cap = 0", ["cpu-cap 0", "between 1"]),
        ("served-share = 0", ["served-share 0", "between 1"]),
        ("min-timer-period = '5s'", ["min-timer-period '5s'", "between 1us and 1s"]),
        ("timer-slack = '1'", ["timer-slack '1'", "unit"]),
    ] {
        std::fs::write(&config, format!("[[vm]]\nimage = 'tick'\n{line}\n")).expect("a file");
        let mut serve = command(&["serve"]);
        serve.arg("--control").arg(&socket).arg("--config").arg(&config);
        let ended = siesta_tests::Running::start(serve).wait();
        assert_eq!(ended.status, 2, "{ended:#?}");
        ended.one_line(&parts);
    }
}
