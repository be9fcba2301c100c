//! Bad input: one line on standard error that names the thing and the fix, status 2.

use std::fs;
use std::path::Path;

use siesta_tests::{Ended, needs_kvm, siesta};

#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) -> Ended {
    let ended = siesta(arguments).expect(2);
    ended.one_line(parts);
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    ended
}

#[test]
fn no_kvm_says_what_can_be_done() {
    let arguments = ["--kvm-device", "/nonexistent/kvm", "run", "--image", "hello"];
    refused(&arguments, &["/nonexistent/kvm", "modprobe", "nested"]);
    refused(
        &["--kvm-device", "/dev/null", "run", "--image", "hello"],
        &["/dev/null", "not the KVM device"],
    );
}

#[test]
fn no_permission_on_kvm_names_the_group() {
    // Only root can become somebody without a right to it.
    use std::os::unix::fs::MetadataExt;
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !root || !Path::new("/dev/kvm").exists() {
        eprintln!("skipped: needs root and /dev/kvm");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let mode = fs::metadata("/dev/kvm").expect("it exists").permissions().mode();
    if mode & 0o006 != 0 {
        eprintln!("skipped: everybody may use /dev/kvm here");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
        .expect("a folder of ours");
    let copy = folder.path().join("siesta");
    fs::copy(siesta_tests::binary(), &copy).expect("a copy");
    let mut command = std::process::Command::new(&copy);
    command.args(["run", "--image", "hello"]).uid(65534).gid(65534);
    let ended = siesta_tests::Running::start(command).wait().expect(2);
    ended.one_line(&["/dev/kvm", "permission", "kvm"]);
}

#[test]
fn kernel_files_that_are_none() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.to_str().expect("a plain name").to_owned()
    };
    let good = guest_images::find("hello").expect("an image").elf;
    let narrow = siesta_tests::elf32(&[0xf4], false);
    let mut arm = good.to_vec();
    arm[18] = 0xb7; // EM_AARCH64
    let with = |at: usize, mark: &[u8]| {
        let mut bytes = vec![0; 4096];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        bytes
    };
    let cases = [
        (folder.path().join("missing").to_str().expect("plain").to_owned(), "missing"),
        (folder.path().to_str().expect("plain").to_owned(), "directory"),
        (file("empty", b""), "empty"),
        (
            file("text", b"#!/bin/sh\necho this is no kernel, but long enough to hold a header\n"),
            "ELF",
        ),
        (file("short", &good[..40]), "cut short"),
        (file("cut", &good[..good.len() / 3]), "cut short"),
        (file("narrow", &narrow), "32-bit ELF file without a PVH note"),
        (file("arm", &arm), "is for aarch64, not for x86"),
        (file("vmlinux.gz", b"\x1f\x8b\x08\0\0\0\0\0"), "gzip -dc FILE > vmlinux"),
        (file("vmlinux.zst", b"\x28\xb5\x2f\xfd\0\0\0\0"), "zstd -dc FILE > vmlinux"),
        (file("vmlinux.xz", b"\xfd7zXZ\0\0\0"), "xz -dc FILE > vmlinux"),
        (file("Image", &with(0x38, b"ARM\x64")), "is a kernel for aarch64"),
        (file("zImage", &with(0x24, b"\x18\x28\x6f\x01")), "is a kernel for arm"),
        (file("efi", &with(0, b"MZ")), "EFI application"),
        (file("initrd.img", b"07070100000000"), "--initrd"),
    ];
    for (path, part) in cases {
        let ended = refused(&["run", "--kernel", &path], &[&path]);
        assert!(ended.stderr.to_lowercase().contains(&part.to_lowercase()), "'{part}': {ended:#?}");
    }
}

#[test]
fn memory_that_cannot_be() {
    needs_kvm!();
    for (size, part) in [
        ("0", "memory"),
        ("x", "--memory"),
        ("1M", "memory"),
        ("2M", "memory"),
        ("8000000G", "memory"),
        ("99999999999G", "--memory"),
    ] {
        refused(&["run", "--image", "hello", "--memory", size], &[part]);
    }
}

#[test]
fn numbers_of_vcpus_and_vms_that_cannot_be() {
    for (option, value) in [
        ("--cpus", "0"),
        ("--cpus", "1025"),
        ("--cpus", "x"),
        ("--cpus", "-1"),
        ("--count", "0"),
        ("--timeout", "0"),
        ("--timeout", "x"),
        ("--borrow-share", "-1"),
        ("--borrow-share", "101"),
        ("--timer-slack", "1"),
        ("--borrow-limit", "x"),
    ] {
        refused(&["run", "--image", "hello", option, value], &[option, value]);
    }
}

