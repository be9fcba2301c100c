//! What a driver is told about a disk: features and configuration (Virtio 1.2, 5.2.3 and 5.2.4).
//!
//! Owns the limits that are told. Must not know requests.

use virtio_bindings::virtio_blk as blk;

use super::{Geometry, QUEUE_SIZE, SECTOR};

/// The most ranges of a discard or of a request for zeros.
pub const MOST_SEGMENTS: u32 = 16;
/// The most bytes of a range that is discarded: 2 GiB.
pub const MOST_DISCARDED: u64 = 2 << 30;
/// The most bytes of a range that is zeroed: 64 MiB, as it may take as long as writing them.
pub const MOST_ZEROED: u64 = 64 << 20;
/// Descriptors of a request that are not data: header and status.
const NOT_DATA: u32 = 2;

const BYTES: usize = 60;

pub(super) fn features(geometry: &Geometry) -> u64 {
    let both = [blk::VIRTIO_BLK_F_SEG_MAX, blk::VIRTIO_BLK_F_BLK_SIZE];
    let more: &[u32] = match geometry.read_only {
        true => &[blk::VIRTIO_BLK_F_RO],
        false => {
            &[blk::VIRTIO_BLK_F_FLUSH, blk::VIRTIO_BLK_F_DISCARD, blk::VIRTIO_BLK_F_WRITE_ZEROES]
        }
    };
    both.iter().chain(more).map(|bit| 1 << bit).sum()
}

pub(super) fn read(geometry: &Geometry, offset: u64, data: &mut [u8]) {
    let bytes = bytes(geometry);
    let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
        *to = *from;
    }
}

fn bytes(geometry: &Geometry) -> [u8; BYTES] {
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&(geometry.bytes / SECTOR).to_le_bytes());
    let words = [
        (12, (u32::from(QUEUE_SIZE) - NOT_DATA).to_le_bytes()),
        (20, geometry.block.to_le_bytes()),
        (36, sectors(MOST_DISCARDED)),
        (40, MOST_SEGMENTS.to_le_bytes()),
        (44, sectors(u64::from(geometry.block))),
        (48, sectors(MOST_ZEROED)),
        (52, MOST_SEGMENTS.to_le_bytes()),
    ];
    let writable_only = 36;
    for (at, word) in words {
        if at < writable_only || !geometry.read_only {
            bytes[at..at + 4].copy_from_slice(&word);
        }
    }
    // Zeroed ranges may be given away.
    bytes[56] = u8::from(!geometry.read_only);
    bytes
}
