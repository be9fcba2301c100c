//! What whole-VM tests need: the `siesta` binary, guests in it, and a way to say that there is no
//! KVM.
//!
//! Owns child processes: each is killed and waited for when its value is dropped, whatever the test
//! did. The tests themselves are under `tests/tests`.

#![allow(unsafe_code)] // kill(2)
#![allow(clippy::disallowed_methods)] // a harness has to know when a child hangs

pub mod kernels;
pub mod pty;
pub mod tracer;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vmm::assemble::{ApicTimer, VmConfig};
use vmm::console::Sink;
use vmm::placement::Placement;

/// Longest time for which any command of a test may run. Not a figure that is asserted: a child
/// that takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there is a KVM to test with. Without one the test says so by name and passes, unless
/// `REQUIRE_KVM=1`.
///
/// # Panics
/// With `REQUIRE_KVM=1` and no KVM.
#[must_use]
pub fn kvm(test: &str) -> bool {
    if Path::new("/dev/kvm").exists() {
        return true;
    }
    let required = std::env::var("REQUIRE_KVM").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: REQUIRE_KVM=1, but there is no /dev/kvm");
    eprintln!("{test}: skipped: no /dev/kvm");
    false
}

/// Leaves a test that needs KVM where there is none.
#[macro_export]
macro_rules! needs_kvm {
    () => {
        if !$crate::kvm(module_path!()) {
            return;
        }
    };
}

/// The `siesta` program, built for these tests.
///
/// # Panics
/// The test does not run from where cargo builds it.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let binary = profile.join("siesta-tested");
    assert!(binary.exists(), "{} is missing: run the tests with cargo", binary.display());
    binary
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; negative: the signal that killed it.
    pub status: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Fails with everything that is known unless the status is this.
    ///
    /// # Panics
    /// The status differs.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Fails unless standard error is exactly one line, which contains all of these.
    ///
    /// # Panics
    /// It is not so.
    #[track_caller]
    pub fn one_line(&self, parts: &[&str]) {
        assert_eq!(self.stderr.lines().count(), 1, "one line is wanted: {self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "'{part}' is missing: {self:#?}");
        }
    }
}

/// A child that runs.
pub struct Running {
    child: Child,
    out: Option<thread::JoinHandle<String>>,
    err: Option<thread::JoinHandle<String>>,
}

impl Running {
    /// Starts a command.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = child.stdout.take().map(collect);
        let err = child.stderr.take().map(collect);
        Running { child, out, err }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call on a child that was not waited for yet.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It hangs.
    #[must_use]
    pub fn wait(self) -> Ended {
        self.wait_for(PATIENCE)
    }

    /// Waits for its end, for this long.
    ///
    /// # Panics
    /// It hangs.
    #[must_use]
    pub fn wait_for(mut self, patience: Duration) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(started.elapsed() < patience, "it hangs (process {})", self.pid());
            thread::sleep(Duration::from_millis(5));
        };
        let text = |thread: Option<thread::JoinHandle<String>>| {
            thread.map(|t| t.join().expect("a reader does not panic")).unwrap_or_default()
        };
        let status = {
            use std::os::unix::process::ExitStatusExt;
            status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
        };
        Ended { status, stdout: text(self.out.take()), stderr: text(self.err.take()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone in most cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is what there is.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// `siesta` with these arguments, not started yet.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    // Whoever runs the tests in the background, or by nohup, has some of them ignored.
    let reset = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            // SAFETY: async-signal-safe, and sets no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: what runs in the child before it becomes another program is async-signal-safe.
    unsafe { command.pre_exec(reset) };
    command
}

/// Runs `siesta` with these arguments to its end.
#[must_use]
pub fn siesta(arguments: &[&str]) -> Ended {
    Running::start(command(arguments)).wait()
}

/// Runs an embedded image to its end, within a minute of its own.
#[must_use]
pub fn image(name: &str, cmdline: &str, more: &[&str]) -> Ended {
    let mut arguments = vec!["run", "--image", name, "--cmdline", cmdline, "--timeout", "60"];
    arguments.extend(more);
    siesta(&arguments)
}

/// The figures behind `NAME=` in a line of an image's report, as `ticks=100`.
#[must_use]
pub fn figures(text: &str, name: &str) -> Vec<f64> {
    let key = format!("{name}=");
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix(key.as_str())?.parse().ok())
        .collect()
}

/// A VM with one vCPU that runs an embedded image, for a fleet in the test's own process. Its serial
/// output is dropped.
///
/// # Panics
/// There is no such image.
#[must_use]
pub fn guest(image: &str, cmdline: &str) -> (VmConfig, Sink) {
    let config = VmConfig {
        kernel: guest_images::find(image).expect("an image").elf.into(),
        kernel_name: image.into(),
        initrd: None,
        cmdline: cmdline.into(),
        cpus: 1,
        memory: 16 << 20,
        apic_timer: ApicTimer::Auto,
        cpu_features: Default::default(),
        debug: false,
        limits: Default::default(),
        placement: Placement::default(),
        virtio: Default::default(),
    };
    (config, Sink::Null)
}

/// A 32-bit ELF kernel at 2 MiB whose only segment is `code`, entered at its first byte by a PVH note
/// if it has one.
#[must_use]
pub fn elf32(code: &[u8], pvh: bool) -> Vec<u8> {
    const START: u32 = 0x20_0000;
    const HEADER: u32 = 52;
    const PROGRAM_HEADER: u32 = 32;
    let mut note = Vec::new();
    if pvh {
        // Name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY, "Xen", entry.
        for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), START] {
            note.extend(word.to_le_bytes());
        }
    }
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut halves = |values: &[u16]| {
        elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let word = |value: u32| [value as u16, (value >> 16) as u16];
    halves(&[2, 3]); // ET_EXEC, EM_386
    for value in [1, START, HEADER, 0, 0] {
        halves(&word(value));
    }
    halves(&[HEADER as u16, PROGRAM_HEADER as u16, 2, 0, 0, 0]);
    let data = HEADER + 2 * PROGRAM_HEADER;
    for (kind, offset, bytes) in [(1, data, code), (4, data + code.len() as u32, &note[..])] {
        let size = bytes.len() as u32;
        for value in [kind, offset, START, START, size, size, 5, 4] {
            halves(&word(value));
        }
    }
    elf.extend(code);
    elf.extend(note);
    elf
}
