//! The zero page: what a Linux kernel entered at its 64-bit entry point finds in `rsi`.
//!
//! Owns nothing. Must not know the registers. Source: Linux, `Documentation/arch/x86/boot.rst` and
//! `zero-page.rst`.

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::GuestAddress;

use super::layout::{self, CMDLINE, CMDLINE_MOST, ZERO_PAGE};
use crate::memory::GuestMemory;

/// `boot_flag` of every setup header.
const BOOT_FLAG: u16 = 0xaa55;
/// `header`: "HdrS".
const HEADER: u32 = 0x5372_6448;
/// `type_of_loader`: one without a number of its own.
const LOADER_OTHER: u8 = 0xff;
/// `kernel_alignment`, in bytes.
const ALIGNMENT: u32 = 0x100_0000;

/// Writes the zero page.
///
/// # Errors
/// What linux-loader says when it does not fit into guest memory.
pub fn write(memory: &GuestMemory) -> Result<(), linux_loader::configurator::Error> {
    let mut page = boot_params::default();
    page.hdr.boot_flag = BOOT_FLAG;
    page.hdr.header = HEADER;
    page.hdr.type_of_loader = LOADER_OTHER;
    page.hdr.kernel_alignment = ALIGNMENT;
    page.hdr.cmd_line_ptr = CMDLINE as u32;
    page.hdr.cmdline_size = CMDLINE_MOST as u32;
    for (slot, entry) in page.e820_table.iter_mut().zip(layout::memory_map(memory)) {
        *slot = boot_e820_entry {
            addr: entry.range.start,
            size: entry.range.end - entry.range.start,
            r#type: entry.kind as u32,
        };
        page.e820_entries += 1;
    }
    let params = BootParams::new(&page, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use vm_memory::Bytes;

    #[test]
    fn zero_page_has_the_fields_the_boot_protocol_asks_for() {
        let memory = memory::create(64 << 20).unwrap();
        write(&memory).unwrap();
        let mut page = vec![0; 0x1000];
        memory.read_slice(&mut page, GuestAddress(ZERO_PAGE)).unwrap();
        assert_eq!(&page[0x1fe..0x200], [0x55, 0xaa]);
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(page[0x210], 0xff);
        assert_eq!(page[0x228..0x22c], 0x2_0000u32.to_le_bytes());
        assert_eq!(page[0x238..0x23c], 2047u32.to_le_bytes());
        assert_eq!(page[0x1e8], 4);
        let last = &page[0x2d0 + 3 * 20..][..20];
        assert_eq!(last[..8], 0x10_0000u64.to_le_bytes());
        assert_eq!(last[8..16], (63u64 << 20).to_le_bytes());
        assert_eq!(last[16..], 1u32.to_le_bytes());
    }
}
