//! Random guests and devices, against a model that walks down a list of inputs in the order of their
//! priorities.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Line { irq: u8, high: bool },
    Mask { chip: usize, value: u8 },
    Ocw2 { chip: usize, value: u8 },
    SpecialMask { chip: usize, on: bool },
    Elcr { chip: usize, value: u8 },
    Initialise { chip: usize, icw4: u8 },
    Poll { chip: usize },
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    let chip = || 0_usize..2;
    // Few bits, so that most lines are open.
    let sparse = || (any::<u8>(), any::<u8>()).prop_map(|(a, b)| a & b);
    prop_oneof![
        20 => (0_u8..17, prop::bool::weighted(0.7)).prop_map(|(irq, high)| Step::Line { irq, high }),
        4 => (chip(), sparse()).prop_map(|(chip, value)| Step::Mask { chip, value }),
        8 => (chip(), 0_u8..8, 0_u8..8)
            .prop_map(|(chip, command, ir)| Step::Ocw2 { chip, value: command << 5 | ir }),
        8 => chip().prop_map(|chip| Step::Ocw2 { chip, value: EOI }),
        2 => (chip(), any::<bool>()).prop_map(|(chip, on)| Step::SpecialMask { chip, on }),
        1 => (chip(), sparse()).prop_map(|(chip, value)| Step::Elcr { chip, value }),
        1 => (chip(), any::<u8>()).prop_map(|(chip, icw4)| Step::Initialise { chip, icw4 }),
        2 => chip().prop_map(|chip| Step::Poll { chip }),
        10 => Just(Step::Acknowledge),
    ]
}

#[derive(Clone, Copy, Debug, Default)]
struct Input {
    high: bool,
    fresh: bool,
    masked: bool,
    served: bool,
    level: bool,
}

#[derive(Clone, Debug)]
struct ModelChip {
    inputs: [Input; 8],
    /// Highest priority first.
    order: Vec<usize>,
    auto_eoi: bool,
    rotate: bool,
    nested: bool,
    special_mask: bool,
}

impl ModelChip {
    fn new(icw4: u8) -> Self {
        ModelChip {
            inputs: [Input::default(); 8],
            order: (0..8).collect(),
            auto_eoi: icw4 & AEOI != 0,
            rotate: false,
            nested: icw4 & SFNM != 0,
            special_mask: false,
        }
    }

    fn make_lowest(&mut self, ir: usize) {
        while self.order.last() != Some(&ir) {
            self.order.rotate_left(1);
        }
    }

    /// The served input that a non-specific EOI ends.
    fn end_first(&mut self) -> Option<usize> {
        let ended = self.order.iter().copied().find(|ir| {
            let input = self.inputs[*ir];
            input.served && !(self.special_mask && input.masked)
        })?;
        self.inputs[ended].served = false;
        Some(ended)
    }

    fn ocw2(&mut self, value: u8) {
        let ir = usize::from(value & 7);
        let (rotate, specific, end) = (value & 0x80 != 0, value & 0x40 != 0, value & 0x20 != 0);
        let ended = match (specific, end) {
            (true, true) => {
                self.inputs[ir].served = false;
                Some(ir)
            }
            (false, true) => self.end_first(),
            (true, false) => Some(ir),
            (false, false) => {
                self.rotate = rotate;
                None
            }
        };
        if let Some(ended) = ended.filter(|_| rotate) {
            self.make_lowest(ended);
        }
    }

    fn serve(&mut self, ir: usize) {
        self.inputs[ir].fresh = false;
        if !self.auto_eoi {
            self.inputs[ir].served = true;
        } else if self.rotate {
            self.make_lowest(ir);
        }
    }
}

/// Both chips; input 2 of the first is not stored but asked of the second.
struct Model([ModelChip; 2]);

impl Model {
    fn asks(&self, chip: usize, ir: usize) -> bool {
        if chip == 0 && ir == 2 {
            return self.request(1).is_some();
        }
        let input = self.0[chip].inputs[ir];
        input.high && (input.fresh || input.level)
    }

    fn request(&self, chip: usize) -> Option<usize> {
        let this = &self.0[chip];
        for ir in this.order.iter().copied() {
            let input = this.inputs[ir];
            let asks = self.asks(chip, ir) && !input.masked;
            let blocks = input.served && !(this.special_mask && input.masked);
            let nests = chip == 0 && ir == 2 && this.nested;
            if asks && (!blocks || nests) {
                return Some(ir);
            }
            if blocks {
                return None;
            }
        }
        None
    }

    /// Bit by input.
    fn bits(&self, chip: usize, of: impl Fn(usize, Input) -> bool) -> u8 {
        let inputs = &self.0[chip].inputs;
        (0..8).filter(|ir| of(*ir, inputs[*ir])).map(|ir| 1 << ir).sum()
    }

