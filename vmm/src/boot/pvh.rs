//! The PVH start info: what a guest entered at its PVH entry point finds in `ebx`.
//!
//! Owns nothing. Must not know the registers. Source: Xen's `public/arch-x86/hvm/start_info.h`.

use std::ops::Range;

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::GuestAddress;

use super::layout::{self, CMDLINE, RSDP, START_INFO, START_INFO_MAP, START_INFO_MODULES};
use crate::memory::GuestMemory;

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the high bit of the E set.
const MAGIC: u32 = 0x336e_c578;

/// Writes the start info, its memory map, and `initrd` as its only module.
///
/// # Errors
/// What linux-loader says when they do not fit into guest memory.
pub fn write(
    memory: &GuestMemory,
    initrd: Option<&Range<u64>>,
) -> Result<(), linux_loader::configurator::Error> {
    let map: Vec<_> = layout::memory_map(memory)
        .into_iter()
        .map(|entry| hvm_memmap_table_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            type_: entry.kind as u32,
            reserved: 0,
        })
        .collect();
    let modules: Vec<_> = initrd
        .map(|range| hvm_modlist_entry {
            paddr: range.start,
            size: range.end - range.start,
            ..Default::default()
        })
        .into_iter()
        .collect();
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        nr_modules: modules.len() as u32,
        modlist_paddr: START_INFO_MODULES,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: RSDP,
        memmap_paddr: START_INFO_MAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(START_INFO_MAP));
    params.set_modules(&modules, GuestAddress(START_INFO_MODULES));
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
        write(&memory, None).unwrap();
        let u32_at = |at| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        let u64_at = |at| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(u32_at(START_INFO), 0x336e_c578);
        assert_eq!(u32_at(START_INFO + 4), 1);
        assert_eq!(u64_at(START_INFO + 24), CMDLINE);
        assert_eq!(u32_at(START_INFO + 12), 0, "there is no module");
        assert_eq!(u64_at(START_INFO + 32), RSDP);
        assert_eq!(u64_at(START_INFO + 40), START_INFO_MAP);
        assert_eq!(u32_at(START_INFO + 48), 4);
        let last = START_INFO_MAP + 3 * 24;
        assert_eq!((u64_at(last), u64_at(last + 8)), (1 << 20, 63 << 20));
        assert_eq!(u32_at(last + 16), 1);
    }

    #[test]
    fn initrd_is_the_only_module() {
        let memory = memory::create(64 << 20).unwrap();
        write(&memory, Some(&(0x300_0000..0x300_0123))).unwrap();
        let u64_at = |at| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        assert_eq!(u64_at(START_INFO + 8) >> 32, 1);
        let module = u64_at(START_INFO + 16);
        assert_eq!((u64_at(module), u64_at(module + 8)), (0x300_0000, 0x123));
        assert_eq!(u64_at(module + 16), 0, "it has no command line");
    }

    #[test]
    fn the_longest_memory_map_and_the_module_stay_in_their_places() {
        let place = layout::tests::place("the PVH start info");
        const { assert!(START_INFO + 56 <= START_INFO_MAP) };
        const { assert!(START_INFO_MAP + 5 * 24 <= START_INFO_MODULES) };
        assert!(START_INFO_MODULES + 32 <= place.end);
    }
}
