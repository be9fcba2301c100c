//! A driver's side, by hand, and the tests of what all devices have in common.

mod balloon;
mod console;
mod handshake;
mod net;
mod rings;
mod rng;
mod vsock;

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

/// The most queues that a device here has.
const QUEUES: usize = 3;
/// From one queue's rings to those of the next, in bytes.
const APART: u64 = 0x4000;

pub(crate) struct Driver<D> {
    pub(crate) transport: Transport<D>,
    pub(crate) memory: Memory,
    size: u16,
    /// The queue that what follows is about.
    queue: usize,
    offered: [u16; QUEUES],
    seen: [u16; QUEUES],
}

impl<D: Model> Driver<D> {
    pub(crate) fn new(device: D) -> Self {
        let memory =
            Memory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("there is memory");
        let transport = Transport::new(device, memory.clone());
        Driver { transport, memory, size: 16, queue: 0, offered: [0; QUEUES], seen: [0; QUEUES] }
    }

    /// A driver that has begun to use all queues; what follows is about the first.
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
        (self.offered, self.seen) = ([0; QUEUES], [0; QUEUES]);
        self.memory.write_slice(&[0; 0xc000], GuestAddress(TABLE)).expect("memory");
        self.negotiate(features | VERSION_1);
        for queue in 0..self.transport.queues() {
            let rings = [TABLE, AVAILABLE, USED].map(|ring| ring + queue as u64 * APART);
            self.describe(queue as u32, self.size.into(), rings);
        }
        self.put(reg::VIRTIO_MMIO_STATUS, RUNNING);
    }

    /// What follows is about this queue.
    pub(crate) fn on(&mut self, queue: usize) -> &mut Self {
        self.queue = queue;
        self
    }

    /// Where a ring of the queue is whose place in the first queue this is.
    fn ring(&self, ring: u64) -> u64 {
        ring + self.queue as u64 * APART
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
        self.table(self.ring(TABLE), first, descriptors);
        self.make_available(first);
    }

    /// Makes what begins at a descriptor available.
    pub(crate) fn make_available(&mut self, head: u16) {
        let offered = self.offered[self.queue];
        let at = self.ring(AVAILABLE) + 4 + 2 * u64::from(offered % self.size);
        self.write(at, &head.to_le_bytes());
        self.offered[self.queue] = offered.wrapping_add(1);
        self.set_available_index(offered.wrapping_add(1));
    }

    pub(crate) fn set_available_index(&self, index: u16) {
        self.write(self.ring(AVAILABLE) + 2, &index.to_le_bytes());
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
        while self.seen[self.queue] != self.u16(self.ring(USED) + 2) {
            let seen = self.seen[self.queue];
            let at = self.ring(USED) + 4 + 8 * u64::from(seen % self.size);
            let word = |at| self.memory.read_obj(GuestAddress(at)).expect("memory");
            found.push((word(at), word(at + 4)));
            self.seen[self.queue] = seen.wrapping_add(1);
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
