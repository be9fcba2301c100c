//! How guests power off, reset and panic, and how they are asked to.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use siesta_tests::pty::OnTerminal;
use siesta_tests::{Ended, Running, command, needs_kvm, siesta};

use crate::control::{serve, until};

const MODES: [&str; 3] = ["migrate", "thread", "kernel"];

fn leave(how: &str, more: &[&str]) -> Vec<String> {
    let how = format!("how={how}");
    let first = ["run", "--image", "leave", "--cmdline", &how, "--timeout", "60"];
    first.iter().chain(more).map(ToString::to_string).collect()
}

fn left(how: &str, more: &[&str]) -> Ended {
    let arguments = leave(how, more);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    siesta(&arguments)
}

#[test]
fn status_tells_power_off_and_reset_from_panic_and_crash() {
    needs_kvm!();
    for mode in MODES {
        for (how, status, said) in [
            ("acpi", 0, "powered off"),
            ("8042", 0, "reset"),
            ("cf9", 0, "reset"),
            ("port92", 0, "reset"),
            ("panic", 8, "kernel panicked"),
            ("crash-kernel", 0, "powered off"),
            ("triple", 4, "triple fault"),
        ] {
            let ended = left(how, &["--timers", mode, "--log-level", "info"]).expect(status);
            assert!(ended.stderr.contains(said), "{how}: {ended:?}");
            assert_eq!(ended.stdout.trim_end(), "leaving");
        }
    }
    let ended = left("panic", &[]).expect(8);
    ended.one_line(&["vm0", "kernel panicked"]);
    // With more of them the first that is not 0.
    let _ = left("panic", &["--count", "3"]).expect(8);
}

#[test]
fn reset_starts_the_vm_again_where_that_is_wanted() {
    needs_kvm!();
    for mode in MODES {
        for how in ["8042", "cf9", "port92"] {
            let folder = tempfile::tempdir().expect("a folder");
            let log = folder.path().join("log");
            let serial = log.to_str().expect("a plain name");
            let more = ["--timers", mode, "--on-reboot", "restart", "--serial", serial];
            let arguments = leave(how, &more);
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let running = Running::start(command(&arguments));
            let said = || fs::read_to_string(&log).unwrap_or_default();
            until("it does not start again", || said().lines().count() >= 4);
            running.signal(libc::SIGINT);
            let _ = running.wait().expect(130);
            // The last one may have been cut short.
            assert!(said().lines().all(|line| "leaving\r".starts_with(line)), "{}", said());
        }
        let more = ["--timers", mode, "--on-reboot", "restart"];
        assert_eq!(left("acpi", &more).expect(0).stdout.trim_end(), "leaving");
        let _ = left("panic", &more).expect(8);
        let _ = left("triple", &more).expect(4);
    }
}

/// Descriptors and memory mappings of a process.
fn held(pid: i32) -> (usize, usize) {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    (fds, maps.lines().count())
}

#[test]
fn vm_that_resets_for_ever_takes_no_more_of_its_host_and_can_be_ended() {
    needs_kvm!();
    let arguments = leave("cf9", &["--on-reboot", "restart", "--count", "2", "--cpus", "2"]);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let serial = log.to_str().expect("a plain name");
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--serial", serial]);
    let running = Running::start(command(&arguments));
    let times = |of: u32| {
        fs::read_to_string(log.with_extension(of.to_string())).map_or(0, |t| t.lines().count())
    };
    until("they do not start again", || times(0) >= 10 && times(1) >= 10);
    let (mut most, seen) = ((0, 0), times(0));
    until("they do not go on", || {
        let (fds, maps) = held(running.pid());
        most = (most.0.max(fds), most.1.max(maps));
        times(0) >= seen + 30
    });
    let before = most;
    let seen = times(0);
    until("they do not go on", || {
        let (fds, maps) = held(running.pid());
        most = (most.0.max(fds), most.1.max(maps));
        times(0) >= seen + 100
    });
    assert!(most.0 <= before.0 + 8 && most.1 <= before.1 + 16, "{before:?}, then {most:?}");
    running.signal(libc::SIGINT);
    let _ = running.wait().expect(130);
}

