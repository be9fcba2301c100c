//! A command on a terminal of its own.
//!
//! Owns the terminal and the child, which is killed and waited for when the value is dropped. Must not
//! know what the command draws.

#![allow(unsafe_code)] // openpty, termios, ioctl

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Ended, PATIENCE};

/// A command that runs on a terminal.
pub struct OnTerminal {
    child: Child,
    /// The side of whoever looks at the screen.
    master: File,
    /// The side of the command; held so that the terminal outlives it.
    slave: File,
    seen: Arc<Mutex<Vec<u8>>>,
    before: libc::termios,
}

fn modes(terminal: &File) -> libc::termios {
    // SAFETY: an all-zero termios is valid and written by the call.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut modes), 0, "it is a terminal");
        modes
    }
}

impl OnTerminal {
    /// Starts a command on a terminal of `columns` times `rows`. Its standard error is a pipe.
    ///
    /// # Panics
    /// There is no terminal, or the command cannot be started.
    #[must_use]
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptors and the size are valid for the call; no name and no modes are given.
        let rc = unsafe {
            libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size)
        };
        assert_eq!(rc, 0, "a terminal can be made");
        // SAFETY: both were just opened and are owned by nobody else.
        let (master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        for end in [&master, &slave] {
            // SAFETY: plain system call: no child shall keep the terminal.
            unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        let before = modes(&slave);
        let end = || Stdio::from(OwnedFd::from(slave.try_clone().expect("a descriptor")));
        command.stdin(end()).stdout(end()).stderr(Stdio::piped()).env("TERM", "xterm");
        // SAFETY: both calls are async-signal-safe; standard input is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut from = master.try_clone().expect("a descriptor");
        let to = Arc::clone(&seen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with the last descriptor of the other side.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..count]);
            }
        });
        OnTerminal { child, master, slave, seen, before }
    }

    /// Everything that was written so far, escape sequences included.
    #[must_use]
    pub fn seen(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Waits until this was written.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str) {
        let began = Instant::now();
        while !self.seen().contains(what) {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "it ended ({ended:?}) without '{what}': {:?}", self.seen());
            assert!(began.elapsed() < PATIENCE, "no '{what}' in {:?}", self.seen());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Forgets what was written so far.
    pub fn forget(&mut self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Types something.
    ///
    /// # Panics
    /// The terminal has gone.
    pub fn type_keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the size is valid for the call.
        unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids are small")
    }

    /// Waits until the terminal has the modes that it had before the command started, or until it has
    /// not.
    ///
    /// # Panics
    /// That does not happen.
    #[track_caller]
    pub fn until_as_before(&self, as_before: bool) {
        let began = Instant::now();
        while self.is_as_before() != as_before {
            assert!(began.elapsed() < PATIENCE, "as before: {}", !as_before);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call on a child that was not waited for yet.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Whether the terminal has the modes that it had before the command started.
    #[must_use]
    pub fn is_as_before(&self) -> bool {
        let now = modes(&self.slave);
        let of = |m: &libc::termios| (m.c_iflag, m.c_oflag, m.c_cflag, m.c_lflag, m.c_cc);
        of(&now) == of(&self.before)
    }

    /// Waits for the end of the command. Its standard output is what was seen.
    ///
    /// # Panics
    /// It hangs.
    #[must_use]
    pub fn wait(&mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it hangs: {:?}", self.seen());
            thread::sleep(Duration::from_millis(5));
        };
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut stderr);
        }
        // What it wrote last may still be on its way.
        let mut length = usize::MAX;
        while length != self.seen().len() {
            length = self.seen().len();
            thread::sleep(Duration::from_millis(50));
        }
        use std::os::unix::process::ExitStatusExt;
        let status = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
        Ended { status, stdout: self.seen(), stderr }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // Already gone in most cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
