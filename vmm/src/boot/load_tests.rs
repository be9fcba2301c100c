//! Tests of reading a kernel file and of loading it with its boot structures.

use super::elf::tests::{Image, note};
use super::*;
use std::os::unix::net::UnixListener;

const START: u64 = 0x20_0000;

fn guest() -> GuestMemory {
    memory::create(16 << 20).unwrap()
}

fn long_kernel() -> Image {
    Image::at(START, b"code")
}

fn pvh_kernel() -> Image {
    long_kernel().notes(4, &note(b"Xen\0", 18, &(START as u32 + 1).to_le_bytes()))
}

fn refusal(cmdline: &str, kernel: &[u8]) -> String {
    load(&guest(), kernel, "vmlinux", cmdline, 1).unwrap_err().to_string()
}

#[test]
fn pvh_kernel_is_handed_the_start_info() {
    let entry = load(&guest(), &pvh_kernel().build(), "k", "", 1).unwrap();
    assert_eq!(entry, Entry { kind: EntryKind::Pvh, rip: START + 1, boot_info: 0x6000 });
}

#[test]
fn kernel_without_a_pvh_note_is_handed_the_zero_page() {
    let entry = load(&guest(), &long_kernel().build(), "k", "", 1).unwrap();
    assert_eq!(entry, Entry { kind: EntryKind::Linux64, rip: START, boot_info: 0x7000 });
}

#[test]
fn boot_structures_are_written_and_the_trampoline_page_is_not() {
    let memory = guest();
    load(&memory, &pvh_kernel().build(), "k", "hz=100 quiet", 2).unwrap();
    let mut text = [0xff; 13];
    memory.read_slice(&mut text, GuestAddress(CMDLINE)).unwrap();
    assert_eq!(&text, b"hz=100 quiet\0");
    let signature = |at| memory.read_obj::<[u8; 4]>(GuestAddress(at)).unwrap();
    assert_eq!(signature(layout::MP_POINTER), *b"_MP_");
    assert_eq!(signature(layout::MP_TABLE), *b"PCMP");
    assert_eq!(signature(START_INFO), 0x336e_c578u32.to_le_bytes());
    assert_eq!(signature(ZERO_PAGE + 0x202), *b"HdrS");
    let mut page = [0xff; 0x1000];
    memory.read_slice(&mut page, GuestAddress(0x8000)).unwrap();
    assert!(page.iter().all(|b| *b == 0));
}

#[test]
fn command_line_of_2047_bytes_fits_and_one_more_does_not() {
    let memory = guest();
    let kernel = long_kernel().build();
    load(&memory, &kernel, "k", &"x".repeat(2047), 1).unwrap();
    assert_eq!(memory.read_obj::<[u8; 2]>(GuestAddress(CMDLINE + 2046)).unwrap(), *b"x\0");
    let text = refusal(&"x".repeat(2048), &kernel);
    assert!(text.contains("2048 bytes") && text.contains("shorten it to 2047"), "{text}");
    assert!(refusal("a\0b", &kernel).contains("zero byte at offset 1"));
}

#[test]
fn malformed_kernel_is_named() {
    assert_eq!(refusal("", b""), "kernel vmlinux: is empty");
    assert!(refusal("", b"#!/bin/sh").starts_with("kernel vmlinux: is not an ELF file"));
}

#[test]
fn memory_below_1_mib_is_refused_and_1_mib_is_not() {
    let kernel = Image::at(0x1_0000, b"code").build();
    let load = |bytes| load(&memory::create(bytes).unwrap(), &kernel, "k", "", 1);
    let text = load(0xf_f000).unwrap_err().to_string();
    assert!(text.contains("1044480 bytes") && text.contains("--memory 2M"), "{text}");
    load(0x10_0000).unwrap();
}

#[test]
fn kernel_file_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k");
    std::fs::write(&path, b"bytes").unwrap();
    assert_eq!(read_kernel(&path).unwrap(), b"bytes");
}

#[test]
fn each_unusable_path_has_its_own_message() {
    let folder = tempfile::tempdir().unwrap();
    let says = |name: &str, part: &str| {
        let path = folder.path().join(name);
        let text = read_kernel(&path).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains(path.to_str().unwrap()), "{text}");
        assert!(!text.contains('\n'));
    };
    says("missing", "no such file");
    says("", "is a directory");
    File::create(folder.path().join("empty")).unwrap();
    says("empty", "is empty");
    says("empty/below", "no such file");
    let large = File::create(folder.path().join("large")).unwrap();
    large.set_len(KERNEL_MOST + 1).unwrap();
    says("large", "larger than 1 GiB");
    let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
    says("socket", "not a regular file");
    std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
    says("loop", "cannot be read");
}
