//! One request: what its descriptors say (Virtio 1.2, 5.2.6).
//!
//! Owns the request's layout, and the checks after which its work lies inside the disk. Must not know
//! rings, nor how work is done.

use virtio_bindings::virtio_blk as blk;

use super::{Geometry, MOST_DISCARDED, MOST_SEGMENTS, MOST_ZEROED, SECTOR};
use crate::virtio::Memory;
use crate::virtio::ring::{Broken, Chain};

/// Bytes of the header: type, reserved, sector.
const HEADER: usize = 16;
/// Bytes of a range to be discarded or zeroed: sector, sectors, flags.
const SEGMENT: usize = 16;

pub(super) const OK: u8 = blk::VIRTIO_BLK_S_OK as u8;
pub(super) const IOERR: u8 = blk::VIRTIO_BLK_S_IOERR as u8;
pub(super) const UNSUPP: u8 = blk::VIRTIO_BLK_S_UNSUPP as u8;

/// Bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The place may be given away.
    pub(super) unmap: bool,
}

/// What is to be done. All ranges lie inside the disk, in whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Read(Range),
    /// `through`: it is to be permanent when it is done.
    Write {
        to: Range,
        through: bool,
    },
    Flush,
    Discard(Vec<Range>),
    Zero {
        ranges: Vec<Range>,
        through: bool,
    },
    Id,
    /// Nothing; the status says why.
    Refuse(u8),
}

/// A request, which has a place for its status.
#[derive(Debug)]
pub(super) struct Request {
    chain: Chain,
    /// Offset of the status among the bytes that the device writes.
    status_at: u64,
}

impl Request {
    /// The request that a chain is.
    pub(super) fn new(chain: Chain) -> Result<Self, Broken> {
        let status_at = chain.writable_len().checked_sub(1).ok_or(Broken)?;
        Ok(Request { chain, status_at })
    }

    pub(super) fn head(&self) -> u16 {
        self.chain.head
    }

    /// Copies what the driver wants written, from `offset` on.
    pub(super) fn read_data(
        &self,
        memory: &Memory,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), Broken> {
        let read = self.chain.read(memory, offset.saturating_add(HEADER as u64), bytes)?;
        if read == bytes.len() { Ok(()) } else { Err(Broken) }
    }

    /// Copies what the driver wants read, from `offset` on.
    pub(super) fn write_data(
        &self,
        memory: &Memory,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Broken> {
        self.chain.write(memory, offset, bytes).map(|_| ())
    }

    pub(super) fn set_status(&self, memory: &Memory, status: u8) -> Result<(), Broken> {
        self.chain.write(memory, self.status_at, &[status]).map(|_| ())
    }

    /// Room for what the driver reads.
    pub(super) fn room(&self) -> u64 {
        self.status_at
    }

    /// What is to be done for it.
    pub(super) fn work(
        &self,
        memory: &Memory,
        geometry: &Geometry,
        through: bool,
    ) -> Result<Work, Broken> {
        let mut header = [0; HEADER];
        if self.chain.read(memory, 0, &mut header)? < HEADER {
            return Ok(Work::Refuse(IOERR));
        }
        let [kind @ .., _, _, _, _, _, _, _, _, _, _, _, _] = header;
        let [_, _, _, _, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes(kind), u64::from_le_bytes(sector));
        let said = self.chain.readable_len() - HEADER as u64;
        let changes = matches!(
            kind,
            blk::VIRTIO_BLK_T_OUT | blk::VIRTIO_BLK_T_DISCARD | blk::VIRTIO_BLK_T_WRITE_ZEROES
        );
        if changes && geometry.read_only {
            return Ok(Work::Refuse(IOERR));
        }
        let range = |len| range(geometry, sector, len);
        Ok(match kind {
            blk::VIRTIO_BLK_T_IN => range(self.room()).map_or(Work::Refuse(IOERR), Work::Read),
            blk::VIRTIO_BLK_T_OUT => match range(said) {
                Some(to) => Work::Write { to, through },
                None => Work::Refuse(IOERR),
            },
            blk::VIRTIO_BLK_T_FLUSH => Work::Flush,
            blk::VIRTIO_BLK_T_GET_ID => Work::Id,
            blk::VIRTIO_BLK_T_DISCARD => match self.segments(memory, geometry, false)? {
                Ok(ranges) => Work::Discard(ranges),
                Err(status) => Work::Refuse(status),
            },
            blk::VIRTIO_BLK_T_WRITE_ZEROES => match self.segments(memory, geometry, true)? {
                Ok(ranges) => Work::Zero { ranges, through },
                Err(status) => Work::Refuse(status),
            },
            _ => Work::Refuse(UNSUPP),
        })
    }

    /// The ranges of a discard, or of a request for zeros; or the status that refuses them.
    fn segments(
        &self,
        memory: &Memory,
        geometry: &Geometry,
        zeroes: bool,
    ) -> Result<Result<Vec<Range>, u8>, Broken> {
        let said = self.chain.readable_len() - HEADER as u64;
        let most = u64::from(MOST_SEGMENTS) * SEGMENT as u64;
        if said == 0 || said > most || !said.is_multiple_of(SEGMENT as u64) {
            return Ok(Err(IOERR));
        }
        let mut bytes = vec![0; said as usize];
        self.read_data(memory, 0, &mut bytes)?;
        let limit = if zeroes { MOST_ZEROED } else { MOST_DISCARDED };
        let segment = |bytes: &[u8]| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, flags @ ..] =
                <[u8; SEGMENT]>::try_from(bytes).map_err(|_| IOERR)?;
            let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let len = u64::from(u32::from_le_bytes([i, j, k, l])) * SECTOR;
            let unmap = match (u32::from_le_bytes(flags), zeroes) {
                (0, _) => false,
                (blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, true) => true,
                _ => return Err(UNSUPP),
            };
            let range = range(geometry, sector, len).filter(|range| range.len <= limit);
            range.map(|range| Range { unmap, ..range }).ok_or(IOERR)
        };
        Ok(bytes.chunks(SEGMENT).map(segment).collect())
    }
}

/// The bytes from a sector on, if the disk has them, in whole blocks.
fn range(geometry: &Geometry, sector: u64, len: u64) -> Option<Range> {
    let offset = sector.checked_mul(SECTOR)?;
    let end = offset.checked_add(len)?;
    let block = u64::from(geometry.block);
    let whole = offset.is_multiple_of(block) && len.is_multiple_of(block);
    (whole && end <= geometry.bytes).then_some(Range { offset, len, unmap: false })
}
