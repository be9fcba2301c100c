//! Several VMs in one process.

use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing, Woken};
use vmm::vm::Outcome;

use siesta_tests::{figures, guest, image, needs_kvm};

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
