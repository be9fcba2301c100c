//! Virtio devices with several queues and a host that acts by itself, against a driver that does anything:
//! mostly what a driver would, with rings, packets and lists that are almost right. The host's side writes
//! into guest memory whenever it is asked for something, as other vCPUs would meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;

use devices::virtio::balloon::{self, Balloon, GivesBack};
use devices::virtio::console::{self, Console, Terminal};
use devices::virtio::mmio::{Served, Transport};
use devices::virtio::net::{self, Net, Port, Received, Sent};
use devices::virtio::vsock::packet::HEADER;
use devices::virtio::vsock::{Got, Host, Interest, MOST_CONNECTIONS, Put, ROOM, Stream, Vsock};
use devices::virtio::{Memory, Model, Signal};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use vm_memory::{Bytes, GuestAddress};

use crate::registers::{STATUS, get, set};

const MEMORY: u64 = 0x4_0000;
const QUEUES: usize = 3;
/// Descriptors, available and used ring of each queue.
const RINGS: [[u64; 3]; QUEUES] =
    [[0x1000, 0x2000, 0x3000], [0x4000, 0x5000, 0x6000], [0x7000, 0x8000, 0x9000]];
const DATA: u64 = 0xa000;
const SIZE: u16 = 16;
const STEPS: usize = 200;

/// What a driver puts at the start of its buffers.
type Payload = fn(&mut SmallRng) -> Vec<u8>;

/// Another vCPU: overwrites something now and then. Each thread has the memory of its run.
struct Meddler {
    random: SmallRng,
    memory: Memory,
}

thread_local! {
    static MEDDLER: RefCell<Option<Meddler>> = const { RefCell::new(None) };
}

/// A number below `most`; on the way guest memory may change.
fn chance(most: u32) -> u32 {
    MEDDLER.with_borrow_mut(|meddler| {
        let Some(Meddler { random, memory }) = meddler else { return 0 };
        if random.random_ratio(1, 8) {
            let at = random.random_range(0..MEMORY - 8);
            let _ = memory.write_obj(random.random::<u64>(), GuestAddress(at));
        }
        random.random_range(0..most)
    })
}

struct Guest<D> {
    transport: Transport<D>,
    memory: Memory,
    available: [u16; QUEUES],
    payload: Payload,
}

