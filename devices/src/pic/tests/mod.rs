mod initialisation;
mod lines;
mod modes;
mod properties;
mod service;

use super::*;

const READ_IRR: u8 = 0x0a;
const READ_ISR: u8 = 0x0b;
const POLL: u8 = 0x0c;
const EOI: u8 = 0x20;
const AEOI: u8 = 0b10;
const SFNM: u8 = 0b1_0000;

fn initialise(pic: &mut PicPair, port: u16, icw4: u8) {
    let (base, icw3) = if port == FIRST { (0x30, 1 << CASCADE) } else { (0x38, CASCADE) };
    pic.write(port, 0x11);
    pic.write(port + 1, base);
    pic.write(port + 1, icw3);
    pic.write(port + 1, icw4 | 1);
}

/// Initialised with vectors from 0x30 and 0x38, with these modes.
fn in_modes(first: u8, second: u8) -> PicPair {
    let mut pic = PicPair::new();
    initialise(&mut pic, FIRST, first);
    initialise(&mut pic, SECOND, second);
    pic
}

fn initialised() -> PicPair {
    in_modes(0, 0)
}

fn irr(pic: &mut PicPair, port: u16) -> u8 {
    pic.write(port, READ_IRR);
    pic.read(port)
}

fn isr(pic: &mut PicPair, port: u16) -> u8 {
    pic.write(port, READ_ISR);
    pic.read(port)
}

fn pulse(pic: &mut PicPair, irq: u8) {
    pic.set_line(irq, false);
    pic.set_line(irq, true);
}

/// Everything that is asked for, until INTR falls; each interrupt is acknowledged only.
fn served(pic: &mut PicPair) -> Vec<u8> {
    let mut vectors = Vec::new();
    while pic.intr() {
        vectors.push(pic.acknowledge());
        assert!(vectors.len() <= 16, "INTR does not fall: {vectors:x?}");
    }
    vectors
}
