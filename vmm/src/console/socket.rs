//! A serial port's other end as a unix stream socket.
//!
//! Owns the listening socket and its file, the client, and what waits for one: output while nobody
//! is connected or the client is slow, within a bound. Input goes to `Input`. One
//! client at a time; the next one waits until it has gone. Never blocks, except at the very end,
//! for a moment. Must not know who watches the descriptors.

#![allow(unsafe_code)] // umask

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;

use super::input::{INPUT_MOST, Input};

/// Most output that waits for a client, in bytes: the newest.
pub const BACKLOG_MOST: usize = 256 << 10;

/// How long a slow client is waited for at the end.
const PATIENCE: Duration = Duration::from_millis(500);

/// A socket that waits for clients; its file is removed with it.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Creates the socket's file.
    ///
    /// # Errors
    /// One line with what to do: the path exists, its directory does not, or it is too long.
    pub fn bind(path: &Path) -> Result<Self, String> {
        let advice = |error: io::Error| match error.kind() {
            ErrorKind::AddrInUse => "exists already; remove it or name another".to_owned(),
            ErrorKind::NotFound => "its directory does not exist".to_owned(),
            ErrorKind::InvalidInput => {
                "no name for a socket; it must be shorter than 108 bytes".to_owned()
            }
            _ => format!("cannot be created: {error}"),
        };
        let socket = UnixListener::bind(path).map_err(advice)?;
        let listener = Listener { socket, path: path.to_path_buf() };
        listener.socket.set_nonblocking(true).map_err(advice)?;
        Ok(listener)
    }
}

impl Listener {
    /// As [`Listener::bind`], for this user alone (mode 0600). To be called before other threads
    /// create files.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_private(path: &Path) -> Result<Self, String> {
        // SAFETY: takes and gives integers, and cannot fail.
        let before = unsafe { libc::umask(0o177) };
        let listener = Listener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(before) };
        listener
    }

    /// Lets in who waits, if anybody does; the connection does not block.
    ///
    /// # Errors
    /// Nobody waits any more, or there are too many open files.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let (client, _) = self.socket.accept()?;
        client.set_nonblocking(true)?;
        Ok(client)
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The socket, its client and what waits for one.
pub(super) struct Socket {
    listener: Listener,
    client: Option<UnixStream>,
    /// The client is to be closed once nobody watches it any more.
    gone: bool,
    /// The client says no more, but may still listen.
    silent: bool,
    backlog: VecDeque<u8>,
    dropped: u64,
    input: Arc<Input>,
}

impl Socket {
    pub(super) fn new(listener: Listener, input: Arc<Input>) -> Self {
        Socket {
            listener,
            client: None,
            gone: false,
            silent: false,
            backlog: VecDeque::new(),
            dropped: 0,
            input,
        }
    }

    /// What the listening socket is to be watched for.
    pub(super) fn listener_interest(&self) -> Option<(RawFd, EventSet)> {
        self.client.is_none().then(|| (self.listener.socket.as_raw_fd(), EventSet::IN))
    }

    /// What the client is to be watched for.
    pub(super) fn client_interest(&self) -> Option<(RawFd, EventSet)> {
        let client = self.client.as_ref().filter(|_| !self.gone)?;
        let mut events = EventSet::empty();
        if !self.silent && self.input.room() > 0 {
            events |= EventSet::IN;
        }
        if !self.backlog.is_empty() {
            events |= EventSet::OUT;
        }
        Some((client.as_raw_fd(), events))
    }

    /// Closes a client that has gone; it must not be watched any more.
    pub(super) fn close_gone(&mut self) {
        if std::mem::take(&mut self.gone) {
            self.client = None;
            self.silent = false;
        }
    }

    /// Somebody wants to be let in.
    pub(super) fn accept(&mut self) {
        if self.client.is_some() {
            return;
        }
        // Whoever has gone again meanwhile is nobody's loss.
        if let Ok(client) = self.listener.accept() {
            self.client = Some(client);
            self.flush();
        }
    }

