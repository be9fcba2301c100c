//! Serial output that is kept in memory, within bounds.
//!
//! Owns the bytes. The event loop writes them; whoever made the capture reads them once the VM has
//! ended. Must not know what they are judged by.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How much of the end of the output is kept, in bytes.
pub const TAIL_MOST: usize = 64 << 10;

/// What a guest wrote, as far as it was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes, as many as were asked for.
    pub head: Vec<u8>,
    /// The last bytes, at most [`TAIL_MOST`].
    pub tail: Vec<u8>,
    /// How many bytes came in all.
    pub total: u64,
    /// How many were lost on the way, as the guest was too far ahead.
    pub lost: u64,
}

#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    lost: u64,
}

/// Where serial output is kept.
pub struct Capture {
    head_most: usize,
    kept: Mutex<Kept>,
}

impl Capture {
    /// Keeps the first `head_most` bytes and the last [`TAIL_MOST`].
    #[must_use]
    pub fn new(head_most: usize) -> Self {
        Capture { head_most, kept: Mutex::default() }
    }

    /// Adds output.
    pub fn put(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.head_most - kept.head.len();
        kept.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        kept.total = kept.total.saturating_add(bytes.len() as u64);
        let last = &bytes[bytes.len().saturating_sub(TAIL_MOST)..];
        let excess = (kept.tail.len() + last.len()).saturating_sub(TAIL_MOST);
        kept.tail.drain(..excess);
        kept.tail.extend(last);
    }

    /// Notes how many bytes never came, in all.
    pub fn note_lost(&self, lost: u64) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).lost = lost;
    }

    /// Takes what there is.
    #[must_use]
    pub fn take(&self) -> Captured {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { head, tail, total, lost } = std::mem::take(&mut *kept);
        Captured { head, tail: tail.into(), total, lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_and_end_are_kept_and_the_middle_is_counted() {
        let capture = Capture::new(4);
        let all: Vec<u8> = (0..3 * TAIL_MOST).map(|i| (i % 251) as u8).collect();
        for piece in all.chunks(1000) {
            capture.put(piece);
        }
        let captured = capture.take();
        assert_eq!(captured.head, all[..4]);
        assert_eq!(captured.tail, all[2 * TAIL_MOST..]);
        assert_eq!(captured.total, all.len() as u64);
    }

    #[test]
    fn piece_above_the_bound_leaves_its_end() {
        let capture = Capture::new(0);
        capture.put(b"before");
        capture.put(&[&[b'x'; TAIL_MOST][..], b"end"].concat());
        let captured = capture.take();
        assert_eq!(captured.tail.len(), TAIL_MOST);
        assert!(captured.tail.ends_with(b"xend"));
        assert!(captured.head.is_empty());
    }
}
