//! Serial output on its way from the exit handler to a file, a socket, the terminal or memory, and a
//! socket's or the terminal's input on its way back.
//!
//! A vCPU thread must never block in a write, so the bytes go into a bounded queue, and the
//! event-loop thread carries them on. Owns the queues. Must not know the UART.
//!
//! | variable | lock | writer | reader |
//! |---|---|---|---|
//! | `bytes` | its own mutex, held for a copy of a few bytes | vCPU threads | event loop |
//! | `dropped` | none (relaxed counter) | vCPU threads | event loop |

pub mod capture;
mod input;
pub mod keys;
pub mod socket;
pub mod stdio;
pub mod terminal;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use capture::Capture;
pub use input::INPUT_MOST;
use input::Input;
use socket::{Listener, Socket};
use stdio::Stdin;

/// What a guest may be ahead of the reader of its console, in bytes; more is dropped and counted.
const CAPACITY: usize = 1 << 20;

struct Queue {
    bytes: Mutex<Vec<u8>>,
    dropped: AtomicU64,
    ready: EventFd,
    input: Arc<Input>,
}

/// The guest's end: never blocks, never fails.
#[derive(Clone)]
pub struct ConsoleWriter(Arc<Queue>);

impl Write for ConsoleWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut bytes = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = bytes.is_empty();
        let room = CAPACITY - bytes.len().min(CAPACITY);
        let taken = data.len().min(room);
        bytes.extend_from_slice(&data[..taken]);
        drop(bytes);
        if taken < data.len() {
            self.0.dropped.fetch_add((data.len() - taken) as u64, Ordering::Relaxed);
        }
        if was_empty && taken > 0 {
            // A full counter means that the reader has been told already.
            let _ = self.0.ready.write(1);
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ConsoleWriter {
    /// Has `told` called by the event loop when something was said to the guest, in the place of
    /// whoever was told before.
    pub fn on_input(&self, told: impl Fn() + Send + Sync + 'static) {
        self.0.input.on_put(Arc::new(told));
    }

    /// What is said to the guest.
    #[must_use]
    pub fn reader(&self) -> ConsoleReader {
        ConsoleReader(Arc::clone(&self.0))
    }
}

/// The guest's end of what is said to it: never blocks, never fails; no bytes: nothing was said.
pub struct ConsoleReader(Arc<Queue>);

impl Read for ConsoleReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (count, was_full) = self.0.input.take(into);
        if was_full {
            // The event loop has stopped listening to the client.
            let _ = self.0.ready.write(1);
        }
        Ok(count)
    }
}

/// Where a console's bytes go.
pub enum Sink {
    /// Standard output, each line behind this prefix (empty: none).
    Stdout(String),
    /// Standard output, and what comes from standard input goes to the guest.
    Stdio(Stdin),
    /// A file.
    File(std::fs::File),
    /// Whoever connects, whose words go to the guest.
    Socket(Listener),
    /// Memory, within bounds.
    Memory(Arc<Capture>),
    /// Nowhere.
    Null,
}

/// A descriptor of a console that has to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The guest wrote something, or took input.
    Guest,
    /// Somebody wants to connect.
    Listener,
    /// Whoever is connected, or types.
    Client,
}

impl Source {
    /// All of them.
    pub const ALL: [Source; 3] = [Source::Guest, Source::Listener, Source::Client];
}

enum Carry {
    Stdout(String),
    Stdio(Box<Stdin>),
    File(std::fs::File),
    Socket(Box<Socket>),
    Memory(Arc<Capture>),
    Null,
}

/// Longest line that is kept together when several guests write to one output, in bytes.
const LONGEST_LINE: usize = 4096;

/// The host's end of a console.
pub struct Console {
    queue: Arc<Queue>,
    sink: Carry,
    /// A line that has no end yet, where lines of several guests must not mix.
    open_line: Vec<u8>,
}