    /// The client can be read, written, or has gone.
    pub(super) fn serve(&mut self, events: EventSet) {
        self.receive();
        self.flush();
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) && self.client.is_some() {
            self.gone = true;
        }
    }

    fn receive(&mut self) {
        let Some(client) = self.client.as_mut().filter(|_| !self.silent && !self.gone) else {
            return;
        };
        let mut bytes = [0; INPUT_MOST];
        let room = self.input.room();
        if room == 0 {
            return;
        }
        match client.read(&mut bytes[..room]) {
            Ok(0) => self.silent = true,
            Ok(count) => {
                self.input.put(&bytes[..count]);
            }
            Err(error) if retry(&error) => {}
            Err(_) => self.gone = true,
        }
    }

    /// Sends output, or keeps the newest of it until it can be sent.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
        self.flush();
        let excess = self.backlog.len().saturating_sub(BACKLOG_MOST);
        self.backlog.drain(..excess);
        self.dropped += excess as u64;
    }

    /// Output that nobody was there to take, in bytes.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn flush(&mut self) {
        while let Some(client) = self.client.as_mut().filter(|_| !self.gone)
            && !self.backlog.is_empty()
        {
            match client.write(self.backlog.as_slices().0) {
                Ok(0) => self.gone = true,
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(error) if retry(&error) => return,
                Err(_) => self.gone = true,
            }
        }
    }

    /// Sends what is left, waiting for a slow client a moment.
    pub(super) fn finish(&mut self) {
        // Whoever connected after the last event still gets the output.
        self.accept();
        if let Some(client) = self.client.as_mut().filter(|_| !self.gone) {
            let ready = client
                .set_nonblocking(false)
                .and_then(|()| client.set_write_timeout(Some(PATIENCE)));
            if ready.is_ok() {
                // A client that has gone wants nothing.
                let _ = client.write_all(self.backlog.make_contiguous());
            }
        }
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (tempfile::TempDir, PathBuf, Socket, Arc<Input>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        let input = Arc::new(Input::default());
        let socket = Socket::new(Listener::bind(&path).expect("a socket"), Arc::clone(&input));
        (folder, path, socket, input)
    }

    fn readable(client: &mut UnixStream, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).expect("that much was sent");
        bytes
    }

    #[test]
    fn output_waits_for_a_client_and_the_newest_is_kept() {
        let (_folder, path, mut socket, _) = socket();
        socket.put(b"lost");
        socket.put(&[b'x'; BACKLOG_MOST]);
        assert_eq!(socket.dropped(), 4);
        assert!(socket.client_interest().is_none());
        let mut client = UnixStream::connect(&path).expect("it listens");
        socket.accept();
        assert_eq!(readable(&mut client, 1000), [b'x'; 1000]);
    }

    #[test]
    fn slow_client_is_not_waited_for_and_gets_everything_within_the_bound() {
        let (_folder, path, mut socket, _) = socket();
        let mut client = UnixStream::connect(&path).expect("it listens");
        socket.accept();
        // More than the socket's own buffer takes.
        let sent = vec![b'y'; 240 << 10];
        socket.put(&sent);
        socket.put(&sent);
        let (_, wanted) = socket.client_interest().expect("a client");
        assert!(wanted.contains(EventSet::OUT));
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("a socket");
            all.len()
        });
        socket.finish();
        let dropped = socket.dropped() as usize;
        drop(socket);
        assert_eq!(reader.join().expect("a reader"), 2 * sent.len() - dropped);
    }

    #[test]
    fn second_client_waits_until_the_first_has_gone() {
        let (_folder, path, mut socket, _) = socket();
        let first = UnixStream::connect(&path).expect("it listens");
        socket.accept();
        assert!(socket.listener_interest().is_none());
        let mut second = UnixStream::connect(&path).expect("it is in the queue");
        drop(first);
        socket.serve(EventSet::IN | EventSet::HANG_UP);
        assert!(socket.client_interest().is_none());
        socket.put(b"between");
        socket.close_gone();
        assert!(socket.listener_interest().is_some());
        socket.accept();
        assert_eq!(readable(&mut second, 7), b"between");
    }

    #[test]
    fn client_that_is_far_ahead_of_the_guest_is_not_read() {
        let (_folder, path, mut socket, input) = socket();
        let mut client = UnixStream::connect(&path).expect("it listens");
        socket.accept();
        client.write_all(&[b'z'; 2 * INPUT_MOST]).expect("it fits the socket");
        socket.serve(EventSet::IN);
        socket.serve(EventSet::IN);
        let (_, wanted) = socket.client_interest().expect("a client");
        assert!(!wanted.contains(EventSet::IN));
        let mut bytes = [0; 10];
        assert_eq!(input.take(&mut bytes), (10, true));
        assert_eq!(bytes, [b'z'; 10]);
        let (_, wanted) = socket.client_interest().expect("a client");
        assert!(wanted.contains(EventSet::IN));
    }

    #[test]
    fn client_that_says_no_more_still_gets_output() {
        let (_folder, path, mut socket, input) = socket();
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.write_all(b"all").expect("it fits");
        client.shutdown(std::net::Shutdown::Write).expect("it is open");
        socket.accept();
        socket.serve(EventSet::IN);
        socket.serve(EventSet::IN);
        let (_, wanted) = socket.client_interest().expect("still a client");
        assert!(wanted.is_empty());
        let mut bytes = [0; 8];
        assert_eq!(input.take(&mut bytes), (3, false));
        socket.put(b"answer");
        assert_eq!(readable(&mut client, 6), b"answer");
    }

    #[test]
    fn file_is_removed_and_errors_say_what_to_do() {
        let (folder, path, socket, _) = socket();
        let error = Listener::bind(&path).err().expect("it exists");
        assert!(error.contains("remove it"), "{error}");
        drop(socket);
        assert!(!path.exists());
        let error = Listener::bind(&folder.path().join("no/such")).err().expect("no directory");
        assert!(error.contains("directory"), "{error}");
        let error = Listener::bind(&folder.path().join("x".repeat(200))).err().expect("long");
        assert!(error.contains("108"), "{error}");
    }
}
