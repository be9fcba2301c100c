//! What becomes a message, and when.

use super::*;

#[test]
fn an_edge_is_one_message() {
    let mut io_apic = with(4, 0x40);
    set_high(&mut io_apic, 4, 0x0700_0000);
    io_apic.set_line(4, true);
    io_apic.set_line(4, true);
    let expected = Message {
        mode: Delivery::Fixed,
        vector: 0x40,
        target: Target::Physical { destination: 7, x2apic: false },
        level: false,
    };
    assert_eq!(io_apic.take_message(), Some(expected));
    assert_eq!(io_apic.take_message(), None);
    io_apic.set_line(4, false);
    assert_eq!(io_apic.take_message(), None);
    io_apic.set_line(4, true);
    assert_eq!(io_apic.take_message(), Some(expected));
}

#[test]
fn an_edge_stays_when_the_line_falls() {
    let mut io_apic = with(4, 0x40);
    io_apic.set_line(4, true);
    io_apic.set_line(4, false);
    assert_eq!(vectors(&mut io_apic), [0x40]);
}

#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let mut io_apic = with(4, MASK | 0x40);
    io_apic.set_line(4, true);
    set_low(&mut io_apic, 4, 0x40);
    assert_eq!(vectors(&mut io_apic), []);
    io_apic.set_line(4, false);
    io_apic.set_line(4, true);
    assert_eq!(vectors(&mut io_apic), [0x40]);
}

#[test]
fn masking_withdraws_an_edge() {
    let mut io_apic = with(4, 0x40);
    io_apic.set_line(4, true);
    set_low(&mut io_apic, 4, MASK | 0x40);
    set_low(&mut io_apic, 4, 0x40);
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn a_level_is_sent_once_until_its_interrupt_ends() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    let message = io_apic.take_message().unwrap();
    assert!(message.level);
    assert_eq!(message.vector, 0x60);
    assert_eq!(low(&mut io_apic, 10), LEVEL | REMOTE_IRR | 0x60);
    io_apic.set_line(10, false);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), []);
    io_apic.end_of_interrupt(0x60);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    io_apic.set_line(10, false);
    io_apic.end_of_interrupt(0x60);
    assert_eq!(vectors(&mut io_apic), []);
    assert_eq!(low(&mut io_apic, 10), LEVEL | 0x60);
}

#[test]
fn a_level_that_falls_before_it_is_taken_is_not_sent() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    io_apic.set_line(10, false);
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn a_level_under_a_mask_is_sent_when_unmasked() {
    let mut io_apic = with(10, MASK | LEVEL | 0x60);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), []);
    set_low(&mut io_apic, 10, LEVEL | 0x60);
    assert_eq!(vectors(&mut io_apic), [0x60]);
}

#[test]
fn masking_keeps_remote_irr_and_an_end_under_the_mask_clears_it() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    set_low(&mut io_apic, 10, MASK | LEVEL | 0x60);
    assert_eq!(low(&mut io_apic, 10), MASK | LEVEL | REMOTE_IRR | 0x60);
    io_apic.end_of_interrupt(0x60);
    assert_eq!(low(&mut io_apic, 10), MASK | LEVEL | 0x60);
    assert_eq!(vectors(&mut io_apic), []);
    set_low(&mut io_apic, 10, LEVEL | 0x60);
    assert_eq!(vectors(&mut io_apic), [0x60]);
}

#[test]
fn the_end_of_another_vector_changes_nothing() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    io_apic.end_of_interrupt(0x61);
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn one_end_serves_every_pin_that_shares_the_vector() {
    let mut io_apic = with(10, LEVEL | 0x60);
    set_low(&mut io_apic, 11, LEVEL | 0x60);
    io_apic.set_line(10, true);
    io_apic.set_line(11, true);
    assert_eq!(vectors(&mut io_apic), [0x60, 0x60]);
    io_apic.set_line(11, false);
    io_apic.end_of_interrupt(0x60);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    assert_eq!(low(&mut io_apic, 11), LEVEL | 0x60);
}

#[test]
fn the_eoi_register_ends_an_interrupt() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    io_apic.write(EOI, &0xffff_ff60_u32.to_le_bytes());
    assert_eq!(vectors(&mut io_apic), [0x60]);
}

/// Linux ends a level interrupt so on I/O APICs older than the EOI register, and when it disables one
/// for a crash kernel.
#[test]
fn edge_and_back_clears_remote_irr() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    set_low(&mut io_apic, 10, MASK | 0x60);
    set_low(&mut io_apic, 10, MASK | LEVEL | 0x60);
    assert_eq!(low(&mut io_apic, 10), MASK | LEVEL | 0x60);
    set_low(&mut io_apic, 10, LEVEL | 0x60);
    assert_eq!(vectors(&mut io_apic), [0x60]);
}