/// A console and the guest's end of it.
///
/// # Errors
/// What `eventfd(2)` says: too many open files.
pub fn console(sink: Sink) -> io::Result<(Console, ConsoleWriter)> {
    let input = Arc::new(Input::default());
    let queue = Arc::new(Queue {
        bytes: Mutex::new(Vec::new()),
        dropped: AtomicU64::new(0),
        ready: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        input: Arc::clone(&input),
    });
    let sink = match sink {
        Sink::Stdout(prefix) => Carry::Stdout(prefix),
        Sink::Stdio(stdin) => Carry::Stdio(Box::new(stdin)),
        Sink::File(file) => Carry::File(file),
        Sink::Socket(listener) => Carry::Socket(Box::new(Socket::new(listener, input))),
        Sink::Memory(capture) => Carry::Memory(capture),
        Sink::Null => Carry::Null,
    };
    let writer = ConsoleWriter(Arc::clone(&queue));
    Ok((Console { queue, sink, open_line: Vec::new() }, writer))
}

impl Console {
    /// What a source is to be watched for at present, if there is one. Changes with
    /// [`Console::serve`].
    #[must_use]
    pub fn interest(&self, source: Source) -> Option<(RawFd, EventSet)> {
        match (source, &self.sink) {
            (Source::Guest, _) => Some((self.queue.ready.as_raw_fd(), EventSet::IN)),
            (Source::Listener, Carry::Socket(socket)) => socket.listener_interest(),
            (Source::Client, Carry::Socket(socket)) => socket.client_interest(),
            (Source::Client, Carry::Stdio(stdin)) => stdin.interest(&self.queue.input),
            _ => None,
        }
    }

    /// Does what `events` of a source call for.
    ///
    /// # Errors
    /// The sink's; the bytes are lost then.
    pub fn serve(&mut self, source: Source, events: EventSet) -> io::Result<()> {
        match (source, &mut self.sink) {
            (Source::Guest, _) => self.drain()?,
            (Source::Listener, Carry::Socket(socket)) => socket.accept(),
            (Source::Client, Carry::Socket(socket)) => socket.serve(events),
            (Source::Client, Carry::Stdio(stdin)) => stdin.serve(&self.queue.input),
            _ => {}
        }
        Ok(())
    }

    /// Takes in what can be had without being watched for. To be called once, after
    /// [`ConsoleWriter::on_input`].
    pub fn begin(&mut self) {
        if let Carry::Stdio(stdin) = &mut self.sink {
            stdin.refill(&self.queue.input);
        }
    }

    /// Closes a client that has gone. It must not be watched any more, as a descriptor's number may
    /// come back at once.
    pub fn close_gone(&mut self) {
        if let Carry::Socket(socket) = &mut self.sink {
            socket.close_gone();
        }
    }

    /// Carries on what is there.
    ///
    /// # Errors
    /// The sink's; the bytes are lost then.
    pub fn drain(&mut self) -> io::Result<()> {
        let _ = self.queue.ready.read();
        let bytes =
            std::mem::take(&mut *self.queue.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        match &mut self.sink {
            Carry::Null => Ok(()),
            Carry::File(file) => file.write_all(&bytes),
            Carry::Socket(socket) => {
                socket.put(&bytes);
                Ok(())
            }
            Carry::Memory(capture) => {
                capture.put(&bytes);
                Ok(())
            }
            Carry::Stdout(prefix) => {
                let text = prefixed(prefix, &bytes, &mut self.open_line);
                to_stdout(&text)
            }
            Carry::Stdio(stdin) => {
                // The guest may be told to read more.
                stdin.refill(&self.queue.input);
                to_stdout(&bytes)
            }
        }
    }

    /// Carries on what is there, and a last line without an end.
    ///
    /// # Errors
    /// As [`Console::drain`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.drain()?;
        let dropped = self.dropped();
        match &mut self.sink {
            Carry::Stdout(prefix) if !self.open_line.is_empty() => {
                let text = [prefix.as_bytes(), &self.open_line, b"\n"].concat();
                self.open_line.clear();
                to_stdout(&text)?;
            }
            Carry::Socket(socket) => socket.finish(),
            Carry::Memory(capture) => capture.note_lost(dropped),
            _ => {}
        }
        Ok(())
    }

