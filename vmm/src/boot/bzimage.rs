//! Linux's bzImage: the setup header, and where the kernel behind it goes.
//!
//! Owns the header's bytes of a kernel that has been loaded. Must not know the rest of the zero page,
//! nor the registers. Source: Linux, `Documentation/arch/x86/boot.rst`.
//!
//! The real-mode code is left in the file. The protected-mode kernel is copied to the address that
//! the header names (`code32_start`, usually 1 MiB) and entered there: 0x200 bytes further in long
//! mode if it says that it has this entry (protocol 2.12, `XLF_KERNEL_64`), else at its first byte in
//! 32-bit protected mode.
//!
//! The header is checked here in full, so that every fault has its own message; linux-loader then
//! copies the kernel.

use std::io::Cursor;
use std::ops::Range;

use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::GuestAddress;

use super::kernel::{Loaded, Start};
use super::place::{self, PlaceError};
use crate::memory::GuestMemory;

/// Where the setup header begins in the file and in the zero page.
pub const HEADER_START: usize = 0x1f1;
/// Just after the longest setup header in the zero page.
const HEADER_END: usize = 0x290;
/// Just after the shortest header that is taken: protocol 2.02, with `cmd_line_ptr`.
const HEADER_LEAST: usize = 0x22c;
const BOOT_FLAG: usize = 0x1fe;
const SYSSIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const INITRD_ADDR_MAX: usize = 0x22c;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// Where the 64-bit entry point lies in the protected-mode kernel.
const ENTRY64: u64 = 0x200;
/// `loadflags`: the kernel goes to 1 MiB or above.
const LOADED_HIGH: u64 = 1;
/// `xloadflags`: the kernel has a 64-bit entry point.
const XLF_KERNEL_64: u64 = 1;

/// What is wrong with a bzImage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BzImageError {
    /// A protocol from before there was a command line pointer.
    #[error(
        "is a Linux kernel of boot protocol {}.{:02}; 2.02 or later is needed", version >> 8, version & 0xff
    )]
    TooOld {
        /// `version`: major and minor number, one byte each.
        version: u16,
    },
    /// A zImage.
    #[error("is a zImage, which is loaded below 1 MiB; build it as bzImage")]
    Low,
    /// The file ends too early.
    #[error("is cut short: {what} ends at byte {end}, the file at {len}")]
    Truncated {
        /// What is cut.
        what: &'static str,
        /// Where it should end, in bytes from the file's start.
        end: u64,
        /// Size of the file, in bytes.
        len: u64,
    },
    /// The header is too short for its protocol.
    #[error("has a malformed setup header (it ends at {end:#x})")]
    Header {
        /// Just after its last byte, in bytes from the file's start.
        end: usize,
    },
    /// It moves itself to where no address is.
    #[error("has a malformed setup header (it unpacks itself at {start:#x}, {size:#x} bytes)")]
    Unpacked {
        /// `pref_address`, guest-physical.
        start: u64,
        /// `init_size`, in bytes.
        size: u64,
    },
    /// The kernel takes shorter command lines only.
    #[error("takes a command line of at most {most} bytes; shorten it from {bytes}")]
    Cmdline {
        /// The command line's size, in bytes.
        bytes: usize,
        /// The most that the kernel takes, in bytes.
        most: u64,
    },
    /// The kernel has no place in guest memory.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It could not be copied.
    #[error("cannot be loaded: {0}")]
    Load(String),
}

/// A setup header as the file has it: the bytes from [`HEADER_START`] on that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupHeader {
    bytes: Vec<u8>,
}

impl SetupHeader {
    /// The header's bytes, which fit the zero page at [`HEADER_START`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a command line of so many bytes, without its terminating zero, is not too long.
    ///
    /// # Errors
    /// [`BzImageError::Cmdline`].
    pub fn check_cmdline(&self, bytes: usize) -> Result<(), BzImageError> {
        let most = match self.version() {
            0x206.. => self.field(CMDLINE_SIZE, 4),
            _ => 255,
        };
        if bytes as u64 > most { Err(BzImageError::Cmdline { bytes, most }) } else { Ok(()) }
    }

    fn read(file: &[u8]) -> Result<Self, BzImageError> {
        // The jump over the header, at 0x200, is relative to 0x202.
        let end = MAGIC + usize::from(file[MAGIC - 1]);
        if end < HEADER_LEAST {
            return Err(BzImageError::Header { end });
        }
        let header = file.get(HEADER_START..end.min(HEADER_END));
        let header = header.ok_or(BzImageError::Truncated {
            what: "the setup header",
            end: end as u64,
            len: file.len() as u64,
        })?;
        Ok(SetupHeader { bytes: header.to_vec() })
    }

