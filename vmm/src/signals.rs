//! SIGINT, SIGTERM and others as a descriptor.
//!
//! Owns the signal mask of the process from its start on, and a thread that waits for the signals. Must
//! not know what a signal leads to.
//!
//! Not a signalfd(2): who waits for one is woken by *every* signal of the process, also by those that
//! are sent to other threads, as the host timers of vCPU threads are: one needless wakeup a tick.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `stop` | the owner, before the last signal | the thread, after it took a signal in | release/acquire |

#![allow(unsafe_code)] // the signal mask, sigwait and tgkill

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// The thread's stack, in bytes.
const STACK: usize = 64 * 1024;

/// Readable when the process was asked to end.
pub struct Signals {
    /// The numbers of the signals that came, four bytes each.
    came: File,
    stop: Arc<AtomicBool>,
    tid: libc::pid_t,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Blocks SIGINT and SIGTERM for this thread and all that it will start, and takes them in here
    /// instead. To be called before any thread is started.
    ///
    /// # Errors
    /// Too many open files, or threads.
    pub fn take() -> io::Result<Self> {
        Signals::take_with(&[])
    }

    /// The same, with these signals beside.
    ///
    /// # Errors
    /// As [`Signals::take`].
    pub fn take_with(more: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: the set is initialised before use and outlives the calls.
        let set = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in [libc::SIGINT, libc::SIGTERM].iter().chain(more) {
                libc::sigaddset(&mut set, *signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            set
        };
        let (reader, writer) = io::pipe()?;
        nonblocking(&reader)?;
        nonblocking(&writer)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let ends = Arc::clone(&stop);
        let thread =
            thread::Builder::new().name("signals".into()).stack_size(STACK).spawn(move || {
                // SAFETY: takes no argument and cannot fail.
                let _ = tell.send(unsafe { libc::gettid() });
                wait(&set, &ends, writer);
            })?;
        let tid = told.recv().map_err(io::Error::other)?;
        Ok(Signals { came: OwnedFd::from(reader).into(), stop, tid, thread: Some(thread) })
    }

    /// Takes in what came; answers whether anything did.
    pub fn came(&mut self) -> bool {
        self.pop().is_some()
    }

    /// The next signal that came.
    pub fn pop(&mut self) -> Option<libc::c_int> {
        let mut number = [0; size_of::<libc::c_int>()];
        self.came.read_exact(&mut number).ok()?;
        Some(libc::c_int::from_ne_bytes(number))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // SAFETY: plain system call on a thread that was not joined yet, and waits for this signal.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.tid, libc::SIGTERM) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Passes the signals of `set` on until it is to stop.
fn wait(set: &libc::sigset_t, stop: &AtomicBool, mut to: PipeWriter) {
    loop {
        let mut number = 0;
        // SAFETY: both outlive the call.
        let failed = unsafe { libc::sigwait(set, &mut number) } != 0;
        if failed || stop.load(Ordering::Acquire) {
            return;
        }
        // A full pipe has told its reader more than enough.
        let _ = to.write_all(&number.to_ne_bytes());
    }
}

fn nonblocking(end: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain system call on a descriptor that is open.
    match unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
        self.came.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_in_their_order_and_the_thread_ends() {
        let mut signals = Signals::take_with(&[libc::SIGWINCH]).expect("a thread and a pipe");
        assert!(!signals.came());
        let send = |signal: libc::c_int| {
            // SAFETY: plain system call on a thread that waits for this signal.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), signals.tid, signal) };
        };
        send(libc::SIGWINCH);
        let mut seen = None;
        while seen.is_none() {
            thread::yield_now();
            seen = signals.pop();
        }
        assert_eq!((seen, signals.pop()), (Some(libc::SIGWINCH), None));
        drop(signals);
    }
}
