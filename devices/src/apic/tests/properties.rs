//! Random guests.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    WriteMsr(u32, u64),
    ReadMsr(u32),
    WriteMmio(u64, Vec<u8>),
    ReadMmio(u64, usize),
    Post(u8),
    Event(u8),
    Pull,
    Deliver,
    Advance,
    Cr8(u8),
    Init,
    Wait(u64),
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u8>().prop_map(u64::from),
        any::<u32>().prop_map(u64::from),
        (0_u32..64).prop_map(|bit| 1 << bit),
        (0x10_u64..0x100, 0_u64..8).prop_map(|(vector, mode)| vector | mode << 16),
        Just(0xfee0_0000),
        Just(0xfee0_0800),
        Just(0xfee0_0c00),
        Just(0x1ff),
        Just(u64::MAX),
        Just(0),
    ]
}

fn msr() -> impl Strategy<Value = u32> {
    prop_oneof![
        1 => Just(APIC_BASE),
        3 => Just(TSC_DEADLINE),
        3 => Just(LVT_TIMER),
        3 => Just(TMICT),
        8 => 0x800_u32..0x840,
        1 => any::<u32>(),
    ]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => (0_u64..64).prop_map(|r| r * 16), 1 => 0_u64..0x1010, 1 => any::<u64>()]
}

fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..10_000, 2 => 0_u64..10_000_000_000, 1 => any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        8 => value().prop_map(|v| (v as u32).to_le_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..10),
    ];
    prop_oneof![
        6 => (msr(), value()).prop_map(|(m, v)| Step::WriteMsr(m, v)),
        3 => msr().prop_map(Step::ReadMsr),
        4 => (offset(), bytes).prop_map(|(o, b)| Step::WriteMmio(o, b)),
        2 => (offset(), prop_oneof![8 => Just(4_usize), 1 => 0_usize..10])
            .prop_map(|(o, n)| Step::ReadMmio(o, n)),
        4 => any::<u8>().prop_map(Step::Post),
        1 => any::<u8>().prop_map(Step::Event),
        3 => Just(Step::Pull),
        5 => Just(Step::Deliver),
        3 => Just(Step::Advance),
        1 => any::<u8>().prop_map(Step::Cr8),
        1 => Just(Step::Init),
        4 => wait().prop_map(Step::Wait),
    ]
}

fn apply(apic: &mut LocalApic, inbox: &Inbox, now: &mut Moment, step: &Step) {
    match step {
        Step::WriteMsr(msr, value) => {
            let before = format!("{apic:?}");
            if apic.write_msr(*msr, *value, *now).is_err() {
                assert_eq!(format!("{apic:?}"), before, "#GP changes nothing");
            }
        }
        Step::ReadMsr(msr) => {
            let _ = apic.read_msr(*msr, *now);
        }
        Step::WriteMmio(offset, data) => {
            let _ = apic.write_mmio(*offset, data, *now);
        }
        Step::ReadMmio(offset, len) => apic.read_mmio(*offset, &mut vec![0; *len], *now),
        Step::Post(vector) => inbox.post(*vector),
        Step::Event(kind) => match kind % 4 {
            0 => inbox.post_nmi(),
            1 => inbox.post_init(),
            2 => inbox.post_sipi(*kind),
            _ => inbox.post_timer(),
        },
        Step::Pull => {
            if apic.pull(inbox).init {
                apic.init_reset();
            }
        }
        Step::Deliver => {
            if let Some(vector) = apic.next_vector() {
                apic.acknowledge(vector);
            }
        }
        Step::Advance => {
            apic.advance(*now);
            assert!(apic.deadline().is_none_or(|at| at > now.ns || at == u64::MAX));
        }
        Step::Cr8(value) => apic.set_cr8(*value),
        Step::Init => apic.init_reset(),
        Step::Wait(ns) => {
            now.ns = now.ns.saturating_add(*ns);
            now.tsc = now.tsc.saturating_add(ns.saturating_mul(2));
        }
    }
}

fn check(apic: &LocalApic, now: Moment) {
    let ppr = apic.ppr();
    assert!(class(ppr) >= class(apic.tpr()));
    if let Some(vector) = apic.next_vector() {
        assert!(class(vector) > class(ppr) && apic.irr.contains(vector));
        assert_eq!(apic.irr.highest(), Some(vector));
        assert!(!apic.isr.contains(vector));
    }
    for set in [&apic.irr, &apic.isr] {
        assert!((0..16).all(|v| !set.contains(v)), "no vector below 16");
    }
    let mut in_service: Vec<_> = (0..=255).filter(|v| apic.isr.contains(*v)).map(class).collect();
    let count = in_service.len();
    in_service.dedup();
    assert_eq!(in_service.len(), count, "at most one vector of a class is in service");
    if !apic.enabled() {
        assert_eq!(apic.deadline(), None);
    }
    let mut later = apic.clone();
    if later.deadline().is_none() {
        let end = Moment { ns: u64::MAX, tsc: u64::MAX };
        assert!(!later.advance(end), "what has no deadline never fires");
    } else {
        assert!(later.advance(Moment { ns: u64::MAX, tsc: u64::MAX }) || illegal(apic));
        let _ = now;
    }
}

