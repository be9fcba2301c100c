//! Virtio devices behind their registers, against a driver that does anything: mostly what a driver
//! would, with rings and requests that are almost right.

use std::io;

use devices::virtio::block::{Block, Disk, Geometry, serve};
use devices::virtio::mmio::Transport;
use devices::virtio::rng::{Entropy, Rng};
use devices::virtio::{Memory, Model};
use rand::Rng as _;
use rand::rngs::SmallRng;
use vm_memory::{Bytes, GuestAddress};

use crate::registers::{STATUS, get, set};

const MEMORY: u64 = 0x2_0000;
const RINGS: [u64; 3] = [0x1000, 0x2000, 0x3000];
const REGISTERS: [u64; 20] = [
    0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, STATUS, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4,
    0xac, 0x10, 0xfc, 0x100, 0x124,
];
const DISK: usize = 64 << 10;

struct Guest<'a, D> {
    transport: &'a Transport<D>,
    memory: &'a Memory,
    available: u16,
}

fn number(random: &mut SmallRng) -> u32 {
    match random.random_range(0..6) {
        0 => random.random(),
        1 => 0,
        2 => 1 << random.random_range(0..32),
        3 => u32::MAX,
        4 => random.random_range(0..20),
        _ => random.random_range(0..MEMORY as u32),
    }
}

impl<D: Model> Guest<'_, D> {
    /// The handshake, with one step in twenty wrong.
    fn begin(&mut self, random: &mut SmallRng) {
        let put = |guest: &Self, random: &mut SmallRng, register, value| {
            let value = if random.random_ratio(1, 20) { number(random) } else { value };
            set(guest.transport, register, value);
        };
        let features = if random.random() { 1 << 29 | 1 << 28 | 1 << 9 } else { 0 };
        let rings = RINGS.map(|ring| ring as u32);
        for (register, value) in [
            (STATUS, 0),
            (STATUS, 1),
            (STATUS, 3),
            (0x24, 0),
            (0x20, features),
            (0x24, 1),
            (0x20, 1),
            (STATUS, 0xb),
            (0x30, 0),
            (0x38, 1 << random.random_range(0..6)),
            (0x80, rings[0]),
            (0x90, rings[1]),
            (0xa0, rings[2]),
            (0x44, 1),
            (STATUS, 0xf),
        ] {
            put(self, random, register, value);
        }
        self.available = 0;
        self.memory.write_slice(&[0; 0x3000], GuestAddress(0x1000)).expect("memory");
    }

    /// A chain of descriptors, and a request at each address that they may have.
    fn offer(&mut self, random: &mut SmallRng) {
        let count = random.random_range(1..6);
        let first = random.random_range(0..16_u16);
        for at in 0..count {
            let odd = random.random_ratio(1, 30);
            let address =
                if odd { random.random() } else { random.random_range(0x4000..MEMORY - 0x1000) };
            let len = match random.random_range(0..20) {
                0 => random.random(),
                1..8 => 16,
                8..15 => 512,
                _ => random.random_range(0..2000),
            };
            let mut flags = if at + 1 < count { 1 } else { 0 };
            flags |= if at > 0 && random.random() { 2 } else { 0 };
            flags |= if random.random_ratio(1, 20) { 4 } else { 0 };
            let next = if odd { random.random() } else { first + at + 1 };
            let descriptor = [
                &u64::to_le_bytes(address)[..],
                &u32::to_le_bytes(len),
                &u16::to_le_bytes(flags),
                &next.to_le_bytes(),
            ];
            let place = RINGS[0] + 16 * u64::from((first + at) % 32);
            self.memory.write_slice(&descriptor.concat(), GuestAddress(place)).expect("memory");
            let kinds = [0, 1, 4, 8, 11, 13, number(random)];
            let kind = kinds[random.random_range(0..kinds.len())];
            let sector = if odd { random.random() } else { random.random_range(0..140_u64) };
            let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
            // It may lie outside.
            let _ = self.memory.write_slice(&header, GuestAddress(address));
        }
        let size = 1 << random.random_range(0..6);
        let slot = RINGS[1] + 4 + 2 * u64::from(self.available % size);
        self.memory.write_obj(first, GuestAddress(slot)).expect("memory");
        self.available = self.available.wrapping_add(1);
        let index = if random.random_ratio(1, 40) { random.random() } else { self.available };
        self.memory.write_obj(index, GuestAddress(RINGS[1] + 2)).expect("memory");
    }

    fn step(&mut self, random: &mut SmallRng) {
        match random.random_range(0..20) {
            0 => self.begin(random),
            1..12 => self.offer(random),
            12 => {
                let offset =
                    if random.random() { random.random() } else { random.random_range(0..0x1000) };
                let mut data = vec![0; random.random_range(0..20)];
                let _ = self.transport.write(offset, &data);
                self.transport.read(offset, &mut data);
            }
            13 => {
                let register = REGISTERS[random.random_range(0..REGISTERS.len())];
                set(self.transport, register, number(random));
            }
            _ => {}
        }
        let status = get(self.transport, STATUS);
        let active = self.transport.inspect(|_, active| active);
        assert_eq!(active, status & 0x44 == 4, "status {status:#x}");
        assert_eq!(get(self.transport, 0), u32::from_le_bytes(*b"virt"));
    }
}

fn memory() -> Memory {
    Memory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("there is memory")
}

struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        self.0 = self.0.wrapping_add(1);
        bytes.fill(self.0);
        !self.0.is_multiple_of(7)
    }
}

struct Ram(Vec<u8>);

impl Ram {
    /// Panics where a request gets beyond the disk.
    fn part(&mut self, offset: u64, len: u64) -> &mut [u8] {
        assert!(offset.is_multiple_of(512) && len.is_multiple_of(512), "{offset} {len}");
        &mut self.0[offset as usize..][..len as usize]
    }
}

impl Disk for Ram {
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.copy_from_slice(self.part(offset, bytes.len() as u64));
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.part(offset, bytes.len() as u64).copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.part(offset, len).fill(0xdd);
        Ok(())
    }
    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.part(offset, len).fill(0);
        Ok(())
    }
}

#[test]
fn no_driver_harms_the_entropy_device() {
    crate::run_half("virtio rng", |random| {
        let memory = memory();
        let transport = Transport::new(Rng::new(Counter(0)), memory.clone());
        let mut guest = Guest { transport: &transport, memory: &memory, available: 0 };
        guest.begin(random);
        for _ in 0..200 {
            guest.step(random);
            let served = transport.serve(|device, memory| device.notified(0, memory));
            assert!(!served.more || get(guest.transport, STATUS) & 0x40 == 0);
        }
    });
}

#[test]
fn no_driver_harms_the_block_device_or_gets_beyond_the_disk() {
    crate::run_half("virtio block", |random| {
        let memory = memory();
        let read_only = random.random_ratio(1, 4);
        let geometry = Geometry { bytes: DISK as u64, block: 512, read_only, id: [7; 20] };
        let transport = Transport::new(Block::new(geometry), memory.clone());
        let mut guest = Guest { transport: &transport, memory: &memory, available: 0 };
        let mut disk = Ram(vec![0x55; DISK]);
        let mut buffer = [0; 1024];
        guest.begin(random);
        for _ in 0..200 {
            guest.step(random);
            while let Some(turn) = serve::one(&transport, &mut disk, &mut buffer) {
                assert!(turn.failed.is_none());
            }
        }
        assert!(!read_only || disk.0.iter().all(|byte| *byte == 0x55));
    });
}
