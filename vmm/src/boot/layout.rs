//! Where the boot structures lie in the guest's first MiB, and the memory map that says so.
//!
//! Owns nothing. Must not know what the structures contain.
//!
//! | from | to | what |
//! |---|---|---|
//! | 0x500 | 0x530 | GDT |
//! | 0x5000 | 0x5400 | multiboot information, its memory map, module and names |
//! | 0x6000 | 0x6400 | `hvm_start_info`, its memory map and module |
//! | 0x7000 | 0x8000 | zero page (`boot_params`) |
//! | 0x8000 | 0x9000 | nothing: guests put the start-up code of their APs here |
//! | 0x9000 | 0xf000 | page tables |
//! | 0x2_0000 | 0x2_0800 | command line |
//! | 0x9_fc00 | 0x9_fc10 | MP floating pointer, in the first KiB of the EBDA |
//! | 0xe_0000 | 0xe_fc00 | ACPI: RSDP and all tables but the DSDT |
//! | 0xf_0000 | 0xf_1800 | MP configuration table |
//! | 0xf_2000 | 0x10_0000 | ACPI: DSDT |
//!
//! A kernel's segments may lie anywhere else. The constants of the ACPI registers are here too,
//! because the tables and the devices have to agree on them.

use std::ops::Range;

use devices::acpi_pm;
use devices::virtio::mmio;

use crate::memory::{self, GuestMemory, HOLE_END};

/// Guest-physical address of the GDT.
pub const GDT: u64 = 0x500;
/// Guest-physical address of the multiboot information structure.
pub const MULTIBOOT_INFO: u64 = 0x5000;
/// Guest-physical address of the memory map the multiboot information points at.
pub const MULTIBOOT_MAP: u64 = 0x5100;
/// Guest-physical address of the module list the multiboot information points at.
pub const MULTIBOOT_MODULES: u64 = 0x5200;
/// Guest-physical address of the strings the multiboot information points at.
pub const MULTIBOOT_NAMES: u64 = 0x5300;
/// Guest-physical address of PVH's `hvm_start_info`.
pub const START_INFO: u64 = 0x6000;
/// Guest-physical address of the memory map `hvm_start_info` points at.
pub const START_INFO_MAP: u64 = 0x6100;
/// Guest-physical address of the module list `hvm_start_info` points at.
pub const START_INFO_MODULES: u64 = 0x6200;
/// Guest-physical address of the zero page.
pub const ZERO_PAGE: u64 = 0x7000;
/// Guest-physical address of the PML4, the first of the page tables.
pub const PAGE_TABLES: u64 = 0x9000;
/// Guest-physical address of the command line.
pub const CMDLINE: u64 = 0x2_0000;
/// The longest command line, in bytes, without its terminating zero. Linux's `COMMAND_LINE_SIZE`
/// on x86 is one more.
pub const CMDLINE_MOST: usize = 2047;
/// Guest-physical address of the MP floating pointer, where the extended BIOS data area begins and
/// conventional memory ends.
pub const MP_POINTER: u64 = 0x9_fc00;
/// Guest-physical address of ACPI's root pointer; the tables follow it. Guests that are told nothing
/// search for it from 0xe_0000 to 1 MiB in steps of 16 bytes (ACPI 6.5, 5.2.5.1).
pub const RSDP: u64 = 0xe_0000;
/// Just after the last address that ACPI tables other than the DSDT may take.
pub const ACPI_END: u64 = 0xe_fc00;
/// Guest-physical address of ACPI's DSDT, which may reach to [`HIGH_MEMORY`].
pub const DSDT: u64 = 0xf_2000;
/// Guest-physical address of the MP configuration table.
pub const MP_TABLE: u64 = 0xf_0000;
/// Guest-physical address where ordinary memory goes on after the first MiB's special areas.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Guest-physical address of every local APIC.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Guest-physical address of the I/O APIC.
pub const IO_APIC: u32 = 0xfec0_0000;

/// ID of the I/O APIC in the MP and ACPI tables: the one after the CPUs' local APIC IDs, which begin
/// at 0. Where these leave no ID of 8 bits other than the broadcast, 255, it is 0: I/O and local APICs
/// share no bus, so nothing goes wrong when an ID names two of them.
#[must_use]
pub fn io_apic_id(cpus: u32) -> u8 {
    u8::try_from(cpus).ok().filter(|id| *id < u8::MAX).unwrap_or(0)
}

/// What makes the sum of all bytes 0 when it replaces a byte that is 0.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// I/O port of ACPI's PM1a event block: status and enable, 2 bytes each.
pub const PM1A_EVENT: u16 = acpi_pm::PM1A_EVENT;
/// I/O port of ACPI's PM1a control register, 2 bytes.
pub const PM1A_CONTROL: u16 = acpi_pm::PM1A_CONTROL;
/// I/O port of ACPI's power management timer, 4 bytes.
pub const PM_TIMER: u16 = acpi_pm::PM_TIMER;
/// I/O port of the reset register, 1 byte, which resets the machine at [`RESET_VALUE`].
pub const RESET_PORT: u16 = 0xcf9;
/// What resets the machine when written to [`RESET_PORT`].
pub const RESET_VALUE: u8 = 0x06;
/// ISA interrupt, and GSI, of ACPI's events (SCI): level-triggered, active high.
pub const SCI: u8 = 9;
/// `SLP_TYP` of sleep state S5 (off), in bits 12:10 of the PM1a control register.
pub const SLEEP_TYPE_OFF: u8 = acpi_pm::SLP_TYP_S5;

