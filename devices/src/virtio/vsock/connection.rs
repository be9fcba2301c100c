//! One connection: its state, the room that both sides have, and what the driver is still to be told.
//!
//! Owns the host's stream and the bytes on their way to it. Must not know queues, nor other
//! connections.

use std::collections::VecDeque;

use super::packet::{NO_RECEIVE, NO_SEND, Operation, Packet};
use super::{Got, Interest, Put, Stream};

/// Room for bytes of the driver's that the host has not taken, in bytes.
pub const ROOM: u32 = 64 << 10;
/// The driver is told of room when so much of it has become free, in bytes.
const WORTH_TELLING: u32 = ROOM / 4;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The driver has been asked, or will be, and has not answered.
    Asked,
    /// Bytes may flow.
    Open,
}

/// Something that the driver is to be told beside bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Debts {
    request: bool,
    response: bool,
    credit: bool,
    shutdown: bool,
}

/// A connection.
pub(super) struct Connection<S> {
    pub(super) stream: S,
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    pub(super) state: State,
    debts: Debts,
    /// Bytes for the host.
    backlog: VecDeque<u8>,
    /// Bytes that the driver sent, modulo 2^32, of which all but the backlog have been taken.
    came: u32,
    /// The last `taken` that the driver was told.
    told: u32,
    /// The driver's room, what it took out of it, and how much was sent; modulo 2^32.
    guest_room: u32,
    guest_taken: u32,
    sent: u32,
    /// The stream may have bytes.
    readable: bool,
    /// What the driver has ended: [`NO_RECEIVE`], [`NO_SEND`].
    guest_ended: u32,
    /// What the host has ended, from its point of view.
    host_ended: u32,
    /// The stream was told that no more comes.
    finished: bool,
    /// The driver was asked for room, and has not answered.
    asked_for_room: bool,
    /// What the stream is watched for.
    pub(super) watched: Interest,
    /// It is in the list of those that have something to say.
    pub(super) listed: bool,
}

/// What is to happen with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Verdict {
    /// It stays.
    Stays,
    /// It is gone, and the driver is to be told.
    Reset,
    /// It is gone.
    Gone,
}

impl<S: Stream> Connection<S> {
    /// One that the driver wants and the host has accepted.
    pub(super) fn from_guest(stream: S, packet: &Packet) -> Self {
        let mut connection = Connection::new(stream, packet.to_port, packet.from_port, State::Open);
        connection.debts.response = true;
        connection.take_credit(packet);
        connection
    }

    /// One that the host wants.
    pub(super) fn from_host(stream: S, host_port: u32, guest_port: u32) -> Self {
        let mut connection = Connection::new(stream, host_port, guest_port, State::Asked);
        connection.debts.request = true;
        connection
    }

    fn new(stream: S, host_port: u32, guest_port: u32, state: State) -> Self {
        Connection {
            stream,
            host_port,
            guest_port,
            state,
            debts: Debts::default(),
            backlog: VecDeque::new(),
            came: 0,
            told: 0,
            guest_room: 0,
            guest_taken: 0,
            sent: 0,
            readable: false,
            guest_ended: 0,
            host_ended: 0,
            finished: false,
            asked_for_room: false,
            watched: Interest::default(),
            listed: false,
        }
    }

    /// Bytes that were taken out of this side's room.
    fn taken(&self) -> u32 {
        self.came.wrapping_sub(self.backlog.len() as u32)
    }

    fn take_credit(&mut self, packet: &Packet) {
        if self.guest_room != packet.room || self.guest_taken != packet.taken {
            self.asked_for_room = false;
        }
        (self.guest_room, self.guest_taken) = (packet.room, packet.taken);
    }

    /// How many bytes the driver has room for.
    fn credit(&self) -> u32 {
        // A driver that takes what was never sent has no room.
        self.guest_room.saturating_sub(self.sent.wrapping_sub(self.guest_taken))
    }

    /// The driver sends a packet of this connection that is no request. `payload`: its bytes.
    pub(super) fn take(&mut self, packet: &Packet, payload: &[u8]) -> Verdict {
        self.take_credit(packet);
        match (packet.operation, self.state) {
            (Some(Operation::Reset), _) => return Verdict::Gone,
            (Some(Operation::Response), State::Asked) => {
                self.state = State::Open;
                if !self.stream.opened(self.host_port) {
                    return Verdict::Reset;
                }
            }
            (Some(Operation::Data), State::Open) => return self.take_bytes(payload),
            (Some(Operation::CreditUpdate), State::Open) => {}
            (Some(Operation::CreditRequest), State::Open) => self.debts.credit = true,
            (Some(Operation::Shutdown), State::Open) => {
                self.guest_ended |= packet.flags & (NO_RECEIVE | NO_SEND);
                return self.flush();
            }
            _ => return Verdict::Reset,
        }
        Verdict::Stays
    }