    fn acknowledge(&mut self) -> u8 {
        let Some(ir) = self.request(0) else {
            return 0x37;
        };
        let behind = self.request(1);
        self.0[0].serve(ir);
        match behind {
            Some(behind) if ir == 2 => {
                self.0[1].serve(behind);
                0x38 + behind as u8
            }
            _ => 0x30 + ir as u8,
        }
    }

    fn poll(&mut self, chip: usize) -> u8 {
        let Some(ir) = self.request(chip) else {
            return 7;
        };
        self.0[chip].serve(ir);
        0x80 | ir as u8
    }

    fn line(&mut self, irq: u8, high: bool) {
        if irq == 2 || irq > 15 {
            return;
        }
        let input = &mut self.0[usize::from(irq / 8)].inputs[usize::from(irq % 8)];
        input.fresh = high && (input.fresh || !input.high);
        input.high = high;
    }

    fn elcr(&mut self, chip: usize, value: u8) {
        for irq in [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15] {
            if irq / 8 == chip {
                let input = &mut self.0[chip].inputs[irq % 8];
                let level = value & 1 << (irq % 8) != 0;
                input.fresh &= level == input.level;
                input.level = level;
            }
        }
    }

    fn initialise(&mut self, chip: usize, icw4: u8) {
        let before = std::mem::replace(&mut self.0[chip], ModelChip::new(icw4));
        for (input, before) in self.0[chip].inputs.iter_mut().zip(before.inputs) {
            input.high = before.high;
            input.level = before.level;
        }
    }
}

fn port(chip: usize) -> u16 {
    [FIRST, SECOND][chip]
}

fn apply(pic: &mut PicPair, model: &mut Model, step: &Step) {
    match *step {
        Step::Line { irq, high } => {
            pic.set_line(irq, high);
            model.line(irq, high);
        }
        Step::Mask { chip, value } => {
            pic.write(port(chip) + 1, value);
            for ir in 0..8 {
                model.0[chip].inputs[ir].masked = value & 1 << ir != 0;
            }
        }
        Step::Ocw2 { chip, value } => {
            pic.write(port(chip), value);
            model.0[chip].ocw2(value);
        }
        Step::SpecialMask { chip, on } => {
            pic.write(port(chip), if on { 0x68 } else { 0x48 });
            model.0[chip].special_mask = on;
        }
        Step::Elcr { chip, value } => {
            pic.write([FIRST_ELCR, SECOND_ELCR][chip], value);
            model.elcr(chip, value);
        }
        Step::Initialise { chip, icw4 } => {
            initialise(pic, port(chip), icw4);
            model.initialise(chip, icw4);
        }
        Step::Poll { chip } => {
            pic.write(port(chip), POLL);
            assert_eq!(pic.read(port(chip)), model.poll(chip));
        }
        Step::Acknowledge => assert_eq!(pic.acknowledge(), model.acknowledge()),
    }
}

proptest! {
    #[test]
    fn requests_and_services_are_those_of_the_model(steps in prop::collection::vec(step(), 0..80)) {
        let mut pic = initialised();
        let mut model = Model([ModelChip::new(0), ModelChip::new(0)]);
        for step in &steps {
            apply(&mut pic, &mut model, step);
            prop_assert_eq!(pic.intr(), model.request(0).is_some());
            for chip in 0..2 {
                let asked = model.bits(chip, |ir, _| model.asks(chip, ir));
                prop_assert_eq!(irr(&mut pic, port(chip)), asked);
                prop_assert_eq!(isr(&mut pic, port(chip)), model.bits(chip, |_, input| input.served));
                let masked = model.bits(chip, |_, input| input.masked);
                prop_assert_eq!(pic.read(port(chip) + 1), masked);
            }
        }
    }

    /// An edge that matters raises INTR, at the latest when all that is in service has ended. One
    /// that does not changes nothing then.
    #[test]
    fn an_edge_matters_if_it_asks_for_an_interrupt(
        steps in prop::collection::vec(step(), 0..60),
        irq in 0_u8..16,
    ) {
        let mut pic = initialised();
        let mut model = Model([ModelChip::new(0), ModelChip::new(0)]);
        for step in &steps {
            apply(&mut pic, &mut model, step);
        }
        let matters = pic.edge_matters(irq);
        let mut with_edge = pic.clone();
        pulse(&mut with_edge, irq);
        for pic in [&mut pic, &mut with_edge] {
            for chip in [SECOND, FIRST] {
                (0..8).for_each(|ir| pic.write(chip, 0x60 | ir));
            }
        }
        if matters {
            prop_assert!(with_edge.intr());
        } else {
            prop_assert_eq!(with_edge.intr(), pic.intr());
            prop_assert_eq!(with_edge.acknowledge(), pic.acknowledge());
        }
    }
}
