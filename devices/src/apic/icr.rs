//! The interrupt command register, and what a write to it asks for.
//!
//! Owns the meaning of its bits (SDM 12.6.1, figures 12-12 and 12-28). Must not know who the
//! destination is: that is [`super::Routing`]'s.

use super::regs::FIRST_LEGAL_VECTOR;

/// Vector, delivery mode, destination mode, level, trigger mode, shorthand.
pub(super) const LOW_WRITABLE: u32 = 0x000c_cfff;
/// The destination in xAPIC mode.
pub(super) const HIGH_WRITABLE: u32 = 0xff00_0000;
/// Delivery status. Read-only in xAPIC mode; x2APIC mode has no such bit, takes it and drops it.
const DELIVERY_STATUS: u64 = 1 << 12;
/// What x2APIC mode takes.
const X2APIC_LEGAL: u64 = 0xffff_ffff_0000_0000 | LOW_WRITABLE as u64 | DELIVERY_STATUS;

/// What an inter-processor interrupt does at its destination (SDM 12.6.1, "Delivery Mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// Requests the vector.
    Fixed,
    /// Requests the vector at one of the destinations.
    LowestPriority,
    /// A non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// The end of a level-triggered INIT. Processors newer than the Pentium ignore it.
    InitDeassert,
    /// Start-up; the vector is the number of the 4 KiB page to start at.
    Sipi,
    /// An external interrupt: the processor asks the PIC for the vector. From an I/O APIC alone.
    ExtInt,
}

/// Whom an inter-processor interrupt is for.
///
/// Of the two destination forms, `x2apic` says which mode the sender was in: destinations are then
/// 32 bits wide, else 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Shorthand: the sender alone.
    OnlySelf,
    /// Shorthand: everyone, the sender included.
    All,
    /// Shorthand: everyone but the sender.
    AllButSelf,
    /// An APIC ID, or all ones for everyone.
    Physical {
        /// The ID.
        destination: u32,
        /// The sender's mode.
        x2apic: bool,
    },
    /// A message destination address, matched against each APIC's LDR and DFR, or all ones for
    /// everyone.
    Logical {
        /// The address.
        destination: u32,
        /// The sender's mode.
        x2apic: bool,
    },
}

/// An inter-processor interrupt, to be carried to the inboxes that [`super::Routing::resolve`]
/// names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// What it does there.
    pub mode: DeliveryMode,
    /// The vector: 16 to 255 for [`DeliveryMode::Fixed`] and [`DeliveryMode::LowestPriority`], any
    /// value for [`DeliveryMode::Sipi`], meaningless otherwise.
    pub vector: u8,
    /// Whom it is for.
    pub target: Target,
    /// Level-triggered: its end is told to the I/O APICs. What the ICR sends never is.
    pub level: bool,
}

/// What a write to the ICR comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Send(Ipi),
    /// The vector is below 16: nothing is sent, ESR says so. If it was for the sender itself, it
    /// counts as received, too (SDM figure 12-9).
    IllegalVector {
        to_self: bool,
    },
    /// SMI, a reserved delivery mode, or a shorthand that the mode does not go with (SDM table
    /// 12-3): nothing is sent.
    Nothing,
}

/// Whether x2APIC mode takes the value; it raises #GP otherwise.
pub(super) fn legal_in_x2apic(value: u64) -> bool {
    value & !X2APIC_LEGAL == 0
}

/// What the register keeps of a 64-bit write.
pub(super) fn stored_in_x2apic(value: u64) -> u64 {
    value & !DELIVERY_STATUS
}

/// Decodes the register.
pub(super) fn command(icr: u64, x2apic: bool) -> Command {
    let vector = icr as u8;
    let Some(mode) = delivery_mode(icr) else {
        return Command::Nothing;
    };
    let carries_vector = matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
    let target = target(icr, x2apic);
    if carries_vector && vector < FIRST_LEGAL_VECTOR {
        return Command::IllegalVector { to_self: target == Target::OnlySelf };
    }
    let valid = match target {
        Target::OnlySelf => mode == DeliveryMode::Fixed,
        Target::All => matches!(mode, DeliveryMode::Fixed | DeliveryMode::InitDeassert),
        Target::AllButSelf | Target::Physical { .. } | Target::Logical { .. } => true,
    };
    if valid { Command::Send(Ipi { mode, vector, target, level: false }) } else { Command::Nothing }
}

/// A write to the self IPI register (SDM 12.12.11).
pub(super) fn self_ipi(vector: u8) -> Command {
    if vector < FIRST_LEGAL_VECTOR {
        return Command::IllegalVector { to_self: true };
    }
    Command::Send(Ipi { mode: DeliveryMode::Fixed, vector, target: Target::OnlySelf, level: false })
}

fn delivery_mode(icr: u64) -> Option<DeliveryMode> {
    let asserted = icr & (1 << 14) != 0;
    let level_triggered = icr & (1 << 15) != 0;
    match (icr >> 8) & 0b111 {
        0b000 => Some(DeliveryMode::Fixed),
        0b001 => Some(DeliveryMode::LowestPriority),
        0b100 => Some(DeliveryMode::Nmi),
        0b101 if level_triggered && !asserted => Some(DeliveryMode::InitDeassert),
        0b101 => Some(DeliveryMode::Init),
        0b110 => Some(DeliveryMode::Sipi),
        _ => None,
    }
}

fn target(icr: u64, x2apic: bool) -> Target {
    let high = (icr >> 32) as u32;
    let destination = if x2apic { high } else { high >> 24 };
    match (icr >> 18) & 0b11 {
        0b01 => Target::OnlySelf,
        0b10 => Target::All,
        0b11 => Target::AllButSelf,
        _ if icr & (1 << 11) != 0 => Target::Logical { destination, x2apic },
        _ => Target::Physical { destination, x2apic },
    }
}
