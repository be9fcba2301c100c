//! Tests of which way in a kernel is given.

use super::*;
use crate::boot::elf::tests::{Image, note};
use crate::boot::multiboot::tests::header;
use crate::memory;
use proptest::prelude::*;

const START: u64 = 0x20_0000;

fn guest() -> GuestMemory {
    memory::create(16 << 20).unwrap()
}

fn start(file: &[u8]) -> Start {
    load(&guest(), file).unwrap().start
}

fn refusal(file: &[u8]) -> String {
    load(&guest(), file).unwrap_err().to_string()
}

fn with_pvh(image: Image) -> Image {
    image.notes(4, &note(b"Xen\0", 18, &(START as u32).to_le_bytes()))
}

/// A kernel whose segment begins with a multiboot header and goes on with code, its entry.
fn multiboot(flags: u32, addresses: &[u32]) -> Image {
    let code = [header(flags, addresses).as_slice(), b"code"].concat();
    let mut image = Image::at(START, &code);
    image.entry = START + code.len() as u64 - 4;
    image
}

#[test]
fn multiboot_wins_over_a_plain_elf_entry_and_pvh_over_multiboot() {
    let image = multiboot(3, &[]);
    for file in [image.build(), image.build_narrow()] {
        assert_eq!(start(&file), Start::Multiboot(START + 12));
    }
    let both = with_pvh(image);
    for file in [both.build(), both.build_narrow()] {
        assert_eq!(start(&file), Start::Pvh(START));
    }
    assert_eq!(start(&Image::at(START, b"code").build()), Start::Linux64(START));
}

#[test]
fn addresses_in_the_header_win_over_the_program_headers() {
    let entry = 0x30_0000 + 32;
    let file = multiboot(1 << 16, &[0x30_0000, 0x30_0000, 0, 0, entry]).build();
    assert_eq!(start(&file), Start::Multiboot(entry.into()));
    let raw = [header(1 << 16, &[0x30_0000, 0x30_0000, 0, 0, entry]).as_slice(), b"code"].concat();
    assert_eq!(start(&raw), Start::Multiboot(entry.into()));
}

#[test]
fn multiboot_kernels_that_cannot_be_entered_are_named() {
    assert!(refusal(&multiboot(8, &[]).build()).contains("unknown requirements"));
    assert!(refusal(&header(3, &[])).contains("without addresses"));
    let mut image = multiboot(3, &[]);
    image.entry = 0xffff_ffff_8010_0000;
    assert!(refusal(&image.build()).contains("multiboot entry point 0xffffffff80100000"));
}

#[test]
fn unknown_requirements_do_not_matter_to_a_kernel_with_a_pvh_note() {
    assert_eq!(start(&with_pvh(multiboot(8, &[])).build()), Start::Pvh(START));
}

#[test]
fn ranges_that_a_kernel_takes_are_known() {
    let file = Image::at(START, b"code").segment(0x40_0000, 0x5000, b"data").build();
    assert_eq!(load(&guest(), &file).unwrap().used, [START..START + 4, 0x40_0000..0x40_5000]);
}

#[test]
fn file_of_a_known_other_kind_is_called_by_its_name() {
    for (file, part) in [
        (b"\x1f\x8b\x08".as_slice(), "gzip -dc"),
        (b"\x28\xb5\x2f\xfd", "zstd -dc"),
        (b"\xfd7zXZ\0", "xz -dc"),
        (b"MZ\x90\0", "EFI application"),
        (b"070701", "--initrd"),
    ] {
        let text = refusal(file);
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
}

#[test]
fn linux_is_told_in_either_form() {
    assert!(is_linux(&crate::boot::bzimage::tests::Image::new().build()));
    let image = Image::at(START, b"code");
    assert!(is_linux(&image.notes(4, &note(b"Linux\0", 257, b"6.12")).build()));
    for other in [with_pvh(Image::at(START, b"code")).build(), b"text".to_vec(), vec![]] {
        assert!(!is_linux(&other));
    }
}

#[test]
fn file_of_no_known_kind_says_what_is_taken() {
    for file in [b"\x90\x90".as_slice(), b"#!/bin/sh\n", &[0; 9000]] {
        let text = refusal(file);
        assert!(text.contains("bzImage") && text.contains("ELF"), "{text}");
    }
}

proptest! {
    #[test]
    fn mutated_multiboot_elf_files_never_panic(
        fields in prop::collection::vec((0usize..200, any::<u64>(), 1usize..9), 1..5),
        narrow: bool, addresses: bool,
    ) {
        let flags = if addresses { 1 << 16 } else { 3 };
        let image = multiboot(flags, &[0x30_0000, 0x30_0000, 0, 0, 0x30_0020]);
        let mut file = if narrow { image.build_narrow() } else { image.build() };
        for (at, value, size) in fields {
            let at = at.min(file.len() - size);
            file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        }
        if let Ok(loaded) = load(&guest(), &file) {
            prop_assert!(loaded.start.address() < 16 << 20);
        }
    }
}
