//! The firmware configuration device: what a guest reads about itself at two I/O ports.
//!
//! Owns the items and the place up to which the guest has read. Must not know what the items mean to
//! the guest, nor where they come from. There is no DMA interface. Source: QEMU's
//! `docs/specs/fw_cfg.rst`, whose ports, keys and byte orders these are.
//!
//! | key | item | form |
//! |---|---|---|
//! | 0x00 | signature | `QEMU` |
//! | 0x01 | interfaces | 32 bits, little-endian: 1, ports only |
//! | 0x03 | RAM size | 64 bits, little-endian, bytes |
//! | 0x05, 0x0f | CPUs now, CPUs at most | 16 bits, little-endian |
//! | 0x0b, 0x12 | initial RAM disk: size, data | 32 bits, little-endian; bytes |
//! | 0x14, 0x15 | command line: size with its zero, data with it | 32 bits, little-endian; bytes |
//! | 0x19 | directory of files | 32 bits, big-endian: how many; none |
//! | others | nothing | |
//!
//! Writing a key of 16 bits to the first port selects its item from its first byte on; each byte read
//! at the second port is the item's next.
//!
//! | threat | answer |
//! |---|---|
//! | a key that nobody has | an empty item |
//! | reading past an item's end, for ever | zeros; the place stays at the end |
//! | a write of another width, or to the second port | ignored |
//! | reading the first port | all ones; a wide read that begins there gets one byte of the item |
//! | reading a large item over and over | each byte costs an access of its own, no memory |

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::bus::{Device, Outcome};

/// The ports: selector, data.
pub const PORTS: RangeInclusive<u16> = 0x510..=0x511;

const SELECTOR: u64 = 0;
const DATA: u64 = 1;

const SIGNATURE: u16 = 0x00;
const INTERFACES: u16 = 0x01;
const RAM_SIZE: u16 = 0x03;
const CPUS: u16 = 0x05;
const INITRD_SIZE: u16 = 0x0b;
const CPUS_MOST: u16 = 0x0f;
const INITRD_DATA: u16 = 0x12;
const CMDLINE_SIZE: u16 = 0x14;
const CMDLINE_DATA: u16 = 0x15;
const FILES: u16 = 0x19;

/// Bytes that others may have, too.
pub type Shared = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What the items say.
#[derive(Clone, Default)]
pub struct Contents {
    /// Guest RAM, in bytes.
    pub ram: u64,
    /// Number of CPUs; above 65535 the guest is told 65535.
    pub cpus: u32,
    /// The kernel's command line, without a terminating zero.
    pub cmdline: String,
    /// The initial RAM disk, below 4 GiB, if there is one.
    pub initrd: Option<Shared>,
}

/// The device.
pub struct FwCfg {
    cpus: [u8; 2],
    ram: [u8; 8],
    /// With its zero.
    cmdline: Vec<u8>,
    cmdline_size: [u8; 4],
    initrd: Option<Shared>,
    initrd_size: [u8; 4],
    key: u16,
    /// Bytes of the selected item that have been read; never above its size.
    at: usize,
}

