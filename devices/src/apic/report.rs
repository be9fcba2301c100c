//! The registers in words, for a report of what a processor was about when it stopped.
//!
//! Owns the form. Reads only; must not change anything.

use std::fmt;

use super::lvt::Entry;
use super::regs::VectorSet;
use super::{ApicMode, LocalApic};

struct Vectors<'a>(&'a VectorSet);

impl fmt::Display for Vectors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for vector in (0..=255).filter(|vector| self.0.contains(*vector)) {
            write!(f, "{}{vector:#x}", if any { " " } else { "" })?;
            any = true;
        }
        if any { Ok(()) } else { write!(f, "-") }
    }
}

impl fmt::Display for LocalApic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.base.mode() {
            ApicMode::Disabled => "disabled",
            ApicMode::Xapic => "xAPIC",
            ApicMode::X2apic => "x2APIC",
        };
        let base = self.base.get();
        let id = self.config.id;
        let (tpr, ppr, svr) = (self.tpr, self.ppr(), self.svr);
        writeln!(f, "APIC {id} {mode} base={base:#x} svr={svr:#x} tpr={tpr:#x} ppr={ppr:#x}")?;
        let (irr, isr, tmr) = (Vectors(&self.irr), Vectors(&self.isr), Vectors(&self.tmr));
        writeln!(f, "irr: {irr}; isr: {isr}; tmr: {tmr}")?;
        let (ldr, dfr, icr, esr, errors) = (self.ldr(), self.dfr, self.icr, self.esr, self.errors);
        writeln!(f, "ldr={ldr:#x} dfr={dfr:#x} icr={icr:#x} esr={esr:#x} errors={errors:#x}")?;
        write!(f, "lvt:")?;
        for (name, entry) in [
            ("timer", Entry::Timer),
            ("lint0", Entry::Lint0),
            ("lint1", Entry::Lint1),
            ("error", Entry::Error),
            ("perf", Entry::Performance),
            ("thermal", Entry::Thermal),
            ("cmci", Entry::Cmci),
        ] {
            write!(f, " {name}={:#x}", self.lvt.get(entry))?;
        }
        writeln!(f)?;
        let (initial, divide) = (self.timer.initial(), self.timer.divide());
        write!(f, "timer: {:?} tmict={initial:#x} tdcr={divide:#x}", self.lvt.timer_mode())?;
        match self.timer.expiry() {
            Some(at) => write!(f, " fires at {at} ns (tsc {:#x})", self.timer.tsc_deadline()),
            None => write!(f, " disarmed"),
        }
    }
}
