//! Reading a kernel's ELF file: what is to be loaded where, and where the guest starts.
//!
//! Owns nothing; works on the file's bytes alone. Must not know the guest's registers or boot
//! structures beyond the ranges they take.
//!
//! The file is checked here in full, so that every fault has its own message; linux-loader then
//! copies the segments.

use std::io::Cursor;
use std::ops::Range;

use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::GuestAddress;

use super::elf_error::{ElfError, MOST_NOTES};
use super::layout::TAKEN;
use crate::memory::{self, GuestMemory, HOLE_END, HOLE_START};

/// Size of an ELF64 file header, in bytes.
const HEADER: usize = 64;
/// Size of an ELF64 program header, in bytes.
const PROGRAM_HEADER: usize = 56;
/// The most program headers; kernels have about five.
const MOST_HEADERS: usize = 128;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the physical address of a 32-bit entry point.
const NOTE_PHYS32_ENTRY: u32 = 18;

/// How the guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the PVH note's 32-bit entry point.
    Pvh(u64),
    /// At the file's 64-bit entry point.
    Long(u64),
}

struct Segment {
    start: u64,
    filesz: u64,
    memsz: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.memsz
    }
}

/// Checks the file `bytes`, copies its segments into `memory`, and says where to start: at the PVH
/// entry if there is one, else at the 64-bit entry.
///
/// Memory beyond a segment's file bytes is left as it is, which is zero in a new guest.
///
/// # Errors
/// [`ElfError`], before anything has been copied (except [`ElfError::Load`]).
pub fn load(memory: &GuestMemory, bytes: &[u8]) -> Result<Start, ElfError> {
    check_ident(bytes)?;
    let headers = program_headers(bytes)?;
    let segments = segments(bytes, &headers)?;
    place(memory, &segments)?;
    let start = match pvh_entry(bytes, &headers)? {
        Some(entry) => Start::Pvh(entry),
        None => Start::Long(u64_at(bytes, 24)),
    };
    check_entry(start, &segments)?;
    // With an explicit offset the loader leaves the notes alone: they have been read already, and it
    // would only take a PVH entry from the last note segment.
    Elf::load(memory, Some(GuestAddress(0)), &mut Cursor::new(bytes), None)
        .map_err(|e| ElfError::Load(e.to_string()))?;
    Ok(start)
}

