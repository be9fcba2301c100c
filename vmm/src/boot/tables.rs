//! The GDT and the page tables that the BSP's first registers point at.
//!
//! Owns nothing. Must not know which kernel uses them: all entries share one GDT but for the width of
//! the code segment that Linux calls its own, only the 64-bit one has paging on. Source: SDM volume 3, chapters 3 to 5.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{GDT, PAGE_TABLES};
use crate::memory::GuestMemory;

/// Selector of flat 32-bit code.
pub const CODE32: u16 = 0x08;
/// Selector of the code that Linux's boot protocols call `__BOOT_CS`: 64-bit, or as wide as the entry.
pub const BOOT_CODE: u16 = 0x10;
/// Selector of flat data; Linux's `__BOOT_DS`.
pub const DATA: u16 = 0x18;
/// Selector of the TSS, of which only the descriptor exists.
pub const TSS: u16 = 0x20;
const DESCRIPTOR32: u64 = 0x00cf_9b00_0000_ffff;
const DESCRIPTOR64: u64 = 0x00af_9b00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;
const TSS_DESCRIPTOR: u64 = 0x0000_8b00_0000_0067;

/// Limit of the GDT: its size in bytes less one. The TSS has two entries in long mode.
pub const GDT_LIMIT: u16 = 6 * 8 - 1;

/// Guest-physical address of the PML4: what CR3 holds.
pub const PML4: u64 = PAGE_TABLES;
const PDPT: u64 = PAGE_TABLES + 0x1000;
const PAGE_DIRECTORY: u64 = PAGE_TABLES + 0x2000;
/// Page table entry: present, writable.
const PRESENT: u64 = 0x3;
/// Page directory entry: maps 2 MiB itself.
const LARGE: u64 = 0x80;

/// Writes the GDT, with 64-bit or 32-bit code at [`BOOT_CODE`], and page tables that map the first 4 GiB to themselves in pages of 2 MiB.
///
/// # Errors
/// When guest memory ends below them.
pub fn write(memory: &GuestMemory, boot_code_long: bool) -> Result<(), GuestMemoryError> {
    let put = |at: u64, entries: &[u64]| {
        let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
        memory.write_slice(&bytes, GuestAddress(at))
    };
    let boot_code = if boot_code_long { DESCRIPTOR64 } else { DESCRIPTOR32 };
    put(GDT, &[0, DESCRIPTOR32, boot_code, DATA_DESCRIPTOR, TSS_DESCRIPTOR, 0])?;
    put(PML4, &[PDPT | PRESENT])?;
    let directories: Vec<u64> = (0..4).map(|n| (PAGE_DIRECTORY + n * 0x1000) | PRESENT).collect();
    put(PDPT, &directories)?;
    let pages: Vec<u64> = (0..4 * 512).map(|n| (n << 21) | LARGE | PRESENT).collect();
    put(PAGE_DIRECTORY, &pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::layout::tests::place;
    use crate::memory;

    #[test]
    fn tables_stay_in_their_places() {
        let memory = memory::create(2 << 20).unwrap();
        write(&memory, true).unwrap();
        for (from, to) in [
            (0, place("the GDT").start),
            (place("the GDT").end, place("the page tables").start),
            (place("the page tables").end, 2 << 20),
        ] {
            let mut found = vec![0; (to - from) as usize];
            memory.read_slice(&mut found, GuestAddress(from)).unwrap();
            assert!(found.iter().all(|b| *b == 0), "{from:#x}-{to:#x}");
        }
    }

    /// Walks the page tables as the MMU does.
    fn translate(memory: &GuestMemory, cr3: u64, address: u64) -> u64 {
        let entry = |table: u64, shift: u32| -> u64 {
            let at = (table & !0xfff) + (address >> shift & 0x1ff) * 8;
            let entry = memory.read_obj(GuestAddress(at)).unwrap();
            assert_eq!(entry & 3, 3, "{address:#x} is not present and writable");
            entry
        };
        let page = entry(entry(entry(cr3, 39), 30), 21);
        assert_eq!(page & 0x80, 0x80);
        (page & !0x1f_ffff) | (address & 0x1f_ffff)
    }

    #[test]
    fn page_tables_map_the_first_4_gib_to_themselves() {
        let memory = memory::create(2 << 20).unwrap();
        write(&memory, true).unwrap();
        for address in [0, 0x1f_ffff, 0x20_0000, 0x4000_0000, 0xfee0_0020, 0xffff_ffff] {
            assert_eq!(translate(&memory, PML4, address), address);
        }
        assert_eq!(memory.read_obj::<u64>(GuestAddress(PML4 + 8)).unwrap(), 0);
        assert_eq!(memory.read_obj::<u64>(GuestAddress(PDPT + 32)).unwrap(), 0);
    }
}
