//! Tests of the kernel file's checks, with hand-made files; and random ones.

use super::*;
use crate::boot::layout::TAKEN;
use crate::memory::{self, HOLE_START};
use proptest::prelude::*;
use vm_memory::Bytes;

const MIB: u64 = 1 << 20;

/// What [`Image::build`] makes an ELF file of.
#[derive(Debug, Clone)]
pub(in crate::boot) struct Image {
    /// `e_entry`.
    pub entry: u64,
    /// Type, `p_paddr`, `p_memsz`, alignment and bytes of each program header.
    pub parts: Vec<(u32, u64, u64, u64, Vec<u8>)>,
}

impl Image {
    /// One segment of `bytes` at `start`, entered at its first byte.
    pub fn at(start: u64, bytes: &[u8]) -> Self {
        Self { entry: start, parts: vec![] }.segment(start, bytes.len() as u64, bytes)
    }

    /// The same file with one more segment.
    pub fn segment(mut self, start: u64, memsz: u64, bytes: &[u8]) -> Self {
        self.parts.push((PT_LOAD, start, memsz, 0x1000, bytes.to_vec()));
        self
    }

    /// The same file with one more segment of notes.
    pub fn notes(mut self, align: u64, bytes: &[u8]) -> Self {
        self.parts.push((PT_NOTE, 0, 0, align, bytes.to_vec()));
        self
    }

    /// The file's bytes, as ELF64.
    pub fn build(&self) -> Vec<u8> {
        self.build_as(Class::Elf64)
    }

    /// The file's bytes, as ELF32.
    pub fn build_narrow(&self) -> Vec<u8> {
        self.build_as(Class::Elf32)
    }

    fn build_as(&self, class: Class) -> Vec<u8> {
        let (ident, machine) = match class {
            Class::Elf32 => (1, EM_386),
            Class::Elf64 => (2, EM_X86_64),
        };
        let word = |out: &mut Vec<u8>, word: u64| match class {
            Class::Elf32 => out.extend((word as u32).to_le_bytes()),
            Class::Elf64 => out.extend(word.to_le_bytes()),
        };
        let (header, program_header) = (class.header(), class.program_header());
        let mut out = vec![0x7f, b'E', b'L', b'F', ident, 1, 1];
        out.resize(16, 0);
        for half in [2u16, machine] {
            out.extend(half.to_le_bytes());
        }
        out.extend(1u32.to_le_bytes());
        for value in [self.entry, header as u64, 0] {
            word(&mut out, value);
        }
        out.extend(0u32.to_le_bytes());
        for half in [header, program_header, self.parts.len(), 0, 0, 0] {
            out.extend((half as u16).to_le_bytes());
        }
        let mut offset = (header + self.parts.len() * program_header) as u64;
        for (kind, start, memsz, align, bytes) in &self.parts {
            out.extend(kind.to_le_bytes());
            if class == Class::Elf64 {
                out.extend(7u32.to_le_bytes());
            }
            for value in [offset, *start, *start, bytes.len() as u64, *memsz] {
                word(&mut out, value);
            }
            if class == Class::Elf32 {
                out.extend(7u32.to_le_bytes());
            }
            word(&mut out, *align);
            offset += bytes.len() as u64;
        }
        for (.., bytes) in &self.parts {
            out.extend(bytes);
        }
        out
    }
}

