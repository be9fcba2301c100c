//! IRR, ISR, TMR and the priorities against sets (SDM 12.8.3, 12.8.4, 12.8.5).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Post { vector: u8, level: bool },
    Pull,
    Deliver,
    End,
    Tpr(u8),
    Cr8(u8),
    Svr { enabled: bool, suppress: bool },
    Init,
}

fn step() -> impl Strategy<Value = Step> {
    // Few vectors, so that they meet.
    let vector = prop_oneof![
        8 => prop::sample::select(vec![0x10_u8, 0x1f, 0x30, 0x31, 0x3f, 0x40, 0x7f, 0x80, 0xef, 0xff]),
        1 => any::<u8>(),
    ];
    prop_oneof![
        6 => (vector, any::<bool>()).prop_map(|(vector, level)| Step::Post { vector, level }),
        6 => Just(Step::Pull),
        6 => Just(Step::Deliver),
        4 => Just(Step::End),
        2 => any::<u8>().prop_map(Step::Tpr),
        2 => any::<u8>().prop_map(Step::Cr8),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(enabled, suppress)| Step::Svr { enabled, suppress }),
        1 => Just(Step::Init),
    ]
}

#[derive(Debug, Default)]
struct Model {
    posted: [BTreeSet<u8>; 2],
    irr: BTreeSet<u8>,
    isr: BTreeSet<u8>,
    tmr: BTreeSet<u8>,
    tpr: u8,
    enabled: bool,
    suppress: bool,
}

impl Model {
    fn ppr(&self) -> u8 {
        let in_service = self.isr.last().map_or(0, |vector| vector & 0xf0);
        if self.tpr & 0xf0 >= in_service { self.tpr } else { in_service }
    }

    fn next(&self) -> Option<u8> {
        self.irr.last().copied().filter(|vector| vector & 0xf0 > self.ppr() & 0xf0)
    }

    fn pull(&mut self) {
        for (level, vectors) in [false, true].into_iter().zip(std::mem::take(&mut self.posted)) {
            for vector in vectors.into_iter().filter(|vector| self.enabled && *vector >= 16) {
                self.irr.insert(vector);
                if level {
                    self.tmr.insert(vector);
                } else {
                    self.tmr.remove(&vector);
                }
            }
        }
    }

    fn end(&mut self) -> Effect {
        match self.isr.pop_last() {
            Some(vector) if self.tmr.contains(&vector) && !self.suppress => {
                Effect::EndOfInterrupt(vector)
            }
            _ => Effect::None,
        }
    }
}

fn apply(apic: &mut LocalApic, inbox: &Inbox, model: &mut Model, step: &Step) {
    match *step {
        Step::Post { vector, level: true } => {
            inbox.post_level(vector);
            model.posted[1].insert(vector);
        }
        Step::Post { vector, level: false } => {
            inbox.post(vector);
            model.posted[0].insert(vector);
        }
        Step::Pull => {
            assert_eq!(apic.pull(inbox), Pulled::default());
            model.pull();
        }
        Step::Deliver => {
            if let Some(vector) = apic.next_vector() {
                apic.acknowledge(vector);
                model.irr.remove(&vector);
                model.isr.insert(vector);
            }
        }
        Step::End => assert_eq!(apic.write_msr(EOI, 0, at(0)), Ok(model.end())),
        Step::Tpr(tpr) => {
            set(apic, TPR, u64::from(tpr));
            model.tpr = tpr;
        }
        Step::Cr8(cr8) => {
            apic.set_cr8(cr8);
            if cr8 & 0xf != model.tpr >> 4 {
                model.tpr = cr8 << 4;
            }
        }
        Step::Svr { enabled, suppress } => {
            set(apic, SVR, 0xff | u64::from(enabled) << 8 | u64::from(suppress) << 12);
            (model.enabled, model.suppress) = (enabled, suppress);
        }
        Step::Init => {
            apic.init_reset();
            *model = Model { posted: std::mem::take(&mut model.posted), ..Model::default() };
        }
    }
}

const CASES: u32 = if cfg!(miri) { 2 } else { 2000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn registers_agree_with_sets(steps in prop::collection::vec(step(), 1..80)) {
        let (mut apic, inbox) = (x2apic(), Inbox::new());
        let mut model = Model { enabled: true, ..Model::default() };
        for step in &steps {
            apply(&mut apic, &inbox, &mut model, step);
            let shown = [IRR, ISR, 0x818].map(|first| vectors(&mut apic, first));
            let expected = [&model.irr, &model.isr, &model.tmr];
            for (shown, expected) in shown.iter().zip(expected) {
                prop_assert!(shown.iter().eq(expected), "{:?}: {:x?} {:x?}", step, shown, expected);
            }
            prop_assert_eq!(get(&mut apic, PPR), u64::from(model.ppr()), "{:?}", step);
            prop_assert_eq!(apic.next_vector(), model.next(), "{:?}", step);
            prop_assert_eq!(apic.cr8(), model.tpr >> 4);
        }
    }
}
