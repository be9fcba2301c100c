//! Time limits, Ctrl-C, and what is left behind.

use std::thread;
use std::time::Duration;

use siesta_tests::{Running, command, needs_kvm, siesta};

#[test]
fn time_limit_ends_every_kind_of_guest_with_status_6() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        for cmdline in ["fault=hang", "fault=cli-hlt"] {
            let arguments = [
                "run",
                "--image",
                "hello",
                "--cmdline",
                cmdline,
                "--timers",
                mode,
                "--timeout",
                "0.5",
            ];
            let ended = siesta(&arguments).expect(6);
            assert!(ended.stderr.contains("--timeout"), "{ended:#?}");
        }
        let arguments = [
            "run",
            "--image",
            "tick",
            "--cpus",
            "4",
            "--cmdline",
            "cpus=4",
            "--timers",
            mode,
            "--timeout",
            "0.5",
            "--count",
            "3",
        ];
        let _ = siesta(&arguments).expect(6);
    }
}

#[test]
fn interrupt_ends_all_vms_with_status_130() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let guests = ["run", "--image", "tick", "--timers", mode, "--count", "4"];
            let running = Running::start(command(&guests));
            thread::sleep(Duration::from_millis(400));
            running.signal(signal);
            let ended = running.wait().expect(130);
            assert!(ended.stderr.contains("interrupted"), "{ended:#?}");
        }
    }
}

#[test]
fn interrupt_ends_a_guest_that_computes_beside_idle_ones() {
    needs_kvm!();
    let running = Running::start(command(&["run", "--image", "busy", "--count", "2"]));
    thread::sleep(Duration::from_millis(400));
    running.signal(libc::SIGINT);
    let _ = running.wait().expect(130);
}
