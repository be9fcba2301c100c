//! Carrying out a request: the disk between two looks at guest memory.
//!
//! Owns the order of things, and that the transport's lock is never held while the disk works. Must
//! not know what the disk is, nor which thread this is.

use std::io;

use super::request::{IOERR, OK, Range, Work};
use super::{Block, Disk, Done, Job};
use crate::virtio::mmio::{Served, Transport};
use crate::virtio::ring::Broken;
use crate::virtio::{Memory, Signal};

/// Why a request was not carried out.
enum Failure {
    /// The disk says no.
    Disk(io::Error),
    /// A reset came between: there is nobody to tell.
    Dropped,
}

/// What became of a request.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    /// What is to be done for the transport.
    pub served: Served,
    /// What the disk said when it failed.
    pub failed: Option<io::Error>,
}

/// Takes the next request and carries it out, in pieces of `buffer`, which has a multiple of the
/// disk's block size, at least one. `None`: there is none, and the driver will notify the device of
/// the next.
pub fn one(transport: &Transport<Block>, disk: &mut impl Disk, buffer: &mut [u8]) -> Option<Turn> {
    let mut taken = None;
    let begun = transport.serve(|block, memory| match block.take(memory) {
        Ok(job) => {
            taken = job;
            Signal::NONE
        }
        Err(broken) => broken.into(),
    });
    let Some(job) = taken else {
        // Broken: the driver is to be told.
        return begun.interrupt.then_some(Turn { served: begun, failed: None });
    };
    let (done, failed) = match carry_out(transport, &job, disk, buffer) {
        Ok(done) => (done, None),
        Err(Failure::Disk(error)) => (Done { status: IOERR, written: 0 }, Some(error)),
        Err(Failure::Dropped) => return Some(Turn { served: Served::default(), failed: None }),
    };
    let served = transport.serve(|block, memory| block.finish(memory, &job, done).into());
    Some(Turn { served, failed })
}

fn carry_out(
    transport: &Transport<Block>,
    job: &Job,
    disk: &mut impl Disk,
    buffer: &mut [u8],
) -> Result<Done, Failure> {
    let mut written = 0;
    match &job.work {
        Work::Refuse(status) => return Ok(Done { status: *status, written: 0 }),
        Work::Read(from) => {
            for (at, len) in parts(from, buffer.len()) {
                let piece = &mut buffer[..len];
                disk.read_at(from.offset + at, piece).map_err(Failure::Disk)?;
                touch(transport, job, |memory| job.request.write_data(memory, at, piece))?;
            }
            written = u32::try_from(from.len).unwrap_or(u32::MAX);
        }
        Work::Write { to, through } => {
            for (at, len) in parts(to, buffer.len()) {
                let piece = &mut buffer[..len];
                touch(transport, job, |memory| job.request.read_data(memory, at, piece))?;
                disk.write_at(to.offset + at, piece).map_err(Failure::Disk)?;
            }
            if *through {
                disk.flush().map_err(Failure::Disk)?;
            }
        }
        Work::Flush => disk.flush().map_err(Failure::Disk)?,
        Work::Discard(ranges) => {
            for range in ranges.iter().filter(|range| range.len > 0) {
                disk.discard(range.offset, range.len).map_err(Failure::Disk)?;
            }
        }
        Work::Zero { ranges, through } => {
            for range in ranges.iter().filter(|range| range.len > 0) {
                disk.write_zeroes(range.offset, range.len, range.unmap).map_err(Failure::Disk)?;
            }
            if *through {
                disk.flush().map_err(Failure::Disk)?;
            }
        }
        Work::Id => {
            let room = usize::try_from(job.request.room()).unwrap_or(usize::MAX);
            touch_block(transport, job, |block, memory| {
                let id = &block.geometry.id;
                let id = &id[..id.len().min(room)];
                written = id.len() as u32;
                job.request.write_data(memory, 0, id)
            })?;
        }
    }
    Ok(Done { status: OK, written })
}

/// Where each piece begins, and how long it is.
fn parts(range: &Range, most: usize) -> impl Iterator<Item = (u64, usize)> + use<> {
    let (end, most) = (range.len, most.max(1));
    (0..end).step_by(most).map(move |at| {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        (at, left.min(most))
    })
}

fn touch(
    transport: &Transport<Block>,
    job: &Job,
    with: impl FnOnce(&Memory) -> Result<(), Broken>,
) -> Result<(), Failure> {
    touch_block(transport, job, |_, memory| with(memory))
}

/// Does something to the request's memory, with the transport's lock held.
fn touch_block(
    transport: &Transport<Block>,
    job: &Job,
    with: impl FnOnce(&Block, &Memory) -> Result<(), Broken>,
) -> Result<(), Failure> {
    let mut outcome = Err(Failure::Dropped);
    // The spans were checked, and memory does not go away: nothing here breaks the ring.
    let _ = transport.serve(|block, memory| {
        if block.is_current(job) && with(block, memory).is_ok() {
            outcome = Ok(());
        }
        Signal::NONE
    });
    outcome
}
