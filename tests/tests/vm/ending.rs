//! Time limits, Ctrl-C, and what is left behind.

use std::thread;
use std::time::Duration;

use siesta_tests::{Running, command, elf32, needs_kvm, siesta};

/// To the boot processor itself, whose physical ID is 0. Execution would go on with a debug exit.
const INIT_OF_THE_BOOT_PROCESSOR: [u8; 24] = [
    0xc7, 0x05, 0x10, 0x03, 0xe0, 0xfe, 0, 0, 0, 0, // mov dword [0xfee00310], 0
    0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0, 0x45, 0, 0, // mov dword [0xfee00300], 0x4500
    0xe6, 0xf4, // out 0xf4, al
    0xeb, 0xfe, // jmp $
];

/// SDM vol. 3A, 9.4.3: it starts at the reset vector. In mode `kernel` KVM finds nothing there.
#[test]
fn init_of_the_boot_processor_is_a_reset() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("init.elf");
    std::fs::write(&kernel, elf32(&INIT_OF_THE_BOOT_PROCESSOR, true)).expect("a file");
    let kernel = kernel.to_str().expect("a plain name");
    for mode in ["migrate", "thread"] {
        let arguments = ["run", "--kernel", kernel, "--timers", mode, "--timeout", "60"];
        let _ = siesta(&arguments).expect(0);
    }
}

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
