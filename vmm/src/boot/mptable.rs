//! The MP table: tells a guest which CPUs and interrupt controllers it has.
//!
//! Owns nothing. Must not know how the devices behind the interrupt lines work. Source: Intel
//! MultiProcessor Specification 1.4, chapter 4.
//!
//! ISA interrupt `n` is input `n` of the I/O APIC, the PIT's interrupt 0 too, as in KVM's own
//! interrupt controllers.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{MP_POINTER, MP_TABLE};
use crate::memory::GuestMemory;

/// Guest-physical address of every local APIC.
const LOCAL_APIC: u32 = 0xfee0_0000;
/// Guest-physical address of the I/O APIC.
const IO_APIC: u32 = 0xfec0_0000;
/// ID of the I/O APIC: what its ID register holds after reset. It shares no bus with the local APICs'.
/// ID of the I/O APIC, as of the one in KVM.
pub const IO_APIC_ID: u8 = 0;
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
    bytes[10] = checksum(&bytes);
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
    push(&io_apic());
    for irq in 0..16 {
        push(&interrupt(3, INT, irq, IO_APIC_ID, irq));
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
    bytes[7] = checksum(&bytes);
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

fn io_apic() -> [u8; 8] {
    let [a, b, c, d] = IO_APIC.to_le_bytes();
    [2, IO_APIC_ID, 0x11, 1, a, b, c, d]
}

/// An interrupt entry (`entry` 3: to an I/O APIC's input, 4: to a local APIC's LINT pin) from the ISA
/// bus, with the bus's own polarity and trigger mode.
fn interrupt(entry: u8, kind: u8, irq: u8, apic: u8, pin: u8) -> [u8; 8] {
    [entry, kind, 0, 0, 0, irq, apic, pin]
}

/// What makes the sum of all bytes 0 when it replaces a byte that is 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::layout::TAKEN;
    use crate::memory;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
    }

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
    fn isa_interrupts_go_to_the_input_of_their_number() {
        let table = table(1);
        let entries = walk(&table);
        let lines: Vec<_> = entries.iter().filter(|e| e[0] == 3).map(|e| (e[5], e[7])).collect();
        assert_eq!(lines, (0..16).map(|n| (n, n)).collect::<Vec<_>>());
    }

    #[test]
    fn the_largest_table_stays_in_its_place() {
        let (_, place) = &TAKEN[6];
        let table = table(u32::MAX);
        assert!(MP_TABLE + table.len() as u64 <= place.end);
        assert_eq!(sum(&table), 0);
        assert_eq!(walk(&table).iter().filter(|e| e[0] == 0).count(), 255);
    }
}
