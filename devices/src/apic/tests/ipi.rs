//! The interrupt command register and the self IPI.

use super::*;

const LOGICAL: u64 = 1 << 11;
const ASSERT: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const ONLY_SELF: u64 = 0b01 << 18;
const ALL: u64 = 0b10 << 18;
const ALL_BUT_SELF: u64 = 0b11 << 18;
const INIT: u64 = 0b101 << 8;

fn sent(icr: u64) -> Option<Ipi> {
    match x2apic().write_msr(ICR, icr, at(0)).expect("no reserved bits") {
        Effect::Ipi(ipi) => Some(ipi),
        Effect::None => None,
        other => panic!("an IPI asks for nothing else: {other:?}"),
    }
}

/// SDM 12.6.1.
#[test]
fn every_delivery_mode_is_decoded() {
    let expected = [
        (0x40, Some(DeliveryMode::Fixed)),
        (0x40 | 1 << 8, Some(DeliveryMode::LowestPriority)),
        (2 << 8, None),
        (3 << 8, None),
        (4 << 8, Some(DeliveryMode::Nmi)),
        (INIT | ASSERT, Some(DeliveryMode::Init)),
        (INIT | ASSERT | LEVEL, Some(DeliveryMode::Init)),
        (INIT | LEVEL, Some(DeliveryMode::InitDeassert)),
        (INIT, Some(DeliveryMode::Init)),
        (6 << 8 | 0x9a, Some(DeliveryMode::Sipi)),
        (7 << 8, None),
    ];
    for (icr, mode) in expected {
        assert_eq!(sent(icr).map(|ipi| ipi.mode), mode, "{icr:#x}");
    }
    assert_eq!(sent(6 << 8 | 0x05).map(|ipi| ipi.vector), Some(5), "SIPI takes any vector");
}

/// SDM 12.6.1.
#[test]
fn every_destination_form_is_decoded() {
    let far = 0x0123_4567_u64 << 32;
    let expected = [
        (far | 0x40, Target::Physical { destination: 0x0123_4567, x2apic: true }),
        (far | 0x40 | LOGICAL, Target::Logical { destination: 0x0123_4567, x2apic: true }),
        (far | 0x40 | ONLY_SELF, Target::OnlySelf),
        (far | 0x40 | ALL, Target::All),
        (far | 0x40 | ALL_BUT_SELF | LOGICAL, Target::AllButSelf),
    ];
    for (icr, target) in expected {
        let ipi = Ipi { mode: DeliveryMode::Fixed, vector: 0x40, target, level: false };
        assert_eq!(sent(icr), Some(ipi), "{icr:#x}");
    }
}

/// SDM table 12-3.
#[test]
fn shorthands_send_only_what_the_manual_lets_them() {
    let modes = [0x40, 0x40 | 1 << 8, 4 << 8, INIT | ASSERT, 6 << 8, INIT | LEVEL];
    let with = |shorthand: u64| modes.map(|mode| sent(mode | shorthand).is_some());
    assert_eq!(with(ONLY_SELF), [true, false, false, false, false, false]);
    assert_eq!(with(ALL), [true, false, false, false, false, true]);
    assert_eq!(with(ALL_BUT_SELF), [true; 6]);
}

#[test]
fn xapic_sends_on_the_low_half_to_the_destination_in_the_high_half() {
    let mut apic = xapic();
    assert_eq!(poke(&mut apic, 0x310, 0x0501_0203), Effect::None);
    let target = Target::Physical { destination: 5, x2apic: false };
    let ipi = Ipi { mode: DeliveryMode::Fixed, vector: 0x41, target, level: false };
    assert_eq!(poke(&mut apic, 0x300, 0xfff3_3041), Effect::Ipi(ipi));
    assert_eq!(peek(&mut apic, 0x300), 0x0000_0041);
    assert_eq!(peek(&mut apic, 0x310), 0x0500_0000);
}

/// SDM 12.6.1.
#[test]
fn x2apic_sends_with_one_64_bit_write_and_shows_it() {
    let mut apic = x2apic();
    let icr = 7 << 32 | LOGICAL | 0x41;
    let effect = apic.write_msr(ICR, icr | 1 << 12, at(0));
    assert!(matches!(effect, Ok(Effect::Ipi(_))));
    assert_eq!(get(&mut apic, ICR), icr, "delivery status reads as idle");
}

/// SDM 12.12.9.
#[test]
fn x2apic_refuses_reserved_bits() {
    for bit in [13, 16, 17].into_iter().chain(20..32) {
        assert!(refused(&mut x2apic(), ICR, 0x40 | 1 << bit), "bit {bit}");
    }
}

/// SDM figure 12-9: "send illegal vector", and "receive illegal vector" for a self IPI.
#[test]
fn illegal_vector_is_not_sent_and_noted() {
    for (msr, value, errors) in [
        (ICR, 0x0f, 1 << 5),
        (ICR, 0x0f | 1 << 8, 1 << 5),
        (ICR, 0x0f | ALL, 1 << 5),
        (ICR, 0x0f | ONLY_SELF, 1 << 5 | 1 << 6),
        (SELF_IPI, 0x0f, 1 << 5 | 1 << 6),
    ] {
        let mut apic = x2apic();
        set(&mut apic, msr, value);
        set(&mut apic, ESR, 0);
        assert_eq!(get(&mut apic, ESR), errors, "{msr:#x} {value:#x}");
    }
}

/// SDM table 12-3: what carries no vector to a handler has none that could be illegal.
#[test]
fn vector_below_16_is_legal_where_it_means_nothing() {
    for icr in [4 << 8, INIT | ASSERT, 6 << 8 | 1, INIT | LEVEL] {
        let mut apic = x2apic();
        assert!(matches!(apic.write_msr(ICR, icr, at(0)), Ok(Effect::Ipi(_))), "{icr:#x}");
        set(&mut apic, ESR, 0);
        assert_eq!(get(&mut apic, ESR), 0, "{icr:#x}");
    }
}

/// SDM 12.6.1, "Trigger Mode": fixed interrupts of the ICR are edge-triggered whatever it says.
#[test]
fn trigger_mode_of_the_icr_makes_no_interrupt_level_triggered() {
    for icr in [0x40 | LEVEL, 0x40 | LEVEL | ASSERT, 0x40 | LEVEL | ASSERT | ALL] {
        assert_eq!(sent(icr).map(|ipi| ipi.level), Some(false), "{icr:#x}");
    }
}

/// SDM 12.12.11.
#[test]
fn self_ipi_is_a_fixed_interrupt_to_the_sender() {
    let ipi =
        Ipi { mode: DeliveryMode::Fixed, vector: 0x77, target: Target::OnlySelf, level: false };
    assert_eq!(x2apic().write_msr(SELF_IPI, 0x77, at(0)), Ok(Effect::Ipi(ipi)));
    assert!(refused(&mut x2apic(), SELF_IPI, 0x177));
}

/// SDM 12.4.7.2.
#[test]
fn software_disabled_apic_still_sends() {
    let mut apic = x2apic();
    set(&mut apic, SVR, 0xff);
    let effect = apic.write_msr(ICR, INIT | ASSERT | ALL_BUT_SELF, at(0));
    assert!(matches!(effect, Ok(Effect::Ipi(_))));
}
