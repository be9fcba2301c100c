//! The console device (Virtio 1.2, section 5.3): one port, no control queues.
//!
//! Owns its queues. Must not know where the bytes go: that is a [`Terminal`].
//!
//! Bytes for the driver wait in the terminal until the driver has a buffer for them.
//!
//! | threat | answer |
//! |---|---|
//! | endless output | [`MOST_BYTES`] a turn, of as many buffers; the terminal never blocks |
//! | endless empty buffers | [`MOST_BUFFERS`] a turn |
//! | buffers for input of gigabytes | the terminal gives what it has, [`MOST_BYTES`] at most |

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::Queue;

use super::ring::{Broken, Ring};
use super::{Memory, Model, Signal};

/// The queue of bytes to the driver.
pub const RECEIVE: usize = 0;
/// The queue of bytes from the driver.
pub const TRANSMIT: usize = 1;
/// The most bytes that are carried in one turn.
pub const MOST_BYTES: usize = 64 << 10;
/// The most buffers that are used in one turn.
pub const MOST_BUFFERS: usize = 64;

/// How much is copied at a time, in bytes.
const PIECE: usize = 4096;
const QUEUE_SIZES: [u16; 2] = [64, 64];

/// The other end. None of its calls blocks.
pub trait Terminal: Send {
    /// Takes all of `bytes`.
    fn write(&mut self, bytes: &[u8]);

    /// Gives what was said to the guest, as much as fits. Answers how many bytes that were.
    fn read(&mut self, bytes: &mut [u8]) -> usize;
}

/// The console device.
pub struct Console<T> {
    terminal: T,
    receive: Option<Ring>,
    transmit: Option<Ring>,
    /// How much of the chain that is next was taken already, in bytes.
    taken: u64,
}

impl<T: Terminal> Console<T> {
    /// A device whose other end is `terminal`.
    pub fn new(terminal: T) -> Self {
        Console { terminal, receive: None, transmit: None, taken: 0 }
    }

    /// What is behind the device.
    pub fn terminal(&self) -> &T {
        &self.terminal
    }

    /// Something was said to the guest.
    pub fn input_came(&mut self, memory: &Memory) -> Signal {
        self.receive(memory).into()
    }

    fn receive(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let Some(ring) = &mut self.receive else { return Ok(Signal::NONE) };
        let mut bytes = [0; PIECE];
        let mut signal = Signal { more: true, ..Signal::NONE };
        let mut used = false;
        for _ in 0..MOST_BUFFERS.min(MOST_BYTES / PIECE) {
            let Some(chain) = ring.next(memory)? else {
                signal.more = false;
                break;
            };
            let room = usize::try_from(chain.writable_len()).unwrap_or(PIECE).min(PIECE);
            let count = self.terminal.read(&mut bytes[..room]).min(room);
            // A buffer without room goes back, as no input would ever fit it.
            if count == 0 && room > 0 {
                ring.put_back();
                signal.more = false;
                break;
            }
            chain.write(memory, 0, &bytes[..count])?;
            ring.give_back(memory, chain.head, count as u32)?;
            used = true;
        }
        signal.used = used && ring.wants_interrupt(memory)?;
        Ok(signal)
    }

    fn transmit(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let Some(ring) = &mut self.transmit else { return Ok(Signal::NONE) };
        let mut bytes = [0; PIECE];
        let mut signal = Signal { more: true, ..Signal::NONE };
        let (mut used, mut left) = (false, MOST_BYTES);
        'buffers: for _ in 0..MOST_BUFFERS {
            let Some(chain) = ring.next(memory)? else {
                signal.more = false;
                break;
            };
            loop {
                let count = chain.read(memory, self.taken, &mut bytes[..PIECE.min(left)])?;
                self.terminal.write(&bytes[..count]);
                (self.taken, left) = (self.taken + count as u64, left - count);
                if self.taken >= chain.readable_len() {
                    break;
                }
                if left == 0 {
                    ring.put_back();
                    break 'buffers;
                }
            }
            self.taken = 0;
            ring.give_back(memory, chain.head, 0)?;
            used = true;
        }
        signal.used = used && ring.wants_interrupt(memory)?;
        Ok(signal)
    }
}

impl<T: Terminal> Model for Console<T> {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64, queues: Vec<Queue>) {
        let mut rings = queues.into_iter().map(Ring::from);
        (self.receive, self.transmit) = (rings.next(), rings.next());
        self.taken = 0;
    }

    fn reset(&mut self) {
        (self.receive, self.transmit) = (None, None);
        self.taken = 0;
    }

    fn notified(&mut self, queue: usize, memory: &Memory) -> Signal {
        match queue {
            RECEIVE => self.receive(memory).into(),
            _ => self.transmit(memory).into(),
        }
    }
}
