//! The network device (Virtio 1.2, section 5.1): one pair of queues, no offloads.
//!
//! Owns its queues and one frame at a time. Must not know where frames go: that is a [`Port`], which
//! takes and gives whole Ethernet frames. Nothing of the driver's header is used, as nothing was
//! negotiated that would give it a meaning, so no driver can have the host cut or checksum for it.
//!
//! Frames wait where they are as long as there is no room on the other side: the port is not read
//! without a buffer of the driver's ([`Net::wants_frames`]), and what the port has no room for stays in
//! the ring ([`Net::wants_room`]). Nothing is polled for.
//!
//! | threat | answer |
//! |---|---|
//! | frames shorter than an Ethernet header, longer than [`MOST_FRAME`], or without the device's header | dropped, their buffers are used |
//! | buffers that are too small for a frame that has come | the frame is dropped, the buffer is kept |
//! | endless frames, from either side | [`MOST_FRAMES`] a turn |
//! | a port that has gone | the link is down; what is sent is dropped, nothing is watched |

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP};
use virtio_queue::Queue;

use super::ring::{Broken, Chain, Ring};
use super::{Memory, Model, Signal, copy_config};

/// The queue of frames to the driver.
pub const RECEIVE: usize = 0;
/// The queue of frames from the driver.
pub const TRANSMIT: usize = 1;
/// The longest frame, in bytes: what fits an IP packet of the longest length, with a VLAN's tag.
pub const MOST_FRAME: usize = 65535 + 18;
/// The most frames that are carried in one turn.
pub const MOST_FRAMES: usize = 64;
/// The device's own header before each frame, in bytes (5.1.6).
pub const HEADER: usize = 12;

/// Shortest frame, in bytes: two addresses and a type.
const LEAST_FRAME: usize = 14;
/// Where the header says how many buffers a frame takes.
const BUFFERS: usize = 10;
const QUEUE_SIZES: [u16; 2] = [256, 256];

/// A hardware address.
pub type Mac = [u8; 6];

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, or lost as any frame may be.
    Done,
    /// There is no room; the port is to be asked again when there is.
    Later,
    /// Nobody is there any more.
    Gone,
}

/// What a port has for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame of so many bytes.
    Frame(usize),
    /// Nothing now.
    Nothing,
    /// Nobody is there any more.
    Gone,
}

/// Where frames come from and go to. None of its calls blocks.
pub trait Port: Send {
    /// Sends one frame.
    fn send(&mut self, frame: &[u8]) -> Sent;

    /// Takes the next frame into `frame`, which has room for [`MOST_FRAME`] bytes. One that is longer
    /// may be cut or lost.
    fn receive(&mut self, frame: &mut [u8]) -> Received;
}

/// Frames and how many of them, since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that the driver got.
    pub received: u64,
    /// Frames that the driver sent.
    pub sent: u64,
    /// What came from the port and is no frame, or did not fit a buffer of the driver's.
    pub lost: u64,
    /// What the driver sent that is no frame.
    pub malformed: u64,
}

/// The network device.
pub struct Net<P> {
    port: P,
    mac: Mac,
    receive: Option<Ring>,
    transmit: Option<Ring>,
    /// The driver has given no buffers that a frame could go to.
    starved: bool,
    /// The port had no room for the frame that is next.
    blocked: bool,
    gone: bool,
    /// The device's header and a frame.
    frame: Box<[u8]>,
    counters: Counters,
}

impl<P: Port> Net<P> {
    /// A device with this address.
    pub fn new(port: P, mac: Mac) -> Self {
        Net {
            port,
            mac,
            receive: None,
            transmit: None,
            starved: true,
            blocked: false,
            gone: false,
            frame: vec![0; HEADER + MOST_FRAME].into_boxed_slice(),
            counters: Counters::default(),
        }
    }

    /// What is behind the device.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// What is behind the device.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// What the device has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The driver has a buffer for a frame: the port is to be watched for one.
    #[must_use]
    pub fn wants_frames(&self) -> bool {
        self.receive.is_some() && !self.starved && !self.gone
    }

    /// A frame waits for room: the port is to be watched for some.
    #[must_use]
    pub fn wants_room(&self) -> bool {
        self.transmit.is_some() && self.blocked && !self.gone
    }

