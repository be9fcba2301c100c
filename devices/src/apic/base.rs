//! IA32_APIC_BASE: where the APIC is and in which mode.
//!
//! Owns the value and its legal transitions (SDM 12.4.4, 12.12.5, figure 12-27). Must not know what
//! a transition does to the other registers.
//!
//! | from \ to | disabled | xAPIC | x2APIC |
//! |---|---|---|---|
//! | disabled | | yes | #GP |
//! | xAPIC | yes | | yes |
//! | x2APIC | yes | #GP | |

use super::GeneralProtection;

/// Where the registers are after reset.
const DEFAULT_ADDRESS: u64 = 0xfee0_0000;
const BSP: u64 = 1 << 8;
const EXTD: u64 = 1 << 10;
const EN: u64 = 1 << 11;
/// Bits 51:12, of which those beyond the processor's physical-address bits are reserved.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApicMode {
    Disabled,
    Xapic,
    X2apic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApicBase(u64);

impl ApicBase {
    pub(super) fn new(bsp: bool) -> Self {
        ApicBase(DEFAULT_ADDRESS | EN | if bsp { BSP } else { 0 })
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }

    pub(super) fn mode(self) -> ApicMode {
        match (self.0 & EN != 0, self.0 & EXTD != 0) {
            (false, _) => ApicMode::Disabled,
            (true, false) => ApicMode::Xapic,
            (true, true) => ApicMode::X2apic,
        }
    }

    pub(super) fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    /// The register after a write, on a processor with this many physical-address bits.
    pub(super) fn written(self, value: u64, bits: u8) -> Result<ApicBase, GeneralProtection> {
        let next = ApicBase(value);
        let address = ADDRESS & !u64::MAX.checked_shl(bits.into()).unwrap_or(0);
        let reserved = value & !(address | EN | EXTD | BSP) != 0;
        let no_such_mode = value & EXTD != 0 && value & EN == 0;
        let illegal = matches!(
            (self.mode(), next.mode()),
            (ApicMode::Disabled, ApicMode::X2apic) | (ApicMode::X2apic, ApicMode::Xapic)
        );
        if reserved || no_such_mode || illegal { Err(GeneralProtection) } else { Ok(next) }
    }
}