/// Guest-physical address of the first virtio device's registers; the others' follow, a page each.
pub const VIRTIO: u64 = 0xd000_0000;
/// Lines of the virtio devices, in their order: those of the I/O APIC alone first, then ISA
/// interrupts of devices that there are not.
const VIRTIO_LINES: [u8; MOST_VIRTIO] = [16, 17, 18, 19, 20, 21, 22, 23, 5, 10, 11, 3, 6, 12, 14];
/// The most virtio devices of a VM.
pub const MOST_VIRTIO: usize = 15;

/// Where a virtio device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioWindow {
    /// Guest-physical address of its page of registers.
    pub address: u64,
    /// Its interrupt line, and GSI: edge-triggered, active high.
    pub irq: u8,
}

/// Where the virtio device of this number is, if there can be as many.
#[must_use]
pub fn virtio_window(index: usize) -> Option<VirtioWindow> {
    let irq = *VIRTIO_LINES.get(index)?;
    Some(VirtioWindow { address: VIRTIO + index as u64 * mmio::BYTES, irq })
}

/// Every range that the boot structures take, with its name, in ascending order.
pub const TAKEN: [(&str, Range<u64>); 10] = [
    ("the GDT", GDT..0x530),
    ("the multiboot information", MULTIBOOT_INFO..0x5400),
    ("the PVH start info", START_INFO..0x6400),
    ("the zero page", ZERO_PAGE..0x8000),
    ("the page tables", PAGE_TABLES..0xf000),
    ("the command line", CMDLINE..CMDLINE + CMDLINE_MOST as u64 + 1),
    ("the MP floating pointer", MP_POINTER..MP_POINTER + 16),
    ("the ACPI tables", RSDP..ACPI_END),
    ("the MP table", MP_TABLE..0xf_1800),
    ("the ACPI DSDT", DSDT..HIGH_MEMORY),
];

/// What a range of the memory map is for, with the values that e820 and PVH share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    /// The guest may use it as it likes.
    Ram = 1,
    /// It holds tables the guest must not overwrite.
    Reserved = 2,
}

/// One entry of the memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapEntry {
    /// Guest-physical range, never empty.
    pub range: Range<u64>,
    /// What it is for.
    pub kind: Use,
}

/// The guest's memory map in ascending order, without overlaps; at most 5 entries.
///
/// The guest's memory reaches at least to [`HIGH_MEMORY`].
#[must_use]
pub fn memory_map(memory: &GuestMemory) -> Vec<MapEntry> {
    let all = [
        (0..MP_POINTER, Use::Ram),
        (MP_POINTER..0xa_0000, Use::Reserved),
        (RSDP..HIGH_MEMORY, Use::Reserved),
        (HIGH_MEMORY..memory::low_end(memory), Use::Ram),
        (HOLE_END..memory::high_end(memory), Use::Ram),
    ];
    all.into_iter()
        .filter(|(range, _)| !range.is_empty())
        .map(|(range, kind)| MapEntry { range, kind })
        .collect()
}

#[cfg(test)]
pub(in crate::boot) mod tests {
    use super::*;

    /// The sum of all bytes, which a checksum makes 0.
    pub(in crate::boot) fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
    }

    /// The place of a boot structure.
    pub(in crate::boot) fn place(name: &str) -> Range<u64> {
        TAKEN.into_iter().find(|(what, _)| *what == name).unwrap().1
    }

    #[test]
    fn taken_ranges_are_in_order_apart_and_leave_the_trampoline_page() {
        for pair in TAKEN.windows(2) {
            assert!(pair[0].1.end <= pair[1].1.start, "{pair:?}");
        }
        assert!(TAKEN.iter().all(|(_, r)| r.end <= 0x8000 || r.start >= 0x9000));
        assert!(TAKEN.iter().all(|(_, r)| r.end <= HIGH_MEMORY));
    }

    #[test]
    fn memory_map_covers_the_memory_and_not_the_holes() {
        let map = memory_map(&memory::create((3 << 30) + (8 << 20)).unwrap());
        let ram: Vec<_> =
            map.iter().filter(|e| e.kind == Use::Ram).map(|e| e.range.clone()).collect();
        assert_eq!(ram, [0..0x9_fc00, 0x10_0000..0xc000_0000, 0x1_0000_0000..0x1_0080_0000]);
        assert!(map.windows(2).all(|p| p[0].range.end <= p[1].range.start));
    }

    #[test]
    fn tables_that_guests_read_later_are_reserved() {
        let map = memory_map(&memory::create(HIGH_MEMORY).unwrap());
        for name in ["the MP floating pointer", "the ACPI tables", "the MP table", "the ACPI DSDT"]
        {
            let place = place(name);
            let covers = |e: &&MapEntry| e.range.start <= place.start && place.end <= e.range.end;
            let entry = map.iter().find(covers).expect("one entry covers it");
            assert_eq!(entry.kind, Use::Reserved, "{name}");
        }
    }

    #[test]
    fn memory_map_has_no_empty_entry() {
        let map = memory_map(&memory::create(HIGH_MEMORY).unwrap());
        assert!(map.iter().all(|e| !e.range.is_empty()));
        assert_eq!(map.iter().filter(|e| e.kind == Use::Ram).count(), 1);
    }
}
