//! Tests of loading a kernel with its boot structures.

use super::bzimage::tests::Image as LinuxImage;
use super::elf::tests::{Image, note};
use super::multiboot::tests::header;
use super::*;
use linux_loader::loader::bootparam::boot_params;

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

fn multiboot_kernel() -> Image {
    Image::at(START, &header(3, &[]))
}

fn payload<'a>(kernel: &'a [u8], cmdline: &'a str) -> Payload<'a> {
    let shared = Shared::default();
    Payload { kernel, name: "vmlinux", cmdline, initrd: None, shared, virtio: 0 }
}

fn refusal(cmdline: &str, kernel: &[u8]) -> String {
    load(&guest(), &payload(kernel, cmdline), 1).unwrap_err().to_string()
}

fn entry(kernel: &[u8]) -> Entry {
    load(&guest(), &payload(kernel, ""), 1).unwrap()
}

#[test]
fn each_kind_of_kernel_is_handed_what_its_protocol_says() {
    for (kernel, kind, rip, boot_info) in [
        (pvh_kernel().build(), EntryKind::Pvh, START + 1, 0x6000),
        (long_kernel().build(), EntryKind::Linux64, START, 0x7000),
        (multiboot_kernel().build(), EntryKind::Multiboot, START, 0x5000),
        (LinuxImage::new().build(), EntryKind::Linux64, 0x10_0200, 0x7000),
        (LinuxImage::new().with(0x236, &[0]).build(), EntryKind::Linux32, 0x10_0000, 0x7000),
    ] {
        assert_eq!(entry(&kernel), Entry { kind, rip, boot_info });
    }
}

#[test]
fn boot_structures_are_written_and_the_trampoline_page_is_not() {
    let memory = guest();
    load(&memory, &payload(&pvh_kernel().build(), "hz=100 quiet"), 2).unwrap();
    let mut text = [0xff; 13];
    memory.read_slice(&mut text, GuestAddress(CMDLINE)).unwrap();
    assert_eq!(&text, b"hz=100 quiet\0");
    let signature = |at| memory.read_obj::<[u8; 4]>(GuestAddress(at)).unwrap();
    assert_eq!(signature(layout::MP_POINTER), *b"_MP_");
    assert_eq!(signature(layout::MP_TABLE), *b"PCMP");
    assert_eq!(signature(layout::RSDP), *b"RSD ");
    assert_eq!(signature(layout::DSDT), *b"DSDT");
    assert_eq!(signature(START_INFO), 0x336e_c578u32.to_le_bytes());
    let mut page = [0xff; 0x1000];
    memory.read_slice(&mut page, GuestAddress(0x8000)).unwrap();
    assert!(page.iter().all(|b| *b == 0));
}

#[test]
fn every_protocol_names_the_same_initrd() {
    let memory_end = 16 << 20;
    let place = memory_end - 4096;
    let word = |memory: &GuestMemory, at| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
    let boot = |kernel: &[u8]| {
        let memory = guest();
        let payload = Payload { initrd: Some(b"archive"), ..payload(kernel, "") };
        load(&memory, &payload, 1).unwrap();
        assert_eq!(memory.read_obj::<[u8; 7]>(GuestAddress(place.into())).unwrap(), *b"archive");
        memory
    };
    let memory = boot(&pvh_kernel().build());
    let module = u64::from(word(&memory, START_INFO + 16));
    assert_eq!((word(&memory, module), word(&memory, module + 8)), (place, 7));
    let memory = boot(&multiboot_kernel().build());
    let module = u64::from(word(&memory, MULTIBOOT_INFO + 24));
    assert_eq!((word(&memory, module), word(&memory, module + 4)), (place, place + 7));
    for kernel in [long_kernel().build(), LinuxImage::new().build()] {
        let memory = boot(&kernel);
        let page: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
        let header = page.hdr;
        assert_eq!({ header.ramdisk_image }, place);
        assert_eq!({ header.ramdisk_size }, 7);
    }
}

#[test]
fn initrd_stays_below_what_the_setup_header_allows_and_off_the_kernel() {
    let limited = LinuxImage::new().with(0x22c, &(0x3f_ffffu32).to_le_bytes()).build();
    let memory = guest();
    let payload = Payload { initrd: Some(&[1; 5000]), ..payload(&limited, "") };
    load(&memory, &payload, 1).unwrap();
    let page: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let header = page.hdr;
    assert_eq!({ header.ramdisk_image }, 0x40_0000 - 8192);
}

#[test]
fn initrd_that_does_not_fit_is_named() {
    let kernel = long_kernel().build();
    let payload = Payload { initrd: Some(&vec![1; 15 << 20]), ..payload(&kernel, "") };
    let text = load(&guest(), &payload, 1).unwrap_err().to_string();
    assert!(text.starts_with("the initrd has 15728640 bytes"), "{text}");
}

#[test]
fn linux_kernel_that_takes_a_shorter_command_line_says_so() {
    let text = refusal(&"x".repeat(1001), &LinuxImage::new().build());
    assert!(text.starts_with("kernel vmlinux: takes a command line of at most 1000"), "{text}");
}

#[test]
fn command_line_of_2047_bytes_fits_and_one_more_does_not() {
    let memory = guest();
    let kernel = long_kernel().build();
    load(&memory, &payload(&kernel, &"x".repeat(2047)), 1).unwrap();
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
    let load = |bytes| load(&memory::create(bytes).unwrap(), &payload(&kernel, ""), 1);
    let text = load(0xf_f000).unwrap_err().to_string();
    assert!(text.contains("1044480 bytes") && text.contains("--memory 2M"), "{text}");
    load(0x10_0000).unwrap();
}

/// A segment that begins at the same place in its page in the file and in memory is mapped, and the
/// guest finds what it would find if all was copied.
#[test]
fn shared_kernel_and_initrd_lie_in_memory_as_copied_ones_do() {
    const FILE_OFFSET: u64 = 64 + 56;
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at % 253) as u8).collect();
    let initrd: Vec<u8> = (0..200_001u32).map(|at| (at % 241) as u8).collect();
    let kernel = Image::at(START + FILE_OFFSET, &bytes).build();
    let images = [&kernel, &initrd].map(|bytes| crate::shared_image::of(bytes).unwrap());
    let shared = Shared { kernel: Some(&images[0]), initrd: Some(&images[1]) };
    let [mapped, copied] = [shared, Shared::default()].map(|shared| {
        let memory = guest();
        let payload = Payload { initrd: Some(&initrd), shared, ..payload(&kernel, "quiet") };
        load(&memory, &payload, 1).unwrap();
        memory
    });
    let content = |memory: &GuestMemory| {
        let mut bytes = vec![0; 16 << 20];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    };
    assert!(content(&mapped) == content(&copied));
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for (at, size) in [(START + 4096, 300_000), ((16 << 20) - 200_704, 200_001)] {
        use vm_memory::GuestMemoryBackend as _;
        let [yes, no] = [&mapped, &copied].map(|memory| {
            let host = memory.get_host_address(GuestAddress(at)).unwrap() as u64;
            let line = maps.lines().find(|line| line.starts_with(&format!("{host:08x}-")));
            line.is_some_and(|line| line.contains("siesta-image"))
        });
        assert!(yes && !no, "{at:#x}, {size} bytes");
    }
}
