//! The PVH start info: what a guest entered at its PVH entry point finds in `ebx`.
//!
//! Owns nothing. Must not know the registers. Source: Xen's `public/arch-x86/hvm/start_info.h`.

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use vm_memory::GuestAddress;

use super::layout::{self, CMDLINE, START_INFO, START_INFO_MAP};
use crate::memory::GuestMemory;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the high bit of the E set.
const MAGIC: u32 = 0x336e_c578;

/// Writes the start info and its memory map.
///
/// # Errors
/// What linux-loader says when they do not fit into guest memory.
pub fn write(memory: &GuestMemory) -> Result<(), linux_loader::configurator::Error> {
    let map: Vec<_> = layout::memory_map(memory)
        .into_iter()
        .map(|entry| hvm_memmap_table_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            type_: entry.kind as u32,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        cmdline_paddr: CMDLINE,
        memmap_paddr: START_INFO_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(START_INFO_MAP));
    PvhBootConfigurator::write_bootparams(&params, memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use vm_memory::Bytes;

    #[test]
    fn start_info_points_at_the_command_line_and_the_memory_map() {
        let memory = memory::create(64 << 20).unwrap();
        write(&memory).unwrap();
        let u32_at = |at| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        let u64_at = |at| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(u32_at(START_INFO), 0x336e_c578);
        assert_eq!(u32_at(START_INFO + 4), 1);
        assert_eq!(u64_at(START_INFO + 24), CMDLINE);
        assert_eq!(u64_at(START_INFO + 32), 0, "there is no RSDP");
        assert_eq!(u64_at(START_INFO + 40), START_INFO_MAP);
        assert_eq!(u32_at(START_INFO + 48), 4);
        let last = START_INFO_MAP + 3 * 24;
        assert_eq!((u64_at(last), u64_at(last + 8)), (1 << 20, 63 << 20));
        assert_eq!(u32_at(last + 16), 1);
    }

    #[test]
    fn the_longest_memory_map_stays_in_its_place() {
        let (_, place) = &layout::TAKEN[1];
        const { assert!(START_INFO + 56 <= START_INFO_MAP) };
        assert!(START_INFO_MAP + 5 * 24 <= place.end);
    }
}
