//! The zero page: what a Linux kernel entered by its own boot protocol finds in `rsi`.
//!
//! Owns nothing. Must not know the registers. Source: Linux, `Documentation/arch/x86/boot.rst` and
//! `zero-page.rst`.

use std::ops::Range;

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{ByteValued, GuestAddress};

use super::bzimage::{HEADER_START, SetupHeader};
use super::layout::{self, CMDLINE, CMDLINE_MOST, RSDP, ZERO_PAGE};
use crate::memory::GuestMemory;

/// `boot_flag` of every setup header.
const BOOT_FLAG: u16 = 0xaa55;
/// `header`: "HdrS".
const HEADER: u32 = 0x5372_6448;
/// `type_of_loader`: one without a number of its own.
const LOADER_OTHER: u8 = 0xff;
/// `vid_mode`: the usual one.
const VIDEO_NORMAL: u16 = 0xffff;
/// `kernel_alignment`, in bytes.
const ALIGNMENT: u32 = 0x100_0000;

/// Writes the zero page: with the setup header of a bzImage, or, for an ELF kernel, with one that has
/// the least.
///
/// # Errors
/// What linux-loader says when it does not fit into guest memory.
pub fn write(
    memory: &GuestMemory,
    setup: Option<&SetupHeader>,
    initrd: Option<&Range<u64>>,
) -> Result<(), linux_loader::configurator::Error> {
    let mut page = boot_params::default();
    match setup {
        Some(setup) => {
            let header = setup.bytes();
            page.as_mut_slice()[HEADER_START..HEADER_START + header.len()].copy_from_slice(header);
            page.hdr.vid_mode = VIDEO_NORMAL;
        }
        None => {
            page.hdr.boot_flag = BOOT_FLAG;
            page.hdr.header = HEADER;
            page.hdr.kernel_alignment = ALIGNMENT;
            page.hdr.cmdline_size = CMDLINE_MOST as u32;
        }
    }
    page.hdr.type_of_loader = LOADER_OTHER;
    page.hdr.cmd_line_ptr = CMDLINE as u32;
    if let Some(initrd) = initrd {
        // It lies below 3 GiB.
        page.hdr.ramdisk_image = initrd.start as u32;
        page.hdr.ramdisk_size = (initrd.end - initrd.start) as u32;
    }
    page.acpi_rsdp_addr = RSDP;
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
    use crate::boot::bzimage::tests::Image;
    use crate::memory;
    use vm_memory::Bytes;

    fn page(setup: Option<&SetupHeader>, initrd: Option<&Range<u64>>) -> Vec<u8> {
        let memory = memory::create(64 << 20).unwrap();
        write(&memory, setup, initrd).unwrap();
        let mut page = vec![0; 0x1000];
        memory.read_slice(&mut page, GuestAddress(ZERO_PAGE)).unwrap();
        page
    }

    #[test]
    fn zero_page_has_the_fields_the_boot_protocol_asks_for() {
        let page = page(None, None);
        assert_eq!(&page[0x1fe..0x200], [0x55, 0xaa]);
        assert_eq!(&page[0x202..0x206], b"HdrS");
        assert_eq!(page[0x210], 0xff);
        assert_eq!(page[0x228..0x22c], 0x2_0000u32.to_le_bytes());
        assert_eq!(page[0x238..0x23c], 2047u32.to_le_bytes());
        assert_eq!(page[0x70..0x78], 0xe_0000u64.to_le_bytes());
        assert_eq!(page[0x218..0x220], [0; 8], "there is no RAM disk");
        assert_eq!(page[0x1e8], 4);
        let last = &page[0x2d0 + 3 * 20..][..20];
        assert_eq!(last[..8], 0x10_0000u64.to_le_bytes());
        assert_eq!(last[8..16], (63u64 << 20).to_le_bytes());
        assert_eq!(last[16..], 1u32.to_le_bytes());
    }

    #[test]
    fn initrd_is_named_with_its_size() {
        let page = page(None, Some(&(0x200_0000..0x200_1234)));
        assert_eq!(page[0x218..0x21c], 0x200_0000u32.to_le_bytes());
        assert_eq!(page[0x21c..0x220], 0x1234u32.to_le_bytes());
    }

    #[test]
    fn setup_header_of_the_kernel_is_kept_and_the_rest_of_its_file_is_not() {
        let image = Image::new();
        let file = image.build();
        let setup = image.loaded().setup.unwrap();
        let page = page(Some(&setup), None);
        assert_eq!(page[0x206..0x208], file[0x206..0x208]);
        assert_eq!(page[0x22c..0x268], file[0x22c..0x268]);
        assert_eq!(page[0x210], 0xff);
        assert_eq!(page[0x1fa..0x1fc], [0xff; 2]);
        assert_eq!(page[0x228..0x22c], 0x2_0000u32.to_le_bytes());
        assert!(page[0x268..0x2d0].iter().all(|byte| *byte == 0), "not the header's");
        assert!(page[0x78..0x1e8].iter().all(|byte| *byte == 0), "not the header's");
    }
}
