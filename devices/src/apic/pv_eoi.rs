//! Paravirtual EOI: an end of interrupt that is no exit (KVM's `MSR_KVM_PV_EOI_EN`, 0x4b564d04).
//!
//! The guest names four bytes of its memory. Before it is entered, bit 0 may be set there; a guest
//! that finds it set clears it instead of writing EOI. It may be set only while the exit that is
//! saved would have done nothing: one edge-triggered interrupt is in service and none waits. An
//! interrupt that arrives meanwhile makes the vCPU leave the guest, and the next entry clears the
//! bit again.
//!
//! Owns the MSR and the knowledge of where the bit may be set. Must not touch guest memory: the
//! holder of the vCPU does, as [`LocalApic::grant_eoi`] says before each entry, and tells with
//! [`LocalApic::eoi_without_exit`] after each exit that the bit is gone.
//!
//! | threat | answer |
//! |---|---|
//! | an address without memory | the bit is never seen clear, so nothing happens |
//! | a guest that sets or clears the bit as it likes | it ends its own interrupts early or late |
//! | a bit left behind by INIT or a new address | the next entry clears it |

use super::regs::VectorSet;
use super::{GeneralProtection, LocalApic};

/// Bit 0 of the MSR; the rest is the address.
const ENABLE: u64 = 1;
const RESERVED: u64 = 0b10;

/// The flag to be written into guest memory before the guest is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct EoiGrant {
    /// Guest-physical address of a byte.
    pub address: u64,
    /// What its bit 0 shall be.
    pub set: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct PvEoi {
    msr: u64,
    /// Where the bit is set, unless the guest has cleared it.
    granted: Option<u64>,
}

impl PvEoi {
    pub(super) fn msr(&self) -> u64 {
        self.msr
    }

    pub(super) fn set_msr(&mut self, value: u64) -> Result<(), GeneralProtection> {
        if value & RESERVED != 0 {
            return Err(GeneralProtection);
        }
        self.msr = value;
        Ok(())
    }

    /// Where the bit is set is known for longer.
    pub(super) fn reset(&mut self) {
        self.msr = 0;
    }

    fn enabled_at(&self) -> Option<u64> {
        (self.msr & ENABLE != 0).then_some(self.msr & !ENABLE)
    }
}

impl LocalApic {
    /// What is to be written into guest memory before the guest is entered. To be called until it
    /// answers `None`, after the vector to be injected was acknowledged.
    pub fn grant_eoi(&mut self) -> Option<EoiGrant> {
        let may = self.irr.is_empty() && self.isr.only().is_some_and(|v| !self.tmr.contains(v));
        let wanted = self.pv_eoi.enabled_at().filter(|_| may);
        if self.pv_eoi.granted == wanted {
            return None;
        }
        if let Some(address) = self.pv_eoi.granted.take() {
            return Some(EoiGrant { address, set: false });
        }
        self.pv_eoi.granted = wanted;
        wanted.map(|address| EoiGrant { address, set: true })
    }

    /// The guest-physical address where bit 0 is to be looked at after an exit.
    #[must_use]
    pub fn granted_eoi(&self) -> Option<u64> {
        self.pv_eoi.granted
    }

    /// The bit was found clear after an exit: the guest has ended its interrupt.
    pub fn eoi_without_exit(&mut self) {
        if self.pv_eoi.granted.take().is_some() {
            // Granted for an edge-triggered interrupt, whose end nobody else is told.
            let _ = self.end_of_interrupt();
        }
    }
}

impl VectorSet {
    /// The vector, if there is exactly one.
    fn only(&self) -> Option<u8> {
        let vector = self.highest()?;
        let mut rest = *self;
        rest.remove(vector);
        rest.is_empty().then_some(vector)
    }
}
