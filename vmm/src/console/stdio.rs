//! Standard input as the input of a guest's serial port.
//!
//! Owns what is known about the descriptor, and what whoever types wants of the VM's host. Output is
//! the console's business. Must not know who watches the descriptor.
//!
//! | standard input | read | what the guest does not take in time |
//! |---|---|---|
//! | a terminal | always, as Ctrl-A X must be heard | dropped |
//! | a pipe, a socket | while there is room | stays there |
//! | a file | as far as there is room, whenever the guest made some | stays there |
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `Wishes::bits` | event loop | main thread | relaxed; `came`, which is written afterwards, is a system call |

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::input::{INPUT_MOST, Input};
use super::keys::{HELP, Keys, Wish};
use super::terminal;

const QUIT: u8 = 1 << 0;
const POWER_BUTTON: u8 = 1 << 1;

/// What was wanted of the VM's host by keys, on its way to the main thread.
pub struct Wishes {
    bits: AtomicU8,
    came: EventFd,
}

impl Wishes {
    /// Nothing yet.
    ///
    /// # Errors
    /// What `eventfd(2)` says: too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Wishes { bits: AtomicU8::new(0), came: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)? })
    }

    /// Takes in what is wanted. [`Wish::Help`] is never among it: it has been given.
    #[must_use]
    pub fn take(&self) -> Vec<Wish> {
        let _ = self.came.read();
        let bits = self.bits.swap(0, Ordering::Relaxed);
        let wishes = [(POWER_BUTTON, Wish::PowerButton), (QUIT, Wish::Quit)];
        wishes.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, wish)| wish).collect()
    }

    fn put(&self, wish: Wish) {
        let bit = match wish {
            Wish::Quit => QUIT,
            Wish::PowerButton => POWER_BUTTON,
            Wish::Help => {
                eprint!("{HELP}");
                return;
            }
        };
        self.bits.fetch_or(bit, Ordering::Relaxed);
        // A full counter means that the main thread has been told already.
        let _ = self.came.write(1);
    }
}

impl AsRawFd for Wishes {
    /// Readable when something is wanted.
    fn as_raw_fd(&self) -> RawFd {
        self.came.as_raw_fd()
    }
}

/// How the descriptor can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Terminal,
    /// epoll tells when there is something.
    Watched,
    /// There always is something, until the end: epoll refuses it.
    File,
}

/// A descriptor that is somebody else's: it is not closed.
struct Borrowed(ManuallyDrop<File>);

impl Borrowed {
    #[allow(unsafe_code)] // a descriptor by its number
    fn new(fd: RawFd) -> Self {
        // SAFETY: the file is never dropped, so the descriptor is not closed here; reading one that is
        // not open fails.
        Borrowed(ManuallyDrop::new(unsafe { File::from_raw_fd(fd) }))
    }
}

/// Standard input.
pub struct Stdin {
    from: Borrowed,
    kind: Kind,
    keys: Keys,
    wishes: Arc<Wishes>,
    /// It has ended.
    silent: bool,
}

