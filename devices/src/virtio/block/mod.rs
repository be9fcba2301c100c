//! The block device (Virtio 1.2, section 5.2).
//!
//! Owns its queue, its configuration, and the requests that are on their way. Must not know files: a
//! disk is a [`Disk`]. What takes time happens between two calls of the model, without the transport's
//! lock: [`serve::one`].
//!
//! A request's bytes are copied, in pieces, into a buffer of the host's and from there: so a reset
//! waits for the copy of one piece at most, after which nothing writes into guest memory any more, and
//! the disk's alignment is its own affair. Requests are carried out one after the other, in the order
//! in which they were made available; so a flush covers all before it.
//!
//! | threat | answer |
//! |---|---|
//! | sectors beyond the end, sums that overflow, lengths that are no multiple of a block | `IOERR`, nothing is done |
//! | writes to a disk that is read-only | `IOERR` |
//! | requests that are not known, flags that are reserved | `UNSUPP` |
//! | a header that is too short | `IOERR` |
//! | no place for the status | the ring is broken |
//! | gigabytes in one request | pieces of the buffer's size, after each of which a reset is noticed |
//! | discards of everything, in a loop | limits of [`MOST_SEGMENTS`] ranges of [`MOST_ZEROED`] or [`MOST_DISCARDED`] bytes; the disk's own thread pays |
//! | a buffer that the driver changes meanwhile | the disk gets what was copied |
//! | a driver without flushes | each write is made permanent before it is done (5.2.5) |

mod config;
mod request;
pub mod serve;
#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_blk as blk;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::Queue;

pub use self::config::{MOST_DISCARDED, MOST_SEGMENTS, MOST_ZEROED};
use self::request::{Request, Work};
use super::ring::{Broken, Ring};
use super::{Memory, Model, Signal};

/// Bytes of a sector, in which requests count.
pub const SECTOR: u64 = 512;
/// Entries of the queue.
pub const QUEUE_SIZE: u16 = 128;

const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];

/// What the device needs of the host. Offsets and lengths are in bytes, inside the disk, and
/// multiples of [`Geometry::block`].
pub trait Disk {
    /// Reads all of `bytes`.
    ///
    /// # Errors
    /// What the host says.
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the host says; some of it may be written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes permanent what was written.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&mut self) -> io::Result<()>;

    /// Nobody needs what is there; it may read as anything afterwards. A hint.
    ///
    /// # Errors
    /// What the host says.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes this read as zeros; the place may be given away if `unmap`.
    ///
    /// # Errors
    /// What the host says.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

/// What is decided about a disk before it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Its size in bytes: a multiple of `block`.
    pub bytes: u64,
    /// The smallest piece that can be read or written, in bytes: a power of two, at least
    /// [`SECTOR`], at most 32 KiB.
    pub block: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// What it is called, by a guest that asks.
    pub id: [u8; blk::VIRTIO_BLK_ID_BYTES as usize],
}

/// The block device.
#[derive(Debug)]
pub struct Block {
    geometry: Geometry,
    ring: Option<Ring>,
    /// The driver does not flush.
    write_through: bool,
    /// Grows with each reset: what was begun before is nobody's any more.
    epoch: u64,
}

/// What is kept of a request while it is carried out.
#[derive(Debug)]
struct Job {
    epoch: u64,
    request: Request,
    work: Work,
}

impl Block {
    /// A device in front of a disk.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Block { geometry, ring: None, write_through: true, epoch: 0 }
    }

    /// Takes the next request.
    fn take(&mut self, memory: &Memory) -> Result<Option<Job>, Broken> {
        let Block { geometry, ring: Some(ring), write_through, epoch } = self else {
            return Ok(None);
        };
        let Some(chain) = ring.next(memory)? else { return Ok(None) };
        let request = Request::new(chain)?;
        let work = request.work(memory, geometry, *write_through)?;
        Ok(Some(Job { epoch: *epoch, request, work }))
    }

    /// No reset has come since the request was taken.
    fn is_current(&self, job: &Job) -> bool {
        self.epoch == job.epoch
    }

    /// Gives the request back.
    fn finish(&mut self, memory: &Memory, job: &Job, done: Done) -> Result<Signal, Broken> {
        let current = self.is_current(job);
        let Some(ring) = self.ring.as_mut().filter(|_| current) else {
            return Ok(Signal::NONE);
        };
        job.request.set_status(memory, done.status)?;
        ring.give_back(memory, job.request.head(), done.written.saturating_add(1))?;
        Ok(Signal::used(ring.wants_interrupt(memory)?))
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Done {
    status: u8,
    /// Bytes that the driver can read, beside the status.
    written: u32,
}

impl Model for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        config::features(&self.geometry)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config::read(&self.geometry, offset, data);
    }

    fn activate(&mut self, features: u64, queues: Vec<Queue>) {
        self.ring = queues.into_iter().next().map(Ring::from);
        self.write_through = features >> blk::VIRTIO_BLK_F_FLUSH & 1 == 0;
    }

    fn reset(&mut self) {
        self.ring = None;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Nothing: whoever has the disk calls [`serve::one`].
    fn notified(&mut self, _queue: usize, _memory: &Memory) -> Signal {
        Signal::NONE
    }
}
