//! The gdb stub, with a real gdb.

use std::fs;
use std::path::Path;
use std::process::Command;

use siesta_tests::{Ended, Running, command, needs_kvm};

/// Runs gdb with these commands against a VM with two vCPUs; the ends of both. `None`: there is no
/// gdb, which is said.
fn debug(test: &str, timers: &str, commands: &str) -> Option<(Ended, Ended)> {
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("{test}: skipped: no gdb");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gdb");
    let script = folder.path().join("script");
    let connect =
        format!("set pagination off\nset confirm off\ntarget remote {}\n", socket.display());
    fs::write(&script, connect + commands).expect("a script");
    let vm = Running::start(command(&[
        "run",
        "--image",
        "ipi",
        "--cpus",
        "2",
        "--timers",
        timers,
        "--timeout",
        "20",
        "--gdb",
        socket.to_str().expect("a path in text"),
    ]));
    while !socket.exists() {
        std::thread::yield_now();
    }
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch", "-x"]).arg(&script);
    let gdb = Running::start(gdb).wait();
    let vm = vm.wait();
    assert!(!Path::new(&socket).exists(), "the socket's file is left behind");
    Some((vm, gdb))
}

#[test]
fn breakpoint_step_and_registers_of_each_vcpu_then_the_guest_goes_on() {
    needs_kvm!();
    let commands = "info threads\nset $first = $pc\nstepi\nstepi\nprintf \"steps %d\\n\", $pc - $first\n\
        hbreak *($first + 7)\ncontinue\nprintf \"met %d\\n\", $pc - $first\ndelete\n\
        set $rbp = 0x1234\nprintf \"rbp %x\\n\", $rbp\nx/1xb $pc\n\
        thread 2\nprintf \"waits at %x\\n\", $pc\nthread 1\ncontinue\n";
    for timers in ["migrate", "thread", "kernel"] {
        let Some((vm, gdb)) = debug(module_path!(), timers, commands) else { return };
        let seen = |text: &str| assert!(gdb.stdout.contains(text), "{text}: {gdb:#?} {vm:#?}");
        seen("Thread 1.2");
        // CLI and CLD are one byte each, and the next instruction has five.
        seen("steps 2\n");
        seen("met 7\n");
        seen("rbp 1234\n");
        seen("waits at fff0\n");
        seen("exited normally");
        vm.expect(0);
    }
}

#[test]
fn debugger_that_detaches_lets_the_guest_run() {
    needs_kvm!();
    let Some((vm, _)) = debug(module_path!(), "migrate", "stepi\ndetach\n") else { return };
    assert!(vm.expect(0).stdout.contains("ipi: cpus=2"));
}

#[test]
fn debugger_that_kills_ends_the_vm() {
    needs_kvm!();
    let Some((vm, _)) = debug(module_path!(), "thread", "kill\n") else { return };
    vm.expect(130);
}

#[test]
fn socket_that_cannot_be_made_is_one_line() {
    needs_kvm!();
    let ended = siesta_tests::siesta(&["run", "--image", "hello", "--gdb", "/no/such/folder/gdb"]);
    ended.one_line(&["--gdb /no/such/folder/gdb", "name a socket"]);
    ended.expect(2);
}
