//! The serial port on a terminal, and on standard input and output that are none.

#![allow(unsafe_code)] // a child that ignores a signal
#![allow(clippy::disallowed_methods)] // how long a process was idle

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use siesta_tests::pty::OnTerminal;
use siesta_tests::{Ended, PATIENCE, command, needs_kvm, siesta};
use vmm::console::INPUT_MOST;
use vmm::console::terminal::Raw;

/// What the image `echo` ends with when it hears a `q`.
const Q: i32 = ((b'q' << 1) | 1) as i32;

fn on_terminal(arguments: &[&str]) -> OnTerminal {
    OnTerminal::start(command(&[&["run"], arguments].concat()), 80, 24)
}

/// The image `echo`, which is ready for what is typed.
fn echo(more: &[&str]) -> OnTerminal {
    let mut echo = on_terminal(&[&["--image", "echo", "--timeout", "60"], more].concat());
    echo.wait_for(">");
    assert!(!echo.is_as_before(), "keys come one by one");
    echo
}

#[track_caller]
fn restored(terminal: &mut OnTerminal, status: i32) -> Ended {
    let ended = terminal.wait();
    assert!(terminal.is_as_before(), "{ended:?}");
    ended.expect(status)
}

#[test]
fn guest_hears_every_key_but_those_behind_ctrl_a() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        let mut echo = echo(&["--timers", mode]);
        echo.type_keys("abc");
        echo.wait_for("abc");
        // Ctrl-C, Ctrl-Z, Ctrl-\, Ctrl-D, Ctrl-S, Ctrl-Q: none is a signal, or the terminal's.
        echo.type_keys("\x03\x1a\x1c\x04\x13\x11!");
        echo.wait_for("\x03\x1a\x1c\x04\x13\x11!");
        echo.type_keys("\x01\x01\x01a\x01zend");
        echo.wait_for("\x01\x01end");
        echo.type_keys("\x01h\x01x");
        let ended = restored(&mut echo, 0);
        assert!(ended.stderr.contains("Ctrl-A X"), "{ended:?}");
    }
}

#[test]
fn terminal_is_as_before_however_the_vm_ends() {
    needs_kvm!();
    let mut ended = echo(&[]);
    ended.type_keys("q");
    restored(&mut ended, Q);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        let echo = &mut echo(&[]);
        echo.signal(signal);
        restored(echo, 130);
    }
    restored(&mut on_terminal(&["--image", "echo", "--timeout", "0.3"]), 6);
    restored(&mut on_terminal(&["--image", "hello"]), 0);
    restored(&mut on_terminal(&["--image", "hello", "--cmdline", "fault=triple"]), 4);
    // It fails when the terminal is in raw mode already.
    restored(&mut on_terminal(&["--image", "hello", "--memory", "2M"]), 2);
}

#[test]
fn terminal_is_given_back_while_the_process_is_stopped() {
    needs_kvm!();
    let mut echo = echo(&[]);
    for _ in 0..3 {
        echo.signal(libc::SIGTSTP);
        echo.until_as_before(true);
        until_stopped(echo.pid());
        echo.signal(libc::SIGCONT);
        echo.until_as_before(false);
        echo.forget();
        echo.type_keys("on");
        echo.wait_for("on");
    }
    echo.type_keys("\x01X");
    restored(&mut echo, 0);
}

fn until_stopped(pid: i32) {
    let began = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{stat}");
        thread::sleep(Duration::from_millis(5));
    }
}

const PANICS: &str = "SIESTA_TESTS_PANIC_IN_RAW_MODE";

/// Run by the next test, on a terminal; without that it does nothing.
#[test]
fn panics_in_raw_mode() {
    if std::env::var_os(PANICS).is_none() {
        return;
    }
    // Never dropped: what gives the terminal back is the panic.
    std::mem::forget(Raw::enter().expect("a terminal"));
    println!("raw");
    let mut key = [0];
    std::io::stdin().read_exact(&mut key).expect("a key");
    let _ = thread::spawn(|| panic!("as it should")).join();
    println!("panicked");
    std::io::stdin().read_exact(&mut key).expect("a key");
}

#[test]
fn terminal_is_given_back_when_a_thread_panics() {
    let mut inner = Command::new(std::env::current_exe().expect("a test has a path"));
    inner.args(["--exact", "console::panics_in_raw_mode", "--nocapture"]).env(PANICS, "1");
    let mut inner = OnTerminal::start(inner, 80, 24);
    inner.wait_for("raw");
    assert!(!inner.is_as_before());
    inner.type_keys("k");
    inner.wait_for("panicked");
    assert!(inner.is_as_before());
    inner.type_keys("k\n");
    restored(&mut inner, 0);
}

#[test]
fn guest_that_does_not_listen_misses_keys_and_can_be_left() {
    needs_kvm!();
    for cmdline in ["fault=hang", "fault=cli-hlt"] {
        let mut deaf = on_terminal(&["--image", "hello", "--cmdline", cmdline, "--timeout", "60"]);
        deaf.wait_for(cmdline);
        for _ in 0..20 {
            deaf.type_keys(&"x".repeat(1000));
        }
        deaf.type_keys("\x01x");
        restored(&mut deaf, 0);
    }
}