    /// Bytes that did not fit the queue, or that no client was there for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let unsent = match &self.sink {
            Carry::Socket(socket) => socket.dropped(),
            _ => 0,
        };
        self.queue.dropped.load(Ordering::Relaxed) + unsent
    }
}

fn to_stdout(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// The whole lines among `open` and `bytes`, each behind `prefix`; what is left stays in `open`.
/// Without a prefix there is one guest, whose bytes appear as they come.
fn prefixed(prefix: &str, bytes: &[u8], open: &mut Vec<u8>) -> Vec<u8> {
    if prefix.is_empty() {
        return bytes.to_vec();
    }
    let mut text = Vec::with_capacity(bytes.len() + prefix.len());
    for &byte in bytes {
        open.push(byte);
        if byte == b'\n' || open.len() >= LONGEST_LINE {
            text.extend_from_slice(prefix.as_bytes());
            text.append(open);
            if byte != b'\n' {
                text.push(b'\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_guests_come_whole_and_with_their_prefix() {
        let mut open = Vec::new();
        assert_eq!(prefixed("vm1: ", b"he", &mut open), b"");
        let text = prefixed("vm1: ", b"llo\nyou\nth", &mut open);
        assert_eq!(text, b"vm1: hello\nvm1: you\n");
        assert_eq!(open, b"th");
        assert_eq!(prefixed("", b"at once", &mut open), b"at once");
    }

    #[test]
    fn line_without_an_end_is_cut_and_does_not_grow() {
        let mut open = Vec::new();
        let text = prefixed("a: ", &[b'x'; 3 * LONGEST_LINE + 5], &mut open);
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 3);
        assert_eq!(open.len(), 5);
    }

    #[test]
    fn guest_that_floods_its_console_loses_bytes_and_blocks_nobody() {
        let (console, mut writer) = console(Sink::Null).expect("an eventfd");
        for _ in 0..CAPACITY / 1024 + 10 {
            assert_eq!(writer.write(&[b'x'; 1024]).expect("never fails"), 1024);
        }
        assert_eq!(console.dropped(), 10 * 1024);
    }

    #[test]
    fn guest_that_takes_input_from_a_full_buffer_tells_the_event_loop() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        let listener = Listener::bind(&path).expect("a socket");
        let (mut console, writer) = console(Sink::Socket(listener)).expect("an eventfd");
        let mut client = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        console.serve(Source::Listener, EventSet::IN).expect("a socket");
        client.write_all(&[b'x'; 2 * INPUT_MOST]).expect("it fits the socket");
        console.serve(Source::Client, EventSet::IN).expect("a socket");
        let mut reader = writer.reader();
        assert!(console.queue.ready.read().is_err(), "nothing has been said yet");
        assert_eq!(reader.read(&mut [0; 64]).expect("never fails"), 64);
        assert!(console.queue.ready.read().is_ok());
        assert_eq!(reader.read(&mut [0; 64]).expect("never fails"), 64);
        assert!(console.queue.ready.read().is_err(), "once is enough");
    }

    #[test]
    fn file_gets_every_byte() {
        let file = tempfile::tempfile().expect("a temporary file");
        let (mut console, mut writer) =
            console(Sink::File(file.try_clone().expect("a descriptor"))).expect("an eventfd");
        writer.write_all(b"hello\n").expect("never fails");
        console.drain().expect("a file");
        let mut text = String::new();
        let mut file = file;
        io::Seek::rewind(&mut file).expect("a file");
        io::Read::read_to_string(&mut file, &mut text).expect("text");
        assert_eq!(text, "hello\n");
    }
}