#[test]
fn wrong_names_come_with_the_closest_valid_one() {
    refused(&["run", "--image", "helo"], &["--image", "helo", "hello"]);
    refused(&["run", "--image", "windows"], &["windows", "tick", "busy"]);
    refused(
        &["run", "--image", "hello", "--timers", "migrat"],
        &["--timers", "migrat", "'migrate'"],
    );
    refused(&["run", "--image", "hello", "--timrs", "migrate"], &["--timrs", "--timers"]);
    refused(&["rum", "--image", "hello"], &["rum", "'run'"]);
    refused(&["run", "--image", "hello", "--log-level", "loud"], &["--log-level", "loud"]);
    refused(&["run", "--image", "hello", "--apic-timer", "onshot"], &["oneshot"]);
    refused(&["bench", "density", "--modes", "kernel,thred"], &["thred", "thread"]);
}

#[test]
fn benchmarks_that_make_no_sense() {
    let density = |arguments: &[&str], parts: &[&str]| {
        refused(&[&["bench", "density"], arguments].concat(), parts);
    };
    density(&["--hz", "400:64,100"], &["--hz", "'100' has no number of guests", "400:64,100:64"]);
    density(&["--hz", "100:1,100:2"], &["100 Hz is named twice"]);
    density(&["--hz", "400:4,100:8", "--vms", "5"], &["--vms 5", "--hz", "12"]);
    density(
        &["--tick", "deadline", "--apic-timer", "oneshot"],
        &["--tick deadline", "--apic-timer"],
    );
    density(&["--tick", "periodc"], &["periodc", "'periodic'"]);
    density(&["--find-max"], &["--find-max", "--lateness-goal", "500us"]);
    let goal = ["--find-max", "--lateness-goal", "1ms"];
    density(&[&goal[..], &["--repeat", "2"]].concat(), &["--find-max", "--repeat"]);
    density(
        &[&goal[..], &["--sweep-borrow-share", "5"]].concat(),
        &["--find-max", "--sweep-borrow"],
    );
    let sweep = ["--sweep-borrow-share", "5"];
    density(&[&sweep[..], &["--borrow-share", "5"]].concat(), &["--sweep-borrow-share", "exclude"]);
    density(&["--sweep-borrow-share", "101"], &["--sweep-borrow-share", "101"]);
    if siesta_tests::kvm("benchmarks_that_make_no_sense") {
        density(&["--hz", "5001", "--tick", "periodic"], &["--tick periodic", "5000 Hz"]);
        density(&["--find-max", "--lateness-goal", "0"], &["--lateness-goal above 0"]);
        density(&["--sweep-borrow-share", "5,5"], &["share 5 is named twice"]);
        density(&[&sweep[..], &["--busy", "0"]].concat(), &["--sweep-borrow-share", "--busy"]);
        density(&[&sweep[..], &["--modes", "kernel"]].concat(), &["mode migrate", "--modes"]);
    }
}

#[test]
fn neither_or_both_kernel_and_image() {
    refused(&["run"], &["--kernel", "--image"]);
    refused(&["run", "--kernel", "x", "--image", "hello"], &["--kernel", "--image"]);
    refused(&[], &["run", "bench"]);
}

#[test]
fn serial_file_that_cannot_be_written() {
    needs_kvm!();
    refused(
        &["run", "--image", "hello", "--serial", "/nonexistent/serial"],
        &["--serial", "/nonexistent/serial"],
    );
}

#[test]
fn json_file_that_cannot_be_written_is_said_before_the_run() {
    needs_kvm!();
    let arguments = ["bench", "density", "--json", "/nonexistent/density.json"];
    refused(&arguments, &["/nonexistent/density.json"]);
}

#[test]
fn command_line_that_is_too_long() {
    needs_kvm!();
    let long = "x".repeat(5000);
    refused(&["run", "--image", "hello", "--cmdline", &long], &["command line"]);
}

#[test]
fn initrd_that_is_missing_or_too_large() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("initrd");
    let path = path.to_str().expect("a plain name");
    let arguments = ["run", "--image", "hello", "--initrd", path];
    refused(&arguments, &["initrd", path, "no such file"]);
    fs::write(path, vec![1; 64 << 20]).expect("a file");
    refused(&arguments, &["initrd has 67108864 bytes", "--memory"]);
}

#[test]
fn more_vms_than_descriptors_name_the_limit() {
    needs_kvm!();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"ulimit -n 60; exec "$0" run --image tick --count 100"#]);
    shell.arg(siesta_tests::binary());
    let ended = siesta_tests::Running::start(shell).wait().expect(2);
    ended.one_line(&["open files", "limit is 60", "ulimit -n"]);
}

#[test]
fn more_memory_than_the_host_can_keep_account_of() {
    needs_kvm!();
    let arguments = ["run", "--image", "tick", "--memory", "65536G"];
    refused(&arguments, &["--memory", "beside the other VMs'", "use fewer VMs or less memory"]);
}
