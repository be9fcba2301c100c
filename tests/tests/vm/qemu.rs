//! The images are ordinary guests: QEMU's microvm boots the same files.

use std::process::{Command, Stdio};

use siesta_tests::{Running, figures, needs_kvm};

pub(super) const QEMU: &str = "qemu-system-x86_64";

/// Whether QEMU can be run here; `REQUIRE_QEMU=1` makes its absence a failure.
pub(super) fn qemu(test: &str) -> bool {
    let version = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    if version.is_ok_and(|status| status.success()) {
        return true;
    }
    let required = std::env::var("REQUIRE_QEMU").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: REQUIRE_QEMU=1, but there is no {QEMU}");
    eprintln!("{test}: skipped: no {QEMU}");
    false
}

fn boot(image: &str, cmdline: &str, cpus: u32) -> siesta_tests::Ended {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join(image);
    let elf = guest_images::find(image).expect("an image").elf;
    std::fs::write(&kernel, elf).expect("a file");
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", "kvm,kernel-irqchip=on", "-M", "microvm"])
        .args(["-cpu", "qemu64,+x2apic,+tsc-deadline", "-m", "64", "-smp", &cpus.to_string()])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-append", cmdline])
        .arg("-kernel")
        .arg(&kernel);
    Running::start(command).wait()
}

#[test]
fn qemu_boots_hello_unchanged() {
    needs_kvm!();
    if !qemu("qemu_boots_hello_unchanged") {
        return;
    }
    let ended = boot("hello", "exit=16", 1).expect(33);
    assert!(ended.stdout.contains("hello"), "{ended:#?}");
}

#[test]
fn qemu_boots_tick_unchanged() {
    needs_kvm!();
    if !qemu("qemu_boots_tick_unchanged") {
        return;
    }
    for (cmdline, cpus) in [
        ("hz=100 secs=1 mode=deadline exit=0", 1),
        ("hz=100 secs=1 mode=oneshot exit=0", 1),
        ("hz=100 secs=1 mode=periodic exit=0 cpus=4", 4),
    ] {
        let ended = boot("tick", cmdline, cpus).expect(1);
        let ticks = figures(&ended.stdout, "ticks");
        assert_eq!(ticks.len(), cpus as usize, "{ended:#?}");
        assert!(ticks.iter().all(|t| (100.0..=150.0).contains(t)), "{ended:#?}");
    }
}
