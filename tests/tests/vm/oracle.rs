//! The images that check a chapter of the interrupt hardware each, in Siesta's modes and in others'
//! controllers, line by line.
//!
//! A line is `ok NAME` or `FAIL NAME ...`. All must run through the same checks; Siesta must hold all
//! of them, an oracle all but those that [`DIFFERS`] lists.

use std::process::Command;

use siesta_tests::{Ended, Running, image, needs_kvm};

use super::oracle_tables::{DIFFERS, NOT_YET, Oracle, TIMED};
use super::qemu::{QEMU, qemu};

/// Runs of a guest of which only timed checks fail.
const TRIES: u32 = 4;

/// One `ok`, `FAIL` or `skipped` line.
#[derive(Debug)]
struct Line<'a> {
    word: &'a str,
    name: &'a str,
}

fn lines(ended: &Ended) -> Vec<Line<'_>> {
    let words = ended.stdout.lines().filter_map(|line| line.trim_end().split_once(' '));
    words
        .filter(|(word, _)| matches!(*word, "ok" | "FAIL" | "skipped"))
        .map(|(word, rest)| {
            let name = rest.split(' ').next().unwrap_or_default().trim_end_matches(':');
            Line { word, name }
        })
        .collect()
}

fn failed(ended: &Ended) -> Vec<&str> {
    lines(ended).iter().filter(|line| line.word == "FAIL").map(|line| line.name).collect()
}

/// The checks of both, less those of a group that one of them skipped.
fn compare(ours: &Ended, theirs: &Ended, who: &str) {
    let (a, b) = (lines(ours), lines(theirs));
    let both = || a.iter().chain(&b);
    let skipped: Vec<_> = both().filter(|line| line.word == "skipped").map(|l| l.name).collect();
    let names = |lines: &[Line<'_>]| -> Vec<String> {
        let kept = lines.iter().filter(|line| !skipped.iter().any(|s| line.name.starts_with(s)));
        kept.map(|line| line.name.to_owned()).collect()
    };
    assert_eq!(names(&a), names(&b), "{who} makes other checks\n{ours:#?}\n{theirs:#?}");
}

/// The guest ended by itself, and said so in its status too.
#[track_caller]
fn ended_well(ended: &Ended) {
    let status = if failed(ended).is_empty() { 1 } else { 5 };
    assert_eq!(ended.status, status, "{ended:#?}");
    assert!(ended.stdout.contains("held="), "the image did not come to its end: {ended:#?}");
}

/// What `run` gives, again where a busy host may be why a check fails.
fn settled(image: &str, run: impl Fn() -> Ended, expected: impl Fn(&str) -> bool) -> Ended {
    let mut ended = run();
    for _ in 1..TRIES {
        let late =
            |name: &&str| TIMED.iter().any(|timed| timed.0 == image && name.starts_with(timed.1));
        let wrong: Vec<_> = failed(&ended).into_iter().filter(|name| !expected(name)).collect();
        if wrong.is_empty() || !wrong.iter().all(late) {
            break;
        }
        eprintln!("{image}: once more, as these may have come late: {wrong:?}");
        ended = run();
    }
    ended
}

fn run_siesta(name: &str, cmdline: &str, mode: &str, cpus: u32) -> Ended {
    image(name, cmdline, &["--timers", mode, "--cpus", &cpus.to_string()])
}

fn run_qemu(name: &str, cmdline: &str, cpus: u32, irqchip: &str) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join(name);
    std::fs::write(&kernel, guest_images::find(name).expect("an image").elf).expect("a file");
    let mut command = Command::new(QEMU);
    command
        .args(["-accel", &format!("kvm,kernel-irqchip={irqchip}")])
        .args(["-M", "microvm,pic=on,pit=on,rtc=on,acpi=off"])
        .args([
            "-cpu",
            "qemu64,+x2apic,+tsc-deadline,+tsc-adjust",
            "-m",
            "64",
            "-smp",
            &cpus.to_string(),
        ])
        .args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .args(["-append", cmdline])
        .arg("-kernel")
        .arg(&kernel);
    Running::start(command).wait()
}

/// Siesta's own controllers: every check holds, but for what [`NOT_YET`] lists. Returns the output
/// unless the whole image is listed.
fn hold(name: &str, cmdline: &str, mode: &str, cpus: u32) -> Option<Ended> {
    let listed: Vec<_> =
        NOT_YET.iter().filter(|l| l.image == name && l.modes.contains(&mode)).collect();
    let may_fail = |check: &str| listed.iter().any(|l| check.starts_with(l.check));
    let differs = |check: &str| mode == "kernel" && may_differ(Oracle::Kernel, name, check);
    let expected = |check: &str| may_fail(check) || differs(check);
    let ended = settled(name, || run_siesta(name, cmdline, mode, cpus), expected);
    if let Some(entry) = listed.iter().find(|entry| entry.check.is_empty()) {
        assert_ne!(
            ended.status, 1,
            "{name} in mode {mode}: take it from NOT_YET ({})",
            entry.reason
        );
        return None;
    }
    ended_well(&ended);
    let wrong: Vec<_> = failed(&ended).into_iter().filter(|check| !expected(check)).collect();
    assert!(wrong.is_empty(), "{name} ({cmdline}) in mode {mode}: {wrong:?}\n{ended:#?}");
    for entry in &listed {
        let needed = failed(&ended).iter().any(|check| check.starts_with(entry.check));
        assert!(needed, "{name} in mode {mode}: take it from NOT_YET ({})", entry.reason);
    }
    Some(ended)
}

