//! Automatic EOI, special masks, special fully nested mode, poll, reading.

use super::*;

#[test]
fn an_automatic_eoi_leaves_nothing_in_service() {
    let mut pic = in_modes(AEOI, 0);
    pic.set_line(3, true);
    pic.set_line(4, true);
    assert_eq!(served(&mut pic), [0x33, 0x34]);
    assert_eq!(isr(&mut pic, FIRST), 0);
}

#[test]
fn automatic_eois_of_the_second_chip_serve_all_its_requests() {
    let mut pic = in_modes(AEOI, AEOI);
    pic.set_line(12, true);
    pic.set_line(14, true);
    assert_eq!(served(&mut pic), [0x3c, 0x3e]);
}

#[test]
fn rotation_in_automatic_eoi_mode_is_switched_on_and_off() {
    let mut pic = in_modes(AEOI, 0);
    pic.write(FIRST, 0x80);
    pic.set_line(3, true);
    pic.set_line(5, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pulse(&mut pic, 3);
    assert_eq!(served(&mut pic), [0x35, 0x33]);
    pic.write(FIRST, 0x00);
    pulse(&mut pic, 4);
    assert_eq!(pic.acknowledge(), 0x34);
    pulse(&mut pic, 4);
    pulse(&mut pic, 5);
    assert_eq!(served(&mut pic), [0x34, 0x35], "IR3 is still the lowest");
}

#[test]
fn rotation_in_automatic_eoi_mode_does_not_touch_other_modes() {
    let mut pic = initialised();
    pic.write(FIRST, 0x80);
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pic.write(FIRST, EOI);
    pulse(&mut pic, 3);
    pulse(&mut pic, 4);
    assert_eq!(pic.acknowledge(), 0x33);
}

#[test]
fn special_mask_mode_lets_lower_priorities_through_a_masked_service() {
    let mut pic = initialised();
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pic.set_line(5, true);
    pic.write(FIRST_DATA, 0x08);
    assert!(!pic.intr());
    pic.write(FIRST, 0x68);
    assert!(pic.intr());
    pic.write(FIRST, READ_ISR);
    assert!(pic.intr(), "OCW3 without ESMM leaves the mode");
    pic.write(FIRST, 0x48);
    assert!(!pic.intr());
    pic.write(FIRST, 0x28);
    assert!(!pic.intr(), "SMM alone is none");
    pic.write(FIRST, 0x68);
    assert_eq!(served(&mut pic), [0x35]);
}

#[test]
fn in_special_mask_mode_an_unmasked_service_still_blocks() {
    let mut pic = initialised();
    pic.write(FIRST, 0x68);
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pic.set_line(5, true);
    assert!(!pic.intr());
}

#[test]
fn in_special_mask_mode_a_non_specific_eoi_passes_over_masked_services() {
    let mut pic = initialised();
    for irq in [5, 3] {
        pic.set_line(irq, true);
        let _ = pic.acknowledge();
    }
    pic.write(FIRST, 0x68);
    pic.write(FIRST_DATA, 0x08);
    pic.write(FIRST, EOI);
    assert_eq!(isr(&mut pic, FIRST), 0x08);
    pic.write(FIRST, EOI);
    assert_eq!(isr(&mut pic, FIRST), 0x08);
    pic.write(FIRST, 0x63);
    assert_eq!(isr(&mut pic, FIRST), 0);
}

#[test]
fn in_special_fully_nested_mode_the_second_chip_nests_in_itself() {
    let mut pic = in_modes(SFNM, 0);
    pic.set_line(12, true);
    assert_eq!(served(&mut pic), [0x3c]);
    pic.set_line(3, true);
    pic.set_line(14, true);
    assert!(!pic.intr(), "lower priorities wait, on either chip");
    pic.set_line(9, true);
    assert_eq!(served(&mut pic), [0x39]);
    assert_eq!(isr(&mut pic, SECOND), 0x12);
    pic.set_line(1, true);
    assert_eq!(served(&mut pic), [0x31]);
    pic.set_line(8, true);
    assert!(!pic.intr(), "what is above the second chip still blocks it");
}

#[test]
fn in_fully_nested_mode_the_second_chip_waits_for_its_own_service() {
    let mut pic = initialised();
    pic.set_line(12, true);
    assert_eq!(served(&mut pic), [0x3c]);
    pic.set_line(9, true);
    assert!(!pic.intr());
}

#[test]
fn special_fully_nested_mode_of_the_second_chip_does_nothing() {
    let mut pic = in_modes(0, SFNM);
    pic.write(SECOND_ELCR, 0x04);
    pic.set_line(10, true);
    assert_eq!(served(&mut pic), [0x3a]);
    pic.write(FIRST, EOI);
    assert!(!pic.intr());
}

#[test]
fn a_poll_puts_the_request_in_service() {
    let mut pic = initialised();
    pic.set_line(3, true);
    pic.set_line(5, true);
    pic.write(FIRST, POLL);
    assert_eq!(pic.read(FIRST), 0x83);
    assert!(!pic.intr());
    assert_eq!(isr(&mut pic, FIRST), 0x08);
    assert_eq!(irr(&mut pic, FIRST), 0x20);
}

#[test]
fn a_poll_is_the_next_read_of_either_address_and_one_only() {
    let mut pic = initialised();
    pic.write(FIRST_DATA, 0x40);
    pic.set_line(3, true);
    pic.write(FIRST, POLL);
    assert_eq!(pic.read(SECOND_DATA), 0, "not of the other chip");
    assert_eq!(pic.read(FIRST_DATA), 0x83);
    assert_eq!(pic.read(FIRST_DATA), 0x40);
}

#[test]
fn a_poll_without_a_request_says_so() {
    let mut pic = initialised();
    pic.write(FIRST, POLL);
    assert_eq!(pic.read(FIRST), 0x07);
    assert_eq!(isr(&mut pic, FIRST), 0);
}

#[test]
fn a_poll_is_taken_back_by_another_ocw3() {
    let mut pic = initialised();
    pic.set_line(3, true);
    pic.write(FIRST, POLL);
    assert_eq!(irr(&mut pic, FIRST), 0x08);
}

#[test]
fn the_chips_are_polled_one_after_the_other() {
    let mut pic = initialised();
    pic.set_line(12, true);
    pic.write(FIRST, POLL);
    assert_eq!(pic.read(FIRST), 0x82);
    pic.write(SECOND, POLL);
    assert_eq!(pic.read(SECOND), 0x84);
    pic.write(SECOND, EOI);
    pic.write(FIRST, EOI);
    assert!(!pic.intr());
}

#[test]
fn the_register_to_read_is_remembered() {
    let mut pic = initialised();
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pic.set_line(4, true);
    assert_eq!(pic.read(FIRST), 0x10);
    pic.write(FIRST, READ_ISR);
    pic.write(FIRST, 0x08);
    assert_eq!(pic.read(FIRST), 0x08);
    assert_eq!(pic.read(FIRST), 0x08);
    pic.write(FIRST, READ_IRR);
    assert_eq!(pic.read(FIRST), 0x10);
}
