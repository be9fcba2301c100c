//! What is behind virtio networks, sockets, consoles and balloons, from outside: what cannot be is refused,
//! what was made is gone with its VM, and a balloon is asked for.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use siesta_tests::{needs_kvm, siesta};

use crate::control::serve;

fn is_socket(path: &str) -> bool {
    Path::new(path).metadata().is_ok_and(|facts| facts.file_type().is_socket())
}

#[test]
fn devices_that_cannot_be_are_refused_in_one_line() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("plain").to_owned();
    std::fs::write(at("taken"), "").expect("a file");
    let (none, taken) = (format!("socket={}", at("none")), format!("cid=3,path={}", at("taken")));
    for (arguments, parts) in [
        (&["--net", "tap=siesta-none"][..], ["--net tap=siesta-none", "ip tuntap add"]),
        (&["--net", &none], ["nobody listens there", "start the other side"]),
        (&["--net", "fd=9999"], ["--net fd=9999", "no such descriptor"]),
        (&["--net", "tap=a,mac=01:00:00:00:00:00"], ["--net", "first byte"]),
        (&["--net", "fd=0", "--count", "2"], ["fd=N is for one VM", "socket=PATH"]),
        (&["--vsock", "cid=2,path=v"], ["--vsock", "from 3 on"]),
        (&["--vsock", &taken], ["--vsock", "exists already"]),
        (&["--virtio-console", "/no/such/file"], ["--virtio-console /no/such/file", "written"]),
        (&["--balloon", "64M", "--memory", "64M"], ["--balloon", "ask for less"]),
        (&["--balloon", "0", "--hugepages"], ["--balloon", "leave out"]),
    ] {
        let ended = siesta(&[&["run", "--image", "hello"], arguments].concat()).expect(2);
        ended.one_line(&parts);
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
}

#[test]
fn vms_have_their_own_devices_which_end_with_them() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("plain").to_owned();
    let vsock = format!("cid=3,path={}", at("v"));
    let console = format!("unix:{}", at("c"));
    let served = serve(&[]);
    let devices = ["--vsock", &vsock, "--virtio-console", &console, "--balloon", "8M"];
    let create = ["create", "--image", "tick", "--name", "a", "--count", "2"];
    let _ = served.ctl(&[&create[..], &devices].concat()).expect(0);
    let sockets = ["v.0", "v.1", "c.0", "c.1"].map(at);
    assert!(sockets.iter().all(|path| is_socket(path)));
    let balloon = |name: &str, size: &str| served.ctl(&["balloon", name, size]);
    let _ = balloon("a-1", "16M").expect(0);
    balloon("a-0", "64M").expect(2).one_line(&["'a-0'", "would leave nothing"]);
    balloon("b", "1M").expect(2).one_line(&["there is no VM 'b'"]);
    let _ = served.ctl(&["create", "--image", "tick", "--name", "b"]).expect(0);
    balloon("b", "1M").expect(2).one_line(&["'b' has no balloon"]);
    let told = served.ctl(&["stats", "--json"]).expect(0).stdout;
    let stats: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let target = |vm: usize| stats["stats"]["vms"][vm]["balloon"]["target"].as_u64();
    assert_eq!([0, 1, 2].map(target), [Some(8 << 20), Some(16 << 20), None], "{told}");
    for name in ["a-0", "a-1"] {
        let _ = served.ctl(&["stop", name]).expect(0);
    }
    crate::control::until("the sockets are gone", || !sockets.iter().any(|path| is_socket(path)));
    served.quit();
}

#[test]
fn guest_that_ignores_its_devices_ends_as_one_without() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("v");
    let vsock = format!("cid=3,path={}", path.to_str().expect("plain"));
    for mode in ["migrate", "thread", "kernel"] {
        let devices = ["--vsock", &vsock, "--virtio-console", "--balloon", "--timers", mode];
        let with = siesta(&[&["run", "--image", "hello"], &devices[..]].concat()).expect(0);
        let without = siesta(&["run", "--image", "hello", "--timers", mode]).expect(0);
        assert_eq!((with.stderr, with.stdout.len()), (without.stderr, without.stdout.len()));
        assert!(!path.exists(), "it is removed with its VM");
    }
}