fn size(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

impl FwCfg {
    /// A device after reset: the signature is selected.
    #[must_use]
    pub fn new(contents: Contents) -> Self {
        let Contents { ram, cpus, cmdline, initrd } = contents;
        let mut cmdline = cmdline.into_bytes();
        cmdline.push(0);
        FwCfg {
            cpus: u16::try_from(cpus).unwrap_or(u16::MAX).to_le_bytes(),
            ram: ram.to_le_bytes(),
            cmdline_size: size(&cmdline),
            cmdline,
            initrd_size: size(initrd.as_deref().map_or(&[], AsRef::as_ref)),
            initrd,
            key: SIGNATURE,
            at: 0,
        }
    }

    fn item(&self) -> &[u8] {
        match self.key {
            SIGNATURE => b"QEMU",
            INTERFACES => &[1, 0, 0, 0],
            RAM_SIZE => &self.ram,
            CPUS | CPUS_MOST => &self.cpus,
            INITRD_SIZE => &self.initrd_size,
            INITRD_DATA => self.initrd.as_deref().map_or(&[], AsRef::as_ref),
            CMDLINE_SIZE => &self.cmdline_size,
            CMDLINE_DATA => &self.cmdline,
            FILES => &[0; 4],
            _ => &[],
        }
    }

    fn next(&mut self) -> u8 {
        let Some(byte) = self.item().get(self.at).copied() else {
            return 0;
        };
        self.at += 1;
        byte
    }
}

impl Device for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        for (i, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(i as u64);
            *byte = if at == DATA { self.next() } else { 0xff };
        }
        Outcome::None
    }

    fn write(&mut self, offset: u64, data: &[u8], _now: u64) -> Outcome {
        if let (SELECTOR, &[low, high]) = (offset, data) {
            self.key = u16::from_le_bytes([low, high]);
            self.at = 0;
        }
        Outcome::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> FwCfg {
        FwCfg::new(Contents {
            ram: 0x1_2345_6000,
            cpus: 300,
            cmdline: "quiet".into(),
            initrd: Some(Arc::new(b"archive")),
        })
    }

    fn select(device: &mut FwCfg, key: u16) {
        assert_eq!(device.write(0, &key.to_le_bytes(), 0), Outcome::None);
    }

    fn read(device: &mut FwCfg, count: usize) -> Vec<u8> {
        let byte = |_| {
            let mut byte = [0xaa];
            assert_eq!(device.read(1, &mut byte, 0), Outcome::None);
            byte[0]
        };
        (0..count).map(byte).collect()
    }

    fn item(key: u16, count: usize) -> Vec<u8> {
        let mut device = device();
        select(&mut device, key);
        read(&mut device, count)
    }

    #[test]
    fn device_is_told_by_its_signature_and_has_ports_only() {
        assert_eq!(item(0, 4), b"QEMU");
        assert_eq!(item(1, 4), [1, 0, 0, 0], "no DMA");
        assert_eq!(read(&mut device(), 4), b"QEMU", "selected by reset");
    }

    #[test]
    fn items_say_how_large_the_machine_is() {
        assert_eq!(item(0x03, 8), 0x1_2345_6000u64.to_le_bytes());
        assert_eq!(item(0x05, 2), 300u16.to_le_bytes());
        assert_eq!(item(0x0f, 2), 300u16.to_le_bytes());
        let mut many = FwCfg::new(Contents { cpus: 70_000, ..Contents::default() });
        select(&mut many, 0x05);
        assert_eq!(read(&mut many, 2), [0xff; 2]);
    }

    #[test]
    fn command_line_and_initrd_come_with_their_sizes() {
        assert_eq!(item(0x14, 4), [6, 0, 0, 0]);
        assert_eq!(item(0x15, 6), b"quiet\0");
        assert_eq!(item(0x0b, 4), [7, 0, 0, 0]);
        assert_eq!(item(0x12, 7), b"archive");
        let mut bare = FwCfg::new(Contents::default());
        select(&mut bare, 0x14);
        assert_eq!(read(&mut bare, 4), [1, 0, 0, 0]);
        select(&mut bare, 0x0b);
        assert_eq!(read(&mut bare, 4), [0; 4]);
    }

    #[test]
    fn reading_beyond_the_end_gives_zeros() {
        assert_eq!(item(0x05, 5), [44, 1, 0, 0, 0]);
        assert_eq!(item(0x19, 8), [0; 8], "no file");
        assert_eq!(item(0x8000, 3), [0; 3]);
        assert_eq!(item(0xffff, 3), [0; 3]);
    }

    #[test]
    fn selecting_begins_at_the_first_byte_again() {
        let mut device = device();
        select(&mut device, 0x15);
        assert_eq!(read(&mut device, 3), b"qui");
        assert_eq!(read(&mut device, 3), b"et\0");
        select(&mut device, 0x15);
        assert_eq!(read(&mut device, 3), b"qui");
    }

    #[test]
    fn only_a_key_of_16_bits_at_the_first_port_selects() {
        let mut device = device();
        select(&mut device, 0x15);
        assert_eq!(device.write(0, &[0], 0), Outcome::None);
        assert_eq!(device.write(0, &[0, 0, 0, 0], 0), Outcome::None);
        assert_eq!(device.write(1, &[0, 0], 0), Outcome::None);
        assert_eq!(read(&mut device, 5), b"quiet");
    }

    #[test]
    fn wide_read_takes_one_byte_and_the_selector_reads_as_ones() {
        let mut device = device();
        let mut data = [0; 3];
        assert_eq!(device.read(0, &mut data, 0), Outcome::None);
        assert_eq!(data, [0xff, b'Q', 0xff]);
        assert_eq!(read(&mut device, 1), b"E");
    }
}
