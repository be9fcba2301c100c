mod delivery;
mod properties;
mod registers;

use super::*;

const MASK: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const LOW_POLARITY: u32 = 1 << 13;
const DELIVERY_STATUS: u32 = 1 << 12;
const LOGICAL: u32 = 1 << 11;

fn read_word(io_apic: &mut IoApic, offset: u64) -> u32 {
    let mut data = [0xaa; 4];
    io_apic.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn register(io_apic: &mut IoApic, index: u8) -> u32 {
    io_apic.write(IOREGSEL, &u32::from(index).to_le_bytes());
    read_word(io_apic, IOWIN)
}

fn set_register(io_apic: &mut IoApic, index: u8, value: u32) {
    io_apic.write(IOREGSEL, &u32::from(index).to_le_bytes());
    io_apic.write(IOWIN, &value.to_le_bytes());
}

fn low(io_apic: &mut IoApic, pin: u8) -> u32 {
    register(io_apic, 0x10 + 2 * pin)
}

fn set_low(io_apic: &mut IoApic, pin: u8, value: u32) {
    set_register(io_apic, 0x10 + 2 * pin, value);
}

fn set_high(io_apic: &mut IoApic, pin: u8, value: u32) {
    set_register(io_apic, 0x11 + 2 * pin, value);
}

/// With this low half in the entry of one pin.
fn with(pin: u8, value: u32) -> IoApic {
    let mut io_apic = IoApic::new(0);
    set_low(&mut io_apic, pin, value);
    io_apic
}

fn vectors(io_apic: &mut IoApic) -> Vec<u8> {
    let messages = std::iter::from_fn(|| io_apic.take_message()).map(|message| message.vector);
    // Bounded, so that a model that repeats itself fails rather than fills the memory.
    messages.take(usize::from(PINS) + 1).collect()
}
