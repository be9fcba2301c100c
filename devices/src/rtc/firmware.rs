//! What firmware leaves in the clock's memory about the size of the machine's.
//!
//! Owns no state. Must not know the chip.

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Conventional memory ends where a PC's video memory begins.
const BASE: u64 = 640 * KIB;
/// The unit for memory from 16 MiB on.
const CHUNK: u64 = 64 * KIB;

/// The memory, zero but for sizes, each of which is as much as its bytes can say:
///
/// | bytes | size |
/// |---|---|
/// | 0x15, 0x16 | below 640 KiB, in KiB |
/// | 0x17, 0x18, and 0x30, 0x31 | from 1 MiB on, in KiB |
/// | 0x34, 0x35 | from 16 MiB to 4 GiB, in 64 KiB |
/// | 0x5b to 0x5d | from 4 GiB on, in 64 KiB |
pub(super) fn memory(below_4g: u64, above_4g: u64) -> [u8; 128] {
    let mut memory = [0; 128];
    let extended = below_4g.saturating_sub(MIB) / KIB;
    put(&mut memory[0x15..=0x16], below_4g.min(BASE) / KIB);
    put(&mut memory[0x17..=0x18], extended);
    put(&mut memory[0x30..=0x31], extended);
    put(&mut memory[0x34..=0x35], below_4g.saturating_sub(16 * MIB) / CHUNK);
    put(&mut memory[0x5b..=0x5d], above_4g / CHUNK);
    memory
}

/// Lowest byte first; all ones for what does not fit.
fn put(bytes: &mut [u8], value: u64) {
    let fits = value >> (8 * bytes.len()) == 0;
    for (byte, value) in bytes.iter_mut().zip(value.to_le_bytes()) {
        *byte = if fits { value } else { 0xff };
    }
}