/// The console goes on over a restart, in both directions.
#[test]
fn console_outlives_the_machine() {
    needs_kvm!();
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("again.elf");
    // Says `>`, waits for a byte, sends it back and resets: 32-bit code.
    let code = [
        0x66, 0xba, 0xf8, 0x03, 0xb0, b'>', 0xee, // mov dx, 0x3f8; mov al, '>'; out dx, al
        0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74,
        0xfb, // mov dx, 0x3fd; 11: in al, dx; test al, 1; jz 11
        0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, // mov dx, 0x3f8; in al, dx; out dx, al
        0xb0, 0xfe, 0xe6, 0x64, 0xf4, // mov al, 0xfe; out 0x64, al; hlt
    ];
    fs::write(&kernel, siesta_tests::elf32(&code, true)).expect("a file");
    let kernel = kernel.to_str().expect("a plain name");
    for mode in MODES {
        let socket = folder.path().join("serial");
        let serial = format!("unix:{}", socket.display());
        let arguments =
            ["run", "--kernel", kernel, "--timers", mode, "--on-reboot", "restart", "--serial"];
        let running = Running::start(command(&[&arguments[..], &[&serial]].concat()));
        let mut client = loop {
            match UnixStream::connect(&socket) {
                Ok(client) => break client,
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut heard = [0];
        for said in b"several lives" {
            client.read_exact(&mut heard).expect("it is ready");
            assert_eq!(&heard, b">");
            client.write_all(&[*said]).expect("it is connected");
            client.read_exact(&mut heard).expect("it answers");
            assert_eq!(heard[0], *said);
        }
        running.signal(libc::SIGINT);
        let _ = running.wait().expect(130);
    }
}

/// What `leave` has said. In mode `kernel` some hosts' KVM ends a level-triggered interrupt for the guest as
/// soon as that takes it, so that it comes twice.
fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default().replace("!!", "!")
}

/// Starts `leave` and waits until it listens.
fn listening(how: &str, log: &Path, more: &[&str]) -> Running {
    // That of another one may be there.
    let _ = fs::remove_file(log);
    let serial = log.to_str().expect("a plain name");
    let arguments = leave(how, &[&["--serial", serial], more].concat());
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let running = Running::start(command(&arguments));
    until("it does not listen", || fs::read_to_string(log).is_ok_and(|text| text.contains('>')));
    running
}

#[test]
fn sigterm_presses_the_power_button() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    for mode in MODES {
        let running = listening("button", &log, &["--timers", mode]);
        running.signal(libc::SIGTERM);
        let _ = running.wait().expect(0);
        assert_eq!(said(&log), ">!");
        // One that looks at the button and does nothing is ended after a while,
        let running = listening("deaf", &log, &["--timers", mode, "--shutdown-timeout", "0.3"]);
        running.signal(libc::SIGTERM);
        let ended = running.wait().expect(130);
        assert!(ended.stderr.contains("--shutdown-timeout"), "{ended:?}");
        assert_eq!(said(&log), ">!");
        // or at once when it is asked again, and by SIGINT.
        for second in [libc::SIGTERM, libc::SIGINT] {
            let running = listening("deaf", &log, &["--timers", mode, "--shutdown-timeout", "50"]);
            running.signal(libc::SIGTERM);
            until("no press", || said(&log) == ">!");
            running.signal(second);
            let _ = running.wait().expect(130);
        }
    }
}

#[test]
fn guests_that_do_not_look_at_the_button_end_at_once_and_the_others_in_their_time() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("vms.toml");
    fs::write(
        &config,
        "[[vm]]\nimage = 'tick'\ncmdline = 'hz=100'\n\n\
         [[vm]]\nimage = 'leave'\ncmdline = 'how=button'\nname = 'a'\nserial = 'SERIAL'\n"
            .replace("SERIAL", folder.path().join("a").to_str().expect("a plain name")),
    )
    .expect("a file");
    let served = serve(&["--config", config.to_str().expect("a plain name")]);
    let a = folder.path().join("a");
    until("it does not listen", || fs::read_to_string(&a).is_ok_and(|text| text == ">"));
    let list = || served.ctl(&["list"]).expect(0).stdout;
    let _ = served.ctl(&["shutdown", "vm0"]).expect(0);
    assert!(list().contains("ended") && list().contains("interrupted"), "{}", list());
    let _ = served.ctl(&["pause", "a"]).expect(0);
    served.ctl(&["shutdown", "a"]).expect(2).one_line(&["'a' is paused", "resume"]);
    let _ = served.ctl(&["resume", "a"]).expect(0);
    let _ = served.ctl(&["shutdown", "a"]).expect(0);
    until("it does not power off", || list().contains("powered off"));
    served.ctl(&["shutdown", "a"]).expect(2).one_line(&["no VM 'a'"]);
}

