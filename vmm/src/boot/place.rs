//! Whether a piece of a kernel has a place in guest memory.
//!
//! Owns nothing. Must not know what kind of file the piece comes from.

use std::ops::Range;

use super::layout::TAKEN;
use crate::memory::{self, GuestMemory, HOLE_END, HOLE_START};

/// Why a piece of a kernel has no place. Addresses are guest-physical.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It needs more memory than the guest has.
    #[error(
        "has a segment at {start:#x}-{end:#x}, outside guest memory; use --memory {need_mib}M or more"
    )]
    OutsideMemory {
        /// Its start.
        start: u64,
        /// Just after its end.
        end: u64,
        /// How much memory would hold it, in MiB.
        need_mib: u64,
    },
    /// It lies where no guest has memory.
    #[error(
        "has a segment at {start:#x}-{end:#x}, in the device hole 0xc0000000-0x100000000; link it lower"
    )]
    InHole {
        /// Its start.
        start: u64,
        /// Just after its end.
        end: u64,
    },
    /// It lies on a boot structure.
    #[error(
        "has a segment at {start:#x}-{end:#x}, over {what} at {from:#x}-{to:#x}; link it at 1 MiB or above"
    )]
    OverBoot {
        /// Its start.
        start: u64,
        /// Just after its end.
        end: u64,
        /// The boot structure.
        what: &'static str,
        /// Start of the boot structure.
        from: u64,
        /// Just after its end.
        to: u64,
    },
}

/// Checks that `range` lies in memory and on no boot structure.
///
/// # Errors
/// [`PlaceError`], naming what is in the way.
pub fn check(memory: &GuestMemory, range: &Range<u64>) -> Result<(), PlaceError> {
    let &Range { start, end } = range;
    for (what, Range { start: from, end: to }) in TAKEN {
        if start < to && from < end {
            return Err(PlaceError::OverBoot { start, end, what, from, to });
        }
    }
    if start < HOLE_END && end > HOLE_START {
        return Err(PlaceError::InHole { start, end });
    }
    let (has, need) = if end <= HOLE_START {
        (memory::low_end(memory), end)
    } else {
        (memory::high_end(memory), end - (HOLE_END - HOLE_START))
    };
    if end > has {
        return Err(PlaceError::OutsideMemory { start, end, need_mib: need.div_ceil(1 << 20) });
    }
    Ok(())
}