impl<D: Model> Guest<D> {
    fn new(device: D, payload: Payload, random: &mut SmallRng) -> Self {
        let memory =
            Memory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).expect("there is memory");
        let meddler =
            Meddler { random: SmallRng::seed_from_u64(random.random()), memory: memory.clone() };
        MEDDLER.set(Some(meddler));
        let transport = Transport::new(device, memory.clone());
        Guest { transport, memory, available: [0; QUEUES], payload }
    }

    /// The handshake, seldom with a step that is wrong.
    fn begin(&mut self, random: &mut SmallRng) {
        let features = if random.random() { 1 << 29 | 1 << 28 | 0xf } else { 0xf };
        let offered = features & if random.random() { 0 } else { u32::MAX };
        let mut steps = vec![
            (STATUS, 0),
            (STATUS, 1),
            (STATUS, 3),
            (0x24, 0),
            (0x20, offered & (1 << 29 | 1 << 28 | 1 << 1)),
            (0x24, 1),
            (0x20, 1),
            (STATUS, 0xb),
        ];
        for (queue, [table, available, used]) in (0..).zip(RINGS) {
            steps.extend([
                (0x30, queue),
                (0x38, SIZE.into()),
                (0x80, table as u32),
                (0x90, available as u32),
                (0xa0, used as u32),
                (0x44, u32::from(!random.random_ratio(1, 20))),
            ]);
        }
        steps.push((STATUS, 0xf));
        for (register, value) in steps {
            let value = if random.random_ratio(1, 100) { random.random() } else { value };
            set(&self.transport, register, value);
        }
        self.available = [0; QUEUES];
        let end = GuestAddress(0x1000);
        self.memory.write_slice(&[0; 0x9000], end).expect("memory");
    }

    /// A chain of descriptors in one queue, and the payload where it begins.
    fn offer(&mut self, random: &mut SmallRng) {
        let queue = random.random_range(0..QUEUES);
        let [table, available, _] = RINGS[queue];
        let (count, first) = (random.random_range(1..4), random.random_range(0..SIZE));
        let writes = random.random_ratio(if queue == 0 { 9 } else { 1 }, 10);
        for at in 0..count {
            let odd = random.random_ratio(1, 100);
            let address =
                if odd { random.random() } else { random.random_range(DATA..MEMORY - 0x2000) };
            let len = match random.random_range(0..30) {
                0 if odd => random.random(),
                0..4 => random.random_range(0..80),
                4..8 => 44,
                8..14 => 0x1000,
                _ => random.random_range(0..0x2000),
            };
            let flags = u16::from(at + 1 < count) | if writes { 2 } else { 0 };
            let flags = if odd { random.random() } else { flags };
            let next = (first + at + 1) % SIZE;
            let descriptor = [
                &u64::to_le_bytes(address)[..],
                &u32::to_le_bytes(len),
                &u16::to_le_bytes(flags),
                &next.to_le_bytes(),
            ];
            let place = table + 16 * u64::from((first + at) % SIZE);
            self.memory.write_slice(&descriptor.concat(), GuestAddress(place)).expect("memory");
            if at == 0 {
                // It may lie outside.
                let _ = self.memory.write_slice(&(self.payload)(random), GuestAddress(address));
            }
        }
        let slot = available + 4 + 2 * u64::from(self.available[queue] % SIZE);
        self.memory.write_obj(first, GuestAddress(slot)).expect("memory");
        self.available[queue] = self.available[queue].wrapping_add(1);
        let odd = random.random_ratio(1, 200);
        let index = if odd { random.random() } else { self.available[queue] };
        self.memory.write_obj(index, GuestAddress(available + 2)).expect("memory");
    }

    fn step(&mut self, random: &mut SmallRng) {
        match random.random_range(0..60) {
            0 => self.begin(random),
            1 => {
                let offset =
                    if random.random() { random.random() } else { random.random_range(0..0x110) };
                let mut data = vec![random.random(); random.random_range(0..10)];
                let _ = self.transport.write(offset, &data);
                self.transport.read(offset, &mut data);
            }
            2..40 => self.offer(random),
            _ => {
                let queue = random.random_range(0..self.transport.queues());
                self.turns(queue);
            }
        }
        let status = get(&self.transport, STATUS);
        assert_eq!(self.transport.inspect(|_, active| active), status & 0x44 == 4, "{status:#x}");
        if random.random_ratio(1, 4) && status & 0x40 != 0 {
            self.begin(random);
        }
    }

    /// Serves a queue until there is no more to do, which must come to an end: the driver does nothing
    /// meanwhile, but what the meddler does.
    fn turns(&self, queue: usize) {
        for _ in 0..20_000 {
            if !self.act(|device, memory| device.notified(queue, memory)).more {
                return;
            }
        }
        panic!("queue {queue} has no end");
    }

    fn act(&self, with: impl FnOnce(&mut D, &Memory) -> Signal) -> Served {
        self.transport.serve(with)
    }
}

struct Cable;

impl Port for Cable {
    fn send(&mut self, frame: &[u8]) -> Sent {
        assert!((14..=net::MOST_FRAME).contains(&frame.len()));
        match chance(40) {
            0 => Sent::Later,
            1 if chance(20) == 0 => Sent::Gone,
            _ => Sent::Done,
        }
    }

    fn receive(&mut self, frame: &mut [u8]) -> Received {
        assert!(frame.len() >= net::MOST_FRAME);
        match chance(10) {
            0..4 => Received::Nothing,
            4 if chance(50) == 0 => Received::Gone,
            5 => Received::Frame(chance(100_000) as usize),
            _ => Received::Frame(chance(1514) as usize),
        }
    }
}

fn bytes(random: &mut SmallRng) -> Vec<u8> {
    (0..random.random_range(0..64)).map(|_| random.random()).collect()
}

#[test]
fn no_driver_harms_the_network_device() {
    crate::run_half("virtio net", |random| {
        let mut guest = Guest::new(Net::new(Cable, [2; 6]), bytes, random);
        guest.begin(random);
        for _ in 0..STEPS {
            guest.step(random);
            if guest.transport.inspect(|device, _| device.wants_frames()) {
                let _ = guest.act(Net::frames_came);
            }
            if guest.transport.inspect(|device, _| device.wants_room()) {
                let _ = guest.act(Net::room_came);
            }
        }
    });
}

struct Screen;

impl Terminal for Screen {
    fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= console::MOST_BYTES);
        let _ = chance(2);
    }

    fn read(&mut self, bytes: &mut [u8]) -> usize {
        chance(3) as usize * bytes.len() / 2
    }
}

#[test]
fn no_driver_harms_the_console() {
    crate::run_half("virtio console", |random| {
        let mut guest = Guest::new(Console::new(Screen), bytes, random);
        guest.begin(random);
        for _ in 0..STEPS {
            guest.step(random);
            let _ = guest.act(Console::input_came);
        }
    });
}

struct Pages;

impl GivesBack for Pages {
    fn give_back(&mut self, start: u64, count: u64) {
        assert!(start.is_multiple_of(balloon::PAGE) && count > 0);
        assert!(start / balloon::PAGE + count <= 1 << 32);
        let _ = chance(2);
    }
}