    fn take_bytes(&mut self, payload: &[u8]) -> Verdict {
        let fits = self.backlog.len() + payload.len() <= ROOM as usize;
        if !fits || self.guest_ended & NO_SEND != 0 {
            return Verdict::Reset;
        }
        self.came = self.came.wrapping_add(payload.len() as u32);
        self.backlog.extend(payload);
        self.flush()
    }

    /// The stream may have room, or bytes; or the other end has gone for good.
    pub(super) fn ready(&mut self, found: Interest) -> Verdict {
        if self.state == State::Asked {
            return if found.gone { Verdict::Reset } else { Verdict::Stays };
        }
        self.readable |= found.read;
        if found.gone {
            // There may be bytes still.
            self.readable = true;
            self.host_ended |= NO_RECEIVE;
            if self.host_ended & NO_SEND != 0 {
                self.debts.shutdown = true;
            }
        }
        if found.write { self.flush() } else { Verdict::Stays }
    }

    /// Writes to the stream what it takes.
    fn flush(&mut self) -> Verdict {
        while !self.backlog.is_empty() {
            match self.stream.write(self.backlog.as_slices().0) {
                Put::Bytes(0) | Put::Later => break,
                Put::Bytes(count) => drop(self.backlog.drain(..count.min(self.backlog.len()))),
                Put::Gone => return Verdict::Reset,
            }
        }
        if self.backlog.is_empty() && self.guest_ended & NO_SEND != 0 {
            if !std::mem::replace(&mut self.finished, true) {
                self.stream.finish();
            }
            if self.guest_ended & NO_RECEIVE != 0 {
                return Verdict::Reset;
            }
        }
        if self.taken().wrapping_sub(self.told) >= WORTH_TELLING {
            self.debts.credit = true;
        }
        Verdict::Stays
    }

    fn may_read(&self) -> bool {
        self.state == State::Open
            && self.host_ended & NO_SEND == 0
            && self.guest_ended & NO_RECEIVE == 0
    }

    /// What the stream is to be watched for.
    pub(super) fn interest(&self) -> Interest {
        if self.state == State::Asked {
            return Interest { gone: true, ..Interest::default() };
        }
        Interest {
            read: self.may_read() && !self.readable,
            write: !self.backlog.is_empty(),
            // What is not watched for anything is not watched at all: its end is found on the way.
            gone: false,
        }
    }

    /// There is something to tell the driver, as far as is known.
    pub(super) fn has_to_say(&self) -> bool {
        let Debts { request, response, credit, shutdown } = self.debts;
        let owes = request || response || credit || shutdown;
        let bytes = self.may_read() && self.readable;
        owes || bytes && (self.credit() > 0 || !self.asked_for_room)
    }

    /// What the driver is to be told next, with `payload` as room for bytes. None: nothing, after all.
    pub(super) fn say(&mut self, payload: &mut [u8]) -> Option<(Operation, u32, usize)> {
        let debts = &mut self.debts;
        if std::mem::take(&mut debts.request) {
            return Some((Operation::Request, 0, 0));
        }
        if std::mem::take(&mut debts.response) {
            return Some((Operation::Response, 0, 0));
        }
        if std::mem::take(&mut debts.credit) {
            return Some((Operation::CreditUpdate, 0, 0));
        }
        if self.readable && self.may_read() {
            let most = payload.len().min(self.credit() as usize);
            if most == 0 {
                let asked = std::mem::replace(&mut self.asked_for_room, true);
                return (!asked).then_some((Operation::CreditRequest, 0, 0));
            }
            match self.stream.read(&mut payload[..most]) {
                Got::Bytes(count @ 1..) => {
                    let count = count.min(most);
                    self.sent = self.sent.wrapping_add(count as u32);
                    return Some((Operation::Data, 0, count));
                }
                Got::Bytes(0) | Got::Nothing => self.readable = false,
                Got::End | Got::Gone => {
                    self.host_ended |= NO_SEND;
                    self.debts.shutdown = true;
                }
            }
        }
        let shutdown = std::mem::take(&mut self.debts.shutdown);
        shutdown.then_some((Operation::Shutdown, self.host_ended, 0))
    }

    /// The header of a packet to the driver.
    pub(super) fn packet(&mut self, operation: Operation, flags: u32, len: usize) -> Packet {
        self.told = self.taken();
        self.debts.credit = false;
        Packet {
            from_cid: super::HOST_CID,
            to_cid: 0,
            from_port: self.host_port,
            to_port: self.guest_port,
            len: len as u32,
            kind: super::STREAM,
            operation: Some(operation),
            flags,
            room: ROOM,
            taken: self.told,
        }
    }
}
