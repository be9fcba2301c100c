//! A redirection table entry (82093AA, 3.2.4 "IOREDTBL").
//!
//! Owns the meaning of its bits, and remote IRR. Must not know its pin.

use super::{Delivery, Message};
use crate::apic::Target;

/// Vector, delivery mode, destination mode, polarity, trigger mode, mask.
const LOW_WRITABLE: u64 = 0x0001_afff;
/// The destination.
const HIGH_WRITABLE: u64 = 0xff00_0000 << 32;

const LOGICAL: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASK: u64 = 1 << 16;

/// One entry. Remote IRR is set in none that [`Entry::is_level`] denies; the delivery status is not
/// kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    /// After reset: masked, all else zero.
    pub(super) const RESET: Entry = Entry(MASK);

    /// Bits 31:0 as the guest reads them, with the delivery status that the owner knows.
    pub(super) fn low(self, send_pending: bool) -> u32 {
        (self.0 | if send_pending { DELIVERY_STATUS } else { 0 }) as u32
    }

    /// Bits 63:32 as the guest reads them.
    pub(super) fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The guest writes bits 31:0.
    pub(super) fn set_low(&mut self, value: u32) {
        self.0 = self.0 & !LOW_WRITABLE | u64::from(value) & LOW_WRITABLE;
        if !self.is_level() {
            self.end_of_interrupt();
        }
    }

    /// The guest writes bits 63:32.
    pub(super) fn set_high(&mut self, value: u32) {
        self.0 = self.0 & !HIGH_WRITABLE | (u64::from(value) << 32) & HIGH_WRITABLE;
    }

    pub(super) fn vector(self) -> u8 {
        self.0 as u8
    }

    pub(super) fn is_masked(self) -> bool {
        self.0 & MASK != 0
    }

    /// Level-triggered, in effect. The other delivery modes are edge-triggered whatever the trigger
    /// mode says (82093AA, "Delivery Mode").
    pub(super) fn is_level(self) -> bool {
        let acknowledged = matches!(self.mode(), Some(Delivery::Fixed | Delivery::LowestPriority));
        acknowledged && self.0 & LEVEL != 0
    }

    /// Not masked, and of a delivery mode that exists.
    pub(super) fn can_send(self) -> bool {
        !self.is_masked() && self.mode().is_some()
    }

    /// Causes nothing but maskable interrupts.
    pub(super) fn is_maskable(&self) -> bool {
        let maskable = [Delivery::Fixed, Delivery::LowestPriority, Delivery::ExtInt];
        !self.can_send() || self.mode().is_some_and(|mode| maskable.contains(&mode))
    }

    pub(super) fn remote_irr(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    /// Clears remote IRR.
    pub(super) fn end_of_interrupt(&mut self) {
        self.0 &= !REMOTE_IRR;
    }

    /// The message, now accepted: sets remote IRR if it is level-triggered. `None` for an entry that
    /// cannot send.
    pub(super) fn send(&mut self) -> Option<Message> {
        if self.is_masked() {
            return None;
        }
        let mode = self.mode()?;
        let level = self.is_level();
        if level {
            self.0 |= REMOTE_IRR;
        }
        Some(Message { mode, vector: self.vector(), target: self.target(), level })
    }

    fn mode(self) -> Option<Delivery> {
        match (self.0 >> 8) & 0b111 {
            0b000 => Some(Delivery::Fixed),
            0b001 => Some(Delivery::LowestPriority),
            0b010 => Some(Delivery::Smi),
            0b100 => Some(Delivery::Nmi),
            0b101 => Some(Delivery::Init),
            0b111 => Some(Delivery::ExtInt),
            _ => None,
        }
    }

    fn target(self) -> Target {
        let destination = (self.0 >> 56) as u32;
        match self.0 & LOGICAL {
            0 => Target::Physical { destination, x2apic: false },
            _ => Target::Logical { destination, x2apic: false },
        }
    }
}
