//! Reading a kernel's ELF file: what is to be loaded where, and where the guest starts.
//!
//! Owns nothing; works on the file's bytes alone. Must not know the guest's registers or boot
//! structures beyond the ranges they take.
//!
//! The file is checked here in full, so that every fault has its own message. linux-loader then
//! copies the segments of an ELF64 file; it does not read ELF32, whose segments are copied here.

use std::io::Cursor;

use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

use super::elf_error::{ElfError, MOST_NOTES};
use super::kernel::{Loaded, Start};
use super::place;
use crate::memory::{GuestMemory, HOLE_END};
use crate::shared_image::Piece;

/// The most program headers; kernels have about five.
const MOST_HEADERS: usize = 128;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the physical address of a 32-bit entry point.
const NOTE_PHYS32_ENTRY: u32 = 18;
/// `XEN_ELFNOTE_GUEST_OS`: the name of the operating system.
const NOTE_GUEST_OS: u32 = 6;

/// The two forms of the file (ELF specification, "File header", "Program header").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Elf32,
    Elf64,
}

impl Class {
    /// Size of the file header, in bytes.
    fn header(self) -> usize {
        match self {
            Class::Elf32 => 52,
            Class::Elf64 => 64,
        }
    }

    /// Size of a program header, in bytes.
    fn program_header(self) -> usize {
        match self {
            Class::Elf32 => 32,
            Class::Elf64 => 56,
        }
    }

    /// `e_phoff`, `e_phentsize`, `e_phnum`.
    fn table(self, header: &[u8]) -> (u64, u16, u16) {
        match self {
            Class::Elf32 => (u64::from(u32_at(header, 28)), u16_at(header, 42), u16_at(header, 44)),
            Class::Elf64 => (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56)),
        }
    }

    fn read(self, raw: &[u8]) -> ProgramHeader {
        let word = |at| u64::from(u32_at(raw, at));
        match self {
            Class::Elf32 => ProgramHeader {
                kind: u32_at(raw, 0),
                offset: word(4),
                start: word(12),
                filesz: word(16),
                memsz: word(20),
                align: word(28),
            },
            Class::Elf64 => ProgramHeader {
                kind: u32_at(raw, 0),
                offset: u64_at(raw, 8),
                start: u64_at(raw, 24),
                filesz: u64_at(raw, 32),
                memsz: u64_at(raw, 40),
                align: u64_at(raw, 48),
            },
        }
    }
}

/// A program header, of either class.
struct ProgramHeader {
    kind: u32,
    offset: u64,
    /// `p_paddr`.
    start: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

struct Segment {
    offset: u64,
    start: u64,
    filesz: u64,
    memsz: u64,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.memsz
    }
}

/// The entry address in the file's PVH note, if it has one.
///
/// # Errors
/// [`ElfError`] when the headers or notes are malformed.
pub fn pvh(bytes: &[u8]) -> Result<Option<u64>, ElfError> {
    let class = check_ident(bytes)?;
    pvh_entry(bytes, &program_headers(bytes, class)?)
}

