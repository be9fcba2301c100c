//! How the guest reaches the registers: MSRs and the register page.
//!
//! Owns the differences between the two: which registers exist, what is reserved, what is an error.
//! Must not know KVM's exits.

use super::base::ApicMode;
use super::icr::{self, Command};
use super::lvt::Entry;
use super::{Effect, GeneralProtection, LocalApic, regs};
use crate::time::Moment;

/// MSR numbers: SDM vol. 4, table 2-2.
const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// KVM's paravirtual EOI ("MSR_KVM_PV_EOI_EN" in its MSR documentation).
const KVM_PV_EOI: u32 = 0x4b56_4d04;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;
/// The page holds 64 registers of 16 bytes, of which 4 count; the rest of it is reserved.
const REGISTER_SPACING: u64 = 16;
const REGISTERS: u64 = 64;

impl LocalApic {
    /// Reads IA32_APIC_BASE (0x1b), IA32_TSC_DEADLINE (0x6e0), an x2APIC register (0x800 to
    /// 0x8ff) or KVM's paravirtual EOI (0x4b564d04).
    ///
    /// # Errors
    /// #GP where the SDM has it (12.12.1.2): not in x2APIC mode, no such register, write-only, the
    /// TSC-deadline mode or the paravirtual EOI not offered; and for any other MSR.
    pub fn read_msr(&mut self, msr: u32, now: Moment) -> Result<u64, GeneralProtection> {
        match msr {
            IA32_APIC_BASE => Ok(self.base_msr()),
            IA32_TSC_DEADLINE if self.config.tsc_deadline => {
                self.advance(now);
                Ok(self.timer.tsc_deadline())
            }
            KVM_PV_EOI if self.config.pv_eoi => Ok(self.pv_eoi.msr()),
            X2APIC_FIRST..=X2APIC_LAST if self.is_x2apic() => {
                self.read_x2apic(msr - X2APIC_FIRST, now)
            }
            _ => Err(GeneralProtection),
        }
    }

    /// Writes one of the MSRs that [`LocalApic::read_msr`] reads. A TSC deadline that has passed
    /// fires at once.
    ///
    /// # Errors
    /// #GP where the SDM has it (12.12.1.2, 12.12.1.3): not in x2APIC mode, no such register,
    /// read-only, reserved bits set, an illegal mode transition; and for any other MSR. Nothing has
    /// changed then.
    pub fn write_msr(
        &mut self,
        msr: u32,
        value: u64,
        now: Moment,
    ) -> Result<Effect, GeneralProtection> {
        match msr {
            IA32_APIC_BASE => {
                let old = self.base.mode();
                self.set_base(value)?;
                Ok(if self.base.mode() == old { Effect::None } else { Effect::Routing })
            }
            IA32_TSC_DEADLINE if self.config.tsc_deadline => {
                self.advance(now);
                self.timer.set_tsc_deadline(value, now);
                self.advance(now);
                Ok(Effect::None)
            }
            KVM_PV_EOI if self.config.pv_eoi => self.pv_eoi.set_msr(value).map(|()| Effect::None),
            X2APIC_FIRST..=X2APIC_LAST if self.is_x2apic() => {
                self.write_x2apic(msr - X2APIC_FIRST, value, now)
            }
            _ => Err(GeneralProtection),
        }
    }

