//! Tests of the ACPI tables: found and walked as a guest does.

use super::*;
use crate::boot::layout::MOST_VIRTIO;
use crate::boot::layout::tests::{place, sum};
use crate::memory;

/// A guest's view of the tables.
struct Tables(GuestMemory);

impl Tables {
    fn new(cpus: u32) -> Self {
        let memory = memory::create(2 << 20).unwrap();
        write(&memory, cpus, MOST_VIRTIO).unwrap();
        Tables(memory)
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn rsdp(&self) -> Vec<u8> {
        let places = (0xe_0000..0x10_0000).step_by(16);
        let mut found = places.filter(|at| self.bytes(*at, 8) == b"RSD PTR ");
        let at = found.next().expect("an RSDP");
        assert_eq!(found.next(), None);
        self.bytes(at, 36)
    }

    /// The table at this address, whole and with the right sum.
    fn table(&self, at: u64, signature: &[u8; 4]) -> Vec<u8> {
        let table = self.bytes(at, word(&self.bytes(at, 8), 4) as usize);
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(&table), 0, "{signature:?}");
        table
    }

    fn listed(&self, signature: &[u8; 4]) -> Vec<u8> {
        let xsdt = self.table(wide(&self.rsdp(), 24), b"XSDT");
        let mut entries = xsdt[36..].chunks(8).map(|entry| wide(entry, 0));
        let at = entries.find(|at| self.bytes(*at, 4) == signature).expect("it is listed");
        self.table(at, signature)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The MADT's structures.
fn structures(madt: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut found) = (&madt[44..], Vec::new());
    while !rest.is_empty() {
        let (structure, next) = rest.split_at(rest[1].into());
        found.push(structure);
        rest = next;
    }
    found
}

/// ID, processor UID and flags of each CPU in the MADT.
fn cpus(madt: &[u8]) -> Vec<(u32, u32, u32)> {
    let cpu = |s: &&[u8]| match s[0] {
        0 => Some((s[3].into(), s[2].into(), word(s, 4))),
        9 => Some((word(s, 4), word(s, 12), word(s, 8))),
        _ => None,
    };
    structures(madt).iter().filter_map(cpu).collect()
}

#[test]
fn root_pointer_is_found_and_both_its_lists_name_the_same_tables() {
    let tables = Tables::new(2);
    let rsdp = tables.rsdp();
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
    assert_eq!((rsdp[15], word(&rsdp, 20)), (2, 36));
    let rsdt = tables.table(word(&rsdp, 16).into(), b"RSDT");
    let xsdt = tables.table(wide(&rsdp, 24), b"XSDT");
    let narrow: Vec<_> = rsdt[36..].chunks(4).map(|e| u64::from(word(e, 0))).collect();
    let wide: Vec<_> = xsdt[36..].chunks(8).map(|e| wide(e, 0)).collect();
    assert_eq!((narrow.len(), &narrow), (2, &wide));
}

#[test]
fn fadt_names_the_registers_and_the_other_tables() {
    let tables = Tables::new(1);
    let fadt = tables.listed(b"FACP");
    assert_eq!(fadt.len(), 276);
    assert_eq!((word(&fadt, 40), wide(&fadt, 140)), (DSDT as u32, DSDT));
    let facs = u64::from(word(&fadt, 36));
    assert!(facs.is_multiple_of(64));
    assert_eq!(&tables.bytes(facs, 8), b"FACS\x40\0\0\0");
    assert_eq!((fadt[46], word(&fadt, 48)), (9, 0), "SCI; no SMI command");
    assert_eq!((word(&fadt, 56), fadt[88]), (0xb000, 4));
    assert_eq!((word(&fadt, 64), fadt[89]), (0xb004, 2));
    assert_eq!((word(&fadt, 76), fadt[91]), (0xb008, 4));
    for (at, bits, port) in
        [(148, 32, 0xb000), (172, 16, 0xb004), (208, 32, 0xb008), (116, 8, 0xcf9)]
    {
        assert_eq!((fadt[at], fadt[at + 1], wide(&fadt, at + 4)), (1, bits, port));
    }
    assert_eq!(fadt[128], 6);
    let flags = word(&fadt, 112);
    assert_eq!(flags & (1 << 4 | 1 << 6), 0, "power button and clock are fixed hardware");
    assert_eq!(
        flags & (1 << 10 | 1 << 8 | 1 << 20),
        1 << 10 | 1 << 8,
        "reset register; 32-bit timer"
    );
}

#[test]
fn every_cpu_is_enabled_once_in_the_madt() {
    for n in [1, 2, 64, 254, 255, 256, 300, 4096] {
        let tables = Tables::new(n);
        let madt = tables.listed(b"APIC");
        let expected: Vec<_> = (0..n).map(|id| (id, id, 1)).collect();
        assert_eq!(cpus(&madt), expected);
        assert!(structures(&madt).iter().all(|s| s[0] != 0 || s[3] < 255));
        assert!(structures(&madt).iter().all(|s| s[0] != 9 || word(s, 4) >= 255));
        let nmi_to_x2apics = structures(&madt).iter().any(|s| s[0] == 10);
        assert_eq!(nmi_to_x2apics, n > 255);
    }
}

#[test]
fn madt_describes_the_interrupt_lines_as_the_mp_table_does() {
    let madt = Tables::new(3).listed(b"APIC");
    assert_eq!((word(&madt, 36), word(&madt, 40)), (0xfee0_0000, 1));
    let of = |kind| structures(&madt).into_iter().filter(move |s| s[0] == kind);
    let io_apic = of(1).next().unwrap();
    assert_eq!((io_apic[2], word(io_apic, 4), word(io_apic, 8)), (3, 0xfec0_0000, 0));
    let overrides: Vec<_> = of(2).map(|s| (s[2], s[3], word(s, 4), s[8], s[9])).collect();
    assert_eq!(overrides, [(0, 0, 2, 5, 0), (0, 9, 9, 13, 0)]);
    let nmi: Vec<_> = of(4).map(|s| (s[2], s[5])).collect();
    assert_eq!(nmi, [(0xff, 1)]);
}

#[test]
fn dsdt_switches_off_and_has_a_serial_port_and_processors() {
    let tables = Tables::new(0x12);
    let dsdt = tables.table(DSDT, b"DSDT");
    let has = |what: &[u8]| dsdt.windows(what.len()).filter(|window| *window == what).count();
    assert_eq!(has(b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05"), 1);
    // PNP0501 as an EISA ID, I/O 0x3f8, interrupt 4.
    assert_eq!(has(&[0x0c, 0x41, 0xd0, 0x05, 0x01]), 1);
    assert_eq!(has(&[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8]), 1);
    assert_eq!(has(&[0x89, 6, 0, 3, 1, 4, 0, 0, 0]), 1);
    assert_eq!(has(b"QEMU0001\0"), 1);
    assert_eq!(has(&[0x47, 1, 5, 5, 5, 5, 1, 1]), 1, "port 0x505");
    assert_eq!(has(b"ACPI0007\0"), 0x12);
    assert_eq!((has(b"C000"), has(b"C011"), has(b"C012")), (1, 1, 0));
}

#[test]
fn dsdt_has_the_virtio_devices_each_with_registers_and_a_line_of_its_own() {
    let tables = Tables::new(1);
    let dsdt = tables.table(DSDT, b"DSDT");
    let has = |what: &[u8]| dsdt.windows(what.len()).filter(|window| *window == what).count();
    assert_eq!(has(b"LNRO0005\0"), MOST_VIRTIO);
    assert_eq!((has(b"VR00"), has(b"VR0E"), has(b"VR0F")), (1, 1, 0));
    for index in 0..MOST_VIRTIO {
        let window = layout::virtio_window(index).expect("there are as many");
        let [a, b, c, d] = (window.address as u32).to_le_bytes();
        assert_eq!(has(&[0x86, 9, 0, 1, a, b, c, d, 0, 0x10, 0, 0]), 1, "registers of {index}");
        // A consumer's interrupt: edge-triggered, active high, not shared.
        assert_eq!(has(&[0x89, 6, 0, 3, 1, window.irq, 0, 0, 0]), 1, "line of {index}");
    }
    assert_eq!(layout::virtio_window(MOST_VIRTIO), None);
}

#[test]
fn the_largest_tables_stay_in_their_places() {
    for cpus in [0, 1, MOST_PROCESSOR_DEVICES, MOST_CPUS, u32::MAX] {
        let tables = Tables::new(cpus);
        for (name, start) in [("the ACPI tables", RSDP), ("the ACPI DSDT", DSDT)] {
            let place = place(name);
            assert_eq!(place.start, start);
        }
        let outside = place("the ACPI tables").end..place("the ACPI DSDT").start;
        let found = tables.bytes(outside.start, (outside.end - outside.start) as usize);
        assert!(found.iter().all(|byte| *byte == 0), "{cpus} CPUs");
        assert!(tables.bytes(1 << 20, 1 << 20).iter().all(|byte| *byte == 0));
        let expected = cpus.min(MOST_CPUS) as usize;
        assert_eq!(super::tests::cpus(&tables.listed(b"APIC")).len(), expected);
        tables.table(DSDT, b"DSDT");
    }
}
