//! What the guest reads and writes.

use super::*;

#[test]
fn every_entry_is_masked_after_reset() {
    let mut io_apic = IoApic::new(0);
    for pin in 0..PINS {
        assert_eq!(low(&mut io_apic, pin), MASK);
        assert_eq!(register(&mut io_apic, 0x11 + 2 * pin), 0);
    }
}

#[test]
fn version_says_0x20_and_24_entries_and_is_read_only() {
    let mut io_apic = IoApic::new(0);
    set_register(&mut io_apic, 1, 0);
    assert_eq!(register(&mut io_apic, 1), 0x0017_0020);
}

#[test]
fn id_has_four_bits_and_the_arbitration_register_shows_it() {
    let mut io_apic = IoApic::new(0x13);
    assert_eq!(register(&mut io_apic, 0), 0x0300_0000);
    set_register(&mut io_apic, 0, 0xf5ff_ffff);
    assert_eq!(register(&mut io_apic, 0), 0x0500_0000);
    set_register(&mut io_apic, 2, 0x0900_0000);
    assert_eq!(register(&mut io_apic, 0), 0x0500_0000);
    assert_eq!(register(&mut io_apic, 2), 0x0500_0000);
}

#[test]
fn read_only_and_reserved_bits_of_an_entry_are_dropped() {
    let mut io_apic = IoApic::new(0);
    set_low(&mut io_apic, 5, u32::MAX);
    set_high(&mut io_apic, 5, u32::MAX);
    assert_eq!(low(&mut io_apic, 5), 0x0001_afff);
    assert_eq!(register(&mut io_apic, 0x1b), 0xff00_0000);
    set_low(&mut io_apic, 5, 0);
    assert_eq!(low(&mut io_apic, 5), 0);
    assert_eq!(register(&mut io_apic, 0x1b), 0xff00_0000);
}

#[test]
fn entries_do_not_overlap() {
    let mut io_apic = IoApic::new(0);
    for pin in 0..PINS {
        set_low(&mut io_apic, pin, u32::from(pin) | MASK);
        set_high(&mut io_apic, pin, u32::from(pin) << 24);
    }
    for pin in 0..PINS {
        assert_eq!(low(&mut io_apic, pin), u32::from(pin) | MASK);
        assert_eq!(register(&mut io_apic, 0x11 + 2 * pin), u32::from(pin) << 24);
    }
}

#[test]
fn indices_without_a_register_read_as_zero_and_take_nothing() {
    let mut io_apic = IoApic::new(7);
    for index in (0x03..0x10).chain(0x40..=0xff) {
        set_register(&mut io_apic, index, u32::MAX);
        assert_eq!(register(&mut io_apic, index), 0);
    }
    assert_eq!(register(&mut io_apic, 0), 0x0700_0000);
    for pin in 0..PINS {
        assert_eq!(low(&mut io_apic, pin), MASK);
    }
}

#[test]
fn index_reads_back_and_has_eight_bits() {
    let mut io_apic = IoApic::new(0);
    io_apic.write(IOREGSEL, &0xffff_ff12_u32.to_le_bytes());
    assert_eq!(read_word(&mut io_apic, IOREGSEL), 0x12);
}

#[test]
fn narrow_reads_give_the_low_bytes() {
    let mut io_apic = IoApic::new(0);
    set_high(&mut io_apic, 0, 0x1200_0000);
    set_low(&mut io_apic, 0, MASK | 0xabcd & 0xafff);
    io_apic.write(IOREGSEL, &[0x10]);
    let mut data = [0; 1];
    io_apic.read(IOWIN, &mut data);
    assert_eq!(data, [0xcd]);
    let mut data = [0; 2];
    io_apic.read(IOWIN, &mut data);
    assert_eq!(data, [0xcd, 0xab]);
}

#[test]
fn narrow_writes_are_extended_with_zeros() {
    let mut io_apic = with(0, MASK | LEVEL | 0x30);
    io_apic.write(IOWIN, &[0x31]);
    assert_eq!(low(&mut io_apic, 0), 0x31);
    io_apic.write(IOWIN, &[0x32, 0xa0]);
    assert_eq!(low(&mut io_apic, 0), LEVEL | LOW_POLARITY | 0x32);
}

#[test]
fn of_eight_bytes_the_low_half_counts() {
    let mut io_apic = IoApic::new(0);
    io_apic.write(IOREGSEL, &0x1234_5678_0000_0010_u64.to_le_bytes());
    io_apic.write(IOWIN, &0xffff_ffff_0001_0045_u64.to_le_bytes());
    let mut data = [0xaa; 8];
    io_apic.read(IOWIN, &mut data);
    assert_eq!(data, [0x45, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn accesses_beside_a_register_read_as_zero_and_are_ignored() {
    let mut io_apic = with(0, MASK | 0x30);
    for offset in [1, 2, 4, 8, 0xf, 0x11, 0x14, 0x20, 0x41, 0x100, 0x110, 0xfff, u64::MAX] {
        io_apic.write(offset, &[0xff; 4]);
        assert_eq!(read_word(&mut io_apic, offset), 0, "{offset:#x}");
    }
    assert_eq!(read_word(&mut io_apic, EOI), 0);
    assert_eq!(read_word(&mut io_apic, IOREGSEL), 0x10);
    assert_eq!(read_word(&mut io_apic, IOWIN), MASK | 0x30);
}

#[test]
fn an_access_of_no_bytes_does_nothing() {
    let mut io_apic = with(0, MASK | 0x30);
    io_apic.write(IOREGSEL, &[]);
    io_apic.write(IOWIN, &[]);
    io_apic.read(IOWIN, &mut []);
    assert_eq!(read_word(&mut io_apic, IOREGSEL), 0x10);
    assert_eq!(read_word(&mut io_apic, IOWIN), MASK | 0x30);
}

#[test]
fn reset_restores_everything_but_the_lines() {
    let mut io_apic = IoApic::new(3);
    set_register(&mut io_apic, 0, 0x0900_0000);
    set_low(&mut io_apic, 4, 0x40);
    set_low(&mut io_apic, 5, LEVEL | 0x50);
    io_apic.set_line(4, true);
    io_apic.set_line(5, true);
    io_apic.reset();
    assert_eq!(read_word(&mut io_apic, IOREGSEL), 0);
    assert_eq!(register(&mut io_apic, 0), 0x0300_0000);
    for pin in 0..PINS {
        assert_eq!(low(&mut io_apic, pin), MASK);
    }
    set_low(&mut io_apic, 4, 0x40);
    set_low(&mut io_apic, 5, LEVEL | 0x50);
    assert_eq!(vectors(&mut io_apic), [0x50], "an edge is gone, a level is still there");
}
