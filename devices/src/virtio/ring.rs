//! One queue of a device, whose driver is not trusted.
//!
//! Owns the checks that stand between a driver's descriptors and a device: what comes out of
//! [`Ring::next`] lies in guest memory, has an end, and has what the device reads before what it
//! writes. The ring's format is the crate `virtio-queue`'s. Must not know what requests mean. Source:
//! Virtio 1.2, section 2.7.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};

use super::Memory;

/// The driver broke the rules of the ring, so that there is no way to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver has broken the ring")]
pub struct Broken;

/// A run of guest memory, of which every byte exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Guest-physical address.
    pub address: GuestAddress,
    /// Bytes; zero is allowed.
    pub len: u32,
}

/// What one chain of descriptors consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Names the chain when it is given back.
    pub head: u16,
    /// What the device reads, in order.
    pub readable: Vec<Span>,
    /// What the device writes, in order.
    pub writable: Vec<Span>,
}

fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.len)).sum()
}

/// Calls `part` for each piece of `len` bytes, `offset` bytes into the spans: where it is, and where
/// in the `len` bytes it belongs. Answers how many bytes there were.
fn pieces(
    spans: &[Span],
    offset: u64,
    len: usize,
    mut part: impl FnMut(GuestAddress, std::ops::Range<usize>) -> Result<(), Broken>,
) -> Result<usize, Broken> {
    let (mut skip, mut done) = (offset, 0);
    for span in spans {
        let here = u64::from(span.len);
        if skip >= here {
            skip -= here;
            continue;
        }
        let count = usize::try_from(here - skip).unwrap_or(usize::MAX).min(len - done);
        if count == 0 {
            break;
        }
        // Inside the span, which is inside of guest memory.
        part(GuestAddress(span.address.0.wrapping_add(skip)), done..done + count)?;
        skip = 0;
        done += count;
    }
    Ok(done)
}

impl Chain {
    /// Bytes that the device may read: less than 4 GiB.
    #[must_use]
    pub fn readable_len(&self) -> u64 {
        total(&self.readable)
    }

    /// Bytes that the device may write: less than 4 GiB.
    #[must_use]
    pub fn writable_len(&self) -> u64 {
        total(&self.writable)
    }

    /// Copies what the driver says, from `offset` on. Answers how many bytes there were, at most
    /// `bytes.len()`.
    ///
    /// # Errors
    /// [`Broken`]: guest memory is gone.
    pub fn read(&self, memory: &Memory, offset: u64, bytes: &mut [u8]) -> Result<usize, Broken> {
        pieces(&self.readable, offset, bytes.len(), |at, range| {
            memory.read_slice(&mut bytes[range], at).map_err(|_| Broken)
        })
    }

    /// Copies to where the driver reads, from `offset` on. Answers how many bytes had room, at most
    /// `bytes.len()`.
    ///
    /// # Errors
    /// [`Broken`]: guest memory is gone.
    pub fn write(&self, memory: &Memory, offset: u64, bytes: &[u8]) -> Result<usize, Broken> {
        pieces(&self.writable, offset, bytes.len(), |at, range| {
            memory.write_slice(&bytes[range], at).map_err(|_| Broken)
        })
    }
}

/// A queue.
#[derive(Debug)]
pub struct Ring(Queue);

impl From<Queue> for Ring {
    fn from(queue: Queue) -> Self {
        Ring(queue)
    }
}

impl Ring {
    /// The driver uses it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.ready()
    }

    /// The queue itself, for devices that want other things of it. They check what they find.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.0
    }

    /// Takes the next chain. Without one, the driver will notify the device of the next.
    ///
    /// # Errors
    /// [`Broken`]: what the driver put there is no chain.
    pub fn next(&mut self, memory: &Memory) -> Result<Option<Chain>, Broken> {
        if !self.is_ready() {
            return Ok(None);
        }
        for _ in 0..2 {
            let mut available = self.0.iter(memory).map_err(|_| Broken)?;
            if let Some(chain) = available.next() {
                let size = usize::from(self.0.size());
                return collect(chain.head_index(), chain, size, memory).map(Some);
            }
            if !self.0.enable_notification(memory).map_err(|_| Broken)? {
                return Ok(None);
            }
        }
        // There was one, and it is gone again: the driver has taken its index back.
        Err(Broken)
    }

    /// Puts the chain that [`Ring::next`] took back, as the next chain that it takes.
    pub fn put_back(&mut self) {
        self.0.go_to_previous_position();
    }

    /// Gives a chain back to the driver, with this many bytes written into it.
    ///
    /// # Errors
    /// [`Broken`]: the used ring cannot be written.
    pub fn give_back(&mut self, memory: &Memory, head: u16, written: u32) -> Result<(), Broken> {
        self.0.add_used(memory, head, written).map_err(|_| Broken)
    }

    /// Whether the driver wants an interrupt for what was given back since this was last asked.
    ///
    /// # Errors
    /// [`Broken`]: the rings cannot be read.
    pub fn wants_interrupt(&mut self, memory: &Memory) -> Result<bool, Broken> {
        self.0.needs_notification(memory).map_err(|_| Broken)
    }
}

/// Takes down the descriptors of a chain, and checks them.
fn collect<M>(
    head: u16,
    descriptors: virtio_queue::DescriptorChain<M>,
    most: usize,
    memory: &Memory,
) -> Result<Chain, Broken>
where
    M: std::ops::Deref<Target = Memory>,
{
    let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
    let mut goes_on = true;
    for descriptor in descriptors {
        let span = Span { address: descriptor.addr(), len: descriptor.len() };
        if !memory.check_range(span.address, span.len as usize) {
            return Err(Broken);
        }
        match descriptor.is_write_only() {
            true => chain.writable.push(span),
            false if chain.writable.is_empty() => chain.readable.push(span),
            // What the device reads comes first (2.7.4.2).
            false => return Err(Broken),
        }
        if chain.readable.len() + chain.writable.len() > most {
            return Err(Broken);
        }
        goes_on = descriptor.has_next();
    }
    // It ended, but not where a chain ends: a loop, an index or a table that does not exist, or more
    // than 4 GiB.
    if goes_on { Err(Broken) } else { Ok(chain) }
}
