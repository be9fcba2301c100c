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
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        self.0.read(&mut info).is_ok_and(|n| n > 0)
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
