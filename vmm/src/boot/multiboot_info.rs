//! The multiboot information structure: what a multiboot kernel finds in `ebx`.
//!
//! Owns nothing. Must not know the kernel's header. Source: Multiboot Specification 0.6.96, section
//! 3.3. The strings are the command line as given, without the kernel's name before it, and "initrd"
//! for the module.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{
    self, CMDLINE, HIGH_MEMORY, MP_POINTER, MULTIBOOT_INFO, MULTIBOOT_MAP, MULTIBOOT_MODULES,
    MULTIBOOT_NAMES,
};
use crate::memory::{self, GuestMemory};

/// What `eax` holds at the entry.
pub const MAGIC: u32 = 0x2bad_b002;

/// `flags`: memory sizes, command line, modules, memory map, boot loader name.
const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
/// Size of the structure, in bytes, up to the last field that any flag can make valid.
const SIZE: usize = 116;
const LOADER: &[u8] = b"Siesta\0";
const MODULE: &[u8] = b"initrd\0";

/// Writes the structure, with `initrd` as the only module.
///
/// # Errors
/// When guest memory ends below it.
pub fn write(memory: &GuestMemory, initrd: Option<&Range<u64>>) -> Result<(), GuestMemoryError> {
    let map = map(memory);
    let module_name = MULTIBOOT_NAMES + LOADER.len() as u64;
    memory.write_slice(&map, GuestAddress(MULTIBOOT_MAP))?;
    memory.write_slice(LOADER, GuestAddress(MULTIBOOT_NAMES))?;
    memory.write_slice(MODULE, GuestAddress(module_name))?;
    if let Some(module) = initrd {
        let words = words(&[module.start, module.end, module_name, 0]);
        memory.write_slice(&words, GuestAddress(MULTIBOOT_MODULES))?;
    }
    let mut info = [0; SIZE];
    let mut put = |at: usize, values: &[u64]| {
        let bytes = words(values);
        info[at..at + bytes.len()].copy_from_slice(&bytes);
    };
    let above = memory::low_end(memory).saturating_sub(HIGH_MEMORY);
    put(0, &[u64::from(FLAGS), MP_POINTER >> 10, above >> 10]);
    put(16, &[CMDLINE, u64::from(initrd.is_some()), MULTIBOOT_MODULES]);
    put(44, &[map.len() as u64, MULTIBOOT_MAP]);
    put(64, &[MULTIBOOT_NAMES]);
    memory.write_slice(&info, GuestAddress(MULTIBOOT_INFO))
}

/// 32-bit words; every value lies below 4 GiB.
fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| (*value as u32).to_le_bytes()).collect()
}

/// Entries of 24 bytes, of which the first 4 give the size of the rest.
fn map(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in layout::memory_map(memory) {
        bytes.extend(20u32.to_le_bytes());
        bytes.extend(entry.range.start.to_le_bytes());
        bytes.extend((entry.range.end - entry.range.start).to_le_bytes());
        bytes.extend((entry.kind as u32).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(initrd: Option<&Range<u64>>, bytes: u64) -> impl Fn(u64) -> u32 {
        let memory = memory::create(bytes).unwrap();
        write(&memory, initrd).unwrap();
        move |at| memory.read_obj::<u32>(GuestAddress(at)).unwrap()
    }

    #[test]
    fn information_gives_memory_command_line_and_names() {
        let at = written(None, 64 << 20);
        let info = |field| at(MULTIBOOT_INFO + field);
        assert_eq!(info(0), 0x24d);
        assert_eq!((info(4), info(8)), (639, 63 << 10));
        assert_eq!(info(16), CMDLINE as u32);
        assert_eq!(info(20), 0, "there is no module");
        let name = u64::from(info(64));
        assert_eq!((at(name), at(name + 4) & 0xff_ffff), (u32::from_le_bytes(*b"Sies"), 0x6174));
    }

    #[test]
    fn memory_map_is_walked_by_the_sizes_in_it() {
        let at = written(None, 4 << 30);
        let (mut entry, end) = (at(MULTIBOOT_INFO + 48), at(MULTIBOOT_INFO + 44));
        let end = entry + end;
        let mut ram = Vec::new();
        while entry < end {
            let field = |n| at(u64::from(entry) + n);
            let wide = |n| u64::from(field(n)) | u64::from(field(n + 4)) << 32;
            if field(20) == 1 {
                ram.push((wide(4), wide(12)));
            }
            entry += field(0) + 4;
        }
        assert_eq!(entry, end);
        assert_eq!(ram, [(0, 0x9_fc00), (1 << 20, 0xbff0_0000), (1 << 32, 1 << 30)]);
    }

    #[test]
    fn initrd_is_the_only_module() {
        let at = written(Some(&(0x30_0000..0x30_0123)), 64 << 20);
        assert_eq!(at(MULTIBOOT_INFO + 20), 1);
        let module = u64::from(at(MULTIBOOT_INFO + 24));
        assert_eq!((at(module), at(module + 4)), (0x30_0000, 0x30_0123));
        assert_eq!(at(u64::from(at(module + 8))), u32::from_le_bytes(*b"init"));
    }

    #[test]
    fn structure_stays_in_its_place() {
        let place = layout::tests::place("the multiboot information");
        const { assert!(MULTIBOOT_INFO + SIZE as u64 <= MULTIBOOT_MAP) };
        const { assert!(MULTIBOOT_MAP + 5 * 24 <= MULTIBOOT_MODULES) };
        const { assert!(MULTIBOOT_MODULES + 16 <= MULTIBOOT_NAMES) };
        assert!(MULTIBOOT_NAMES + (LOADER.len() + MODULE.len()) as u64 <= place.end);
    }
}
