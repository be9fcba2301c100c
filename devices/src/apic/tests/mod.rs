//! Behaviour of the local APIC. Only the races and the invariants look behind its public interface.

mod base_model;
mod calibration;
mod deadline;
mod inbox;
mod ipi;
mod lint;
mod priority;
mod priority_model;
mod properties;
mod pv_eoi;
mod registers;
mod routing;
mod state;
mod timer;
mod timer_model;

use super::*;

const TPR: u32 = 0x808;
const PPR: u32 = 0x80a;
const EOI: u32 = 0x80b;
const LDR: u32 = 0x80d;
const SVR: u32 = 0x80f;
const ISR: u32 = 0x810;
const IRR: u32 = 0x820;
const ESR: u32 = 0x828;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_ERROR: u32 = 0x837;
const TMICT: u32 = 0x838;
const TMCCT: u32 = 0x839;
const TDCR: u32 = 0x83e;
const SELF_IPI: u32 = 0x83f;
const TSC_DEADLINE: u32 = 0x6e0;
const APIC_BASE: u32 = 0x1b;

const MASKED: u64 = 1 << 16;
const PERIODIC: u64 = 1 << 17;
const DEADLINE_MODE: u64 = 1 << 18;
const DIVIDE_BY_1: u64 = 0b1011;

const CONFIG: ApicConfig = ApicConfig {
    id: 3,
    bsp: false,
    physical_bits: 52,
    tsc_khz: 2_000_000,
    timer_hz: 1_000_000_000,
    tsc_deadline: true,
    least_period_ns: 0,
    cmci: true,
    pv_eoi: true,
};

/// `ns` after the start, on a machine whose TSC runs at 2 GHz.
fn at(ns: u64) -> Moment {
    Moment { ns, tsc: ns.saturating_mul(2) }
}

/// A software-enabled APIC in x2APIC mode.
fn x2apic() -> LocalApic {
    x2apic_of(CONFIG)
}

fn x2apic_of(config: ApicConfig) -> LocalApic {
    let mut apic = LocalApic::new(config);
    apic.set_base(apic.base_msr() | 1 << 10).expect("a legal transition");
    set(&mut apic, SVR, 0x1ff);
    apic
}

/// A software-enabled APIC in xAPIC mode.
fn xapic() -> LocalApic {
    let mut apic = LocalApic::new(CONFIG);
    assert_eq!(poke(&mut apic, 0xf0, 0x1ff), Effect::Routing);
    apic
}

/// Writes an MSR at time zero.
fn set(apic: &mut LocalApic, msr: u32, value: u64) {
    set_at(apic, msr, value, 0);
}

fn set_at(apic: &mut LocalApic, msr: u32, value: u64, ns: u64) {
    // Nobody routes here.
    let effect = apic.write_msr(msr, value, at(ns)).ok().filter(|e| *e != Effect::Routing);
    assert!(matches!(effect, None | Some(Effect::None)), "{msr:#x} <- {value:#x}: {effect:?}");
}

fn get(apic: &mut LocalApic, msr: u32) -> u64 {
    get_at(apic, msr, 0)
}

fn get_at(apic: &mut LocalApic, msr: u32, ns: u64) -> u64 {
    apic.read_msr(msr, at(ns)).expect("a readable register")
}

fn refused(apic: &mut LocalApic, msr: u32, value: u64) -> bool {
    apic.write_msr(msr, value, at(0)) == Err(GeneralProtection)
}

/// Writes the register page at time zero.
fn poke(apic: &mut LocalApic, offset: u64, value: u32) -> Effect {
    apic.write_mmio(offset, &value.to_le_bytes(), at(0))
}

fn peek(apic: &mut LocalApic, offset: u64) -> u32 {
    let mut data = [0xaa; 4];
    apic.read_mmio(offset, &mut data, at(0));
    u32::from_le_bytes(data)
}

fn request(apic: &mut LocalApic, vectors: &[u8]) {
    let inbox = Inbox::new();
    for vector in vectors {
        inbox.post(*vector);
    }
    assert_eq!(apic.pull(&inbox), Pulled::default());
}

/// The vectors in one of ISR, TMR, IRR.
fn vectors(apic: &mut LocalApic, first_register: u32) -> Vec<u8> {
    (0..=255_u8)
        .filter(|v| get(apic, first_register + u32::from(v / 32)) & (1 << (v % 32)) != 0)
        .collect()
}
