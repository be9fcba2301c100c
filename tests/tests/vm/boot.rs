//! Every image boots, in every timer mode, with every way of arming the APIC timer.

use siesta_tests::{Ended, figures, image, needs_kvm, siesta};

const MODES: [&str; 3] = ["migrate", "thread", "kernel"];

#[test]
fn hello_says_hello_and_powers_off_in_every_mode() {
    needs_kvm!();
    for mode in MODES {
        let ended = image("hello", "greeting", &["--timers", mode]).expect(0);
        assert!(ended.stdout.contains("hello"), "{ended:#?}");
        assert!(ended.stderr.is_empty(), "{ended:#?}");
    }
}

/// Writes `!` to the serial port and 16 to the debug-exit port: 32-bit code.
const CODE32: [u8; 16] = [
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, // mov dx, 0x3f8; mov al, '!'; out dx, al
    0xb0, 16, 0xe6, 0xf4, // mov al, 16; out 0xf4, al
    0xf4, 0xeb, 0xfd, 0x90, 0x90, // hlt; jmp back
];

#[test]
fn elf32_kernel_with_a_pvh_note_boots_in_every_mode() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kernel32.elf");
    std::fs::write(&path, siesta_tests::elf32(&CODE32, true)).expect("a file");
    let path = path.to_str().expect("a plain name");
    for mode in MODES {
        let ended = siesta(&["run", "--kernel", path, "--timers", mode]).expect(33);
        assert_eq!(ended.stdout, "!", "{ended:#?}");
    }
}

#[test]
fn paravirtual_eoi_is_used_and_can_be_left_alone() {
    needs_kvm!();
    for mode in MODES {
        for eoi in ["eoi=apic", ""] {
            ticked(image("tick", &format!("hz=100 secs=1 {eoi}"), &["--timers", mode]), 1, 100.0);
        }
    }
}

#[test]
fn debug_exit_value_becomes_an_odd_status() {
    needs_kvm!();
    for mode in MODES {
        for (value, status) in [("0", 1), ("16", 33), ("127", 255)] {
            let _ = image("hello", &format!("exit={value}"), &["--timers", mode]).expect(status);
        }
    }
}

/// All ticks came, none early. How late they may be depends on the machine, so it is not asserted.
#[track_caller]
fn ticked(ended: Ended, cpus: usize, expected: f64) {
    let ended = ended.expect(0);
    let ticks = figures(&ended.stdout, "ticks");
    assert_eq!(ticks.len(), cpus, "one line a vCPU: {ended:#?}");
    for ticks in ticks {
        // A guest that was kept from its CPU may catch up on several before it sees its end.
        assert!((expected..=1.5 * expected).contains(&ticks), "{ended:#?}");
    }
    // A periodic tick that was more than a period late looks to the guest like the one after it, and
    // the one after it like an early one.
    let early: f64 = figures(&ended.stdout, "early").iter().sum();
    let lost: f64 = figures(&ended.stdout, "lost").iter().sum();
    assert!(early <= lost, "{ended:#?}");
}

fn tick_in(mode: &str, cpus: u32) {
    let count = cpus.to_string();
    for apic in ["x2apic", "xapic"] {
        for timer in ["deadline", "oneshot", "periodic"] {
            let cmdline = format!("hz=100 secs=1 mode={timer} apic={apic} cpus={cpus}");
            ticked(
                image("tick", &cmdline, &["--timers", mode, "--cpus", &count]),
                cpus as usize,
                100.0,
            );
        }
    }
}

#[test]
fn tick_gets_every_tick_in_mode_migrate() {
    needs_kvm!();
    tick_in("migrate", 1);
}

#[test]
fn tick_gets_every_tick_in_mode_thread() {
    needs_kvm!();
    tick_in("thread", 1);
}

#[test]
fn tick_gets_every_tick_in_mode_kernel() {
    needs_kvm!();
    tick_in("kernel", 1);
}

#[test]
fn four_vcpus_tick_in_mode_migrate() {
    needs_kvm!();
    tick_in("migrate", 4);
}

#[test]
fn four_vcpus_tick_in_mode_thread() {
    needs_kvm!();
    tick_in("thread", 4);
}

#[test]
fn four_vcpus_tick_in_mode_kernel() {
    needs_kvm!();
    tick_in("kernel", 4);
}

#[test]
fn guest_finds_its_own_way_when_the_deadline_mode_is_not_offered() {
    needs_kvm!();
    for mode in MODES {
        let more = ["--timers", mode, "--apic-timer", "oneshot"];
        ticked(image("tick", "hz=100 secs=1 mode=auto", &more), 1, 100.0);
    }
}

#[test]
fn tick_stays_on_its_grid_with_slack_and_with_the_smallest_budget() {
    needs_kvm!();
    for more in [
        ["--timer-slack", "1ms", "--count", "4"],
        ["--borrow-share", "1", "--count", "4"],
        ["--borrow-limit", "1ns", "--count", "4"],
        ["--share", "vm", "--count", "4"],
    ] {
        ticked(image("tick", "hz=100 secs=1", &more), 4, 100.0);
    }
}

#[test]
fn busy_computes_until_its_time_is_over() {
    needs_kvm!();
    for mode in MODES {
        let _ = image("busy", "secs=1", &["--timers", mode]).expect(0);
    }
}

#[test]
fn halt_sleeps_and_wakes_by_the_book() {
    needs_kvm!();
    for mode in MODES {
        for cpus in ["1", "2"] {
            let cmdline = format!("cpus={cpus}");
            let ended = image("halt", &cmdline, &["--timers", mode, "--cpus", cpus]).expect(0);
            assert!(ended.stdout.contains("halt: ok"), "{ended:#?}");
        }
    }
}
