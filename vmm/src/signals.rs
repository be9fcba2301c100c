//! SIGINT, SIGTERM and others as a descriptor.
//!
//! Owns the signal mask of the process from its start on. Must not know what a signal leads to.

#![allow(unsafe_code)] // signalfd and the signal mask

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

/// Readable when the process was asked to end.
pub struct Signals(File);

impl Signals {
    /// Blocks SIGINT and SIGTERM for this thread and all that it will start, and takes them in here
    /// instead. To be called before any thread is started.
    ///
    /// # Errors
    /// What `signalfd(2)` says: too many open files.
    pub fn take() -> io::Result<Self> {
        Signals::take_with(&[])
    }

    /// The same, with these signals beside.
    ///
    /// # Errors
    /// As [`Signals::take`].
    pub fn take_with(more: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: the set is initialised before use and outlives the calls; the new descriptor is
        // owned by nobody else.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGINT);
            libc::sigaddset(&mut set, libc::SIGTERM);
            for signal in more {
                libc::sigaddset(&mut set, *signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Signals(File::from_raw_fd(fd)))
        }
    }

    /// Takes in what came; answers whether anything did.
    pub fn came(&mut self) -> bool {
        self.pop().is_some()
    }

    /// The next signal that came.
    pub fn pop(&mut self) -> Option<libc::c_int> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        self.0.read_exact(&mut info).ok()?;
        // ssi_signo comes first (signalfd(2)).
        let [a, b, c, d, ..] = info;
        Some(i32::from_ne_bytes([a, b, c, d]))
    }
}

/// Those of these signals that the process was not started to ignore, as `nohup` does.
#[must_use]
pub fn not_ignored(signals: &[libc::c_int]) -> Vec<libc::c_int> {
    let ignored = |signal: &libc::c_int| {
        // SAFETY: an all-zero sigaction is valid; the call writes it and changes nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        }
    };
    signals.iter().copied().filter(|signal| !ignored(signal)).collect()
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
