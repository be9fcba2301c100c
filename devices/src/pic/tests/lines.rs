//! Edges, levels, the wire between the chips.

use super::*;

#[test]
fn an_edge_is_served_once() {
    let mut pic = initialised();
    pic.set_line(1, true);
    pic.set_line(1, true);
    assert_eq!(irr(&mut pic, FIRST), 2);
    assert_eq!(pic.acknowledge(), 0x31);
    assert_eq!(irr(&mut pic, FIRST), 0);
    pic.write(FIRST, EOI);
    pic.set_line(1, true);
    assert!(!pic.intr());
    pic.set_line(1, false);
    pic.set_line(1, true);
    assert!(pic.intr());
}

#[test]
fn an_edge_while_in_service_waits_for_the_end() {
    let mut pic = initialised();
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x31);
    pulse(&mut pic, 1);
    assert!(!pic.intr());
    assert_eq!(irr(&mut pic, FIRST), 2);
    pic.write(FIRST, EOI);
    assert_eq!(served(&mut pic), [0x31]);
}

#[test]
fn an_edge_withdrawn_before_its_acknowledgement_is_a_spurious_irq_7() {
    let mut pic = initialised();
    pic.set_line(1, true);
    pic.set_line(1, false);
    assert!(!pic.intr());
    assert_eq!(pic.acknowledge(), 0x37);
    assert_eq!(isr(&mut pic, FIRST), 0);
}

#[test]
fn what_the_second_chip_withdraws_is_a_spurious_irq_7_too() {
    let mut pic = initialised();
    pic.set_line(12, true);
    assert!(pic.intr());
    pic.set_line(12, false);
    assert_eq!(pic.acknowledge(), 0x37);
    assert_eq!((isr(&mut pic, FIRST), isr(&mut pic, SECOND)), (0, 0));
}

/// The second INTA cycle alone, which [`PicPair`] never gives to a chip without a request.
#[test]
fn a_second_chip_that_has_nothing_left_shows_irq_15() {
    let mut chip = Chip::new(0, 0);
    for (second, value) in [(false, 0x11), (true, 0x38), (true, 2), (true, 1)] {
        chip.write(second, value);
    }
    let acknowledged = chip.acknowledge();
    assert_eq!(acknowledged, None);
    assert_eq!(chip.vector(acknowledged), 0x3f);
    chip.write(false, READ_ISR);
    assert_eq!(chip.read(false), 0);
}

#[test]
fn a_real_irq_7_is_in_service() {
    let mut pic = initialised();
    pic.set_line(7, true);
    assert_eq!(pic.acknowledge(), 0x37);
    assert_eq!(isr(&mut pic, FIRST), 0x80);
}

#[test]
fn a_level_asks_again_until_it_falls() {
    let mut pic = initialised();
    pic.write(FIRST_ELCR, 0x20);
    pic.set_line(5, true);
    assert_eq!(served(&mut pic), [0x35]);
    assert_eq!(irr(&mut pic, FIRST), 0x20);
    pic.write(FIRST, EOI);
    assert_eq!(served(&mut pic), [0x35]);
    pic.set_line(5, false);
    assert_eq!(irr(&mut pic, FIRST), 0);
    pic.write(FIRST, EOI);
    assert!(!pic.intr());
}

#[test]
fn elcr_leaves_out_the_lines_that_are_always_edges() {
    let mut pic = initialised();
    pic.write(FIRST_ELCR, 0xff);
    pic.write(SECOND_ELCR, 0xff);
    assert_eq!((pic.read(FIRST_ELCR), pic.read(SECOND_ELCR)), (0xf8, 0xde));
    for irq in [0, 1, 8, 13] {
        let port = if irq < 8 { FIRST } else { SECOND };
        let bit = 1 << (irq % 8);
        pic.set_line(irq, true);
        assert_eq!(irr(&mut pic, port) & bit, bit);
        let _ = pic.acknowledge();
        assert_eq!(irr(&mut pic, port) & bit, 0, "IRQ {irq}");
        pic.write(SECOND, EOI);
        pic.write(FIRST, EOI);
    }
}