fn may_differ(oracle: Oracle, name: &str, check: &str) -> bool {
    DIFFERS.iter().any(|d| d.who.contains(&oracle) && d.image == name && check.starts_with(d.check))
}

fn ask_qemu(name: &str, cmdline: &str, cpus: u32, oracle: Oracle) -> Ended {
    let irqchip = if oracle == Oracle::QemuKvm { "on" } else { "split" };
    let known = |check: &str| may_differ(oracle, name, check);
    let ended = settled(name, || run_qemu(name, cmdline, cpus, irqchip), known);
    ended_well(&ended);
    let wrong: Vec<_> = failed(&ended).into_iter().filter(|check| !known(check)).collect();
    assert!(wrong.is_empty(), "{name} ({cmdline}) in {oracle:?}: {wrong:?}\n{ended:#?}");
    ended
}

/// Compares one image, with one command line and number of vCPUs, in all modes and oracles.
fn agree(name: &str, apic: &str, cpus: u32, oracles: &[Oracle]) {
    let cmdline = format!("apic={apic} cpus={cpus}");
    let runs: Vec<_> = ["kernel", "thread", "migrate"]
        .into_iter()
        .filter_map(|mode| hold(name, &cmdline, mode, cpus).map(|ended| (mode, ended)))
        .collect();
    for pair in runs.windows(2) {
        compare(&pair[1].1, &pair[0].1, pair[0].0);
    }
    if qemu("oracle") {
        for &oracle in oracles {
            let theirs = ask_qemu(name, &cmdline, cpus, oracle);
            if let Some((_, ours)) = runs.first() {
                compare(ours, &theirs, &format!("{oracle:?}"));
            }
        }
    }
}

const LOCAL: &[Oracle] = &[Oracle::QemuKvm];
const BOARD: &[Oracle] = &[Oracle::QemuKvm, Oracle::QemuSplit];

#[test]
fn local_apic_keeps_its_modes_priorities_and_timer() {
    needs_kvm!();
    agree("apic-modes", "xapic", 1, LOCAL);
    agree("apic-modes", "x2apic", 1, LOCAL);
}

#[test]
fn every_kind_of_ipi_reaches_whom_it_names() {
    needs_kvm!();
    for apic in ["xapic", "x2apic"] {
        for cpus in [1, 2, 8] {
            agree("ipis", apic, cpus, LOCAL);
        }
    }
}

#[test]
fn nmi_and_halt_go_by_the_book() {
    needs_kvm!();
    for apic in ["xapic", "x2apic"] {
        for cpus in [1, 2] {
            agree("nmi", apic, cpus, LOCAL);
        }
    }
}

#[test]
fn cpus_start_stop_and_start_again() {
    needs_kvm!();
    for apic in ["xapic", "x2apic"] {
        for cpus in [1, 2, 8] {
            agree("smp-start", apic, cpus, LOCAL);
        }
    }
}

#[test]
fn x2apic_has_its_registers_and_no_others() {
    needs_kvm!();
    for cpus in [1, 2, 8] {
        agree("x2apic", "x2apic", cpus, LOCAL);
    }
}

#[test]
fn paravirtual_eoi_ends_what_is_alone_in_service() {
    needs_kvm!();
    agree("pv-eoi", "xapic", 1, LOCAL);
    agree("pv-eoi", "x2apic", 1, LOCAL);
}

#[test]
fn pit_counts_and_interrupts_in_its_modes() {
    needs_kvm!();
    agree("pit", "xapic", 1, BOARD);
    agree("pit", "x2apic", 1, BOARD);
}

#[test]
fn pic_masks_orders_and_ends_interrupts() {
    needs_kvm!();
    agree("pic", "xapic", 1, BOARD);
    agree("pic", "x2apic", 1, BOARD);
}

#[test]
fn ioapic_sends_edges_and_levels_where_its_entries_say() {
    needs_kvm!();
    for apic in ["xapic", "x2apic"] {
        for cpus in [1, 2, 8] {
            agree("ioapic", apic, cpus, BOARD);
        }
    }
}

#[test]
fn rtc_keeps_time_and_interrupts() {
    needs_kvm!();
    agree("rtc", "x2apic", 1, LOCAL);
}

fn clock(apic: &str) {
    for cpus in [1, 2, 8] {
        agree("clock", apic, cpus, LOCAL);
    }
}

#[test]
fn deadlines_and_kvmclock_keep_up_with_a_tsc_that_moves() {
    needs_kvm!();
    clock("x2apic");
}

#[test]
fn deadlines_and_kvmclock_keep_up_with_a_tsc_that_moves_in_xapic_mode() {
    needs_kvm!();
    clock("xapic");
}

/// The image cannot tell a host whose guests read the host's counter from a fault of Siesta's.
#[test]
fn tsc_moves_wherever_the_host_lets_it() {
    needs_kvm!();
    let host = vmm::kvm::open().expect("KVM");
    let facts = vmm::probe::run(&host).expect("a probed host");
    for mode in ["thread", "migrate"] {
        let ended = run_siesta("clock", "", mode, 1);
        let skipped =
            lines(&ended).iter().any(|line| line.word == "skipped" && line.name == "tsc-");
        assert_eq!(skipped, !facts.tsc_moves, "{facts:?} in mode {mode}: {ended:#?}");
    }
}