fn illegal(apic: &LocalApic) -> bool {
    apic.lvt.vector(Entry::Timer) < FIRST_LEGAL_VECTOR
}

/// Counts down nanosecond by nanosecond.
fn oracle(hz: u64, divisor: u64, initial: u64, ns: u64) -> u64 {
    let (mut count, mut phase) = (initial, 0_u128);
    let tick = 1_000_000_000 * u128::from(divisor);
    for _ in 0..ns {
        phase += u128::from(hz);
        while phase >= tick {
            phase -= tick;
            count = count.saturating_sub(1);
        }
    }
    count
}

const CASES: u32 = if cfg!(miri) { 3 } else { 2000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_guest_never_breaks_an_invariant(
        steps in prop::collection::vec(step(), 0..120),
        x2 in any::<bool>(),
        tsc_deadline in any::<bool>(),
        timer_hz in prop_oneof![Just(1_000_000_000), any::<u64>()],
        tsc_khz in prop_oneof![Just(2_000_000), any::<u32>()],
    ) {
        let config = ApicConfig { tsc_deadline, timer_hz, tsc_khz, ..CONFIG };
        let mut apic = if x2 { x2apic_of(config) } else { LocalApic::new(config) };
        let inbox = Inbox::new();
        let mut now = Moment::default();
        for step in &steps {
            apply(&mut apic, &inbox, &mut now, step);
            check(&apic, now);
        }
    }

    #[test]
    fn one_shot_agrees_with_a_counter_that_counts(
        hz in prop_oneof![1_000_000_u64..5_000_000_000, Just(1_000_000_000)],
        shift in 0_u32..8,
        initial in 1_u64..40,
        start in 0_u64..1000,
        looks in prop::collection::vec(0_u64..3000, 1..8),
    ) {
        let divisor = 1_u64 << shift;
        let code = u64::from((shift + 7) & 7);
        let mut apic = x2apic_of(ApicConfig { timer_hz: hz, ..CONFIG });
        set(&mut apic, LVT_TIMER, 0x40);
        set(&mut apic, TDCR, code & 3 | (code & 4) << 1);
        set_at(&mut apic, TMICT, initial, start);
        let due = apic.deadline().expect("armed") - start;
        if due < 100_000 {
            prop_assert_eq!(oracle(hz, divisor, initial, due), 0);
            prop_assert_ne!(oracle(hz, divisor, initial, due - 1), 0);
        }
        for look in looks {
            let mut then = apic.clone();
            let expected = oracle(hz, divisor, initial, look);
            prop_assert_eq!(get_at(&mut then, TMCCT, start + look), expected);
            prop_assert_eq!(then.next_vector().is_some(), expected == 0);
        }
    }

    #[test]
    fn tsc_deadline_is_never_early_and_less_than_a_nanosecond_late(
        tsc_khz in 1_u32..=u32::MAX,
        now_tsc in any::<u64>(),
        cycles in 1_u64..1 << 40,
    ) {
        let target = now_tsc.saturating_add(cycles);
        prop_assume!(target > now_tsc);
        let mut apic = x2apic_of(ApicConfig { tsc_khz, ..CONFIG });
        set(&mut apic, LVT_TIMER, 0x40 | DEADLINE_MODE);
        let now = Moment { ns: 0, tsc: now_tsc };
        prop_assert_eq!(apic.write_msr(TSC_DEADLINE, target, now), Ok(Effect::None));
        let ns = u128::from(apic.deadline().expect("armed"));
        let needed = u128::from(target - now_tsc) * 1_000_000;
        prop_assert!(ns * u128::from(tsc_khz) >= needed);
        prop_assert!((ns - 1) * u128::from(tsc_khz) < needed);
    }

    #[test]
    fn periodic_expiries_are_the_points_of_one_grid(
        hz in 1_000_000_u64..5_000_000_000,
        initial in 1_u64..1_000_000,
        lateness in prop::collection::vec(0_u64..5_000_000, 1..20),
    ) {
        let mut apic = x2apic_of(ApicConfig { timer_hz: hz, ..CONFIG });
        set(&mut apic, LVT_TIMER, 0x40 | PERIODIC);
        set(&mut apic, TDCR, DIVIDE_BY_1);
        set(&mut apic, TMICT, initial);
        let period = u128::from(initial) * 1_000_000_000;
        for late in lateness {
            let due = apic.deadline().expect("periodic");
            let k = u128::from(due) * u128::from(hz) / period;
            prop_assert_eq!(u128::from(due), (k * period).div_ceil(u128::from(hz)));
            prop_assert!(apic.advance(at(due + late)));
        }
    }
}