    /// Reads the register page. All bytes of `data` are zero but for a 4-byte access to a register,
    /// at a multiple of 16, in xAPIC mode.
    pub fn read_mmio(&mut self, offset: u64, data: &mut [u8], now: Moment) {
        data.fill(0);
        let Some(register) = self.mmio_register(offset, data.len()) else {
            return;
        };
        let value = match register {
            regs::ID => self.config.id << 24,
            regs::APR | regs::RRD | regs::EOI => 0,
            regs::DFR => self.dfr,
            regs::ICR => self.icr as u32,
            regs::ICR_HIGH => (self.icr >> 32) as u32,
            _ => self.read_common(register, now).unwrap_or_else(|| {
                self.note_error(regs::ESR_ILLEGAL_REGISTER);
                0
            }),
        };
        data.copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the register page. Ignored but for a 4-byte access to a writable register, at a
    /// multiple of 16, in xAPIC mode; reserved bits are dropped.
    pub fn write_mmio(&mut self, offset: u64, data: &[u8], now: Moment) -> Effect {
        let (Some(register), Ok(bytes)) =
            (self.mmio_register(offset, data.len()), <[u8; 4]>::try_from(data))
        else {
            return Effect::None;
        };
        let value = u32::from_le_bytes(bytes);
        match register {
            regs::LDR => {
                self.ldr = value & regs::LDR_LOGICAL_ID;
                Effect::Routing
            }
            regs::DFR => {
                self.dfr = value | !regs::DFR_MODEL;
                Effect::Routing
            }
            regs::ICR => {
                self.icr = self.icr & !u64::from(u32::MAX) | u64::from(value & icr::LOW_WRITABLE);
                self.carry_out(icr::command(self.icr, false))
            }
            regs::ICR_HIGH => {
                self.icr =
                    self.icr & u64::from(u32::MAX) | u64::from(value & icr::HIGH_WRITABLE) << 32;
                Effect::None
            }
            regs::EOI => self.end_of_interrupt(),
            _ if self.write_common(register, value, now) => Effect::None,
            _ => {
                if !self.exists_read_only(register) {
                    self.note_error(regs::ESR_ILLEGAL_REGISTER);
                }
                Effect::None
            }
        }
    }

    fn mmio_register(&self, offset: u64, len: usize) -> Option<u32> {
        let aligned = len == 4 && offset.is_multiple_of(REGISTER_SPACING);
        let register = offset / REGISTER_SPACING;
        (aligned && register < REGISTERS && self.base.mode() == ApicMode::Xapic)
            .then_some(register as u32)
    }

    /// The LVT entry at a register, if this APIC has it.
    fn entry(&self, register: u32) -> Option<Entry> {
        Entry::from_register(register).filter(|entry| *entry != Entry::Cmci || self.config.cmci)
    }

    fn exists_read_only(&self, register: u32) -> bool {
        matches!(
            register,
            regs::ID | regs::VERSION | regs::APR | regs::PPR | regs::RRD | regs::ISR
                ..=regs::IRR_LAST | regs::TMCCT
        )
    }

    fn read_x2apic(&mut self, register: u32, now: Moment) -> Result<u64, GeneralProtection> {
        match register {
            regs::ID => Ok(u64::from(self.config.id)),
            regs::ICR => Ok(self.icr),
            _ => self.read_common(register, now).map(u64::from).ok_or(GeneralProtection),
        }
    }

    fn write_x2apic(
        &mut self,
        register: u32,
        value: u64,
        now: Moment,
    ) -> Result<Effect, GeneralProtection> {
        if register == regs::ICR {
            if !icr::legal_in_x2apic(value) {
                return Err(GeneralProtection);
            }
            self.icr = icr::stored_in_x2apic(value);
            return Ok(self.carry_out(icr::command(self.icr, true)));
        }
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        if !self.legal_in_x2apic(register, value) {
            return Err(GeneralProtection);
        }
        if register == regs::EOI {
            return Ok(self.end_of_interrupt());
        }
        if register == regs::SELF_IPI {
            return Ok(self.carry_out(icr::self_ipi(value as u8)));
        }
        if self.write_common(register, value, now) {
            Ok(Effect::None)
        } else {
            Err(GeneralProtection)
        }
    }

    /// Whether the register is there to be written with this value.
    fn legal_in_x2apic(&self, register: u32, value: u32) -> bool {
        let writable = match register {
            regs::TPR | regs::SELF_IPI => 0xff,
            regs::EOI | regs::ESR => 0,
            regs::SVR => regs::SVR_WRITABLE,
            regs::TMICT => u32::MAX,
            regs::TDCR => regs::TDCR_WRITABLE,
            _ => {
                return self
                    .entry(register)
                    .is_some_and(|entry| self.lvt.legal_in_x2apic(entry, value));
            }
        };
        value & !writable == 0
    }

    /// Reads a register that both modes have and show alike.
    fn read_common(&mut self, register: u32, now: Moment) -> Option<u32> {
        if let Some(entry) = self.entry(register) {
            return Some(self.lvt.get(entry) | u32::from(self.remote_irr(entry)) << 14);
        }
        match register {
            regs::VERSION => Some(regs::version(self.config.cmci)),
            regs::TPR => Some(u32::from(self.tpr)),
            regs::PPR => Some(u32::from(self.ppr())),
            regs::LDR => Some(self.ldr()),
            regs::SVR => Some(self.svr),
            regs::ISR..regs::TMR => Some(self.isr.register(register - regs::ISR)),
            regs::TMR..regs::IRR => Some(self.tmr.register(register - regs::TMR)),
            regs::IRR..=regs::IRR_LAST => Some(self.irr.register(register - regs::IRR)),
            regs::ESR => Some(self.esr),
            regs::TMICT => Some(self.timer.initial()),
            regs::TMCCT => {
                self.advance(now);
                Some(self.timer.current(now))
            }
            regs::TDCR => Some(self.timer.divide()),
            _ => None,
        }
    }

    /// Writes a register that both modes have; false if it is none that can be written.
    fn write_common(&mut self, register: u32, value: u32, now: Moment) -> bool {
        if let Some(entry) = self.entry(register) {
            self.advance(now);
            let enabled = self.enabled();
            self.lvt.set(entry, value, enabled);
            self.timer.set_mode(self.lvt.timer_mode());
            return true;
        }
        match register {
            regs::TPR => self.tpr = value as u8,
            regs::SVR => {
                self.advance(now);
                self.svr = value & regs::SVR_WRITABLE;
                if !self.enabled() {
                    self.lvt.mask_all();
                }
            }
            regs::ESR => self.esr = std::mem::take(&mut self.errors),
            regs::TMICT => {
                self.advance(now);
                self.timer.set_initial(value, now);
            }
            regs::TDCR => {
                self.advance(now);
                self.timer.set_divide(value, now);
            }
            _ => return false,
        }
        true
    }

    fn carry_out(&mut self, command: Command) -> Effect {
        match command {
            Command::Send(ipi) => Effect::Ipi(ipi),
            Command::IllegalVector => {
                self.note_error(regs::ESR_SEND_ILLEGAL_VECTOR);
                Effect::None
            }
            Command::Nothing => Effect::None,
        }
    }
}
