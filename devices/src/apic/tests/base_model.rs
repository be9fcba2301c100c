//! IA32_APIC_BASE against a table of modes (SDM 12.4.4, 12.12.5).

use proptest::prelude::*;

use super::*;

const EN: u64 = 1 << 11;
const EXTD: u64 = 1 << 10;
const BSP: u64 = 1 << 8;

/// What is legal: from a mode, to a mode; and whether the registers outlive it.
fn transition(from: u64, to: u64) -> Option<bool> {
    match (from, to) {
        (_, 0) => Some(false),
        (0, EN) => Some(false),
        (EN, EN) => Some(true),
        (EN, x2) | (x2, _) if x2 == EN | EXTD && to == x2 => Some(true),
        _ => None,
    }
}

fn value() -> impl Strategy<Value = u64> {
    let address = prop_oneof![
        4 => Just(0xfee0_0000_u64),
        1 => (0_u64..1 << 40).prop_map(|page| page << 12),
    ];
    let mode = prop::sample::select(vec![0, EN, EN | EXTD, EXTD]);
    let rest = prop_oneof![
        8 => Just(0_u64),
        1 => Just(BSP),
        1 => prop::sample::select((0..8).chain([9]).chain(52..64).collect::<Vec<u32>>())
            .prop_map(|bit| 1 << bit),
    ];
    (address, mode, rest).prop_map(|(address, mode, rest)| address | mode | rest)
}

const CASES: u32 = if cfg!(miri) { 2 } else { 1000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..Default::default() })]

    #[test]
    fn modes_agree_with_a_table(
        values in prop::collection::vec(value(), 1..30),
        bsp in any::<bool>(),
        physical_bits in 36..=52_u8,
    ) {
        let mut apic = LocalApic::new(ApicConfig { bsp, physical_bits, ..CONFIG });
        let address = ((1 << physical_bits) - 1) & !0xfff;
        let mut base = apic.base_msr();
        for (tpr, value) in (1..=255_u8).zip(values) {
            apic.set_cr8(tpr & 0xf);
            let (kept, from, to) = (apic.tpr(), base & (EN | EXTD), value & (EN | EXTD));
            let reserved = value & !(address | EN | EXTD | BSP) != 0;
            let outlive = transition(from, to).filter(|_| !reserved);
            let expected = match outlive {
                None => Err(GeneralProtection),
                Some(_) if from == to => Ok(Effect::None),
                Some(_) => Ok(Effect::Routing),
            };
            prop_assert_eq!(apic.write_msr(APIC_BASE, value, at(0)), expected, "{:#x}", value);
            base = if outlive.is_some() { value } else { base };
            prop_assert_eq!(apic.read_msr(APIC_BASE, at(0)), Ok(base));
            prop_assert_eq!(apic.tpr(), if outlive == Some(false) && from != 0 { 0 } else { kept });
            let page = (base & (EN | EXTD) == EN).then_some(base & 0x000f_ffff_ffff_f000);
            prop_assert_eq!(apic.mmio_base(), page);
            prop_assert_eq!(apic.read_msr(TPR, at(0)).is_ok(), base & EXTD != 0);
        }
    }
}