/// A note with its padding.
pub(in crate::boot) fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = (name.len() as u32).to_le_bytes().to_vec();
    out.extend((desc.len() as u32).to_le_bytes());
    out.extend(kind.to_le_bytes());
    for part in [name, desc] {
        out.extend(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn pvh_note(entry: u32) -> Vec<u8> {
    note(b"Xen\0", NOTE_PHYS32_ENTRY, &entry.to_le_bytes())
}

fn guest() -> GuestMemory {
    memory::create(16 * MIB).unwrap()
}

/// Loads a file that has no multiboot header.
fn start(memory: &GuestMemory, bytes: &[u8]) -> Result<Start, ElfError> {
    load(memory, bytes, false).map(|loaded| loaded.start)
}

fn good() -> Image {
    Image::at(2 * MIB, b"kernel code")
}

/// Overwrites bytes of the good file and gives the error it then makes.
fn patched(at: usize, bytes: &[u8]) -> ElfError {
    let mut file = good().build();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    start(&guest(), &file).unwrap_err()
}

fn says(error: &ElfError, parts: &[&str]) {
    let text = error.to_string();
    assert!(!text.contains('\n'));
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn elf64_is_loaded_at_its_physical_addresses_and_entered_at_64_bits() {
    let memory = guest();
    let file = good().segment(4 * MIB, 0x3000, b"data").build();
    assert_eq!(start(&memory, &file), Ok(Start::Linux64(2 * MIB)));
    let mut found = [0; 11];
    memory.read_slice(&mut found, GuestAddress(2 * MIB)).unwrap();
    assert_eq!(&found, b"kernel code");
    assert_eq!(memory.read_obj::<[u8; 6]>(GuestAddress(4 * MIB)).unwrap(), *b"data\0\0");
}

#[test]
fn pvh_entry_is_preferred_to_the_64_bit_one() {
    let file = good().notes(4, &pvh_note(0x20_0004)).build();
    assert_eq!(start(&guest(), &file), Ok(Start::Pvh(0x20_0004)));
}

#[test]
fn elf32_with_a_pvh_note_is_loaded_and_entered_there() {
    let memory = guest();
    let image = good().segment(4 * MIB, 0x3000, b"data").notes(4, &pvh_note(0x20_0004));
    assert_eq!(start(&memory, &image.build_narrow()), Ok(Start::Pvh(0x20_0004)));
    let mut found = [0; 11];
    memory.read_slice(&mut found, GuestAddress(2 * MIB)).unwrap();
    assert_eq!(&found, b"kernel code");
    assert_eq!(memory.read_obj::<[u8; 6]>(GuestAddress(4 * MIB)).unwrap(), *b"data\0\0");
}

#[test]
fn elf32_without_a_pvh_note_or_for_another_cpu_is_refused() {
    says(&start(&guest(), &good().build_narrow()).unwrap_err(), &["32-bit ELF", "PVH note"]);
    let mut arm = good().notes(4, &pvh_note(0x20_0000)).build_narrow();
    arm[18] = 40;
    says(
        &start(&guest(), &arm).unwrap_err(),
        &["is for arm, not for x86 (ELF machine 40", "x86-64 kernel"],
    );
    let file = good().notes(4, &pvh_note(0x20_0000)).build_narrow();
    for cut in [20, 51, 60, file.len() - 40] {
        says(&start(&guest(), &file[..cut]).unwrap_err(), &["cut short"]);
    }
}

#[test]
fn pvh_note_is_found_among_others_and_before_a_segment_of_other_notes() {
    let mut notes = note(b"GNU\0", 3, &[9; 20]);
    notes.extend(note(b"Xen\0", 5, b"xen-3.0\0"));
    notes.extend(note(b"Linux\0", NOTE_PHYS32_ENTRY, &[1, 0, 0, 0]));
    notes.extend(pvh_note(0x20_0000));
    let file = good().notes(4, &notes).notes(8, &note(b"GNU\0", 5, &[0; 16])).build();
    assert_eq!(start(&guest(), &file), Ok(Start::Pvh(0x20_0000)));
}

#[test]
fn note_with_padding_to_8_does_not_hide_the_next() {
    // Alignment 8 pads this note's 4-byte descriptor by 4 bytes more.
    let mut notes = note(b"GNU\0", 3, &[9; 4]);
    notes.extend([0; 4]);
    notes.extend(pvh_note(0x20_0000));
    let file = good().notes(8, &notes).build();
    assert_eq!(start(&guest(), &file), Ok(Start::Pvh(0x20_0000)));
}

#[test]
fn note_that_runs_past_its_segment_ends_the_notes() {
    let mut cut = pvh_note(0x20_0000);
    cut[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let file = good().notes(4, &cut).build();
    assert_eq!(start(&guest(), &file), Ok(Start::Linux64(2 * MIB)));
}

#[test]
fn pvh_note_without_an_address_is_refused() {
    let file = good().notes(4, &note(b"Xen\0", NOTE_PHYS32_ENTRY, &[0; 2])).build();
    says(&start(&guest(), &file).unwrap_err(), &["PVH note of 2 bytes", "needs 4"]);
}

#[test]
fn note_segment_of_an_absurd_size_is_refused() {
    let mut notes = vec![0; MOST_NOTES as usize];
    let file = good().notes(4, &notes).build();
    assert_eq!(start(&guest(), &file), Ok(Start::Linux64(2 * MIB)));
    notes.push(0);
    let file = good().notes(4, &notes).build();
    says(&start(&guest(), &file).unwrap_err(), &["note segment of 1048577 bytes"]);
}

#[test]
fn what_is_not_an_x86_64_elf_file_is_named() {
    let error = |bytes: &[u8]| start(&guest(), bytes).unwrap_err();
    says(&error(b""), &["empty"]);
    says(&error(b"MZ\x90\0"), &["not an ELF file", "vmlinux"]);
    says(&error(b"\x7fEL"), &["not an ELF file"]);
    says(&error(b"\x7fELF\x02"), &["cut short: the ELF header ends at byte 64, the file at 5"]);
    says(&patched(4, &[1]), &["not for x86 (ELF machine 62"]);
    says(&patched(18, &[183, 0]), &["is for aarch64, not for x86 (ELF machine 183"]);
    says(&patched(5, &[2]), &["not for x86", "byte order 2"]);
    says(&patched(4, &[7]), &["ELF class"]);
}

#[test]
fn malformed_program_headers_are_named() {
    says(&patched(54, &[32, 0]), &["not that of their ELF class"]);
    says(&patched(56, &[129, 0]), &["more than 128"]);
    says(&patched(56, &[0, 0]), &["nothing to load"]);
    says(&patched(56, &[9, 0]), &["cut short: the program headers end", "at byte 568"]);
    says(&patched(32, &[0; 8]), &["in the file header"]);
    says(&patched(32, &[0xff; 8]), &["cut short"]);
    says(&patched(64, &[6]), &["nothing to load"]);
}

#[test]
fn malformed_segments_are_named() {
    let file = good().build();
    says(&start(&guest(), &file[..file.len() - 1]).unwrap_err(), &["cut short: a segment ends"]);
    // p_offset, p_filesz and p_memsz of the only program header.
    says(&patched(64 + 8, &[0xff; 8]), &["cut short"]);
    says(&patched(64 + 32, &[12]), &["0xc bytes in the file, 0xb in memory"]);
    says(&patched(64 + 40, &[0xff; 8]), &["malformed segment at 0x200000"]);
    let twice = good().segment(2 * MIB + 10, 4, b"more").build();
    says(&start(&guest(), &twice).unwrap_err(), &["overlap at 0x20000a"]);
}

#[test]
fn segment_outside_memory_says_how_much_is_needed() {
    let last = Image::at(16 * MIB - 4, b"last").build();
    assert!(start(&guest(), &last).is_ok());
    let over = Image::at(16 * MIB - 3, b"over").build();
    says(&start(&guest(), &over).unwrap_err(), &["outside guest memory", "--memory 17M"]);
    let bss = good().segment(3 * MIB, 61 * MIB, b"").build();
    says(&start(&guest(), &bss).unwrap_err(), &["--memory 64M"]);
    let high = good().segment(HOLE_END, MIB, b"high").build();
    says(&start(&guest(), &high).unwrap_err(), &["--memory 3073M"]);
    let hole = good().segment(HOLE_START - MIB, 2 * MIB, b"hole").build();
    says(&start(&guest(), &hole).unwrap_err(), &["device hole", "link it lower"]);
}

#[test]
fn segment_over_a_boot_structure_names_it() {
    for (what, range) in TAKEN {
        for at in [range.start, range.end - 1] {
            let file = Image::at(at, b"x").build();
            let error = start(&guest(), &file).unwrap_err();
            says(&error, &[what, &format!("{:#x}-{:#x}", range.start, range.end)]);
        }
        let beside = Image::at(range.end, b"x").build();
        assert!(start(&guest(), &beside).is_ok(), "{:#x}", range.end);
    }
}

#[test]
fn entry_point_must_lie_in_a_segments_bytes() {
    let mut image = good().segment(4 * MIB, MIB, b"bss");
    for entry in [0, 2 * MIB - 1, 2 * MIB + 11, 4 * MIB + 3, 0xffff_ffff_8100_0000] {
        image.entry = entry;
        says(&start(&guest(), &image.build()).unwrap_err(), &["64-bit entry", "physical address"]);
    }
    let file = good().notes(4, &pvh_note(0x10_0000)).build();
    says(&start(&guest(), &file).unwrap_err(), &["PVH entry point 0x100000"]);
}

#[test]
fn entry_point_above_4_gib_is_refused() {
    let memory = memory::create(HOLE_START + 16 * MIB).unwrap();
    let error = start(&memory, &Image::at(HOLE_END, b"high").build()).unwrap_err();
    says(&error, &["above 4 GiB"]);
}

#[test]
fn refused_file_leaves_memory_untouched() {
    let memory = guest();
    let file = good().segment(64 * MIB, 4, b"far.").build();
    assert!(start(&memory, &file).is_err());
    assert_eq!(memory.read_obj::<u64>(GuestAddress(2 * MIB)).unwrap(), 0);
}

fn interesting() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x300u64,
        (0..64u32).prop_map(|shift| 1 << shift),
        (0..16u64).prop_map(|n| u64::MAX - n),
        (0..2 * MIB).prop_map(|n| HOLE_START - MIB + n),
    ]
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = start(&guest(), &bytes);
        let _ = start(&guest(), &[b"\x7fELF\x02\x01".as_slice(), &bytes].concat());
        let _ = start(&guest(), &[b"\x7fELF\x01\x01".as_slice(), &bytes].concat());
    }

    #[test]
    fn random_notes_never_panic(notes in prop::collection::vec(0u8..24, 0..80), eight: bool) {
        let notes = Notes { rest: &notes, align: if eight { 8 } else { 4 } };
        let _ = notes.filter(Note::is_linux).count();
    }

    /// Whatever a field says, no boot structure's place and nothing above the file's own segments is
    /// written, and the entry lies in memory.
    #[test]
    fn mutated_files_never_panic_and_load_only_into_memory(
        fields in prop::collection::vec((0usize..30, interesting()), 1..4),
        cut in 0usize..400,
        narrow: bool,
    ) {
        let image = good().segment(5 * MIB, MIB, b"data").notes(4, &pvh_note(0x20_0000));
        let mut file = if narrow { image.build_narrow() } else { image.build() };
        for (field, value) in fields {
            let at = (16 + field * 8).min(file.len() - 8);
            file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if cut < file.len() / 2 {
            file.truncate(file.len() - cut);
        }
        let memory = guest();
        let loaded = start(&memory, &file);
        if let Ok(Start::Pvh(entry) | Start::Linux64(entry)) = loaded {
            prop_assert!(entry < 16 * MIB);
            prop_assert!(TAKEN.iter().all(|(_, range)| !range.contains(&entry)));
        }
        for (what, range) in TAKEN {
            let mut found = vec![0; (range.end - range.start) as usize];
            memory.read_slice(&mut found, GuestAddress(range.start)).unwrap();
            prop_assert!(found.iter().all(|b| *b == 0), "{what} was written");
        }
    }
}

#[test]
fn linux_is_told_by_its_notes() {
    let linux = |name: &[u8], kind, desc: &[u8]| {
        let file = Image::at(0x20_0000, b"code").notes(4, &note(name, kind, desc));
        [is_linux(&file.build()), is_linux(&file.build_narrow())]
    };
    assert_eq!(linux(b"Linux\0", 257, b"6.12.0\0\0"), [true; 2]);
    assert_eq!(linux(b"Xen\0", 6, b"linux\0\0\0"), [true; 2]);
    assert_eq!(linux(b"Xen\0", 6, b"freebsd\0"), [false; 2]);
    assert_eq!(linux(b"Xen\0", 18, b"linu"), [false; 2]);
    assert_eq!(linux(b"GNU\0", 3, b"Linux\0\0\0"), [false; 2]);
    assert!(!is_linux(&Image::at(0x20_0000, b"code").build()));
    for cut in 0..64 {
        assert!(!is_linux(&Image::at(0x20_0000, b"code").build()[..cut]));
    }
}
