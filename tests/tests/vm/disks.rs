//! Disks and other virtio devices, from outside: files that cannot be used, locks, and that a VM ends
//! with them as without.

use std::fs;
use std::path::{Path, PathBuf};

use siesta_tests::{needs_kvm, siesta};

use crate::control::serve;

fn disk(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file");
    path
}

#[test]
fn files_that_are_no_disks_are_refused_in_one_line() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("plain").to_owned();
    disk(folder.path(), "odd", &[0; 1000]);
    disk(folder.path(), "empty", &[]);
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
    for (argument, parts) in [
        (at("missing"), ["no such file", "truncate"]),
        (at("odd,rw"), ["no such file", "',ro'"]),
        (at("odd"), ["1000 bytes are not a multiple of 512", "1024"]),
        (at("empty"), ["is empty", "truncate"]),
        (at("socket"), ["neither a regular file", "block device"]),
        (at(""), ["neither a regular file", "block device"]),
        (",ro".into(), ["--disk", "a path is missing"]),
    ] {
        let ended = siesta(&["run", "--image", "hello", "--disk", &argument]).expect(2);
        ended.one_line(&parts);
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
    let path = disk(folder.path(), "good", &[0; 512]);
    let good = format!("{},ro", path.to_str().expect("plain"));
    let many = [["--disk", good.as_str()]; 16].concat();
    let ended = siesta(&[&["run", "--image", "hello"], &many[..]].concat()).expect(2);
    ended.one_line(&["16 virtio devices", "15"]);
}

#[test]
fn guest_that_ignores_its_devices_ends_as_one_without() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = disk(folder.path(), "disk", &[7; 4096]);
    let text = path.to_str().expect("plain");
    for mode in ["migrate", "thread", "kernel"] {
        let devices = ["--rng", "--disk", text, "--timers", mode];
        let with = siesta(&[&["run", "--image", "hello"], &devices[..]].concat()).expect(0);
        let without = siesta(&["run", "--image", "hello", "--timers", mode]).expect(0);
        assert_eq!((with.stderr, with.stdout.len()), (without.stderr, without.stdout.len()));
    }
    assert_eq!(fs::read(&path).expect("it is there"), [7; 4096]);
}

#[test]
fn disk_in_use_is_refused_until_its_vm_is_gone() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = disk(folder.path(), "disk", &[0; 4096]);
    let text = path.to_str().expect("plain");
    let served = serve(&[]);
    let create = |name: &str, disk: &str| {
        served.ctl(&["create", "--image", "tick", "--name", name, "--rng", "--disk", disk])
    };
    let _ = create("a", text).expect(0);
    let _ = served.ctl(&["pause", "a"]).expect(0);
    let read_only = format!("{text},ro");
    for other in [text, &read_only] {
        create("b", other).expect(2).one_line(&[text, "in use by another VM", "',ro'"]);
        siesta(&["run", "--image", "hello", "--disk", other])
            .expect(2)
            .one_line(&[text, "in use by another VM"]);
    }
    let _ = served.ctl(&["resume", "a"]).expect(0);
    let _ = served.ctl(&["stop", "a"]).expect(0);
    for reader in ["c", "d"] {
        let _ = create(reader, &read_only).expect(0);
    }
    create("e", text).expect(2).one_line(&["in use by another VM"]);
    for reader in ["c", "d"] {
        let _ = served.ctl(&["stop", reader]).expect(0);
    }
    let _ = create("e", text).expect(0);
    served.quit();
}

/// Where the image writes, in bytes.
const WRITTEN: std::ops::Range<usize> = 1024..2048;

#[test]
fn guest_uses_its_devices_by_interrupts_in_every_mode() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    for (mode, options) in [("migrate", ""), ("thread", ",direct"), ("kernel", "")] {
        let path = disk(folder.path(), mode, &[7; 16 << 10]);
        let disk = format!("{}{options}", path.to_str().expect("plain"));
        let devices = ["--disk", disk.as_str(), "--rng", "--timers", mode, "--timeout", "100"];
        let ended = siesta(&[&["run", "--image", "virtio"], &devices[..]].concat());
        if ended.stderr.contains("no direct I/O") {
            continue;
        }
        let ended = ended.expect(1);
        assert!(ended.stdout.contains("virtio: ok"), "{ended:#?}");
        let found = fs::read(&path).expect("it is there");
        let rest = || found[..WRITTEN.start].iter().chain(&found[WRITTEN.end..]);
        assert!(found.len() == 16 << 10 && rest().all(|byte| *byte == 7), "{mode}");
        let expected = |at: usize| (at * 7 + (at >> 8)) as u8;
        assert!((0..512).all(|at| found[WRITTEN.start + at] == expected(at)), "{mode}");
    }
}