impl Stdin {
    /// Standard input, whose keys lead to `wishes` if it is a terminal.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn open(wishes: Arc<Wishes>) -> io::Result<Self> {
        Stdin::of(libc::STDIN_FILENO, wishes)
    }

    fn of(fd: RawFd, wishes: Arc<Wishes>) -> io::Result<Self> {
        let event = EpollEvent::new(EventSet::IN, 0);
        let kind = if terminal::is_terminal(fd) {
            Kind::Terminal
        } else if Epoll::new()?.ctl(ControlOperation::Add, fd, event).is_ok() {
            Kind::Watched
        } else {
            Kind::File
        };
        let from = Borrowed::new(fd);
        Ok(Stdin { from, kind, keys: Keys::default(), wishes, silent: false })
    }

    /// What it is to be watched for.
    pub(super) fn interest(&self, input: &Input) -> Option<(RawFd, EventSet)> {
        let wanted = match self.kind {
            Kind::Terminal => true,
            Kind::Watched => input.room() > 0,
            Kind::File => false,
        };
        (wanted && !self.silent).then(|| (self.from.0.as_raw_fd(), EventSet::IN))
    }

    /// It can be read, or has ended.
    pub(super) fn serve(&mut self, input: &Input) {
        let mut bytes = [0; INPUT_MOST];
        let most = match self.kind {
            Kind::Terminal => INPUT_MOST,
            Kind::Watched | Kind::File => input.room(),
        };
        if self.silent || most == 0 {
            return;
        }
        match self.from.0.read(&mut bytes[..most]) {
            Ok(0) => self.silent = true,
            Ok(count) if self.kind == Kind::Terminal => self.typed(&bytes[..count], input),
            Ok(count) => {
                input.put(&bytes[..count]);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The terminal has gone, or is another process's now.
            Err(_) => self.silent = true,
        }
    }

    /// The guest may have made room.
    pub(super) fn refill(&mut self, input: &Input) {
        while self.kind == Kind::File && !self.silent && input.room() > 0 {
            self.serve(input);
        }
    }

    fn typed(&mut self, bytes: &[u8], input: &Input) {
        let mut guest = Vec::with_capacity(bytes.len());
        for wish in self.keys.typed(bytes, &mut guest) {
            self.wishes.put(wish);
        }
        // A guest that does not listen misses what does not fit.
        input.put(&guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn wishes() -> Arc<Wishes> {
        Arc::new(Wishes::new().expect("an eventfd"))
    }

    fn taken(input: &Input) -> Vec<u8> {
        let mut bytes = vec![0; INPUT_MOST];
        let (count, _) = input.take(&mut bytes);
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn pipe_is_read_while_there_is_room_and_then_left_alone() {
        let (from, mut to) = io::pipe().expect("a pipe");
        let input = Input::default();
        let mut stdin = Stdin::of(from.as_raw_fd(), wishes()).expect("an epoll");
        to.write_all(&[b'\x01'; INPUT_MOST + 10]).expect("it fits the pipe");
        assert!(stdin.interest(&input).is_some());
        stdin.serve(&input);
        assert!(stdin.interest(&input).is_none(), "no room");
        stdin.serve(&input);
        assert_eq!(taken(&input), [b'\x01'; INPUT_MOST], "a pipe has no keys");
        stdin.serve(&input);
        assert_eq!(taken(&input).len(), 10);
        drop(to);
        stdin.serve(&input);
        assert!(stdin.interest(&input).is_none(), "it has ended");
    }

    #[test]
    fn file_is_read_as_far_as_there_is_room_and_never_watched() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[b'f'; 2 * INPUT_MOST + 10]).expect("it fits");
        file.rewind().expect("a file");
        let input = Input::default();
        let mut stdin = Stdin::of(file.as_raw_fd(), wishes()).expect("an epoll");
        let mut heard = 0;
        for _ in 0..4 {
            stdin.refill(&input);
            assert!(stdin.interest(&input).is_none());
            heard += taken(&input).len();
        }
        assert_eq!(heard, 2 * INPUT_MOST + 10);
        assert!(stdin.silent);
    }

    #[test]
    fn closed_descriptor_is_silent() {
        let input = Input::default();
        let mut stdin = Stdin::of(1 << 20, wishes()).expect("an epoll");
        stdin.refill(&input);
        assert!(stdin.silent && stdin.interest(&input).is_none());
    }

    #[test]
    fn wishes_come_once() {
        let wishes = wishes();
        wishes.put(Wish::PowerButton);
        wishes.put(Wish::PowerButton);
        assert_eq!(wishes.take(), [Wish::PowerButton]);
        assert_eq!(wishes.take(), []);
        wishes.put(Wish::Quit);
        assert_eq!(wishes.take(), [Wish::Quit]);
    }
}
