//! The I/O APIC, with a guest that writes anything and lines that do anything.

use devices::ioapic::{IoApic, PINS};
use rand::Rng;
use rand::rngs::SmallRng;

const OFFSETS: [u64; 4] = [0x00, 0x10, 0x10, 0x40];
const REMOTE_IRR: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;

fn offset(random: &mut SmallRng) -> u64 {
    match random.random_range(0..10) {
        0 => random.random(),
        1 => random.random_range(0..0x1000),
        _ => OFFSETS[random.random_range(0..OFFSETS.len())],
    }
}

fn bytes(random: &mut SmallRng) -> Vec<u8> {
    let value: u64 = match random.random_range(0..3) {
        0 => random.random(),
        1 => random.random_range(0..0x50),
        // An entry that is open more often than not.
        _ => random.random_range(0x20..0x28) | random.random_range(0..8) << 13,
    };
    let length = match random.random_range(0..10) {
        0 => random.random_range(0..12),
        _ => 4,
    };
    value.to_le_bytes().into_iter().chain([0xff; 4]).take(length).collect()
}

/// The low half of a pin's entry, IOREGSEL left as it was.
fn low(io_apic: &mut IoApic, pin: u8) -> u32 {
    let mut index = [0; 1];
    io_apic.read(0x00, &mut index);
    io_apic.write(0x00, &[0x10 + 2 * pin]);
    let mut data = [0; 4];
    io_apic.read(0x10, &mut data);
    io_apic.write(0x00, &index);
    u32::from_le_bytes(data)
}

fn take_all(io_apic: &mut IoApic) {
    for _ in 0..PINS {
        let Some(message) = io_apic.take_message() else {
            return;
        };
        if message.level {
            let served = |pin| {
                let entry = low(io_apic, pin);
                entry & REMOTE_IRR != 0 && entry as u8 == message.vector
            };
            assert!((0..PINS).any(served), "{message:?} leaves no trace");
        }
    }
    assert_eq!(io_apic.take_message(), None, "more messages than pins");
}

fn once(random: &mut SmallRng) {
    let mut io_apic = IoApic::new(random.random());
    for _ in 0..random.random_range(0..400) {
        match random.random_range(0..20) {
            0..8 => io_apic.write(offset(random), &bytes(random)),
            8..10 => {
                let mut data = vec![0xaa; random.random_range(0..12)];
                io_apic.read(offset(random), &mut data);
                assert!(data.iter().skip(4).all(|byte| *byte == 0), "more than 32 bits");
            }
            10..15 => io_apic.set_line(random.random_range(0..PINS), random.random()),
            15 => io_apic.set_line(random.random(), random.random()),
            16..18 => io_apic.end_of_interrupt(random.random_range(0x20..0x28)),
            18 => take_all(&mut io_apic),
            _ if random.random_range(0..20) == 0 => io_apic.reset(),
            _ => io_apic.end_of_interrupt(random.random()),
        }
        for pin in 0..PINS {
            let entry = low(&mut io_apic, pin);
            assert_eq!(entry & 0xfffe_0000, 0, "pin {pin}: reserved bits");
            let level = entry & LEVEL != 0 && entry >> 8 & 7 < 2;
            assert!(level || entry & REMOTE_IRR == 0, "pin {pin}: {entry:#x}");
        }
    }
    take_all(&mut io_apic);
    io_apic.reset();
    assert_eq!(io_apic.take_message(), None);
    assert!((0..=u8::MAX).all(|pin| !io_apic.edge_matters(pin)));
}

#[test]
fn io_apic_keeps_its_invariants() {
    crate::run("io_apic", once);
}
