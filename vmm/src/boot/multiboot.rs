//! Multiboot 1 kernels: the header, and loading by the addresses in it.
//!
//! Owns nothing. Must not know what the kernel is told (`multiboot_info`). Source: Multiboot
//! Specification 0.6.96, section 3.1.
//!
//! | flag | answer |
//! |---|---|
//! | 0, modules in whole pages | always so |
//! | 1, memory information | always there |
//! | 2, a video mode | ignored with a warning: there is no display, and the information says so |
//! | 3 to 15, unknown requirements | refused |
//! | 16, addresses | used, in ELF files too |

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};

use super::kernel::{Loaded, Start};
use super::place::{self, PlaceError};
use crate::memory::GuestMemory;

/// First word of the header.
const MAGIC: u32 = 0x1bad_b002;
/// The header lies in so many bytes from the file's start.
const SEARCHED: usize = 8192;
/// Flag: the kernel wants a video mode.
const VIDEO: u32 = 1 << 2;
/// Flags whose meaning the specification does not give and that forbid to go on.
const UNKNOWN: u32 = 0xfff8;
/// Flag: the header has addresses.
const ADDRESSES: u32 = 1 << 16;

/// What is wrong with a multiboot kernel. Addresses are guest-physical.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    /// It asks for something that nobody has defined.
    #[error("has a multiboot header with unknown requirements (flags {flags:#x})")]
    Requirements {
        /// The header's flags.
        flags: u32,
    },
    /// Nothing says what is to be loaded where.
    #[error("has a multiboot header without addresses (flag 16), and is not an ELF file")]
    NoAddresses,
    /// The addresses contradict each other or the file.
    #[error("has malformed addresses in its multiboot header ({what})")]
    Addresses {
        /// What is wrong.
        what: &'static str,
    },
    /// The image has no place in guest memory.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The image could not be copied.
    #[error("cannot be loaded: {0}")]
    Load(String),
}

/// A header that has been found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Where it lies in the file, in bytes.
    pub offset: usize,
    /// Its flags.
    pub flags: u32,
    /// Its addresses, if it has them.
    pub addresses: Option<Addresses>,
}

/// The addresses in a header, all guest-physical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Where the header itself comes to lie.
    pub header: u32,
    /// Where the first loaded byte comes to lie.
    pub load: u32,
    /// Just after the last loaded byte; 0: all the rest of the file.
    pub load_end: u32,
    /// Just after the memory that follows and must be zero; 0: there is none.
    pub bss_end: u32,
    /// The entry point.
    pub entry: u32,
}

/// Looks for a header: its magic, flags and checksum, aligned to 4 bytes, and the addresses if the
/// flags promise them, all in the first 8 KiB.
#[must_use]
pub fn find(bytes: &[u8]) -> Option<Header> {
    let searched = &bytes[..bytes.len().min(SEARCHED)];
    let word = |at: usize| {
        let bytes = searched.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    (0..searched.len()).step_by(4).find_map(|offset| {
        let (magic, flags, checksum) = (word(offset)?, word(offset + 4)?, word(offset + 8)?);
        if magic != MAGIC || magic.wrapping_add(flags).wrapping_add(checksum) != 0 {
            return None;
        }
        let addresses = match flags & ADDRESSES {
            0 => None,
            _ => Some(Addresses {
                header: word(offset + 12)?,
                load: word(offset + 16)?,
                load_end: word(offset + 20)?,
                bss_end: word(offset + 24)?,
                entry: word(offset + 28)?,
            }),
        };
        Some(Header { offset, flags, addresses })
    })
}

impl Header {
    /// Whether what the header asks for can be done.
    ///
    /// # Errors
    /// [`MultibootError::Requirements`].
    pub fn check(&self) -> Result<(), MultibootError> {
        if self.flags & UNKNOWN != 0 {
            return Err(MultibootError::Requirements { flags: self.flags });
        }
        if self.flags & VIDEO != 0 {
            tracing::warn!("the multiboot kernel asks for a video mode; there is no display");
        }
        Ok(())
    }
}

/// Copies the image into `memory` as `addresses` say; `offset` is that of the header in the file.
///
/// # Errors
/// [`MultibootError`] when the addresses are malformed, or the image does not fit.
pub fn load(
    memory: &GuestMemory,
    bytes: &[u8],
    offset: usize,
    addresses: &Addresses,
) -> Result<Loaded, MultibootError> {
    let (data, range) = image(bytes, offset, addresses)?;
    place::check(memory, &range)?;
    let entry = u64::from(addresses.entry);
    if !(range.start..range.start + data.len() as u64).contains(&entry) {
        return Err(malformed("the entry point is outside the image"));
    }
    memory
        .write_slice(data, GuestAddress(range.start))
        .map_err(|fault| MultibootError::Load(fault.to_string()))?;
    Ok(Loaded::new(Start::Multiboot(entry), vec![range]))
}

fn malformed(what: &'static str) -> MultibootError {
    MultibootError::Addresses { what }
}

/// The bytes to copy, and the memory that the image takes with what follows them.
fn image<'a>(
    bytes: &'a [u8],
    offset: usize,
    addresses: &Addresses,
) -> Result<(&'a [u8], Range<u64>), MultibootError> {
    let before = addresses.header.checked_sub(addresses.load);
    let before = before.ok_or(malformed("the image begins after the header"))?;
    let from = offset.checked_sub(before as usize);
    let from = from.ok_or(malformed("the image begins before the file"))?;
    let size = match addresses.load_end {
        0 => bytes.len() - from,
        end => {
            let size = end.checked_sub(addresses.load);
            size.ok_or(malformed("the image ends before it begins"))? as usize
        }
    };
    let data = bytes.get(from..).and_then(|rest| rest.get(..size));
    let data = data.ok_or(malformed("the image ends after the file"))?;
    let start = u64::from(addresses.load);
    let loaded_end = start + size as u64;
    let end = match u64::from(addresses.bss_end) {
        0 => loaded_end,
        end if end >= loaded_end => end,
        _ => return Err(malformed("the memory ends before the image")),
    };
    Ok((data, start..end))
}

#[cfg(test)]
#[path = "multiboot_tests.rs"]
pub(super) mod tests;
