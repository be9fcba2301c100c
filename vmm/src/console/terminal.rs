//! The terminal that a guest's console is on.
//!
//! Owns the modes that the terminal had, and gives them back: when [`Raw`] is dropped, when anybody
//! panics, and while the process is stopped. Must not know what is typed.
//!
//! | variable | lock | writers | readers |
//! |---|---|---|---|
//! | `BEFORE` | its mutex, held for a system call | the main thread; whoever panics | the same |

#![allow(unsafe_code)] // termios and signals

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::{Mutex, Once, PoisonError};

const TERMINAL: RawFd = libc::STDIN_FILENO;

/// The modes from before, while the terminal is in raw mode.
static BEFORE: Mutex<Option<libc::termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Whether a descriptor is a terminal.
#[must_use]
pub fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: takes and gives integers.
    unsafe { libc::isatty(fd) == 1 }
}

/// Whether standard input is a terminal that this process may read: one that runs in the background
/// would be stopped.
#[must_use]
pub fn is_ours() -> bool {
    // SAFETY: takes and gives integers.
    is_terminal(TERMINAL) && unsafe { libc::tcgetpgrp(TERMINAL) == libc::getpgrp() }
}

/// Keeps the process from being stopped when it reads or changes a terminal that is another's by now:
/// it gets an error instead. To be called before any thread is started.
pub fn is_never_stopped_by_it() {
    // SAFETY: the set is initialised before use and outlives the call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTTIN);
        libc::sigaddset(&mut set, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

/// Standard input in raw mode, until this is dropped or somebody panics: each key comes at once, none
/// is echoed, none becomes a signal. What is written is treated as before: a line feed begins a line.
pub struct Raw(());

impl Raw {
    /// Puts the terminal into raw mode.
    ///
    /// # Errors
    /// Standard input is no terminal, or it has gone.
    pub fn enter() -> io::Result<Self> {
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        make_raw()?;
        Ok(Raw(()))
    }

    /// The process shall be stopped (SIGTSTP): the terminal is given back meanwhile.
    pub fn suspend(&self) {
        restore();
        // SAFETY: takes and gives integers. Returns after SIGCONT.
        unsafe { libc::raise(libc::SIGSTOP) };
        self.resume();
    }

    /// The process goes on after a stop: whoever stopped it may have changed the modes.
    pub fn resume(&self) {
        if is_ours() {
            restore();
            // A terminal that has gone is noticed by its reader.
            let _ = make_raw();
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn make_raw() -> io::Result<()> {
    let mut before = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the structure is written by the call, and used only if it was.
    let modes = unsafe {
        if libc::tcgetattr(TERMINAL, before.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        before.assume_init()
    };
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(modes);
    set(&raw_of(modes))
}

fn raw_of(mut modes: libc::termios) -> libc::termios {
    modes.c_iflag &= !(libc::IGNBRK
        | libc::BRKINT
        | libc::PARMRK
        | libc::ISTRIP
        | libc::INLCR
        | libc::IGNCR
        | libc::ICRNL
        | libc::IXON);
    modes.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::ISIG | libc::IEXTEN);
    modes.c_cflag &= !(libc::CSIZE | libc::PARENB);
    modes.c_cflag |= libc::CS8;
    modes.c_cc[libc::VMIN] = 1;
    modes.c_cc[libc::VTIME] = 0;
    modes
}

fn set(modes: &libc::termios) -> io::Result<()> {
    // SAFETY: the structure is valid for the call.
    match unsafe { libc::tcsetattr(TERMINAL, libc::TCSANOW, modes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the terminal its modes back, if it is in raw mode.
fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that has gone needs no more.
        let _ = set(&before);
    }
}
