//! What a kernel file is, and how it is loaded and entered.
//!
//! Owns the order in which the ways in are tried. Must not know the boot structures' contents.
//!
//! | file | has | way in |
//! |---|---|---|
//! | ELF | a PVH note | PVH, whatever else there is: it says most, and a kernel that has both was made for it |
//! | ELF32, ELF64 | a multiboot header | multiboot: with the header's addresses if it has them, else by the program headers. ELF64 too, as GRUB does and QEMU does not: such a kernel's entry is 32-bit code, so the 64-bit entry would be wrong |
//! | ELF64 | neither | Linux's 64-bit boot protocol at the file's entry point |
//! | other | a Linux setup header | Linux's boot protocol, 64-bit if the kernel has that entry, else 32-bit |
//! | other | a multiboot header with addresses | multiboot |

use std::ops::Range;

use super::bzimage::{self, BzImageError, SetupHeader};
use super::elf;
use super::elf_error::ElfError;
use super::foreign::{self, Foreign};
use super::initrd::USUAL_MOST;
use super::multiboot::{self, MultibootError};
use crate::memory::GuestMemory;
use crate::shared_image::Piece;

/// How and at which guest-physical address the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the PVH note's 32-bit entry point.
    Pvh(u64),
    /// As multiboot 1 says, in 32 bits.
    Multiboot(u64),
    /// By Linux's 32-bit boot protocol.
    Linux32(u64),
    /// By Linux's 64-bit boot protocol.
    Linux64(u64),
}

impl Start {
    /// The entry point.
    #[must_use]
    pub fn address(self) -> u64 {
        match self {
            Start::Pvh(at) | Start::Multiboot(at) | Start::Linux32(at) | Start::Linux64(at) => at,
        }
    }

    /// What the entry is called in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Start::Pvh(_) => "PVH",
            Start::Multiboot(_) => "multiboot",
            Start::Linux32(_) => "32-bit",
            Start::Linux64(_) => "64-bit",
        }
    }
}

/// A kernel in guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Where it starts.
    pub start: Start,
    /// Guest-physical ranges that it takes, or will take while it unpacks itself.
    pub used: Vec<Range<u64>>,
    /// The setup header, if the kernel is a bzImage.
    pub setup: Option<SetupHeader>,
    /// The highest address that the initial RAM disk's last byte may have.
    pub initrd_most: u64,
    /// Parts of the file that lie in guest memory as they are.
    pub copied: Vec<Piece>,
}

impl Loaded {
    /// A kernel without a setup header.
    #[must_use]
    pub fn new(start: Start, used: Vec<Range<u64>>) -> Self {
        Loaded { start, used, setup: None, initrd_most: USUAL_MOST, copied: Vec::new() }
    }

    /// Names parts of the file that lie in guest memory as they are.
    #[must_use]
    pub fn with_copied(self, copied: Vec<Piece>) -> Self {
        Loaded { copied, ..self }
    }
}

/// What is wrong with a kernel file, in words that follow its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// As an ELF file, or the file is of no known kind.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// As a multiboot kernel.
    #[error(transparent)]
    Multiboot(#[from] MultibootError),
    /// As a bzImage.
    #[error(transparent)]
    BzImage(#[from] BzImageError),
    /// As none of these: it is something else.
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

/// Loads the kernel `bytes` by the first way in that it has.
///
/// # Errors
/// [`KernelError`]. No bytes make it panic or write outside guest memory or on a boot structure.
pub fn load(memory: &GuestMemory, bytes: &[u8]) -> Result<Loaded, KernelError> {
    let is_elf = bytes.starts_with(b"\x7fELF");
    if !is_elf && bzimage::is_one(bytes) {
        return Ok(bzimage::load(memory, bytes)?);
    }
    let header = multiboot::find(bytes);
    let has_pvh = is_elf && matches!(elf::pvh(bytes), Ok(Some(_)));
    if !is_elf
        && header.is_none()
        && let Some(foreign) = foreign::of(bytes)
    {
        return Err(foreign.into());
    }
    let Some(header) = header.filter(|_| !has_pvh) else {
        return Ok(elf::load(memory, bytes, false)?);
    };
    header.check()?;
    match header.addresses {
        Some(addresses) => Ok(multiboot::load(memory, bytes, header.offset, &addresses)?),
        None if is_elf => Ok(elf::load(memory, bytes, true)?),
        None => Err(MultibootError::NoAddresses.into()),
    }
}

/// Whether a kernel says that it is Linux: by a setup header, or by a note.
#[must_use]
pub fn is_linux(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"\x7fELF") { elf::is_linux(bytes) } else { bzimage::is_one(bytes) }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
