//! Power-up, ICW1 to ICW4, reset.

use super::*;

#[test]
fn never_programmed_it_asks_for_nothing_but_shows_requests_and_keeps_a_mask() {
    let mut pic = PicPair::new();
    for irq in 0..16 {
        assert!(!pic.edge_matters(irq));
        pic.set_line(irq, true);
    }
    assert!(!pic.intr());
    assert_eq!((irr(&mut pic, FIRST), irr(&mut pic, SECOND)), (0xfb, 0xff));
    assert_eq!((pic.read(FIRST_DATA), pic.read(SECOND_DATA)), (0, 0));
    // How Linux finds out whether there is a PIC.
    pic.write(SECOND_DATA, 0xff);
    pic.write(FIRST_DATA, 0xfb);
    assert_eq!((pic.read(FIRST_DATA), pic.read(SECOND_DATA)), (0xfb, 0xff));
    assert_eq!(pic.acknowledge(), 7);
}

#[test]
fn icw2_gives_the_upper_five_bits_of_the_vector() {
    let mut pic = PicPair::new();
    pic.write(FIRST, 0x11);
    for value in [0x2f, 0x04, 0x01] {
        pic.write(FIRST_DATA, value);
    }
    pic.write(SECOND, 0x11);
    for value in [0x77, 0x02, 0x01] {
        pic.write(SECOND_DATA, value);
    }
    pic.set_line(3, true);
    assert_eq!(pic.acknowledge(), 0x2b);
    pic.write(FIRST, EOI);
    pic.set_line(9, true);
    assert_eq!(pic.acknowledge(), 0x71);
}

#[test]
fn nothing_is_asked_for_before_the_last_icw() {
    // (ICW1, how many more)
    for (icw1, more) in [(0x11, 3), (0x10, 2), (0x13, 2), (0x12, 1)] {
        let mut pic = initialised();
        pic.write(FIRST, icw1);
        pic.set_line(1, true);
        for _ in 0..more {
            assert!(!pic.intr(), "{icw1:#x}");
            assert!(!pic.edge_matters(0));
            pic.write(FIRST_DATA, 0x08);
        }
        assert!(pic.intr(), "{icw1:#x}");
        assert_eq!(pic.read(FIRST_DATA), 0, "no ICW is a mask");
        pic.write(FIRST_DATA, 0x02);
        assert_eq!(pic.read(FIRST_DATA), 2);
        assert!(!pic.intr());
    }
}

#[test]
fn icw1_in_mid_use_starts_afresh() {
    let mut pic = in_modes(AEOI | SFNM, 0);
    initialise(&mut pic, FIRST, 0);
    pic.set_line(1, true);
    assert_eq!(pic.acknowledge(), 0x31);
    pulse(&mut pic, 1);
    for command in [0x68, READ_ISR, 0xc3, 0x80] {
        pic.write(FIRST, command); // special mask mode, read ISR, rotation twice
    }
    pic.write(FIRST_DATA, 0xf0);
    pic.write(FIRST, POLL);
    initialise(&mut pic, FIRST, 0);
    assert_eq!(pic.read(FIRST_DATA), 0, "neither a mask nor a poll");
    assert_eq!(pic.read(FIRST), 0, "a high line needs a new edge");
    pulse(&mut pic, 1);
    assert_eq!(pic.read(FIRST), 2, "IRR is read");
    pic.set_line(1, false);
    assert_eq!(isr(&mut pic, FIRST), 0);
    pic.set_line(0, true);
    pulse(&mut pic, 7);
    assert_eq!(served(&mut pic), [0x30], "IR0 has the highest priority again");
    assert_eq!(isr(&mut pic, FIRST), 1, "and its end is not automatic");
    pic.write(FIRST_DATA, 1);
    assert!(!pic.intr(), "nor is the special mask mode on");
}

#[test]
fn without_icw4_its_modes_are_off() {
    let mut pic = in_modes(AEOI | SFNM, 0);
    pic.write(FIRST, 0x10);
    pic.write(FIRST_DATA, 0x30);
    pic.write(FIRST_DATA, 0x04);
    pic.set_line(12, true);
    assert_eq!(served(&mut pic), [0x3c]);
    assert_eq!(isr(&mut pic, FIRST), 4);
    pic.set_line(9, true);
    assert!(!pic.intr());
}

#[test]
fn one_chip_is_initialised_without_the_other() {
    let mut pic = initialised();
    pic.set_line(12, true);
    pic.write(SECOND, 0x11);
    assert!(!pic.intr());
    assert!(pic.edge_matters(0) && !pic.edge_matters(8));
    pic.set_line(4, true);
    assert_eq!(served(&mut pic), [0x34]);
}

#[test]
fn the_second_chip_is_not_heard_before_the_first_is_initialised() {
    let mut pic = PicPair::new();
    initialise(&mut pic, SECOND, 0);
    assert!(!pic.edge_matters(8));
    pic.set_line(8, true);
    assert!(!pic.intr());
    initialise(&mut pic, FIRST, 0);
    assert_eq!(served(&mut pic), [0x38]);
}

#[test]
fn reset_restores_power_up_but_keeps_the_lines() {
    let mut pic = initialised();
    pic.write(FIRST_ELCR, 0xf8);
    pic.write(SECOND_ELCR, 0xde);
    pic.set_line(0, true);
    pic.set_line(5, true);
    pic.set_line(12, true);
    assert_eq!(pic.acknowledge(), 0x30);
    pic.write(FIRST_DATA, 0xff);
    pic.write(FIRST, POLL);
    pic.reset();
    assert_eq!(pic.read(FIRST), 0);
    assert_eq!((pic.read(FIRST_ELCR), pic.read(SECOND_ELCR)), (0, 0));
    assert_eq!(pic.read(FIRST_DATA), 0);
    assert_eq!((irr(&mut pic, FIRST), isr(&mut pic, FIRST)), (0, 0));
    assert!(!pic.edge_matters(0));
    pic.write(FIRST_ELCR, 0x20);
    assert_eq!(irr(&mut pic, FIRST), 0x20);
}

#[test]
fn other_ports_read_as_ones_and_take_nothing() {
    let mut pic = initialised();
    for port in [0, 0x1f, 0x22, 0x9f, 0xa2, 0x4cf, 0x4d2, 0xffff] {
        pic.write(port, 0xff);
        assert_eq!(pic.read(port), 0xff);
    }
    for port in PORTS {
        assert_eq!(pic.read(port), 0);
    }
}
