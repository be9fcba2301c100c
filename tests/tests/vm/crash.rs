//! Guests that do what cannot be done: one VM ends with a message, the others go on.

use siesta_tests::{image, needs_kvm};

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
    let ended = image("hello", "fault=ud", &[]).expect(4);
    assert!(ended.stderr.contains("vCPU 0"), "{ended:#?}");
}

#[test]
fn crashed_vm_leaves_the_others_running() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("serial");
    let path = path.to_str().expect("a plain name");
    // The same command line for all: each VM crashes or not by what it is told over nothing but
    // its number, so two processes would prove nothing. A crash after the others' work would not
    // either: all tick for a second, then all crash in turn, and each has its full count.
    let more = ["--count", "4", "--serial", path];
    let ended = image("tick", "hz=100 secs=1 fault=triple", &more).expect(4);
    for vm in 0..4 {
        let text = std::fs::read_to_string(format!("{path}.{vm}")).expect("a file");
        assert!(text.contains("ticks="), "vm{vm}: {text}");
        assert!(ended.stderr.contains(&format!("vm{vm}: vCPU 0")), "{ended:#?}");
    }
}