/// Checks the file `bytes`, copies its segments into `memory`, and says where to start: at the PVH
/// entry if there is one, else at the file's entry point: as multiboot says if the kernel has such a
/// header (`multiboot`), else in 64 bits, which only an ELF64 file can.
///
/// Memory beyond a segment's file bytes is left as it is, which is zero in a new guest.
///
/// # Errors
/// [`ElfError`], before anything has been copied (except [`ElfError::Load`]).
pub fn load(memory: &GuestMemory, bytes: &[u8], multiboot: bool) -> Result<Loaded, ElfError> {
    let class = check_ident(bytes)?;
    let headers = program_headers(bytes, class)?;
    let segments = segments(bytes, &headers)?;
    place_all(memory, &segments)?;
    let entry = match class {
        Class::Elf32 => u64::from(u32_at(bytes, 24)),
        Class::Elf64 => u64_at(bytes, 24),
    };
    let start = match (pvh_entry(bytes, &headers)?, class) {
        (Some(entry), _) => Start::Pvh(entry),
        (None, _) if multiboot => Start::Multiboot(entry),
        (None, Class::Elf64) => Start::Linux64(entry),
        (None, Class::Elf32) => return Err(ElfError::Elf32),
    };
    check_entry(start, &segments)?;
    match class {
        // With an explicit offset the loader leaves the notes alone: they have been read already,
        // and it would only take a PVH entry from the last note segment.
        Class::Elf64 => Elf::load(memory, Some(GuestAddress(0)), &mut Cursor::new(bytes), None)
            .map(|_| ())
            .map_err(|e| ElfError::Load(e.to_string()))?,
        Class::Elf32 => copy(memory, bytes, &segments)?,
    }
    let piece = |s: &Segment| Piece { guest: s.start, offset: s.offset, size: s.filesz };
    let copied = segments.iter().map(piece).collect();
    let used = segments.iter().map(|s| s.start..s.end()).collect();
    Ok(Loaded::new(start, used).with_copied(copied))
}

fn copy(memory: &GuestMemory, bytes: &[u8], segments: &[Segment]) -> Result<(), ElfError> {
    for segment in segments {
        let data = slice(bytes, "a segment", segment.offset, segment.filesz)?;
        memory
            .write_slice(data, GuestAddress(segment.start))
            .map_err(|e| ElfError::Load(e.to_string()))?;
    }
    Ok(())
}

fn check_ident(bytes: &[u8]) -> Result<Class, ElfError> {
    if bytes.is_empty() {
        return Err(ElfError::Empty);
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    let class = if bytes.get(4) == Some(&1) { Class::Elf32 } else { Class::Elf64 };
    let header = slice(bytes, "the ELF header", 0, class.header() as u64)?;
    let (order, machine) = (header[5], u16_at(header, 18));
    let wanted = match class {
        Class::Elf32 => EM_386,
        Class::Elf64 => EM_X86_64,
    };
    if order != 1 || machine != wanted {
        return Err(ElfError::NotX86 { machine, order });
    }
    if !matches!(header[4], 1 | 2) {
        return Err(ElfError::Headers { what: "unknown ELF class" });
    }
    Ok(class)
}

fn program_headers(bytes: &[u8], class: Class) -> Result<Vec<ProgramHeader>, ElfError> {
    let (offset, size, count) = class.table(bytes);
    if count == 0 {
        return Err(ElfError::NoSegment);
    }
    if usize::from(size) != class.program_header() {
        return Err(ElfError::Headers { what: "their size is not that of their ELF class" });
    }
    if usize::from(count) > MOST_HEADERS {
        return Err(ElfError::Headers { what: "there are more than 128" });
    }
    if offset < class.header() as u64 {
        return Err(ElfError::Headers { what: "they lie in the file header" });
    }
    let all = slice(bytes, "the program headers", offset, u64::from(size) * u64::from(count))?;
    Ok(all.chunks_exact(class.program_header()).map(|raw| class.read(raw)).collect())
}

fn segments(bytes: &[u8], headers: &[ProgramHeader]) -> Result<Vec<Segment>, ElfError> {
    let mut found = Vec::new();
    for header in headers.iter().filter(|header| header.kind == PT_LOAD) {
        let &ProgramHeader { offset, start, filesz, memsz, .. } = header;
        if filesz > memsz || start.checked_add(memsz).is_none() {
            return Err(ElfError::BadSegment { start, filesz, memsz });
        }
        slice(bytes, "a segment", offset, filesz)?;
        if memsz > 0 {
            found.push(Segment { offset, start, filesz, memsz });
        }
    }
    if found.iter().all(|s| s.filesz == 0) {
        return Err(ElfError::NoSegment);
    }
    found.sort_by_key(|s| s.start);
    Ok(found)
}

fn place_all(memory: &GuestMemory, segments: &[Segment]) -> Result<(), ElfError> {
    for segment in segments {
        place::check(memory, &(segment.start..segment.end()))?;
    }
    match segments.windows(2).find(|pair| pair[0].end() > pair[1].start) {
        Some(pair) => Err(ElfError::Overlap { at: pair[1].start }),
        None => Ok(()),
    }
}

fn check_entry(start: Start, segments: &[Segment]) -> Result<(), ElfError> {
    let (which, entry) = (start.name(), start.address());
    if !segments.iter().any(|s| (s.start..s.start + s.filesz).contains(&entry)) {
        return Err(ElfError::EntryOutside { which, entry });
    }
    if entry >= HOLE_END {
        return Err(ElfError::EntryHigh { which, entry });
    }
    Ok(())
}

fn pvh_entry(bytes: &[u8], headers: &[ProgramHeader]) -> Result<Option<u64>, ElfError> {
    for segment in note_segments(bytes, headers) {
        let is_entry = |note: &Note<'_>| note.kind == NOTE_PHYS32_ENTRY && note.name == b"Xen\0";
        if let Some(note) = segment?.find(is_entry) {
            let entry = note.desc.first_chunk::<4>();
            let size = note.desc.len() as u32;
            let entry = entry.ok_or(ElfError::BadNote { size })?;
            return Ok(Some(u64::from(u32::from_le_bytes(*entry))));
        }
    }
    Ok(None)
}

/// Whether the file's notes say that it is Linux. One that is no ELF file, or malformed, is not.
#[must_use]
pub fn is_linux(bytes: &[u8]) -> bool {
    let says = || {
        let class = check_ident(bytes)?;
        let headers = program_headers(bytes, class)?;
        for segment in note_segments(bytes, &headers) {
            let mut notes = segment?;
            if notes.any(|note| note.is_linux()) {
                return Ok::<_, ElfError>(true);
            }
        }
        Ok(false)
    };
    says().unwrap_or(false)
}

/// A note of an ELF file.
struct Note<'a> {
    kind: u32,
    name: &'a [u8],
    desc: &'a [u8],
}

