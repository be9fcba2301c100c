//! The MP table: tells a guest which CPUs and interrupt controllers it has.
//!
//! Owns nothing. Must not know how the devices behind the interrupt lines work. Source: Intel
//! MultiProcessor Specification 1.4, chapter 4.
//!
//! ISA interrupt `n` is input `n` of the I/O APIC, but for the PIT's interrupt 0, which is input 2:
//! input 0 is the 8259's output, and the 8259's cascade, interrupt 2, has no use for its own. ACPI's
//! MADT says the same (see [`super::acpi`]). There is no IMCR: the 8259's output always reaches the
//! BSP's LINT0 too ("virtual wire mode", section 3.6.2.2).

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{self, IO_APIC, LOCAL_APIC, MP_POINTER, MP_TABLE, io_apic_id};
use crate::memory::GuestMemory;

/// Specification revision 1.4.
const REVISION: u8 = 4;
/// The most CPUs an MP table can list: local APIC ID 255 is the broadcast.
pub const MOST_CPUS: u32 = 255;
/// Size of the configuration table's header, in bytes.
const HEADER: usize = 44;

/// `INT`, `NMI` and `ExtINT`, the interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Every local APIC.
const ALL: u8 = 0xff;

/// Writes the floating pointer and the configuration table for `cpus` CPUs with local APIC IDs from
/// 0 on. CPUs above [`MOST_CPUS`] are not listed: the format has no room for their IDs.
///
/// # Errors
/// When guest memory ends below 1 MiB.
pub fn write(memory: &GuestMemory, cpus: u32) -> Result<(), GuestMemoryError> {
    memory.write_slice(&pointer(), GuestAddress(MP_POINTER))?;
    memory.write_slice(&table(cpus), GuestAddress(MP_TABLE))
}

fn pointer() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(b"_MP_");
    bytes[4..8].copy_from_slice(&(MP_TABLE as u32).to_le_bytes());
    bytes[8] = 1; // its length, in units of 16 bytes
    bytes[9] = REVISION;
    bytes[10] = layout::checksum(&bytes);
    bytes
}

fn table(cpus: u32) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count: u16 = 0;
    let mut push = |entry: &[u8]| {
        entries.extend_from_slice(entry);
        count += 1;
    };
    for id in 0..cpus.min(MOST_CPUS) {
        push(&processor(id as u8));
    }
    push(&[1, 0, b'I', b'S', b'A', b' ', b' ', b' ']);
    let id = io_apic_id(cpus);
    push(&io_apic(id));
    push(&interrupt(3, EXT_INT, 0, id, 0));
    for irq in (0..16).filter(|irq| *irq != 2) {
        let pin = if irq == 0 { 2 } else { irq };
        push(&interrupt(3, INT, irq, id, pin));
    }
    push(&interrupt(4, EXT_INT, 0, ALL, 0));
    push(&interrupt(4, NMI, 0, ALL, 1));

    let mut bytes = Vec::with_capacity(HEADER + entries.len());
    bytes.extend_from_slice(b"PCMP");
    bytes.extend_from_slice(&((HEADER + entries.len()) as u16).to_le_bytes());
    bytes.extend_from_slice(&[REVISION, 0]);
    bytes.extend_from_slice(b"SIESTA  VM          "); // OEM ID (8), product ID (12)
    bytes.extend_from_slice(&[0; 6]); // no OEM table
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]); // no extended table
    bytes.extend_from_slice(&entries);
    bytes[7] = layout::checksum(&bytes);
    bytes
}

fn processor(id: u8) -> [u8; 20] {
    let enabled_or_bsp = if id == 0 { 3 } else { 1 };
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&[0, id, 0x14, enabled_or_bsp]);
    bytes[4..8].copy_from_slice(&0x600u32.to_le_bytes()); // family 6
    bytes[8..12].copy_from_slice(&0x201u32.to_le_bytes()); // FPU, APIC
    bytes
}

fn io_apic(id: u8) -> [u8; 8] {
    let [a, b, c, d] = IO_APIC.to_le_bytes();
    [2, id, 0x11, 1, a, b, c, d]
}

