//! What can be wrong with a kernel file, in words for the person who chose it.
//!
//! Owns nothing. Must not know how the file is read.

use super::foreign::cpu;
use super::place::PlaceError;

/// The largest note segment, in bytes; kernels have a few hundred.
pub const MOST_NOTES: u64 = 1 << 20;

/// What is wrong with a kernel file. Addresses are guest-physical.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The file has no bytes.
    #[error("is empty")]
    Empty,
    /// No known kind of kernel.
    #[error(
        "is not an ELF file, bzImage or multiboot kernel; give a vmlinux, a bzImage or an ELF kernel"
    )]
    NotElf,
    /// An ELF32 file that says no way in.
    #[error(
        "is a 32-bit ELF file without a PVH note or multiboot header; add one, or link it as elf64-x86-64"
    )]
    Elf32,
    /// A file for another CPU.
    #[error(
        "is for {}, not for x86 (ELF machine {machine}, byte order {order}); give an x86-64 kernel",
        cpu(*machine)
    )]
    NotX86 {
        /// `e_machine`.
        machine: u16,
        /// `EI_DATA`: 1 little, 2 big endian.
        order: u8,
    },
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
    /// The program headers are of an unknown form.
    #[error("has malformed program headers ({what})")]
    Headers {
        /// What is wrong.
        what: &'static str,
    },
    /// No segment is to be loaded.
    #[error("has nothing to load (no PT_LOAD segment)")]
    NoSegment,
    /// A segment has more bytes in the file than in memory, or wraps around.
    #[error(
        "has a malformed segment at {start:#x} ({filesz:#x} bytes in the file, {memsz:#x} in memory)"
    )]
    BadSegment {
        /// `p_paddr`.
        start: u64,
        /// `p_filesz`, in bytes.
        filesz: u64,
        /// `p_memsz`, in bytes.
        memsz: u64,
    },
    /// A segment has no place in guest memory.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Two segments share memory.
    #[error("has two segments that overlap at {at:#x}")]
    Overlap {
        /// The first shared address.
        at: u64,
    },
    /// The PVH note holds no address.
    #[error("has a PVH note of {size} bytes; its 32-bit entry address needs 4")]
    BadNote {
        /// Size of the note's descriptor, in bytes.
        size: u32,
    },
    /// A note segment of an absurd size.
    #[error("has a note segment of {size} bytes; at most {MOST_NOTES} are read")]
    LongNotes {
        /// `p_filesz`, in bytes.
        size: u64,
    },
    /// The entry point is not in a segment's bytes.
    #[error(
        "has its {which} entry point {entry:#x} outside every segment; it must be a physical address"
    )]
    EntryOutside {
        /// Which entry: "PVH", "multiboot" or "64-bit".
        which: &'static str,
        /// Its address.
        entry: u64,
    },
    /// The entry point is above what the first page tables map.
    #[error("has its {which} entry point {entry:#x} above 4 GiB; link it lower")]
    EntryHigh {
        /// Which entry.
        which: &'static str,
        /// Its address.
        entry: u64,
    },
    /// The segments could not be copied.
    #[error("cannot be loaded: {0}")]
    Load(String),
}