impl Note<'_> {
    fn is_linux(&self) -> bool {
        let guest_os = self.name == b"Xen\0" && self.kind == NOTE_GUEST_OS;
        self.name == b"Linux\0" || (guest_os && self.desc.starts_with(b"linux\0"))
    }
}

/// The notes of one segment after the other.
fn note_segments<'a>(
    bytes: &'a [u8],
    headers: &'a [ProgramHeader],
) -> impl Iterator<Item = Result<Notes<'a>, ElfError>> {
    headers.iter().filter(|header| header.kind == PT_NOTE).map(|header| {
        let size = header.filesz;
        if size > MOST_NOTES {
            return Err(ElfError::LongNotes { size });
        }
        let rest = slice(bytes, "a note segment", header.offset, size)?;
        Ok(Notes { rest, align: if header.align == 8 { 8 } else { 4 } })
    })
}

/// Goes through one segment of notes; one that runs past its end is taken as the end of the notes.
struct Notes<'a> {
    rest: &'a [u8],
    align: usize,
}

impl<'a> Iterator for Notes<'a> {
    type Item = Note<'a>;

    fn next(&mut self) -> Option<Note<'a>> {
        let notes = self.rest;
        if notes.len() < 12 {
            return None;
        }
        let (namesz, descsz, kind) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8));
        // 12 + 2^32 + 7 fits in a usize of 64 bits, as does the sum of two such values.
        let name_end = 12 + namesz as usize;
        let desc = name_end.next_multiple_of(self.align);
        let desc_end = desc + descsz as usize;
        let body = notes.get(..desc_end)?;
        self.rest = notes.get(desc_end.next_multiple_of(self.align)..).unwrap_or(&[]);
        Some(Note { kind, name: &body[12..name_end], desc: &body[desc..] })
    }
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