/// An interrupt entry (`entry` 3: to an I/O APIC's input, 4: to a local APIC's LINT pin) from the ISA
/// bus, with the bus's own polarity and trigger mode.
fn interrupt(entry: u8, kind: u8, irq: u8, apic: u8, pin: u8) -> [u8; 8] {
    [entry, kind, 0, 0, 0, irq, apic, pin]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::layout::tests::{place, sum};
    use crate::memory;

    #[test]
    fn pointer_and_table_sum_to_zero_and_are_found() {
        let memory = memory::create(2 << 20).unwrap();
        write(&memory, 4).unwrap();
        let mut pointer = [0; 16];
        memory.read_slice(&mut pointer, GuestAddress(0x9_fc00)).unwrap();
        assert_eq!(&pointer[..4], b"_MP_");
        assert_eq!(sum(&pointer), 0);
        let at = u32::from_le_bytes(pointer[4..8].try_into().unwrap());
        let length: u16 = memory.read_obj(GuestAddress(u64::from(at) + 4)).unwrap();
        let mut table = vec![0; usize::from(length)];
        memory.read_slice(&mut table, GuestAddress(u64::from(at))).unwrap();
        assert_eq!(&table[..4], b"PCMP");
        assert_eq!(sum(&table), 0);
        assert_eq!(table[36..40], 0xfee0_0000u32.to_le_bytes());
    }

    /// Walks the entries as a guest does: 20 bytes for a processor, 8 for all others.
    fn walk(table: &[u8]) -> Vec<&[u8]> {
        let (mut rest, mut found) = (&table[HEADER..], Vec::new());
        while !rest.is_empty() {
            let (entry, next) = rest.split_at(if rest[0] == 0 { 20 } else { 8 });
            found.push(entry);
            rest = next;
        }
        found
    }

    #[test]
    fn every_cpu_is_listed_once_and_only_the_first_is_the_bsp() {
        let table = table(3);
        let entries = walk(&table);
        let cpus: Vec<_> = entries.iter().filter(|e| e[0] == 0).map(|e| (e[1], e[3])).collect();
        assert_eq!(cpus, [(0, 3), (1, 1), (2, 1)]);
        assert_eq!(usize::from(u16::from_le_bytes([table[34], table[35]])), entries.len());
        assert!(entries.is_sorted_by_key(|e| e[0]), "the specification orders entries by type");
    }

    #[test]
    fn isa_interrupts_go_to_the_input_of_their_number_but_for_the_timer() {
        let table = table(1);
        let entries = walk(&table);
        let lines: Vec<_> =
            entries.iter().filter(|e| e[0] == 3).map(|e| (e[1], e[5], e[7])).collect();
        let others = (1..16).filter(|n| *n != 2).map(|n| (INT, n, n));
        let expected: Vec<_> = [(EXT_INT, 0, 0), (INT, 0, 2)].into_iter().chain(others).collect();
        assert_eq!(lines, expected);
        let local: Vec<_> =
            entries.iter().filter(|e| e[0] == 4).map(|e| (e[1], e[6], e[7])).collect();
        assert_eq!(local, [(EXT_INT, 0xff, 0), (NMI, 0xff, 1)]);
    }

    #[test]
    fn io_apic_has_the_id_after_the_cpus_and_every_line_goes_there() {
        for (cpus, id) in [(1, 1), (64, 64), (254, 254), (255, 0), (300, 0)] {
            let table = table(cpus);
            let entries = walk(&table);
            let io_apic = entries.iter().find(|e| e[0] == 2).unwrap();
            assert_eq!((io_apic[1], io_apic[3]), (id, 1));
            assert_eq!(io_apic[4..], 0xfec0_0000u32.to_le_bytes());
            assert!(entries.iter().filter(|e| e[0] == 3).all(|e| e[6] == id));
        }
    }

    #[test]
    fn the_largest_table_stays_in_its_place() {
        let table = table(u32::MAX);
        assert!(MP_TABLE + table.len() as u64 <= place("the MP table").end);
        assert_eq!(sum(&table), 0);
        assert_eq!(walk(&table).iter().filter(|e| e[0] == 0).count(), 255);
    }
}
