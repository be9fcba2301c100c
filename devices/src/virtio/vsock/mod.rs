//! The socket device (Virtio 1.2, section 5.10): streams between ports of the guest and of the host.
//!
//! Owns the queues and the table of connections. Must not know what a stream of the host's is, nor who
//! watches it: that is a [`Host`] with its [`Stream`]s. One connection is in `connection`, the header of
//! a packet in [`packet`].
//!
//! Bytes for the driver stay in their stream until the driver has a buffer, and has said that the
//! connection has room; connections take turns, a packet each. Bytes for the host that its stream does
//! not take are kept, up to [`ROOM`] for each connection, which is what the driver is told.
//!
//! | threat | answer |
//! |---|---|
//! | packets without a whole header, or of other context IDs | dropped |
//! | payload that is not there, or longer than [`ROOM`] | the connection is reset |
//! | more bytes than there is room for, operations out of order, unknown ones | the connection is reset |
//! | packets of no connection | a reset each; while [`MOST_RESETS`] of them wait for buffers, no packet is read |
//! | more than [`MOST_CONNECTIONS`] connections | reset |
//! | a driver that claims to have taken more than was sent | it has no room |
//! | buffers without room for a byte behind the header | [`Broken`] |
//! | endless packets, from either side | [`MOST_PACKETS`] a turn |
//! | connections that nobody uses | they cost a place in the table, and their stream |

mod connection;
pub mod packet;

use std::collections::{HashMap, VecDeque};

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_queue::Queue;

use self::connection::{Connection, Verdict};
use self::packet::{HEADER, HOST_CID, Operation, Packet, STREAM};
use super::ring::{Broken, Ring};
use super::{Memory, Model, Signal, copy_config};

pub use self::connection::ROOM;

/// The queue of packets to the driver.
pub const RECEIVE: usize = 0;
/// The queue of packets from the driver.
pub const TRANSMIT: usize = 1;
/// The most connections.
pub const MOST_CONNECTIONS: usize = 256;
/// The most resets, of connections that there are not, that wait for the driver's buffers.
pub const MOST_RESETS: usize = 64;
/// The most packets that are carried in one turn, each way.
pub const MOST_PACKETS: usize = 64;
/// The least context ID of a guest.
pub const LEAST_CID: u64 = 3;
/// The greatest context ID of a guest: it has 32 bits, and all ones is "any".
pub const GREATEST_CID: u64 = 0xffff_fffe;

/// The first port of the host's connections.
const FIRST_PORT: u32 = 1 << 30;
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];
const F_STREAM: u64 = 1;

/// What a stream is watched for, or what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bytes to read, or their end.
    pub read: bool,
    /// Room to write.
    pub write: bool,
    /// The other end has closed both directions. It may be reported beside the others, unasked.
    pub gone: bool,
}

/// What a stream gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
    /// It is broken.
    Gone,
}

/// What a stream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Later,
    /// Nobody reads any more.
    Gone,
}

/// The host's end of a connection; it ends when it is dropped. None of its calls blocks.
pub trait Stream: Send {
    /// Reads what there is, as much as fits.
    fn read(&mut self, bytes: &mut [u8]) -> Got;

    /// Writes what there is room for.
    fn write(&mut self, bytes: &[u8]) -> Put;

    /// Nothing more will be written.
    fn finish(&mut self);

    /// The connection that the host asked for is there; it has this port on the host's side. Answers
    /// whether the stream still is.
    fn opened(&mut self, host_port: u32) -> bool;
}

/// Where connections of the guest's go, and who watches streams. None of its calls blocks.
pub trait Host: Send {
    /// A connection.
    type Stream: Stream;

    /// The guest wants to be connected with this port of the host. None: nobody is there.
    fn connect(&mut self, port: u32) -> Option<Self::Stream>;

    /// From now on the stream of connection `slot` is watched for this; before, it was not watched, or
    /// for something else. For nothing: not at all. What is found is told to [`Vsock::stream_ready`].
    fn watch(&mut self, slot: u16, stream: &Self::Stream, interest: Interest);
}

/// The socket device.
pub struct Vsock<H: Host> {
    host: H,
    cid: u64,
    receive: Option<Ring>,
    transmit: Option<Ring>,
    connections: Vec<Option<Connection<H::Stream>>>,
    /// The connection of a pair of ports, the host's first.
    places: HashMap<(u32, u32), u16>,
    /// Connections that have something to say to the driver, each once. May name some that have gone.
    talkers: VecDeque<u16>,
    /// Pairs of ports, the host's first, that the driver is to be told to have no connection.
    resets: VecDeque<(u32, u32)>,
    next_port: u32,
    payload: Box<[u8]>,
}

