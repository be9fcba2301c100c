//! Priorities, EOI, rotation.

use super::*;

#[test]
fn the_lowest_number_is_first_and_the_second_chip_is_between_1_and_3() {
    let mut pic = initialised();
    for irq in (0..16).rev() {
        pic.set_line(irq, true);
    }
    let mut order = Vec::new();
    while pic.intr() {
        let vector = pic.acknowledge();
        order.push(vector - 0x30);
        if vector >= 0x38 {
            pic.write(SECOND, EOI);
        }
        pic.write(FIRST, EOI);
    }
    assert_eq!(order, [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7]);
}

#[test]
fn only_higher_priorities_interrupt_what_is_in_service() {
    let mut pic = initialised();
    pic.set_line(4, true);
    assert_eq!(served(&mut pic), [0x34]);
    pic.set_line(5, true);
    assert!(!pic.intr());
    pic.set_line(3, true);
    assert_eq!(served(&mut pic), [0x33]);
    assert_eq!(isr(&mut pic, FIRST), 0x18);
    pic.write(FIRST, EOI);
    assert_eq!(isr(&mut pic, FIRST), 0x10);
    assert!(!pic.intr());
    pic.write(FIRST, EOI);
    assert_eq!(served(&mut pic), [0x35]);
}

#[test]
fn a_specific_eoi_ends_what_it_names() {
    let mut pic = initialised();
    for irq in [4, 3] {
        pic.set_line(irq, true);
        let _ = pic.acknowledge();
    }
    pic.write(FIRST, 0x64);
    assert_eq!(isr(&mut pic, FIRST), 0x08);
    pic.write(FIRST, 0x65);
    assert_eq!(isr(&mut pic, FIRST), 0x08);
}

#[test]
fn an_eoi_without_anything_in_service_changes_nothing() {
    let mut pic = initialised();
    for command in [0x20, 0xa0, 0x63] {
        pic.write(FIRST, command);
    }
    pic.set_line(0, true);
    pic.set_line(7, true);
    assert_eq!(served(&mut pic), [0x30]);
}

/// Two lines asked at once: which is first?
fn first_of(pic: &mut PicPair, one: u8, other: u8) -> u8 {
    pulse(pic, one);
    pulse(pic, other);
    let vector = pic.acknowledge();
    pic.set_line(one, false);
    pic.set_line(other, false);
    pic.write(FIRST, 0x60 | vector & 7);
    vector & 7
}

#[test]
fn set_priority_names_the_lowest() {
    let mut pic = initialised();
    pic.write(FIRST, 0xc4);
    assert_eq!(first_of(&mut pic, 4, 3), 3);
    assert_eq!(first_of(&mut pic, 5, 3), 5);
    assert_eq!(first_of(&mut pic, 0, 7), 7);
}

#[test]
fn nesting_follows_the_rotated_order() {
    let mut pic = initialised();
    pic.write(FIRST, 0xc4);
    pic.set_line(0, true);
    assert_eq!(served(&mut pic), [0x30]);
    pic.set_line(1, true);
    assert!(!pic.intr());
    pic.set_line(6, true);
    assert_eq!(served(&mut pic), [0x36]);
    // The non-specific EOI ends the one of the highest priority: IR6, not IR0.
    pic.write(FIRST, EOI);
    assert_eq!(isr(&mut pic, FIRST), 1);
}

#[test]
fn rotation_on_a_non_specific_eoi_makes_what_ended_the_lowest() {
    let mut pic = initialised();
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pic.write(FIRST, 0xa0);
    assert_eq!(isr(&mut pic, FIRST), 0);
    assert_eq!(first_of(&mut pic, 3, 1), 1);
    assert_eq!(first_of(&mut pic, 4, 1), 4);
}

#[test]
fn rotation_on_a_specific_eoi_makes_what_it_names_the_lowest() {
    let mut pic = initialised();
    for irq in [5, 3] {
        pic.set_line(irq, true);
        let _ = pic.acknowledge();
    }
    pic.write(FIRST, 0xe5);
    assert_eq!(isr(&mut pic, FIRST), 0x08);
    pic.write(FIRST, EOI);
    assert_eq!(first_of(&mut pic, 5, 6), 6);
    assert_eq!(first_of(&mut pic, 5, 4), 4);
}

#[test]
fn the_command_that_is_none_does_nothing() {
    let mut pic = initialised();
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x33);
    pic.write(FIRST, 0x43);
    assert_eq!(isr(&mut pic, FIRST), 0x08);
    pic.write(FIRST, EOI);
    assert_eq!(first_of(&mut pic, 0, 7), 0);
}

#[test]
fn the_chips_rotate_apart() {
    let mut pic = initialised();
    pic.write(SECOND, 0xc3);
    pic.set_line(8, true);
    pic.set_line(12, true);
    assert_eq!(pic.acknowledge(), 0x3c);
    pic.write(SECOND, EOI);
    pic.write(FIRST, EOI);
    assert_eq!(first_of(&mut pic, 0, 4), 0);
}
