//! Tests of the start-up registers; none opens KVM.

use super::*;
use crate::memory;
use vm_memory::{Bytes, GuestAddress};

fn entry(kind: EntryKind) -> Entry {
    Entry { kind, rip: 0x20_0000, boot_info: 0x6000 }
}

/// The descriptor the GDT must hold for a code or data segment.
fn descriptor(s: &kvm_segment) -> u64 {
    let limit = if s.g == 1 { u64::from(s.limit >> 12) } else { u64::from(s.limit) };
    let access = u64::from(s.type_ | s.s << 4 | s.dpl << 5 | s.present << 7);
    let flags = u64::from(s.avl | s.l << 1 | s.db << 2 | s.g << 3);
    (limit & 0xffff)
        | (s.base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16) << 48
        | flags << 52
        | (s.base >> 24) << 56
}

#[test]
fn hidden_parts_of_the_segments_agree_with_the_gdt() {
    let memory = memory::create(2 << 20).unwrap();
    type Enter = fn(&mut kvm_sregs);
    let enters: [(bool, Enter); 4] = [
        (true, |sregs| protected_mode(sregs, CODE32)),
        (false, |sregs| protected_mode(sregs, CODE32)),
        (false, |sregs| protected_mode(sregs, BOOT_CODE)),
        (true, long_mode),
    ];
    for (boot_code_long, enter) in enters {
        tables::write(&memory, boot_code_long).unwrap();
        let mut sregs = kvm_sregs::default();
        enter(&mut sregs);
        for s in [&sregs.cs, &sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss, &sregs.tr] {
            let at = sregs.gdt.base + u64::from(s.selector);
            assert!(at + 8 <= sregs.gdt.base + u64::from(sregs.gdt.limit) + 1);
            let found: u64 = memory.read_obj(GuestAddress(at)).unwrap();
            assert_eq!(found, descriptor(s), "selector {:#x}", s.selector);
        }
    }
}

#[test]
fn pvh_starts_in_flat_protected_mode_with_the_start_info_in_ebx() {
    let mut sregs =
        kvm_sregs { cr4: 0x20, efer: 0x500, apic_base: 0xfee0_0900, ..Default::default() };
    protected_mode(&mut sregs, CODE32);
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x11, 0, 0));
    assert_eq!((sregs.cs.db, sregs.cs.l, sregs.cs.limit), (1, 0, u32::MAX));
    assert_eq!((sregs.tr.limit, sregs.tr.type_), (0x67, 0xb));
    assert_eq!(sregs.apic_base, 0xfee0_0900);
    let regs = entry_regs(&entry(EntryKind::Pvh));
    assert_eq!((regs.rip, regs.rbx, regs.rsi, regs.rflags), (0x20_0000, 0x6000, 0, 2));
}

#[test]
fn multiboot_starts_with_its_magic_number_and_its_information() {
    let regs = entry_regs(&entry(EntryKind::Multiboot));
    assert_eq!((regs.rax, regs.rbx, regs.rsi), (0x2bad_b002, 0x6000, 0));
}

#[test]
fn linux_at_32_bits_starts_with_its_own_code_selector() {
    let mut sregs = kvm_sregs::default();
    protected_mode(&mut sregs, BOOT_CODE);
    assert_eq!((sregs.cr0, sregs.cs.selector, sregs.cs.db, sregs.cs.l), (0x11, 0x10, 1, 0));
    assert_eq!((sregs.ds.selector, sregs.es.selector, sregs.ss.selector), (0x18, 0x18, 0x18));
    let regs = entry_regs(&entry(EntryKind::Linux32));
    assert_eq!((regs.rbx, regs.rbp, regs.rdi, regs.rsi), (0, 0, 0, 0x6000));
}

#[test]
fn linux_starts_in_long_mode_with_the_zero_page_in_rsi() {
    let mut sregs = kvm_sregs::default();
    long_mode(&mut sregs);
    assert_eq!((sregs.cr0, sregs.cr4, sregs.efer), (0x8005_0033, 0x620, 0xd01));
    assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db), (0x10, 1, 0));
    assert_eq!((sregs.ds.selector, sregs.ss.selector), (0x18, 0x18));
    assert_eq!(sregs.cr3, 0x9000);
    let regs = entry_regs(&entry(EntryKind::Linux64));
    assert_eq!((regs.rip, regs.rbx, regs.rsi, regs.rflags), (0x20_0000, 0, 0x6000, 2));
}

#[test]
fn sipi_starts_in_real_mode_at_its_page() {
    let mut sregs = kvm_sregs { cr0: 0x6000_0010, ..Default::default() };
    after_init(&mut sregs, Some(0x9a));
    assert_eq!((sregs.cs.selector, sregs.cs.base, sregs.cs.limit), (0x9a00, 0x9_a000, 0xffff));
    assert_eq!(sregs.cr0, 0x6000_0010);
    let regs = regs_after_init(Some(0x9a), 0x806f8);
    assert_eq!((regs.rip, regs.rflags, regs.rdx), (0, 2, 0x806f8));
}

#[test]
fn init_leaves_long_mode_and_drops_a_queued_interrupt() {
    let mut sregs = kvm_sregs {
        apic_base: 0xfee0_0c00,
        cr2: 1,
        cr8: 5,
        interrupt_bitmap: [1, 0, 0, 0],
        ..Default::default()
    };
    long_mode(&mut sregs);
    after_init(&mut sregs, None);
    assert_eq!((sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4), (0x10, 0, 0, 0));
    assert_eq!((sregs.cr8, sregs.efer, sregs.interrupt_bitmap), (0, 0, [0; 4]));
    assert_eq!((sregs.cs.selector, sregs.cs.base), (0xf000, 0xffff_0000));
    assert_eq!((sregs.ds.selector, sregs.ds.limit, sregs.ds.type_), (0, 0xffff, 3));
    assert_eq!((sregs.gdt.limit, sregs.idt.limit), (0xffff, 0xffff));
    assert_eq!(sregs.apic_base, 0xfee0_0c00, "INIT does not leave x2APIC mode");
    assert_eq!(regs_after_init(None, 0).rip, 0xfff0);
}

#[test]
fn init_leaves_the_cache_bits_alone() {
    for cache in [0, 0x2000_0000, 0x4000_0000, 0x6000_0000] {
        let mut sregs = kvm_sregs { cr0: CR0_LONG | cache, ..Default::default() };
        after_init(&mut sregs, Some(0));
        assert_eq!(sregs.cr0, cache | 0x10);
    }
}