fn check_ident(bytes: &[u8]) -> Result<(), ElfError> {
    if bytes.is_empty() {
        return Err(ElfError::Empty);
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    if bytes.get(4) == Some(&1) {
        return Err(ElfError::Elf32);
    }
    let header = slice(bytes, "the ELF header", 0, HEADER as u64)?;
    let (order, machine) = (header[5], u16_at(header, 18));
    if order != 1 || machine != EM_X86_64 {
        return Err(ElfError::NotX86 { machine, order });
    }
    if header[4] != 2 {
        return Err(ElfError::Headers { what: "unknown ELF class" });
    }
    Ok(())
}

fn program_headers(bytes: &[u8]) -> Result<Vec<&[u8]>, ElfError> {
    let (offset, size, count) = (u64_at(bytes, 32), u16_at(bytes, 54), u16_at(bytes, 56));
    if count == 0 {
        return Err(ElfError::NoSegment);
    }
    if usize::from(size) != PROGRAM_HEADER {
        return Err(ElfError::Headers { what: "their size is not 56 bytes" });
    }
    if usize::from(count) > MOST_HEADERS {
        return Err(ElfError::Headers { what: "there are more than 128" });
    }
    if offset < HEADER as u64 {
        return Err(ElfError::Headers { what: "they lie in the file header" });
    }
    let all = slice(bytes, "the program headers", offset, u64::from(size) * u64::from(count))?;
    Ok(all.chunks_exact(PROGRAM_HEADER).collect())
}

fn segments(bytes: &[u8], headers: &[&[u8]]) -> Result<Vec<Segment>, ElfError> {
    let mut found = Vec::new();
    for header in headers.iter().filter(|h| u32_at(h, 0) == PT_LOAD) {
        let (start, filesz, memsz) = (u64_at(header, 24), u64_at(header, 32), u64_at(header, 40));
        if filesz > memsz || start.checked_add(memsz).is_none() {
            return Err(ElfError::BadSegment { start, filesz, memsz });
        }
        slice(bytes, "a segment", u64_at(header, 8), filesz)?;
        if memsz > 0 {
            found.push(Segment { start, filesz, memsz });
        }
    }
    if found.iter().all(|s| s.filesz == 0) {
        return Err(ElfError::NoSegment);
    }
    found.sort_by_key(|s| s.start);
    Ok(found)
}

fn place(memory: &GuestMemory, segments: &[Segment]) -> Result<(), ElfError> {
    for segment in segments {
        let (start, end) = (segment.start, segment.end());
        for (what, Range { start: from, end: to }) in TAKEN {
            if start < to && from < end {
                return Err(ElfError::OverBoot { start, end, what, from, to });
            }
        }
        if start < HOLE_END && end > HOLE_START {
            return Err(ElfError::InHole { start, end });
        }
        let (has, need) = if end <= HOLE_START {
            (memory::low_end(memory), end)
        } else {
            (memory::high_end(memory), end - (HOLE_END - HOLE_START))
        };
        if end > has {
            return Err(ElfError::OutsideMemory { start, end, need_mib: need.div_ceil(1 << 20) });
        }
    }
    match segments.windows(2).find(|pair| pair[0].end() > pair[1].start) {
        Some(pair) => Err(ElfError::Overlap { at: pair[1].start }),
        None => Ok(()),
    }
}

fn check_entry(start: Start, segments: &[Segment]) -> Result<(), ElfError> {
    let (which, entry) = match start {
        Start::Pvh(entry) => ("PVH", entry),
        Start::Long(entry) => ("64-bit", entry),
    };
    if !segments.iter().any(|s| (s.start..s.start + s.filesz).contains(&entry)) {
        return Err(ElfError::EntryOutside { which, entry });
    }
    if entry >= HOLE_END {
        return Err(ElfError::EntryHigh { entry });
    }
    Ok(())
}

fn pvh_entry(bytes: &[u8], headers: &[&[u8]]) -> Result<Option<u64>, ElfError> {
    for header in headers.iter().filter(|h| u32_at(h, 0) == PT_NOTE) {
        let size = u64_at(header, 32);
        if size > MOST_NOTES {
            return Err(ElfError::LongNotes { size });
        }
        let notes = slice(bytes, "a note segment", u64_at(header, 8), size)?;
        let align = if u64_at(header, 48) == 8 { 8 } else { 4 };
        if let Some(entry) = pvh_entry_in(notes, align)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Looks through one segment of notes; one that runs past its end is taken as the end of the notes.
fn pvh_entry_in(mut notes: &[u8], align: usize) -> Result<Option<u64>, ElfError> {
    while notes.len() >= 12 {
        let (namesz, descsz, kind) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8));
        // 12 + 2^32 + 7 fits in a usize of 64 bits, as does the sum of two such values.
        let name_end = 12 + namesz as usize;
        let desc = name_end.next_multiple_of(align);
        let desc_end = desc + descsz as usize;
        let Some(body) = notes.get(..desc_end) else {
            break;
        };
        if kind == NOTE_PHYS32_ENTRY && &body[12..name_end] == b"Xen\0" {
            return match body[desc..].first_chunk::<4>() {
                Some(entry) => Ok(Some(u64::from(u32::from_le_bytes(*entry)))),
                None => Err(ElfError::BadNote { size: descsz }),
            };
        }
        notes = notes.get(desc_end.next_multiple_of(align)..).unwrap_or(&[]);
    }
    Ok(None)
}

fn slice<'a>(
    bytes: &'a [u8],
    what: &'static str,
    offset: u64,
    size: u64,
) -> Result<&'a [u8], ElfError> {
    let len = bytes.len() as u64;
    let end = offset.saturating_add(size);
    if end > len {
        return Err(ElfError::Truncated { what, end, len });
    }
    Ok(&bytes[offset as usize..end as usize])
}

// The three below read a field of a header whose size has been checked.

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
#[path = "elf_tests.rs"]
pub(super) mod tests;