impl<H: Host> Vsock<H> {
    /// A device of the guest `cid`.
    pub fn new(host: H, cid: u64) -> Self {
        Vsock {
            host,
            cid,
            receive: None,
            transmit: None,
            connections: Vec::new(),
            places: HashMap::new(),
            talkers: VecDeque::new(),
            resets: VecDeque::new(),
            next_port: FIRST_PORT,
            payload: vec![0; ROOM as usize].into_boxed_slice(),
        }
    }

    /// What is behind the device.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// What is behind the device.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.places.len()
    }

    /// The host wants to be connected with this port of the guest. Without a place for the connection
    /// the stream is closed.
    pub fn open(&mut self, memory: &Memory, stream: H::Stream, guest_port: u32) -> Signal {
        let host_port = self.free_port(guest_port);
        self.add(Connection::from_host(stream, host_port, guest_port));
        self.deliver(memory).into()
    }

    /// What the stream of a connection was watched for has been found. It may be another's by now.
    pub fn stream_ready(&mut self, memory: &Memory, slot: u16, found: Interest) -> Signal {
        self.with(slot, |connection| connection.ready(found));
        self.deliver(memory).into()
    }

    fn free_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let port = self.next_port;
            // All ones is "any".
            self.next_port = if port >= u32::MAX - 1 { FIRST_PORT } else { port + 1 };
            // There are many more ports than connections.
            if !self.places.contains_key(&(port, guest_port)) {
                return port;
            }
        }
    }

    fn add(&mut self, connection: Connection<H::Stream>) -> bool {
        let ports = (connection.host_port, connection.guest_port);
        let slot = match self.connections.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.connections.len() < MOST_CONNECTIONS => {
                self.connections.push(None);
                self.connections.len() - 1
            }
            None => return false,
        };
        self.connections[slot] = Some(connection);
        self.places.insert(ports, slot as u16);
        self.with(slot as u16, |_| Verdict::Stays);
        true
    }

    /// Does something to a connection, if it is there, and what that calls for.
    fn with(&mut self, slot: u16, act: impl FnOnce(&mut Connection<H::Stream>) -> Verdict) {
        let Some(place) = self.connections.get_mut(usize::from(slot)) else { return };
        let Some(connection) = place else { return };
        let verdict = act(connection);
        let nothing = Interest::default();
        let wanted = if verdict == Verdict::Stays { connection.interest() } else { nothing };
        if std::mem::replace(&mut connection.watched, wanted) != wanted {
            self.host.watch(slot, &connection.stream, wanted);
        }
        if verdict == Verdict::Stays {
            if connection.has_to_say() && !std::mem::replace(&mut connection.listed, true) {
                self.talkers.push_back(slot);
            }
            return;
        }
        let ports = (connection.host_port, connection.guest_port);
        *place = None;
        self.places.remove(&ports);
        self.talkers.retain(|talker| *talker != slot);
        if verdict == Verdict::Reset {
            self.resets.push_back(ports);
        }
    }

    /// Reads packets of the driver's.
    fn collect(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let mut signal = Signal::NONE;
        for _ in 0..MOST_PACKETS {
            // Those that wait for buffers are sent first; the buffers' notification leads here again.
            let Some(ring) = self.transmit.as_mut().filter(|_| self.resets.len() < MOST_RESETS)
            else {
                return Ok(signal);
            };
            let Some(chain) = ring.next(memory)? else { return Ok(signal) };
            let mut header = [0; HEADER];
            let whole = chain.read(memory, 0, &mut header)? == HEADER;
            let packet = Packet::parse(&header);
            let len = usize::try_from(packet.len).unwrap_or(usize::MAX);
            let payload = match self.payload.get_mut(..len) {
                Some(payload) => Some(chain.read(memory, HEADER as u64, payload)?),
                None => None,
            };
            let payload = payload.filter(|there| *there == len);
            ring.give_back(memory, chain.head, 0)?;
            signal.used = true;
            if whole && packet.from_cid == self.cid && packet.to_cid == HOST_CID {
                self.handle(&packet, payload);
            }
        }
        signal.more = true;
        Ok(signal)
    }

    fn handle(&mut self, packet: &Packet, payload: Option<usize>) {
        let ports = (packet.to_port, packet.from_port);
        let place = self.places.get(&ports).copied();
        let usable = packet.kind == STREAM && payload.is_some();
        match (place, packet.operation) {
            (None, Some(Operation::Reset)) => {}
            (None, Some(Operation::Request)) if usable => {
                let full = self.places.len() >= MOST_CONNECTIONS;
                let stream = if full { None } else { self.host.connect(packet.to_port) };
                let added = stream.map(|stream| Connection::from_guest(stream, packet));
                if !added.is_some_and(|connection| self.add(connection)) {
                    self.resets.push_back(ports);
                }
            }
            (None, _) => self.resets.push_back(ports),
            (Some(slot), _) if !usable => self.with(slot, |_| Verdict::Reset),
            (Some(slot), _) => {
                let bytes = std::mem::take(&mut self.payload);
                let payload = bytes.get(..payload.unwrap_or(0)).unwrap_or_default();
                self.with(slot, |connection| connection.take(packet, payload));
                self.payload = bytes;
            }
        }
    }

    /// Gives the driver what there is for it.
    fn deliver(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let mut signal = Signal { more: true, ..Signal::NONE };
        let mut used = false;
        for _ in 0..MOST_PACKETS {
            let idle = self.resets.is_empty() && self.talkers.is_empty();
            let Some(ring) = self.receive.as_mut().filter(|_| !idle) else {
                signal.more = false;
                break;
            };
            let Some(chain) = ring.next(memory)? else {
                signal.more = false;
                break;
            };
            let room = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX);
            if room <= HEADER {
                return Err(Broken);
            }
            let Some((packet, len)) = self.next_packet(room - HEADER) else {
                if let Some(ring) = &mut self.receive {
                    ring.put_back();
                }
                continue;
            };
            chain.write(memory, 0, &packet.bytes())?;
            chain.write(memory, HEADER as u64, &self.payload[..len])?;
            if let Some(ring) = &mut self.receive {
                ring.give_back(memory, chain.head, (HEADER + len) as u32)?;
            }
            used = true;
        }
        if let Some(ring) = self.receive.as_mut().filter(|_| used) {
            signal.used = ring.wants_interrupt(memory)?;
        }
        Ok(signal)
    }

    /// What the driver is told next, and how many bytes of it are in `payload`.
    fn next_packet(&mut self, room: usize) -> Option<(Packet, usize)> {
        if let Some((host_port, guest_port)) = self.resets.pop_front() {
            let packet = Packet {
                from_cid: HOST_CID,
                to_cid: self.cid,
                from_port: host_port,
                to_port: guest_port,
                len: 0,
                kind: STREAM,
                operation: Some(Operation::Reset),
                flags: 0,
                room: 0,
                taken: 0,
            };
            return Some((packet, 0));
        }
        let slot = self.talkers.pop_front()?;
        let mut payload = std::mem::take(&mut self.payload);
        let room = room.min(payload.len());
        let mut said = None;
        self.with(slot, |connection| {
            connection.listed = false;
            if let Some((operation, flags, len)) = connection.say(&mut payload[..room]) {
                said = Some((connection.packet(operation, flags, len), len));
            }
            Verdict::Stays
        });
        self.payload = payload;
        said.map(|(packet, len)| (Packet { to_cid: self.cid, ..packet }, len))
    }

    /// Both ways. What the driver is told may let it go on, so its packets are read first.
    fn exchange(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let collected = self.collect(memory)?;
        let mut signal = collected;
        if let Some(ring) = self.transmit.as_mut().filter(|_| collected.used) {
            signal.used = ring.wants_interrupt(memory)?;
        }
        let was_full = self.resets.len() >= MOST_RESETS;
        signal |= self.deliver(memory)?;
        // Packets that were not read wait in the ring, and nobody tells of them again.
        signal.more |= was_full && self.resets.len() < MOST_RESETS;
        Ok(signal)
    }
}

impl<H: Host> Model for Vsock<H> {
    fn id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        F_STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, _features: u64, queues: Vec<Queue>) {
        // The third is for events, of which there are none.
        let mut rings = queues.into_iter().map(Ring::from);
        (self.receive, self.transmit) = (rings.next(), rings.next());
    }

    fn reset(&mut self) {
        (self.receive, self.transmit) = (None, None);
        for slot in 0..self.connections.len() {
            self.with(slot as u16, |_| Verdict::Gone);
        }
        self.talkers.clear();
        self.resets.clear();
    }

    fn notified(&mut self, _queue: usize, memory: &Memory) -> Signal {
        self.exchange(memory).into()
    }
}