    fn version(&self) -> u16 {
        self.field(VERSION, 2) as u16
    }

    /// A little-endian field of at most 8 bytes at this offset in the file; 0 where the header has
    /// ended, as protocols that lack a field leave it.
    fn field(&self, at: usize, size: usize) -> u64 {
        let from = at - HEADER_START;
        let bytes = self.bytes.get(from..from + size).unwrap_or(&[]);
        bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn has_entry64(&self) -> bool {
        self.version() >= 0x20c && self.field(XLOADFLAGS, 2) & XLF_KERNEL_64 != 0
    }

    fn initrd_most(&self) -> u64 {
        match self.version() {
            0x203.. => self.field(INITRD_ADDR_MAX, 4),
            _ => 0x37ff_ffff,
        }
    }

    /// What the kernel takes while it unpacks itself, if its protocol says so: from where it prefers
    /// to run, or, if it can run anywhere, from where it was loaded if that is higher.
    fn unpacked(&self, loaded: u64) -> Result<Option<Range<u64>>, BzImageError> {
        if self.version() < 0x20a {
            return Ok(None);
        }
        let (preferred, size) = (self.field(PREF_ADDRESS, 8), self.field(INIT_SIZE, 4));
        let relocatable = self.field(RELOCATABLE, 1) != 0;
        let start = if relocatable { preferred.max(loaded) } else { preferred };
        match start.checked_add(size) {
            Some(end) => Ok((size > 0).then_some(start..end)),
            None => Err(BzImageError::Unpacked { start, size }),
        }
    }
}

/// Whether a file is a Linux kernel with a setup header.
#[must_use]
pub fn is_one(file: &[u8]) -> bool {
    file.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
        && file.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
}

/// Checks the kernel `file`, of which [`is_one`] is true, and copies it into `memory`.
///
/// # Errors
/// [`BzImageError`], before anything has been copied (except [`BzImageError::Load`]).
pub fn load(memory: &GuestMemory, file: &[u8]) -> Result<Loaded, BzImageError> {
    let setup = SetupHeader::read(file)?;
    let version = setup.version();
    if version < 0x202 {
        return Err(BzImageError::TooOld { version });
    }
    if setup.field(LOADFLAGS, 1) & LOADED_HIGH == 0 {
        return Err(BzImageError::Low);
    }
    let size = kernel_size(file, &setup)?;
    let start = setup.field(CODE32_START, 4);
    let kernel = start..start + size;
    let mut used = vec![kernel];
    used.extend(setup.unpacked(start)?);
    for range in &used {
        place::check(memory, range)?;
    }
    BzImage::load(memory, Some(GuestAddress(start)), &mut Cursor::new(file), None)
        .map_err(|fault| BzImageError::Load(fault.to_string()))?;
    let entry = match setup.has_entry64() {
        true => Start::Linux64(start + ENTRY64),
        false => Start::Linux32(start),
    };
    let initrd_most = setup.initrd_most();
    // It unpacks itself, and its pages seldom come to lie on the guest's.
    Ok(Loaded { start: entry, used, setup: Some(setup), initrd_most, copied: Vec::new() })
}

/// Size of the protected-mode kernel, in bytes: what follows the boot sector and the setup sectors.
fn kernel_size(file: &[u8], setup: &SetupHeader) -> Result<u64, BzImageError> {
    let len = file.len() as u64;
    let cut = |what, end| Err(BzImageError::Truncated { what, end, len });
    let sectors = match setup.field(HEADER_START, 1) {
        0 => 4,
        sectors => sectors,
    };
    let from = (sectors + 1) * 512;
    let entry = if setup.has_entry64() { ENTRY64 } else { 0 };
    if len <= from + entry {
        return cut("the kernel's entry", from + entry + 1);
    }
    // Before 2.04 the upper half of the field meant something else.
    let width = if setup.version() >= 0x204 { 4 } else { 2 };
    let paragraphs = setup.field(SYSSIZE, width);
    if (len - from).div_ceil(16) < paragraphs {
        return cut("the kernel", from + paragraphs * 16);
    }
    Ok(len - from)
}

#[cfg(test)]
#[path = "bzimage_tests.rs"]
pub(super) mod tests;
