//! The entropy device (Virtio 1.2, section 5.4).
//!
//! Owns its queue and how much a driver gets at a time. Must not know where entropy comes from.
//!
//! | threat | answer |
//! |---|---|
//! | buffers of gigabytes | [`MOST_BYTES`] of each are filled; the driver is told how many |
//! | endless requests | [`MOST_REQUESTS`] a turn |
//! | a source that fails | the request is given back empty |

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::Queue;

use super::ring::{Broken, Ring};
use super::{Memory, Model, Signal};

/// The most bytes that one request gets.
pub const MOST_BYTES: usize = 4096;
/// The most requests that are served in one turn.
pub const MOST_REQUESTS: usize = 16;

const QUEUE_SIZES: [u16; 1] = [64];

/// Where entropy comes from.
pub trait Entropy: Send {
    /// Fills `bytes`, without blocking. Answers whether it did.
    fn fill(&mut self, bytes: &mut [u8]) -> bool;
}

/// The entropy device.
pub struct Rng<E> {
    source: E,
    requests: Option<Ring>,
}

impl<E: Entropy> Rng<E> {
    /// A device that hands out what `source` has.
    pub fn new(source: E) -> Self {
        Rng { source, requests: None }
    }

    fn serve(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let Rng { source, requests: Some(ring) } = self else { return Ok(Signal::NONE) };
        let mut bytes = [0; MOST_BYTES];
        let (mut served, mut more) = (false, true);
        for _ in 0..MOST_REQUESTS {
            let Some(chain) = ring.next(memory)? else {
                more = false;
                break;
            };
            let wanted = usize::try_from(chain.writable_len()).unwrap_or(MOST_BYTES);
            let bytes = &mut bytes[..wanted.min(MOST_BYTES)];
            let written = match source.fill(bytes) {
                true => chain.write(memory, 0, bytes)?,
                false => 0,
            };
            ring.give_back(memory, chain.head, written as u32)?;
            served = true;
        }
        let interrupt = served && ring.wants_interrupt(memory)?;
        Ok(Signal { more, ..Signal::used(interrupt) })
    }
}

impl<E: Entropy> Model for Rng<E> {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64, queues: Vec<Queue>) {
        self.requests = queues.into_iter().next().map(Ring::from);
    }

    fn reset(&mut self) {
        self.requests = None;
    }

    fn notified(&mut self, _queue: usize, memory: &Memory) -> Signal {
        self.serve(memory).into()
    }
}
