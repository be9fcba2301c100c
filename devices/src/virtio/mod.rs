//! Virtio devices (Virtual I/O Device Version 1.2): the register machine that a driver talks to, the
//! rings, and the device models behind them.
//!
//! Owns what every device has in common: how a model is told what its driver decided
//! ([`Model`]), and what it asks for ([`Signal`]). Must not know KVM, threads, files or sockets: what
//! a model needs of the host is a trait of its own, so that each can be fuzzed with hand-made rings.
//!
//! | file | what |
//! |---|---|
//! | [`mmio`] | registers, status handshake, interrupts: the transport |
//! | [`ring`] | a queue whose driver is not trusted |
//! | [`block`] | disks |
//! | [`rng`] | entropy |
//! | [`net`] | frames |
//! | [`vsock`] | streams between guest and host |
//! | [`balloon`] | memory that comes and goes |
//! | [`console`] | a terminal |
//!
//! | threat | answer |
//! |---|---|
//! | rings or buffers outside guest memory, chains that loop, are too long or out of order, more chains than the ring has room for | [`ring::Broken`]: the device stops and sets `DEVICE_NEEDS_RESET` |
//! | a driver that changes a ring or a buffer meanwhile | all that counts is copied once; what it reads then is its own affair |
//! | endless requests | a model serves a bounded number at a time, and says that there is more |
//! | huge requests | each model has a limit in bytes |

pub mod balloon;
pub mod block;
pub mod console;
pub mod mmio;
pub mod net;
pub mod ring;
pub mod rng;
#[cfg(test)]
pub(crate) mod tests;
pub mod vsock;

use std::ops::{BitOr, BitOrAssign};

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use self::ring::Broken;

/// Guest memory as device models see it.
pub type Memory = GuestMemoryMmap<()>;

/// What a device asks its transport for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Signal {
    /// Buffers were used, and the driver wants an interrupt for that.
    pub used: bool,
    /// The configuration has changed.
    pub config: bool,
    /// The device cannot go on before a reset.
    pub broken: bool,
    /// There is more to do than one turn allows: the same is to be called again.
    pub more: bool,
}

impl Signal {
    /// Nothing.
    pub const NONE: Signal = Signal { used: false, config: false, broken: false, more: false };

    /// An interrupt for used buffers, if the driver wants it.
    pub fn used(wanted: bool) -> Self {
        Signal { used: wanted, ..Signal::NONE }
    }
}

impl From<Broken> for Signal {
    fn from(_: Broken) -> Self {
        Signal { broken: true, ..Signal::NONE }
    }
}

impl From<Result<Signal, Broken>> for Signal {
    fn from(result: Result<Signal, Broken>) -> Self {
        result.unwrap_or_else(Signal::from)
    }
}

impl BitOr for Signal {
    type Output = Signal;

    fn bitor(self, other: Signal) -> Signal {
        Signal {
            used: self.used | other.used,
            config: self.config | other.config,
            broken: self.broken | other.broken,
            more: self.more | other.more,
        }
    }
}

impl BitOrAssign for Signal {
    fn bitor_assign(&mut self, other: Signal) {
        *self = *self | other;
    }
}

/// A device as its transport sees it.
///
/// All calls come one at a time, with the transport's lock held: from vCPU threads for the
/// configuration and for reset, from the back-end's thread for the rest. None may block.
pub trait Model: Send {
    /// The device's type (section 5).
    fn id(&self) -> u32;

    /// What the device offers of its own. The transport adds what concerns itself and the rings.
    fn features(&self) -> u64;

    /// The most entries of each queue: powers of two, at most 32768.
    fn queue_sizes(&self) -> &[u16];

    /// Reads the device's configuration, `offset` bytes into it. What lies beyond it reads as zero;
    /// `data` is zeroed beforehand.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device's configuration. Most devices have nothing there that a driver may write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready. `features`: what both sides agreed on. One queue for each of
    /// [`Model::queue_sizes`]; those that the driver does not use are not `ready`, all others are
    /// valid, with rings in guest memory.
    fn activate(&mut self, features: u64, queues: Vec<Queue>);

    /// Back to the state before [`Model::activate`]. After it returns, the device touches guest memory
    /// no more, whatever of the host is still on its way.
    fn reset(&mut self);

    /// The driver has put something into a queue, or the device is asked to go on after
    /// [`Signal::more`]. Only while it is active.
    fn notified(&mut self, queue: usize, memory: &Memory) -> Signal;
}

/// Reads from a device's configuration, which is `config`; what lies beyond it stays as it is.
fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..));
    for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
        *to = *from;
    }
}