#[test]
fn an_asserted_line_is_no_edge_when_its_entry_becomes_edge_triggered() {
    let mut io_apic = with(10, LEVEL | 0x60);
    io_apic.set_line(10, true);
    set_low(&mut io_apic, 10, 0x60);
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn an_asserted_line_is_sent_when_its_entry_becomes_level_triggered() {
    let mut io_apic = with(10, 0x60);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    set_low(&mut io_apic, 10, LEVEL | 0x60);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn an_edge_does_not_survive_its_entry_becoming_level_triggered() {
    let mut io_apic = with(10, 0x60);
    io_apic.set_line(10, true);
    io_apic.set_line(10, false);
    set_low(&mut io_apic, 10, LEVEL | 0x60);
    assert_eq!(vectors(&mut io_apic), []);
    set_low(&mut io_apic, 10, 0x60);
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn polarity_has_no_effect() {
    let mut io_apic = with(10, LOW_POLARITY | 0x60);
    assert_eq!(vectors(&mut io_apic), []);
    io_apic.set_line(10, true);
    assert_eq!(vectors(&mut io_apic), [0x60]);
    set_low(&mut io_apic, 10, LOW_POLARITY | LEVEL | 0x61);
    assert_eq!(vectors(&mut io_apic), [0x61]);
}

#[test]
fn delivery_status_is_set_while_a_message_waits() {
    let mut io_apic = with(4, 0x40);
    set_low(&mut io_apic, 5, LEVEL | 0x50);
    io_apic.set_line(4, true);
    io_apic.set_line(5, true);
    assert_eq!(low(&mut io_apic, 4), DELIVERY_STATUS | 0x40);
    assert_eq!(low(&mut io_apic, 5), DELIVERY_STATUS | LEVEL | 0x50);
    assert_eq!(vectors(&mut io_apic), [0x40, 0x50]);
    assert_eq!(low(&mut io_apic, 4), 0x40);
    assert_eq!(low(&mut io_apic, 5), REMOTE_IRR | LEVEL | 0x50);
}

#[test]
fn messages_come_in_the_order_of_the_pins() {
    let mut io_apic = IoApic::new(0);
    for pin in 0..PINS {
        set_low(&mut io_apic, pin, 0x80 + u32::from(pin));
    }
    for pin in (0..PINS).rev() {
        io_apic.set_line(pin, true);
    }
    assert_eq!(vectors(&mut io_apic), (0x80..0x98).collect::<Vec<u8>>());
}

#[test]
fn every_delivery_mode_is_decoded_and_reserved_ones_send_nothing() {
    let expected = [
        Some(Delivery::Fixed),
        Some(Delivery::LowestPriority),
        Some(Delivery::Smi),
        None,
        Some(Delivery::Nmi),
        Some(Delivery::Init),
        None,
        Some(Delivery::ExtInt),
    ];
    for (bits, expected) in (0..).zip(expected) {
        for trigger in [0, LEVEL] {
            let mut io_apic = with(4, bits << 8 | trigger | 0x40);
            assert_eq!(io_apic.edge_matters(4), expected.is_some());
            io_apic.set_line(4, true);
            let message = io_apic.take_message();
            assert_eq!(message.map(|message| message.mode), expected);
            let level = trigger == LEVEL && bits < 2;
            assert_eq!(message.is_some_and(|message| message.level), level);
            assert_eq!(low(&mut io_apic, 4) & REMOTE_IRR != 0, level);
            assert_eq!(io_apic.take_message(), None);
        }
    }
}

#[test]
fn a_destination_is_an_id_or_a_logical_address_of_eight_bits() {
    let mut io_apic = with(4, LOGICAL | 0x140);
    set_high(&mut io_apic, 4, 0xffff_ffff);
    io_apic.set_line(4, true);
    let message = io_apic.take_message().unwrap();
    assert_eq!(message.mode, Delivery::LowestPriority);
    assert_eq!(message.target, Target::Logical { destination: 0xff, x2apic: false });
}

#[test]
fn illegal_vectors_are_sent_for_the_receiver_to_note() {
    let mut io_apic = with(4, 0x0f);
    io_apic.set_line(4, true);
    assert_eq!(vectors(&mut io_apic), [0x0f]);
}

#[test]
fn lines_of_pins_that_do_not_exist_are_ignored() {
    let mut io_apic = with(0, 0x40);
    for pin in [PINS, 32, 64, u8::MAX] {
        io_apic.set_line(pin, true);
        io_apic.set_line(pin, false);
        assert!(!io_apic.edge_matters(pin));
    }
    assert_eq!(vectors(&mut io_apic), []);
}

#[test]
fn an_edge_matters_to_an_entry_that_is_neither_masked_nor_in_service() {
    let mut io_apic = IoApic::new(0);
    assert!(!io_apic.edge_matters(2));
    set_low(&mut io_apic, 2, 0x30);
    assert!(io_apic.edge_matters(2));
    io_apic.set_line(2, true);
    assert_eq!(vectors(&mut io_apic), [0x30]);
    assert!(io_apic.edge_matters(2), "of an edge, no end is awaited");
    set_low(&mut io_apic, 2, LEVEL | 0x30);
    assert_eq!(vectors(&mut io_apic), [0x30]);
    assert!(!io_apic.edge_matters(2));
    io_apic.end_of_interrupt(0x30);
    assert!(io_apic.edge_matters(2));
}
