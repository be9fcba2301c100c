//! The PIC, with a guest that writes anything and lines that do anything.

use devices::pic::{PORTS, PicPair};
use rand::Rng;
use rand::rngs::SmallRng;

const CHIPS: [u16; 2] = [0x20, 0xa0];

fn port(random: &mut SmallRng) -> u16 {
    match random.random_range(0..20) {
        0 => random.random(),
        _ => PORTS[random.random_range(0..PORTS.len())],
    }
}

fn initialise(pic: &mut PicPair, random: &mut SmallRng) {
    for chip in CHIPS {
        pic.write(chip, 0x10 | random.random_range(0..16));
        for _ in 0..4 {
            pic.write(chip + 1, random.random());
        }
        pic.write(chip + 1, random.random::<u8>() & random.random::<u8>());
    }
}

/// IRR, ISR and IMR of a chip, whatever was to be read or polled before.
fn registers(pic: &mut PicPair, chip: u16) -> [u8; 3] {
    pic.write(chip, 0x0a);
    let irr = pic.read(chip);
    pic.write(chip, 0x0b);
    [irr, pic.read(chip), pic.read(chip + 1)]
}

fn bits_added(before: u8, after: u8) -> u32 {
    (after & !before).count_ones()
}

/// What must hold for an acknowledgement in any state.
fn acknowledge(pic: &mut PicPair) {
    let asked = pic.intr();
    let before = CHIPS.map(|chip| registers(pic, chip));
    let vector = pic.acknowledge();
    let after = CHIPS.map(|chip| registers(pic, chip));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before[1] & !after[1], 0, "an acknowledgement ends no service");
        assert!(bits_added(before[1], after[1]) <= 1);
        assert_eq!(before[2], after[2]);
    }
    if !asked {
        assert_eq!(vector & 7, 7);
        assert_eq!(before, after);
    }
    for [before, after] in [0, 1].map(|chip| [before[chip], after[chip]]) {
        let newly_served = after[1] & !before[1];
        assert_eq!(newly_served & !(before[0] & !before[2]), 0, "served what did not ask");
    }
}

/// Ends everything by name until nothing is in service, and serves the rest.
fn drain(pic: &mut PicPair) {
    for irq in 0..16 {
        pic.set_line(irq, false);
    }
    assert!(!pic.intr(), "a request without a line");
    for chip in CHIPS {
        for ir in 0..8 {
            pic.write(chip, 0x60 | ir);
        }
        let [irr, isr, _] = registers(pic, chip);
        assert_eq!((irr, isr), (0, 0));
    }
}

fn once(random: &mut SmallRng) {
    let mut pic = PicPair::new();
    if random.random_range(0..4) > 0 {
        initialise(&mut pic, random);
    }
    for _ in 0..random.random_range(0..400) {
        match random.random_range(0..30) {
            0..6 => pic.write(port(random), random.random()),
            6..8 => pic.write(CHIPS[random.random_range(0..2)], random.random_range(0..0x10)),
            8..11 => pic.write(CHIPS[random.random_range(0..2)], 0x20),
            11..14 => {
                let _ = pic.read(port(random));
            }
            14..22 => pic.set_line(random.random_range(0..16), random.random()),
            22 => pic.set_line(random.random(), random.random()),
            23..28 => acknowledge(&mut pic),
            28 => initialise(&mut pic, random),
            _ if random.random_range(0..10) == 0 => pic.reset(),
            _ => drain(&mut pic),
        }
        assert_eq!((pic.read(0x4d0) & 0x07, pic.read(0x4d1) & 0x21), (0, 0));
        assert!(!pic.edge_matters(2) && !pic.edge_matters(16));
        if pic.intr() {
            let [irr, _, imr] = registers(&mut pic.clone(), 0x20);
            assert_ne!(irr & !imr, 0, "INTR without a request");
        }
    }
    drain(&mut pic);
    pic.reset();
    assert!((0..=u8::MAX).all(|irq| !pic.edge_matters(irq)));
    assert_eq!(pic.acknowledge(), 7);
}

#[test]
fn pic_keeps_its_invariants() {
    crate::run("pic", once);
}
