//! Hand-made kernel files of a few instructions, for tests of how they are loaded and entered.
//!
//! Owns the file formats' headers. Must not know what the code does.

/// Where [`multiboot`] kernels are loaded.
const LOAD: u32 = 0x20_0000;

/// A multiboot kernel that is no ELF file: header with addresses, then `code`, its entry.
#[must_use]
pub fn multiboot(code: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x1bad_b002;
    // Page-aligned modules, memory information, addresses.
    const FLAGS: u32 = 1 << 16 | 3;
    let sum = MAGIC.wrapping_add(FLAGS).wrapping_neg();
    let words = [MAGIC, FLAGS, sum, LOAD, LOAD, 0, 0, LOAD + 32];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.extend(code);
    file
}

/// A 32-bit ELF file with a multiboot header and no PVH note. The entry is its first byte, which has
/// to be the code's, so the header comes behind `code`.
#[must_use]
pub fn multiboot_elf(code: &[u8]) -> Vec<u8> {
    let mut text = code.to_vec();
    text.resize(text.len().next_multiple_of(4), 0x90);
    text.extend([0x1bad_b002u32, 0, 0u32.wrapping_sub(0x1bad_b002)].map(u32::to_le_bytes).concat());
    crate::elf32(&text, false)
}

/// A bzImage of protocol 2.12, loaded at 1 MiB, whose 32-bit entry is `code` and, if it has the 64-bit
/// one, that too.
#[must_use]
pub fn bzimage(code: &[u8], entry64: bool) -> Vec<u8> {
    const SECTOR: usize = 512;
    let mut file = vec![0; 2 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup sectors
    put(0x1f4, &(0x400u32 / 16).to_le_bytes()); // size of the kernel, in units of 16 bytes
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]); // a header up to 0x268
    put(0x202, b"HdrS\x0c\x02");
    put(0x211, &[1]); // loaded high
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
    put(0x234, &[1, 12, u8::from(entry64), 0]);
    put(0x238, &255u32.to_le_bytes()); // cmdline_size
    put(0x258, &0x10_0000u64.to_le_bytes()); // preferred address
    put(0x260, &0x1000u32.to_le_bytes()); // size while unpacking
    let mut kernel = vec![0xf4; 0x400];
    kernel[..code.len()].copy_from_slice(code);
    if entry64 {
        kernel[SECTOR..SECTOR + code.len()].copy_from_slice(code);
        kernel[..SECTOR].fill(0xf4);
    }
    file.extend(kernel);
    file
}
