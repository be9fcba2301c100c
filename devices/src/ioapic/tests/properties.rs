//! Random guests and devices, against a model that keeps lists of pins and of interrupts in flight
//! instead of bits.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Low { pin: u8, value: u32 },
    High { pin: u8, value: u32 },
    Line { pin: u8, asserted: bool },
    Broadcast(u8),
    Register(u8),
    TakeOne,
    TakeAll,
    Reset,
}

/// Few pins and vectors, so that steps meet.
fn step() -> impl Strategy<Value = Step> {
    let pin = || 0_u8..4;
    let vector = || 0x30_u8..0x33;
    let value = (vector(), 0_u32..16, any::<[bool; 5]>()).prop_map(|(vector, mode, bits)| {
        let [masked, level, logical, remote_irr, polarity] = bits;
        let set = |on: bool, bits: u32| if on { bits } else { 0 };
        // Half of the entries are of the modes that can be level-triggered.
        let mode = if mode < 8 { mode } else { mode & 1 };
        u32::from(vector)
            | mode << 8
            | set(masked, MASK)
            | set(level, LEVEL)
            | set(logical, LOGICAL)
            | set(remote_irr, REMOTE_IRR | DELIVERY_STATUS)
            | set(polarity, LOW_POLARITY)
    });
    prop_oneof![
        8 => (pin(), value).prop_map(|(pin, value)| Step::Low { pin, value }),
        1 => (pin(), any::<u32>()).prop_map(|(pin, value)| Step::High { pin, value }),
        16 => (pin(), any::<bool>()).prop_map(|(pin, asserted)| Step::Line { pin, asserted }),
        6 => vector().prop_map(Step::Broadcast),
        1 => vector().prop_map(Step::Register),
        6 => Just(Step::TakeOne),
        6 => Just(Step::TakeAll),
        1 => Just(Step::Reset),
    ]
}

/// What the guest asked of a pin, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wish {
    open: bool,
    level: bool,
    mode: Option<Delivery>,
    vector: u8,
    logical: bool,
    destination: u8,
}

#[derive(Debug, Default)]
struct Model {
    wishes: BTreeMap<u8, Wish>,
    /// Pins whose line is asserted, in the order of assertion.
    asserted: Vec<u8>,
    /// Pins with an edge to tell, in the order of arrival.
    edges: Vec<u8>,
    /// Pins whose level interrupt is being served.
    in_flight: Vec<u8>,
}

impl Model {
    fn low(&mut self, pin: u8, value: u32) {
        let mode = match value >> 8 & 7 {
            0 => Some(Delivery::Fixed),
            1 => Some(Delivery::LowestPriority),
            2 => Some(Delivery::Smi),
            4 => Some(Delivery::Nmi),
            5 => Some(Delivery::Init),
            7 => Some(Delivery::ExtInt),
            _ => None,
        };
        let wish = self.wishes.entry(pin).or_default();
        wish.open = value & MASK == 0;
        wish.level = value & LEVEL != 0 && value >> 8 & 7 < 2;
        wish.mode = mode;
        wish.vector = value as u8;
        wish.logical = value & LOGICAL != 0;
        let wish = *wish;
        if !wish.level {
            self.in_flight.retain(|other| *other != pin);
        }
        if wish.level || !wish.open || mode.is_none() {
            self.edges.retain(|other| *other != pin);
        }
    }

    fn line(&mut self, pin: u8, asserted: bool) {
        let before = self.asserted.contains(&pin);
        self.asserted.retain(|other| *other != pin);
        if !asserted {
            return;
        }
        self.asserted.push(pin);
        let wish = self.wishes.get(&pin).copied().unwrap_or_default();
        if !before && wish.open && !wish.level && wish.mode.is_some() && !self.edges.contains(&pin)
        {
            self.edges.push(pin);
        }
    }

    fn end(&mut self, vector: u8) {
        let wishes = &self.wishes;
        self.in_flight.retain(|pin| wishes[pin].vector != vector);
    }

    /// The pins that have something to tell.
    fn talkers(&self) -> Vec<u8> {
        let levels = self.asserted.iter().copied().filter(|pin| {
            let wish = self.wishes.get(pin).copied().unwrap_or_default();
            wish.open && wish.level && !self.in_flight.contains(pin)
        });
        let mut talkers: Vec<u8> = self.edges.iter().copied().chain(levels).collect();
        talkers.sort_unstable();
        talkers
    }

    fn take(&mut self) -> Option<Message> {
        let pin = *self.talkers().first()?;
        self.edges.retain(|other| *other != pin);
        let wish = self.wishes[&pin];
        if wish.level {
            self.in_flight.push(pin);
        }
        let destination = u32::from(wish.destination);
        let target = if wish.logical {
            Target::Logical { destination, x2apic: false }
        } else {
            Target::Physical { destination, x2apic: false }
        };
        Some(Message { mode: wish.mode?, vector: wish.vector, target, level: wish.level })
    }

    fn reset(&mut self) {
        self.wishes.clear();
        self.edges.clear();
        self.in_flight.clear();
    }
}

fn apply(io_apic: &mut IoApic, model: &mut Model, step: &Step) {
    match *step {
        Step::Low { pin, value } => {
            set_low(io_apic, pin, value);
            model.low(pin, value);
        }
        Step::High { pin, value } => {
            set_high(io_apic, pin, value);
            model.wishes.entry(pin).or_default().destination = (value >> 24) as u8;
        }
        Step::Line { pin, asserted } => {
            io_apic.set_line(pin, asserted);
            model.line(pin, asserted);
        }
        Step::Broadcast(vector) => {
            io_apic.end_of_interrupt(vector);
            model.end(vector);
        }
        Step::Register(vector) => {
            io_apic.write(EOI, &[vector]);
            model.end(vector);
        }
        Step::TakeOne => assert_eq!(io_apic.take_message(), model.take()),
        Step::TakeAll => {
            while let Some(expected) = model.take() {
                assert_eq!(io_apic.take_message(), Some(expected));
            }
            assert_eq!(io_apic.take_message(), None);
        }
        Step::Reset => {
            io_apic.reset();
            model.reset();
        }
    }
}

proptest! {
    #[test]
    fn messages_and_status_are_those_of_the_model(steps in prop::collection::vec(step(), 0..60)) {
        let mut io_apic = IoApic::new(0);
        let mut model = Model::default();
        for step in &steps {
            apply(&mut io_apic, &mut model, step);
            let talkers = model.talkers();
            for pin in 0..4 {
                let entry = low(&mut io_apic, pin);
                prop_assert_eq!(entry & REMOTE_IRR != 0, model.in_flight.contains(&pin));
                prop_assert_eq!(entry & DELIVERY_STATUS != 0, talkers.contains(&pin));
            }
        }
    }

    /// [`IoApic::edge_matters`] foretells what lowering and raising the line does.
    #[test]
    fn an_edge_matters_if_it_makes_a_message(
        steps in prop::collection::vec(step(), 0..60),
        pin in 0_u8..4,
    ) {
        let mut io_apic = IoApic::new(0);
        let mut model = Model::default();
        for step in &steps {
            apply(&mut io_apic, &mut model, step);
        }
        let _ = vectors(&mut io_apic);
        prop_assert_eq!(io_apic.take_message(), None);
        let matters = io_apic.edge_matters(pin);
        io_apic.set_line(pin, false);
        io_apic.set_line(pin, true);
        prop_assert_eq!(io_apic.take_message().is_some(), matters);
    }
}