#[test]
fn process_of_several_vms_waits_for_those_that_power_off() {
    needs_kvm!();
    for (how, outcome) in [("button", "a: powered off"), ("deaf", "a: interrupted")] {
        let served = serve(&["--shutdown-timeout", "0.5", "--log-level", "info"]);
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let create = ["create", "--image", "leave", "--name", "a", "--serial"];
        let cmdline = format!("how={how}");
        let rest = [log.to_str().expect("a plain name"), "--cmdline", &cmdline];
        let _ = served.ctl(&[&create[..], &rest].concat()).expect(0);
        let _ = served.ctl(&["create", "--image", "busy", "--count", "2"]).expect(0);
        until("it does not listen", || fs::read_to_string(&log).is_ok_and(|text| text == ">"));
        served.process.signal(libc::SIGTERM);
        let ended = served.process.wait().expect(130);
        assert!(ended.stderr.contains(outcome), "{ended:?}");
        assert_eq!(said(&log), ">!", "{ended:?}");
    }
}

#[test]
fn power_button_is_a_key_of_the_console() {
    needs_kvm!();
    let start = |how: &str| {
        let arguments = leave(how, &[]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        OnTerminal::start(command(&arguments), 80, 24)
    };
    let mut button = start("button");
    button.wait_for(">");
    button.type_keys("\x01p");
    let _ = button.wait().expect(0);
    assert!(button.is_as_before());
    let echo = ["run", "--image", "echo", "--timeout", "60"];
    let mut none = OnTerminal::start(command(&echo), 80, 24);
    none.wait_for(">");
    none.type_keys("\x01p");
    none.type_keys("\x01x");
    let ended = none.wait().expect(0);
    assert!(ended.stderr.contains("power button"), "{ended:?}");
}

#[test]
fn terminal_and_its_interrupts_outlive_the_machine() {
    needs_kvm!();
    for mode in MODES {
        let arguments = [
            "run",
            "--image",
            "echo",
            "--timeout",
            "60",
            "--timers",
            mode,
            "--on-reboot",
            "restart",
        ];
        let mut echo = OnTerminal::start(command(&arguments), 80, 24);
        for _ in 0..4 {
            echo.wait_for(">");
            assert!(!echo.is_as_before());
            echo.type_keys("abc");
            echo.wait_for("abc");
            echo.forget();
            echo.type_keys("\x12");
        }
        echo.wait_for(">");
        echo.type_keys("\x01x");
        let _ = echo.wait().expect(0);
        assert!(echo.is_as_before());
    }
}

#[test]
fn vms_of_a_running_process_start_again_if_they_should() {
    needs_kvm!();
    let served = serve(&["--shutdown-timeout", "60"]);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let log = log.to_str().expect("a plain name");
    let create = ["create", "--image", "leave", "--cmdline", "how=cf9", "--name"];
    let _ = served.ctl(&[&create[..], &["once"]].concat()).expect(0);
    let again = ["again", "--serial", log, "--on-reboot", "restart"];
    let _ = served.ctl(&[&create[..], &again].concat()).expect(0);
    let times = || fs::read_to_string(log).map_or(0, |text| text.lines().count());
    until("it does not start again", || times() >= 10);
    let state = |name: &str| {
        let list = served.ctl(&["list"]).expect(0).stdout;
        let line = list.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(state("once"), "ended");
    // Between two lives it has ended, for a moment.
    until("it does not run", || state("again") == "running");
    let _ = served.ctl(&["stop", "again"]).expect(0);
    let stopped = times();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(times() <= stopped + 1);
    served.quit();
}

#[test]
fn options_that_exclude_each_other() {
    needs_kvm!();
    let gdb = ["run", "--image", "hello", "--on-reboot", "restart", "--gdb", "tcp:127.0.0.1:0"];
    siesta(&gdb).expect(2).one_line(&["--on-reboot", "--gdb"]);
    let never = ["run", "--image", "hello", "--shutdown-timeout", "0"];
    siesta(&never).expect(2).one_line(&["--shutdown-timeout"]);
}