/// Mostly page numbers, some statistics.
fn list(random: &mut SmallRng) -> Vec<u8> {
    let page = random.random_range(0..100_u32);
    let near = |at: u32, random: &mut SmallRng| match random.random_range(0..10) {
        0 => random.random(),
        1 => u32::MAX,
        _ => page + at,
    };
    (0..40).flat_map(|at| near(at, random).to_le_bytes()).collect()
}

#[test]
fn no_driver_harms_the_balloon() {
    crate::run_half("virtio balloon", |random| {
        let mut guest = Guest::new(Balloon::new(Pages, 1 << 20), list, random);
        guest.begin(random);
        for _ in 0..STEPS {
            guest.step(random);
            if random.random_ratio(1, 10) {
                let _ = guest.act(Balloon::ask);
                let _ = guest.act(|device, _| device.set_target(u64::from(chance(u32::MAX)) << 12));
            }
        }
    });
}

/// Random bytes, room and ends.
struct Pipe;

impl Stream for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> Got {
        assert!(!bytes.is_empty());
        match chance(20) {
            0 => Got::End,
            1 => Got::Gone,
            2..6 => Got::Nothing,
            _ => Got::Bytes(1 + chance(bytes.len() as u32) as usize),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Put {
        assert!(!bytes.is_empty() && bytes.len() <= ROOM as usize);
        match chance(10) {
            0 if chance(10) == 0 => Put::Gone,
            0..5 => Put::Later,
            _ => Put::Bytes(chance(bytes.len() as u32 + 1) as usize),
        }
    }

    fn finish(&mut self) {}

    fn opened(&mut self, _host_port: u32) -> bool {
        chance(20) != 0
    }
}

/// What is watched, as an epoll would know it.
#[derive(Default)]
struct Watcher(HashMap<u16, Interest>);

impl Host for Watcher {
    type Stream = Pipe;

    fn connect(&mut self, _port: u32) -> Option<Pipe> {
        (chance(4) != 0).then_some(Pipe)
    }

    fn watch(&mut self, slot: u16, _stream: &Pipe, interest: Interest) {
        let before = match interest == Interest::default() {
            true => self.0.remove(&slot),
            false => self.0.insert(slot, interest),
        };
        assert_ne!(before.unwrap_or_default(), interest, "nothing has changed");
    }
}

const CID: u64 = 3;

/// A packet of few ports, mostly right.
fn packet(random: &mut SmallRng) -> Vec<u8> {
    let odd = |random: &mut SmallRng| random.random_ratio(1, 40);
    let operation = if odd(random) { random.random() } else { random.random_range(1..8_u16) };
    let len = if odd(random) { random.random() } else { random.random_range(0..200_u32) };
    let port = if random.random() { 1 << 30 } else { 80 } + random.random_range(0..4_u32);
    let room = if random.random() { random.random_range(0..0x2_0000) } else { random.random() };
    let taken = if random.random() { 0 } else { random.random_range(0..0x2000_u32) };
    let kind = if odd(random) { random.random() } else { 1_u16 };
    let header = [
        &CID.to_le_bytes()[..],
        &(if odd(random) { random.random() } else { 2_u64 }).to_le_bytes(),
        &random.random_range(0..4_u32).to_le_bytes(),
        &port.to_le_bytes(),
        &len.to_le_bytes(),
        &kind.to_le_bytes(),
        &operation.to_le_bytes(),
        &random.random_range(0..5_u32).to_le_bytes(),
        &u32::to_le_bytes(room),
        &taken.to_le_bytes(),
    ]
    .concat();
    assert_eq!(header.len(), HEADER);
    header
}

#[test]
fn no_driver_harms_the_socket_device() {
    crate::run_half("virtio vsock", |random| {
        let device = Vsock::new(Watcher::default(), CID);
        let mut guest = Guest::new(device, packet, random);
        guest.begin(random);
        for _ in 0..STEPS {
            guest.step(random);
            match random.random_range(0..8) {
                0 => {
                    let port = random.random_range(0..4);
                    let _ = guest.act(|device, memory| device.open(memory, Pipe, port));
                }
                1 => {
                    let found =
                        Interest { read: random.random(), write: random.random(), gone: false };
                    let found = Interest { gone: random.random_ratio(1, 10), ..found };
                    let slot = random.random_range(0..20);
                    let _ = guest.act(|device, memory| device.stream_ready(memory, slot, found));
                }
                _ => {}
            }
            guest.transport.inspect(|device, active| {
                assert!(device.connections() <= MOST_CONNECTIONS);
                assert!(device.host().0.len() <= device.connections());
                assert!(active || device.connections() == 0);
            });
        }
    });
}
