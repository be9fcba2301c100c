//! Register numbers, register bits, and the 256-bit vector registers.
//!
//! Owns the layout that the SDM gives (vol. 3A, table 12-1 for xAPIC offsets, table 12-6 for x2APIC
//! MSRs: both are sixteen times, or 0x800 plus, the numbers here). Must not know what a register
//! does.

/// Local APIC ID.
pub(super) const ID: u32 = 0x02;
/// Version.
pub(super) const VERSION: u32 = 0x03;
/// Task priority (TPR).
pub(super) const TPR: u32 = 0x08;
/// Arbitration priority; xAPIC only, and always zero on processors without an APIC bus.
pub(super) const APR: u32 = 0x09;
/// Processor priority (PPR).
pub(super) const PPR: u32 = 0x0a;
/// End of interrupt.
pub(super) const EOI: u32 = 0x0b;
/// Remote read; xAPIC only, and always zero on processors without an APIC bus.
pub(super) const RRD: u32 = 0x0c;
/// Logical destination (LDR).
pub(super) const LDR: u32 = 0x0d;
/// Destination format (DFR); xAPIC only.
pub(super) const DFR: u32 = 0x0e;
/// Spurious-interrupt vector (SVR).
pub(super) const SVR: u32 = 0x0f;
/// First of the eight in-service registers (ISR).
pub(super) const ISR: u32 = 0x10;
/// First of the eight trigger mode registers (TMR).
pub(super) const TMR: u32 = 0x18;
/// First of the eight interrupt request registers (IRR).
pub(super) const IRR: u32 = 0x20;
/// Last of them.
pub(super) const IRR_LAST: u32 = 0x27;
/// Error status (ESR).
pub(super) const ESR: u32 = 0x28;
/// Interrupt command (ICR): the low half in xAPIC mode, all 64 bits in x2APIC mode.
pub(super) const ICR: u32 = 0x30;
/// Interrupt command, high half; xAPIC only.
pub(super) const ICR_HIGH: u32 = 0x31;
/// Corrected machine checks (CMCI): an entry of the local vector table that came later.
pub(super) const LVT_CMCI: u32 = 0x2f;
/// First of the six other entries of the local vector table.
pub(super) const LVT_FIRST: u32 = 0x32;
/// Last of them.
pub(super) const LVT_LAST: u32 = 0x37;
/// Initial count (TMICT).
pub(super) const TMICT: u32 = 0x38;
/// Current count (TMCCT).
pub(super) const TMCCT: u32 = 0x39;
/// Divide configuration (TDCR).
pub(super) const TDCR: u32 = 0x3e;
/// Self IPI; x2APIC only.
pub(super) const SELF_IPI: u32 = 0x3f;

/// The version register: an integrated APIC (0x14), EOI-broadcast suppression, and the number of the
/// last LVT entry, of which there are six, or seven with CMCI (SDM 12.4.8).
pub(super) fn version(cmci: bool) -> u32 {
    0x0100_0014 | (5 + u32::from(cmci)) << 16
}

/// SVR: the APIC is software-enabled.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR: the end of a level-triggered interrupt is not told to the I/O APICs.
pub(super) const SVR_NO_BROADCAST: u32 = 1 << 12;
/// SVR: vector, enable, focus processor checking, EOI-broadcast suppression (SDM figure 12-23).
pub(super) const SVR_WRITABLE: u32 = 0x13ff;
/// SVR after reset: disabled, vector 0xff.
pub(super) const SVR_RESET: u32 = 0xff;
/// DFR: the model, flat (all ones) or cluster (zero).
pub(super) const DFR_MODEL: u32 = 0xf000_0000;
/// LDR: the logical APIC ID of xAPIC mode.
pub(super) const LDR_LOGICAL_ID: u32 = 0xff00_0000;
/// TDCR: the three bits of the divisor.
pub(super) const TDCR_WRITABLE: u32 = 0xb;

/// ESR: an IPI with a vector below 16 was to be sent (SDM figure 12-9).
pub(super) const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// ESR: an interrupt with a vector below 16 arrived.
pub(super) const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// ESR: a register that does not exist was accessed in xAPIC mode.
pub(super) const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// Vectors below this one are reserved for exceptions and never delivered by an APIC.
pub(super) const FIRST_LEGAL_VECTOR: u8 = 16;

/// One bit for each vector: IRR, ISR and TMR, two of the eight registers in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VectorSet([u64; 4]);

impl VectorSet {
    pub(super) fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] |= 1 << (vector % 64);
    }

    pub(super) fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] &= !(1 << (vector % 64));
    }

    pub(super) fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector / 64)] & (1 << (vector % 64)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    #[inline]
    pub(super) fn highest(&self) -> Option<u8> {
        // Asked at each entry, mostly in vain.
        if self.is_empty() {
            return None;
        }
        let (word, bits) = (0_u8..4).zip(self.0).rev().find(|(_, bits)| *bits != 0)?;
        Some(word * 64 + bits.ilog2() as u8)
    }

    /// The 32 bits that register `index` (0 to 7) of the eight shows.
    pub(super) fn register(&self, index: u32) -> u32 {
        (self.0[(index as usize / 2) & 3] >> (32 * (index & 1))) as u32
    }
}

/// The priority class of a vector or of a priority register (SDM 12.8.3.1).
pub(super) fn class(priority: u8) -> u8 {
    priority >> 4
}
