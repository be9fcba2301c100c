//! Linux's drivers for the virtio devices, and its ways to end, to start again and to sleep. The guests' and the
//! host's own checks are in `tests/nested/guest` and `tests/nested/io-inside.sh`; larger doses of the same are
//! `tests/nested/io.sh -f`.

use siesta_tests::binary;

use crate::host::{self, Host};

/// Longest time for one try, in seconds of this machine, and for all three that a test has. Not figures that are
/// asserted.
const LIMIT: u32 = 240;

/// Runs one part in one mode. Fails unless it, and at least so many checks in it, were good.
#[track_caller]
fn expect_success(part: &str, mode: &str, checks: usize) {
    let host = match Host::take() {
        Ok(host) => host,
        Err(missing) => return host::skip(part, &missing),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path of text");
    host.run("make-root.sh", &["-i", path], LIMIT).expect(0);
    let limit = LIMIT.to_string();
    let siesta = binary();
    let siesta = siesta.to_str().expect("a path of text");
    let arguments = ["-t", &limit, "-m", mode, "-p", part, siesta, path];
    let ended = host.run("io.sh", &arguments, 3 * LIMIT + 60).expect(0);
    let good = format!("{mode}: ok ");
    let good = ended.stdout.lines().filter(|line| line.starts_with(&good)).count();
    assert!(good >= checks, "{good} checks were made, not {checks}: {ended:#?}");
    let tried_again = ended.stdout.lines().filter(|line| line.starts_with("io: "));
    tried_again.for_each(|line| eprintln!("{line}"));
}

#[test]
fn linux_loses_nothing_on_any_device_and_leaves_nothing_behind() {
    expect_success("devices", "migrate", 50);
}

#[test]
fn power_off_with_a_thousand_requests_under_way_leaves_whole_blocks() {
    expect_success("inflight", "thread", 11);
}

#[test]
fn linux_resets_itself_and_finds_its_disk_as_it_left_it() {
    expect_success("reboots", "migrate", 5);
}

#[test]
fn linux_ends_and_sleeps_in_each_way() {
    expect_success("power", "kernel", 15);
}