#[test]
fn a_line_that_turns_from_level_to_edge_while_high_needs_an_edge() {
    let mut pic = initialised();
    pic.write(FIRST_ELCR, 0x20);
    pic.set_line(5, true);
    pic.write(FIRST_ELCR, 0);
    assert!(!pic.intr());
    pic.write(FIRST_ELCR, 0x20);
    assert!(pic.intr());
}

#[test]
fn ltim_makes_every_line_a_level() {
    let mut pic = initialised();
    pic.write(FIRST, 0x19);
    for value in [0x30, 0x04, 0x01] {
        pic.write(FIRST_DATA, value);
    }
    pic.set_line(0, true);
    assert_eq!(served(&mut pic), [0x30]);
    pic.write(FIRST, EOI);
    assert_eq!(served(&mut pic), [0x30]);
    assert_eq!(pic.read(FIRST_ELCR), 0);
}

#[test]
fn the_second_chip_asks_through_input_2() {
    let mut pic = initialised();
    pic.set_line(12, true);
    assert_eq!((irr(&mut pic, FIRST), irr(&mut pic, SECOND)), (0b100, 0x10));
    assert_eq!(pic.acknowledge(), 0x3c);
    assert_eq!((irr(&mut pic, FIRST), irr(&mut pic, SECOND)), (0, 0));
    assert_eq!((isr(&mut pic, FIRST), isr(&mut pic, SECOND)), (0b100, 0x10));
}

#[test]
fn a_second_request_of_the_second_chip_is_not_lost() {
    let mut pic = initialised();
    pic.set_line(12, true);
    pic.set_line(14, true);
    assert_eq!(served(&mut pic), [0x3c]);
    // In the order of the datasheet, and the other way round.
    for ports in [[SECOND, FIRST], [FIRST, SECOND]] {
        pic.write(ports[0], EOI);
        pic.write(ports[1], EOI);
        assert_eq!(served(&mut pic), [0x3e]);
        pulse(&mut pic, 14);
    }
}

#[test]
fn line_2_and_lines_beyond_15_are_ignored() {
    let mut pic = initialised();
    for irq in [2, 16, 17, 32, u8::MAX] {
        pic.set_line(irq, true);
        assert!(!pic.intr());
        assert!(!pic.edge_matters(irq));
    }
    pic.set_line(12, true);
    pic.set_line(2, false);
    assert!(pic.intr());
}

#[test]
fn the_mask_hides_a_request_and_keeps_it() {
    let mut pic = initialised();
    pic.write(FIRST_DATA, 0x02);
    pic.set_line(1, true);
    assert!(!pic.intr());
    assert_eq!(irr(&mut pic, FIRST), 2);
    pic.write(FIRST_DATA, 0);
    assert_eq!(served(&mut pic), [0x31]);
}

#[test]
fn masking_input_2_hides_the_second_chip() {
    let mut pic = initialised();
    pic.set_line(12, true);
    pic.write(FIRST_DATA, 0x04);
    assert!(!pic.intr());
    pic.write(FIRST_DATA, 0);
    assert_eq!(served(&mut pic), [0x3c]);
}

#[test]
fn an_edge_matters_if_it_is_new_and_not_masked_on_the_way() {
    let mut pic = initialised();
    assert!(pic.edge_matters(0) && pic.edge_matters(8));
    pic.write(FIRST_DATA, 0x01);
    assert!(!pic.edge_matters(0) && pic.edge_matters(8));
    pic.write(FIRST_DATA, 0x04);
    assert!(pic.edge_matters(0) && !pic.edge_matters(8));
    pic.write(FIRST_DATA, 0);
    pic.write(SECOND_DATA, 0x01);
    assert!(!pic.edge_matters(8));
    pic.write(SECOND_DATA, 0);
    pic.set_line(0, true);
    pic.set_line(8, true);
    assert!(!pic.edge_matters(0) && !pic.edge_matters(8));
    assert_eq!(served(&mut pic), [0x30]);
    assert!(pic.edge_matters(0), "in service, another edge would be kept");
}
