//! The header of a vsock packet (Virtio 1.2, section 5.10.6).
//!
//! Owns its layout. Must not know connections.

/// The size of a header, in bytes.
pub const HEADER: usize = 44;
/// The context ID of the host.
pub const HOST_CID: u64 = 2;
/// The only type of socket: a stream of bytes.
pub const STREAM: u16 = 1;
/// The sender of a shutdown receives no more.
pub const NO_RECEIVE: u32 = 1;
/// The sender of a shutdown sends no more.
pub const NO_SEND: u32 = 2;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A connection is wanted.
    Request,
    /// It is there.
    Response,
    /// It is gone, or there is none.
    Reset,
    /// One or both directions end.
    Shutdown,
    /// Bytes.
    Data,
    /// Room for bytes.
    CreditUpdate,
    /// How much room there is, is asked for.
    CreditRequest,
}

use Operation::{CreditRequest, CreditUpdate, Data, Request, Reset, Response, Shutdown};

impl Operation {
    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Request,
            2 => Response,
            3 => Reset,
            4 => Shutdown,
            5 => Data,
            6 => CreditUpdate,
            7 => CreditRequest,
            _ => return None,
        })
    }

    fn number(self) -> u16 {
        match self {
            Request => 1,
            Response => 2,
            Reset => 3,
            Shutdown => 4,
            Data => 5,
            CreditUpdate => 6,
            CreditRequest => 7,
        }
    }
}

/// A header, less what every packet has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Context ID of the sender.
    pub from_cid: u64,
    /// Context ID of the receiver.
    pub to_cid: u64,
    /// Port of the sender.
    pub from_port: u32,
    /// Port of the receiver.
    pub to_port: u32,
    /// Bytes behind the header.
    pub len: u32,
    /// Type of the socket.
    pub kind: u16,
    /// None: an unknown one.
    pub operation: Option<Operation>,
    /// Of [`Shutdown`].
    pub flags: u32,
    /// The sender's room in all, in bytes.
    pub room: u32,
    /// How many bytes the sender has taken out of its room, modulo 2^32.
    pub taken: u32,
}

fn field<const N: usize>(bytes: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

impl Packet {
    /// The packet of these bytes.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let word = |at| u32::from_le_bytes(field(bytes, at));
        Packet {
            from_cid: u64::from_le_bytes(field(bytes, 0)),
            to_cid: u64::from_le_bytes(field(bytes, 8)),
            from_port: word(16),
            to_port: word(20),
            len: word(24),
            kind: u16::from_le_bytes(field(bytes, 28)),
            operation: Operation::from_number(u16::from_le_bytes(field(bytes, 30))),
            flags: word(32),
            room: word(36),
            taken: word(40),
        }
    }

    /// The bytes of the packet. An operation that is none is number 0.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&self.from_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.to_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.from_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.to_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        let operation = self.operation.map_or(0, Operation::number);
        bytes[30..32].copy_from_slice(&operation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.room.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.taken.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let packet = Packet {
            from_cid: 0x0807_0605_0403_0201,
            to_cid: 0x100f_0e0d_0c0b_0a09,
            from_port: 0x1413_1211,
            to_port: 0x1817_1615,
            len: 0x1c1b_1a19,
            kind: 0x1e1d,
            operation: Some(Operation::Data),
            flags: 0x2423_2221,
            room: 0x2827_2625,
            taken: 0x2c2b_2a29,
        };
        let mut expected: Vec<u8> = (1..=44).collect();
        (expected[30], expected[31]) = (5, 0);
        assert_eq!(packet.bytes()[..], expected);
        assert_eq!(Packet::parse(&packet.bytes()), packet);
    }

    #[test]
    fn operations_have_their_numbers_and_others_are_none() {
        for number in 0..20 {
            let operation = Operation::from_number(number);
            assert_eq!(operation.is_some(), (1..=7).contains(&number));
            assert!(operation.is_none_or(|operation| operation.number() == number));
        }
    }
}
