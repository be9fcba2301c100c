//! Several VMs in one process.

#![allow(clippy::disallowed_methods)] // a test has to know when guests stand still

use std::fs;
use std::time::{Duration, Instant};

use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing, Woken};
use vmm::vm::Outcome;

use siesta_tests::{PATIENCE, Running, command, figures, guest, image, needs_kvm};

#[test]
fn eight_vms_tick_at_once_in_every_mode() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        for share in ["host", "vm"] {
            let more = ["--timers", mode, "--count", "8", "--share", share];
            let ended = image("tick", "hz=100 secs=1", &more).expect(0);
            let ticks = figures(&ended.stdout, "ticks");
            assert_eq!(ticks.len(), 8, "{ended:#?}");
            assert!(ticks.iter().all(|t| (100.0..=150.0).contains(t)), "{ended:#?}");
            for vm in 0..8 {
                assert!(ended.stdout.contains(&format!("vm{vm}: ")), "{ended:#?}");
            }
        }
    }
}

#[test]
fn serial_files_are_one_for_each_vm() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("serial");
    let path = path.to_str().expect("a plain name");
    let ended = image("hello", "", &["--count", "3", "--serial", path]).expect(0);
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    for vm in 0..3 {
        let text = std::fs::read_to_string(format!("{path}.{vm}")).expect("a file");
        assert!(text.contains("hello"), "{text}");
    }
}

/// How often threads of a process gave their CPU up: those of vCPUs, and the controller's and the event
/// loop's, which have nothing to do with ticks.
fn switches(pid: i32) -> [u64; 2] {
    let mut sums = [0; 2];
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let status = read("status");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.map_or(0, |count| count.trim().parse().expect("a number"));
        match read("comm").trim_end() {
            "event-loop" => sums[1] += count,
            _ if task.file_name().to_str() == Some(&pid.to_string()) => sums[1] += count,
            name if name.contains('/') => sums[0] += count,
            _ => {}
        }
    }
    sums
}

#[test]
fn ticks_wake_neither_controller_nor_event_loop() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        let command = command(&[
            "run",
            "--image",
            "tick",
            "--cmdline",
            "hz=100",
            "--count",
            "4",
            "--timers",
            mode,
        ]);
        let process = Running::start(command);
        let began = Instant::now();
        let after = |least: u64| loop {
            let seen = switches(process.pid());
            if seen[0] >= least {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "{mode}: they do not tick: {seen:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let before = after(100);
        let then = after(before[0] + 400);
        let woken = then[1] - before[1];
        assert!(woken < 100, "{mode}: {woken} times in {} ticks", then[0] - before[0]);
        process.signal(libc::SIGINT);
        let _ = process.wait().expect(130);
    }
}

/// One guest ticks far more often than its host can serve, without end: its thread has something to
/// deliver at all times. The timers of the others fall to that thread, too.
#[test]
fn guest_that_floods_itself_with_ticks_does_not_stop_the_others() {
    needs_kvm!();
    for mode in [TimerMode::Migrate, TimerMode::Thread] {
        let host = vmm::kvm::open().expect("KVM");
        let facts = vmm::probe::run(&host).expect("a probed host");
        let policy = Policy { borrow_share_percent: 100, ..Policy::unmeasured(mode) };
        let vms = vec![
            guest("tick", "hz=50000"),
            guest("tick", "hz=100 secs=1"),
            guest("tick", "hz=100 secs=1 mode=oneshot"),
        ];
        let config = FleetConfig { policy, sharing: Sharing::Host, vms };
        let mut fleet = Fleet::launch(&host, &facts, config).expect("a fleet");
        while !fleet.vms()[1..].iter().all(|vm| vm.has_ended()) {
            let woken = fleet.wait(Some(siesta_tests::PATIENCE));
            assert_eq!(woken, Woken::VmEnded, "the others stand still in {mode:?}");
        }
        assert!(fleet.vms()[1..].iter().all(|vm| matches!(vm.outcome(), Some(Outcome::PowerOff))));
        assert!(!fleet.vms()[0].has_ended());
        fleet.stop(|| Outcome::Interrupted);
    }
}
