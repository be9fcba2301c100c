//! A driver's side, by hand, and the tests of what all devices have in common.

mod handshake;
mod rings;
mod rng;

use virtio_bindings::virtio_mmio as reg;
use vm_memory::{Bytes, GuestAddress};

use super::mmio::{Change, Transport};
use super::{Memory, Model};

/// Bytes of guest memory.
pub(crate) const MEMORY: u64 = 1 << 20;
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Where buffers may lie.
pub(crate) const DATA: u64 = 0x1_0000;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
/// ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK.
pub(crate) const RUNNING: u32 = 0xf;
pub(crate) const NEEDS_RESET: u32 = 0x40;

/// A descriptor: address, bytes, flags, next.
pub(crate) type Descriptor = (u64, u32, u16, u16);

pub(crate) struct Driver<D> {
    pub(crate) transport: Transport<D>,
    pub(crate) memory: Memory,
    size: u16,
    offered: u16,
    seen: u16,
}

impl<D: Model> Driver<D> {
    pub(crate) fn new(device: D) -> Self {
        let memory =
            Memory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("there is memory");
        let transport = Transport::new(device, memory.clone());
        Driver { transport, memory, size: 16, offered: 0, seen: 0 }
    }

    /// A driver that has begun to use the first queue.
    pub(crate) fn running(device: D, features: u64) -> Self {
        let mut driver = Driver::new(device);
        driver.begin(features);
        assert_eq!(driver.get(reg::VIRTIO_MMIO_STATUS), RUNNING);
        driver
    }

    pub(crate) fn get(&self, register: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn set(&self, register: u32, value: u32) -> Change {
        self.transport.write(register.into(), &value.to_le_bytes())
    }

    fn put(&self, register: u32, value: u32) {
        let _ = self.set(register, value);
    }

    /// The handshake up to FEATURES_OK. Answers the status then.
    pub(crate) fn negotiate(&self, features: u64) -> u32 {
        self.put(reg::VIRTIO_MMIO_STATUS, 0);
        self.put(reg::VIRTIO_MMIO_STATUS, 1);
        self.put(reg::VIRTIO_MMIO_STATUS, 3);
        for half in 0..2 {
            self.put(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, half);
            self.put(reg::VIRTIO_MMIO_DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.put(reg::VIRTIO_MMIO_STATUS, 0xb);
        self.get(reg::VIRTIO_MMIO_STATUS)
    }

    /// Says where the rings of a queue are.
    pub(crate) fn describe(&self, queue: u32, size: u32, [table, available, used]: [u64; 3]) {
        self.put(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        self.put(reg::VIRTIO_MMIO_QUEUE_NUM, size);
        for (register, address) in [
            (reg::VIRTIO_MMIO_QUEUE_DESC_LOW, table),
            (reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, available),
            (reg::VIRTIO_MMIO_QUEUE_USED_LOW, used),
        ] {
            self.put(register, address as u32);
            self.put(register + 4, (address >> 32) as u32);
        }
        self.put(reg::VIRTIO_MMIO_QUEUE_READY, 1);
    }

    pub(crate) fn begin(&mut self, features: u64) {
        (self.offered, self.seen) = (0, 0);
        self.memory.write_slice(&[0; 0x3000], GuestAddress(TABLE)).expect("memory");
        self.negotiate(features | VERSION_1);
        self.describe(0, self.size.into(), [TABLE, AVAILABLE, USED]);
        self.put(reg::VIRTIO_MMIO_STATUS, RUNNING);
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).expect("memory");
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).expect("memory");
        bytes
    }

    fn u16(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).expect("memory")
    }

    /// Writes descriptors at `table`.
    pub(crate) fn table(&self, table: u64, first: u16, descriptors: &[Descriptor]) {
        for (at, (address, len, flags, next)) in (u64::from(first)..).zip(descriptors) {
            let bytes = [
                &address.to_le_bytes()[..],
                &len.to_le_bytes(),
                &flags.to_le_bytes(),
                &next.to_le_bytes(),
            ];
            self.write(table + 16 * at, &bytes.concat());
        }
    }

    /// Writes descriptors, of which `first` is the number of the first, and makes that available.
    pub(crate) fn offer_raw(&mut self, first: u16, descriptors: &[Descriptor]) {
        self.table(TABLE, first, descriptors);
        self.make_available(first);
    }

    /// Makes what begins at a descriptor available.
    pub(crate) fn make_available(&mut self, head: u16) {
        let at = AVAILABLE + 4 + 2 * u64::from(self.offered % self.size);
        self.write(at, &head.to_le_bytes());
        self.offered = self.offered.wrapping_add(1);
        self.set_available_index(self.offered);
    }

    pub(crate) fn set_available_index(&self, index: u16) {
        self.write(AVAILABLE + 2, &index.to_le_bytes());
    }

    /// Makes a chain of these buffers available, from descriptor `first` on: address, bytes, and
    /// whether the device writes it.
    pub(crate) fn offer(&mut self, first: u16, buffers: &[(u64, u32, bool)]) {
        let last = buffers.len() - 1;
        let descriptor = |(at, (address, len, write)): (usize, &(u64, u32, bool))| {
            let more = if at < last { NEXT } else { 0 };
            let flags = more | if *write { WRITE } else { 0 };
            (*address, *len, flags, first + at as u16 + 1)
        };
        let descriptors: Vec<_> = buffers.iter().enumerate().map(descriptor).collect();
        self.offer_raw(first, &descriptors);
    }

    /// What the device has given back since this was last asked: head and bytes written.
    pub(crate) fn used(&mut self) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        while self.seen != self.u16(USED + 2) {
            let at = USED + 4 + 8 * u64::from(self.seen % self.size);
            let word = |at| self.memory.read_obj(GuestAddress(at)).expect("memory");
            found.push((word(at), word(at + 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        found
    }

    /// The device has stopped and said so.
    pub(crate) fn is_broken(&self) -> bool {
        let status = self.get(reg::VIRTIO_MMIO_STATUS);
        let told = self.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS) & reg::VIRTIO_MMIO_INT_CONFIG != 0;
        let active = self.transport.inspect(|_, active| active);
        assert_eq!(status & NEEDS_RESET != 0, told && !active, "status {status:#x}");
        told
    }
}
