//! Serial output on its way from the exit handler to a file or the terminal.
//!
//! A vCPU thread must never block in a write, so the bytes go into a bounded queue, and the
//! event-loop thread carries them on. Owns the queue. Must not know the UART.
//!
//! | variable | lock | writer | reader |
//! |---|---|---|---|
//! | `bytes` | its own mutex, held for a copy of a few bytes | vCPU threads | event loop |
//! | `dropped` | none (relaxed counter) | vCPU threads | event loop |

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What a guest may be ahead of the reader of its console, in bytes; more is dropped and counted.
const CAPACITY: usize = 1 << 20;

struct Queue {
    bytes: Mutex<Vec<u8>>,
    dropped: AtomicU64,
    ready: EventFd,
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

/// Where a console's bytes go.
pub enum Sink {
    /// Standard output, each line behind this prefix (empty: none).
    Stdout(String),
    /// A file.
    File(std::fs::File),
    /// Nowhere.
    Null,
}

/// The host's end of a console.
pub struct Console {
    queue: Arc<Queue>,
    sink: Sink,
    line_open: bool,
}

/// A console and the guest's end of it.
///
/// # Errors
/// What `eventfd(2)` says: too many open files.
pub fn console(sink: Sink) -> io::Result<(Console, ConsoleWriter)> {
    let queue = Arc::new(Queue {
        bytes: Mutex::new(Vec::new()),
        dropped: AtomicU64::new(0),
        ready: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
    });
    let writer = ConsoleWriter(Arc::clone(&queue));
    Ok((Console { queue, sink, line_open: false }, writer))
}

impl Console {
    /// Becomes readable when there is something to carry on.
    #[must_use]
    pub fn ready(&self) -> &EventFd {
        &self.queue.ready
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
            Sink::Null => Ok(()),
            Sink::File(file) => file.write_all(&bytes),
            Sink::Stdout(prefix) => {
                let text = prefixed(prefix, &bytes, &mut self.line_open);
                let mut out = io::stdout().lock();
                out.write_all(&text)?;
                out.flush()
            }
        }
    }

    /// Bytes that did not fit the queue.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

fn prefixed(prefix: &str, bytes: &[u8], line_open: &mut bool) -> Vec<u8> {
    if prefix.is_empty() {
        return bytes.to_vec();
    }
    let mut text = Vec::with_capacity(bytes.len() + prefix.len());
    for &byte in bytes {
        if !*line_open {
            text.extend_from_slice(prefix.as_bytes());
        }
        *line_open = byte != b'\n';
        text.push(byte);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_their_prefix_once_however_they_are_cut() {
        let mut open = false;
        let mut text = prefixed("vm1: ", b"he", &mut open);
        text.extend(prefixed("vm1: ", b"llo\nyou\n", &mut open));
        assert_eq!(text, b"vm1: hello\nvm1: you\n");
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
