//! The timer against one that counts every tick, nanosecond by nanosecond (SDM 12.5.4).
//!
//! The model has no lazy time, no host timer and no division: what it does not do, it cannot round.
//! The APIC is looked at as seldom as the steps say, so that a wait is a pause in which nobody served
//! the timer.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Cycles of the guest's TSC in a nanosecond.
const TSC_RATE: u64 = 2;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Initial(u64),
    Divide(u64),
    Lvt {
        mode: u64,
        masked: bool,
        vector: u8,
    },
    /// Cycles from now, or none for zero; negative is in the past.
    Deadline(Option<i64>),
    MoveTsc(i64),
    Look,
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..400).prop_map(Step::Wait),
        1 => (0_u64..3000).prop_map(Step::Wait),
        4 => prop_oneof![Just(0), 1_u64..20, 1_u64..500].prop_map(Step::Initial),
        2 => (0_u64..16).prop_map(|code| Step::Divide(code & 0xb)),
        4 => (0_u64..3, any::<bool>(), 0x40_u8..0x43)
            .prop_map(|(mode, masked, vector)| Step::Lvt { mode, masked, vector }),
        4 => prop_oneof![1 => Just(None), 4 => (-100_i64..1000).prop_map(Some)]
            .prop_map(Step::Deadline),
        1 => (-800_i64..800).prop_map(Step::MoveTsc),
        3 => Just(Step::Look),
        1 => Just(Step::Take),
    ]
}

#[derive(Clone, Debug)]
struct Model {
    hz: u64,
    now: u64,
    tsc: u64,
    mode: u64,
    masked: bool,
    vector: u8,
    code: u64,
    initial: u64,
    count: u64,
    /// Of a tick, in parts of 10^9 times the divisor.
    phase: u64,
    deadline: u64,
    pending: BTreeSet<u8>,
}

impl Model {
    fn divisor(&self) -> u64 {
        [2, 4, 8, 16, 32, 64, 128, 1][(self.code & 3 | (self.code & 8) >> 1) as usize]
    }

    fn fire(&mut self) -> bool {
        if !self.masked {
            self.pending.insert(self.vector);
        }
        !self.masked
    }

    fn settle_deadline(&mut self) -> bool {
        let due = self.deadline != 0 && self.tsc >= self.deadline;
        if due {
            self.deadline = 0;
        }
        due && self.fire()
    }

    /// One nanosecond. True if there was an interrupt.
    fn tick(&mut self) -> bool {
        self.now += 1;
        self.tsc += TSC_RATE;
        let mut fired = self.settle_deadline();
        if self.count == 0 {
            return fired;
        }
        self.phase += self.hz;
        while self.count > 0 && self.phase >= 1_000_000_000 * self.divisor() {
            self.phase -= 1_000_000_000 * self.divisor();
            self.count -= 1;
            if self.count == 0 {
                fired |= self.fire();
                self.count = if self.mode == 1 { self.initial } else { 0 };
            }
        }
        fired
    }

    /// When the next interrupt is, if that is soon.
    fn next(&self) -> Option<u64> {
        let mut later = self.clone();
        (0..20_000).find(|_| later.tick()).map(|_| later.now)
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Wait(ns) => (0..*ns).for_each(|_| _ = self.tick()),
            Step::Initial(initial) if self.mode < 2 => {
                (self.initial, self.count, self.phase) = (*initial, *initial, 0);
            }
            Step::Divide(code) if *code != self.code => (self.code, self.phase) = (*code, 0),
            Step::Lvt { mode, masked, vector } => {
                if *mode != self.mode && (*mode == 2 || self.mode == 2) {
                    (self.initial, self.count, self.deadline) = (0, 0, 0);
                }
                (self.mode, self.masked, self.vector) = (*mode, *masked, *vector);
            }
            Step::Deadline(at) if self.mode == 2 => {
                self.deadline =
                    at.map_or(0, |cycles| self.tsc.saturating_add_signed(cycles).max(1));
                self.settle_deadline();
            }
            Step::MoveTsc(by) => {
                self.tsc = self.tsc.saturating_add_signed(*by);
                self.settle_deadline();
            }
            Step::Take => self.pending.clear(),
            Step::Initial(_) | Step::Divide(_) | Step::Deadline(_) | Step::Look => {}
        }
    }
}

fn carry_out(apic: &mut LocalApic, step: &Step, model: &Model, now: Moment) {
    let mut write = |msr: u32, value: u64| {
        assert_eq!(apic.write_msr(msr, value, now), Ok(Effect::None), "{msr:#x} <- {value:#x}");
    };
    match step {
        Step::Wait(_) | Step::Look => {}
        Step::Initial(initial) => write(TMICT, *initial),
        Step::Divide(code) => write(TDCR, *code),
        Step::Lvt { mode, masked, vector } => {
            write(LVT_TIMER, mode << 17 | u64::from(*masked) << 16 | u64::from(*vector));
        }
        Step::Deadline(at) => {
            let tsc = at.map_or(0, |cycles| now.tsc.saturating_add_signed(cycles).max(1));
            write(TSC_DEADLINE, tsc);
        }
        Step::MoveTsc(_) => {
            // What was due before the move came before it.
            apic.advance(now);
            let moved = Moment { ns: now.ns, tsc: model.tsc };
            apic.tsc_changed(moved);
            apic.advance(moved);
        }
        Step::Take => {
            apic.advance(now);
            while let Some(vector) = apic.next_vector() {
                apic.acknowledge(vector);
                let _ = apic.write_msr(EOI, 0, now);
            }
        }
    }
}

const CASES: u32 = if cfg!(miri) { 2 } else { 1500 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn timer_agrees_with_one_that_counts_every_tick(
        hz in prop_oneof![
            2 => Just(1_000_000_000_u64),
            1 => 1_000_000_u64..4_000_000_000,
            1 => Just(333_333_333),
        ],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let config = ApicConfig { timer_hz: hz, tsc_khz: 2_000_000, ..CONFIG };
        let mut apic = x2apic_of(config);
        let mut model = Model {
            hz, now: 0, tsc: 5000, mode: 0, masked: true, vector: 0, code: 0, initial: 0, count: 0,
            phase: 0, deadline: 0, pending: BTreeSet::new(),
        };
        for step in &steps {
            let now = Moment { ns: model.now, tsc: model.tsc };
            model.apply(step);
            carry_out(&mut apic, step, &model, now);
            if matches!(step, Step::Wait(_)) {
                continue;
            }
            let now = Moment { ns: model.now, tsc: model.tsc };
            prop_assert_eq!(apic.read_msr(TMCCT, now), Ok(model.count), "{:?}", step);
            prop_assert_eq!(apic.read_msr(TMICT, now), Ok(model.initial), "{:?}", step);
            prop_assert_eq!(apic.read_msr(TSC_DEADLINE, now), Ok(model.deadline), "{:?}", step);
            let requested: BTreeSet<u8> = vectors(&mut apic, IRR).into_iter().collect();
            prop_assert_eq!(&requested, &model.pending, "{:?}", step);
            match model.next() {
                Some(at) => prop_assert_eq!(apic.deadline(), Some(at), "{:?}", step),
                None => prop_assert!(apic.deadline().is_none_or(|at| at > model.now + 20_000)),
            }
        }
    }
}