#[test]
fn terminal_of_another_process_is_left_alone() {
    needs_kvm!();
    // The shell is in the foreground, the VM in a process group of its own behind it.
    let mut shell = Command::new("bash");
    let siesta = siesta_tests::binary();
    let run = "set -m; \"$0\" run --image hello & wait; echo over; read line";
    shell.args(["-c", run]).arg(siesta);
    let mut shell = OnTerminal::start(shell, 80, 24);
    shell.wait_for("hello from");
    shell.wait_for("over");
    shell.type_keys("\r");
    restored(&mut shell, 0);
}

#[test]
fn hangup_that_is_to_be_ignored_is() {
    needs_kvm!();
    let mut command = command(&["run", "--image", "echo", "--timeout", "60"]);
    // SAFETY: async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut echo = OnTerminal::start(command, 80, 24);
    echo.wait_for(">");
    echo.signal(libc::SIGHUP);
    echo.type_keys("still here");
    echo.wait_for("still here");
    echo.type_keys("\x01x");
    restored(&mut echo, 0);
}

/// Runs to the end with this standard input.
fn with_stdin(arguments: &[&str], stdin: impl Into<Stdio>) -> Ended {
    let mut command = command(&[&["run"], arguments].concat());
    let output = command.stdin(stdin).output().expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended {
        status: output.status.code().expect("it is not killed"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

fn pipe_with(text: &str) -> std::io::PipeReader {
    let (from, mut to) = std::io::pipe().expect("a pipe");
    to.write_all(text.as_bytes()).expect("it fits");
    from
}

#[test]
fn standard_input_that_is_no_terminal_is_read_on_request_alone() {
    needs_kvm!();
    let mut file = tempfile::tempfile().expect("a file");
    // More than waits for the guest at a time.
    let said = "0123456789".repeat(INPUT_MOST / 3) + "q";
    file.write_all(said.as_bytes()).expect("a file");
    let mut file = || -> File {
        file.rewind().expect("a file");
        file.try_clone().expect("a descriptor")
    };
    for mode in ["migrate", "thread", "kernel"] {
        let echo = ["--image", "echo", "--timers", mode];
        let asked = [&echo[..], &["--serial", "stdio", "--timeout", "60"]].concat();
        assert_eq!(with_stdin(&asked, pipe_with(&said)).expect(Q).stdout, format!(">{said}"));
        assert_eq!(with_stdin(&asked, file()).expect(Q).stdout, format!(">{said}"));
        // Ctrl-A is a byte like others.
        let all = "\x01x\x01\x01q";
        assert_eq!(with_stdin(&asked, pipe_with(all)).expect(Q).stdout, format!(">{all}"));
        let not = [&echo[..], &["--timeout", "0.5"]].concat();
        let ended = with_stdin(&not[..], pipe_with(&said));
        assert_eq!(ended.expect(6).stdout, ">");
    }
}

#[test]
fn end_of_input_is_not_the_end_of_the_guest() {
    needs_kvm!();
    for _ in 0..3 {
        let asked = ["--image", "tick", "--cmdline", "hz=100 secs=1", "--serial", "stdio"];
        let ended = with_stdin(&asked, Stdio::null()).expect(0);
        assert!(ended.stdout.contains("tick"), "{ended:?}");
        let (from, to) = std::io::pipe().expect("a pipe");
        drop(to);
        let _ = with_stdin(&asked, from).expect(0);
    }
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time of the thread that carries consoles, in ticks of the clock.
fn carried(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let stat = stats.into_iter().find(|stat| stat.contains("(event-loop)")).expect("a thread");
    let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn input_that_nobody_takes_keeps_no_thread_busy() {
    needs_kvm!();
    let mut command =
        command(&["run", "--image", "hello", "--cmdline", "fault=cli-hlt", "--serial", "stdio"]);
    let said = "x".repeat(3 * INPUT_MOST);
    let child = command
        .stdin(pipe_with(&said))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be run");
    let mut child = Killed(child);
    // By then the guest halts for good.
    let mut out = child.0.stdout.take().expect("a pipe");
    out.read_exact(&mut [0; 10]).expect("it says hello");
    thread::sleep(Duration::from_millis(300));
    let before = carried(child.0.id());
    let began = Instant::now();
    thread::sleep(Duration::from_millis(1000));
    let (used, passed) = (carried(child.0.id()) - before, began.elapsed());
    // A hundred ticks of the clock are a second.
    assert!(u128::from(used) * 10 < passed.as_millis() / 4, "{used} ticks in {passed:?}");
}

#[test]
fn serial_port_may_be_nowhere_and_is_one_vms() {
    needs_kvm!();
    let ended = siesta(&["run", "--image", "hello", "--serial", "none", "--count", "2"]).expect(0);
    assert!(ended.stdout.is_empty() && ended.stderr.is_empty(), "{ended:?}");
    let several = ["run", "--image", "hello", "--serial", "stdio", "--count", "2"];
    siesta(&several).expect(2).one_line(&["--serial stdio", "--count 2", "unix:SOCKET"]);
}
