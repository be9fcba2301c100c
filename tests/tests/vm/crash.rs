//! Guests that do what cannot be done: one VM ends with a message, the others go on.

use siesta_tests::{guest, image, needs_kvm};
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing, Woken};
use vmm::vm::Outcome;

#[test]
fn faults_end_the_vm_with_vcpu_rip_registers_and_last_exits() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        for (fault, cause) in [("triple", "triple fault"), ("unmapped", "unmapped address 0x")] {
            let ended = image("hello", &format!("fault={fault}"), &["--timers", mode]).expect(4);
            for part in ["vm0", "vCPU 0", "RIP 0x", cause, "rax", "last exits"] {
                assert!(ended.stderr.contains(part), "'{part}' is missing: {ended:#?}");
            }
        }
    }
}

#[test]
fn instruction_that_cannot_be_executed_ends_the_vm() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        let ended = image("hello", "fault=ud", &["--timers", mode]).expect(4);
        for part in ["vm0", "vCPU 0", "RIP 0x"] {
            assert!(ended.stderr.contains(part), "'{part}' is missing: {ended:#?}");
        }
    }
}

/// In one process and one hierarchy: guests that crash at once beside guests that tick for a second.
#[test]
fn crashed_vm_leaves_the_others_running() {
    needs_kvm!();
    for mode in [TimerMode::Migrate, TimerMode::Thread, TimerMode::Kernel] {
        let host = vmm::kvm::open().expect("KVM");
        let facts = vmm::probe::run(&host).expect("a probed host");
        let policy = Policy::unmeasured(mode);
        let vms = vec![
            guest("hello", "fault=triple"),
            guest("tick", "hz=100 secs=1"),
            guest("hello", "fault=unmapped"),
            guest("tick", "hz=100 secs=1"),
        ];
        let config = FleetConfig { policy, sharing: Sharing::Host, vms };
        let fleet = Fleet::launch(&host, &facts, config).expect("a fleet");
        while !fleet.vms().iter().all(|vm| vm.has_ended()) {
            let woken = fleet.wait(Some(siesta_tests::PATIENCE));
            assert_eq!(woken, Woken::VmEnded, "a guest hangs");
        }
        let outcomes: Vec<_> = fleet.vms().iter().map(|vm| vm.outcome()).collect();
        for (index, outcome) in outcomes.iter().enumerate() {
            let right = match index % 2 {
                0 => matches!(outcome, Some(Outcome::Crashed(_))),
                _ => matches!(outcome, Some(Outcome::PowerOff)),
            };
            assert!(right, "vm{index} in {mode:?}: {outcome:?}");
        }
    }
}