    /// The port may have frames.
    pub fn frames_came(&mut self, memory: &Memory) -> Signal {
        self.receive(memory).into()
    }

    /// The port may have room.
    pub fn room_came(&mut self, memory: &Memory) -> Signal {
        self.blocked = false;
        let signal = Signal::from(self.transmit(memory));
        // The port still has room, which is enough of a reason to be called again.
        self.blocked |= signal.more;
        signal
    }

    fn receive(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let Some(ring) = &mut self.receive else { return Ok(Signal::NONE) };
        let mut signal = Signal { more: true, ..Signal::NONE };
        let mut used = false;
        for _ in 0..MOST_FRAMES {
            let Some(chain) = ring.next(memory)? else {
                self.starved = true;
                signal.more = false;
                break;
            };
            self.starved = false;
            let received = match self.gone {
                true => Received::Nothing,
                false => self.port.receive(&mut self.frame[HEADER..]),
            };
            let len = match received {
                Received::Frame(len) => len,
                Received::Nothing | Received::Gone => {
                    ring.put_back();
                    signal.more = false;
                    if received == Received::Gone {
                        signal.config |= !self.gone;
                        self.gone = true;
                    }
                    break;
                }
            };
            let fits = (HEADER + len) as u64 <= chain.writable_len();
            if !fits || !(LEAST_FRAME..=MOST_FRAME).contains(&len) {
                ring.put_back();
                self.counters.lost += 1;
                continue;
            }
            let len = HEADER + len;
            self.frame[..HEADER].fill(0);
            self.frame[BUFFERS] = 1;
            chain.write(memory, 0, &self.frame[..len])?;
            ring.give_back(memory, chain.head, len as u32)?;
            self.counters.received += 1;
            used = true;
        }
        signal.used = used && ring.wants_interrupt(memory)?;
        Ok(signal)
    }

    fn transmit(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let Some(ring) = &mut self.transmit else { return Ok(Signal::NONE) };
        let mut signal = Signal { more: true, ..Signal::NONE };
        let mut used = false;
        for _ in 0..MOST_FRAMES {
            if self.blocked && !self.gone {
                signal.more = false;
                break;
            }
            let Some(chain) = ring.next(memory)? else {
                signal.more = false;
                break;
            };
            match frame_of(&chain, memory, &mut self.frame)? {
                None => self.counters.malformed += 1,
                Some(_) if self.gone => {}
                Some(len) => match self.port.send(&self.frame[..len]) {
                    Sent::Done => self.counters.sent += 1,
                    Sent::Later => {
                        ring.put_back();
                        self.blocked = true;
                        continue;
                    }
                    Sent::Gone => {
                        self.gone = true;
                        signal.config = true;
                    }
                },
            }
            ring.give_back(memory, chain.head, 0)?;
            used = true;
        }
        signal.used = used && ring.wants_interrupt(memory)?;
        Ok(signal)
    }
}

/// Copies the frame of a chain. Answers its length; none: it is no frame.
fn frame_of(chain: &Chain, memory: &Memory, into: &mut [u8]) -> Result<Option<usize>, Broken> {
    let frame = chain.readable_len().saturating_sub(HEADER as u64);
    match usize::try_from(frame) {
        Ok(len @ LEAST_FRAME..=MOST_FRAME) => {
            chain.read(memory, HEADER as u64, &mut into[..len])?;
            Ok(Some(len))
        }
        _ => Ok(None),
    }
}

impl<P: Port> Model for Net<P> {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 8];
        config[..6].copy_from_slice(&self.mac);
        let status = if self.gone { 0 } else { VIRTIO_NET_S_LINK_UP as u16 };
        config[6..].copy_from_slice(&status.to_le_bytes());
        copy_config(&config, offset, data);
    }

    fn activate(&mut self, _features: u64, queues: Vec<Queue>) {
        let mut rings = queues.into_iter().map(Ring::from);
        (self.receive, self.transmit) = (rings.next(), rings.next());
        (self.starved, self.blocked) = (true, false);
    }

    fn reset(&mut self) {
        (self.receive, self.transmit) = (None, None);
        (self.starved, self.blocked) = (true, false);
    }

    fn notified(&mut self, queue: usize, memory: &Memory) -> Signal {
        match queue {
            RECEIVE => self.receive(memory).into(),
            _ => self.transmit(memory).into(),
        }
    }
}
