//! The two interrupt pins, LINT0 and LINT1, and external interrupts.
//!
//! Owns the pins' levels and what their LVT entries make of them (SDM 12.5.1). Must not know what the
//! pins are wired to.
//!
//! In fixed mode an edge-triggered entry requests its vector when the pin is asserted; a
//! level-triggered one does while it is, but not again before the end of the interrupt (its remote
//! IRR). LINT1 is always edge-triggered, as the SDM says. While the APIC is disabled through
//! IA32_APIC_BASE, LINT0 is the processor's INTR and LINT1 its NMI (SDM 12.4.3).

use super::lvt::{Entry, Pin};
use super::{ApicMode, LocalApic};

/// A pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// LINT0: the PIC's output, on a PC.
    Lint0,
    /// LINT1: non-maskable interrupts, on a PC.
    Lint1,
}

impl Lint {
    fn entry(self) -> Entry {
        match self {
            Lint::Lint0 => Entry::Lint0,
            Lint::Lint1 => Entry::Lint1,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// Levels of the pins. Wires: a reset does not change them.
    asserted: [bool; 2],
    /// LINT0 has requested this level-triggered vector, whose end is awaited.
    remote_irr: Option<u8>,
    /// An I/O APIC has sent an external interrupt.
    pub external: bool,
}

impl Lines {
    pub(super) fn reset(&mut self) {
        let Lines { asserted: _, remote_irr, external } = self;
        *remote_irr = None;
        *external = false;
    }
}

impl LocalApic {
    /// A pin has this level now. Answers whether the processor gets an NMI.
    #[must_use]
    pub fn set_lint(&mut self, lint: Lint, asserted: bool) -> bool {
        let rises = asserted && !self.lines.asserted[lint as usize];
        self.lines.asserted[lint as usize] = asserted;
        if self.base.mode() == ApicMode::Disabled {
            return rises && lint == Lint::Lint1;
        }
        match self.lvt.pin(lint.entry()) {
            Pin::Nmi => rises,
            Pin::Fixed { vector, level: true } if lint == Lint::Lint0 => {
                let wanted = asserted && self.enabled() && self.lines.remote_irr.is_none();
                // An illegal vector is never in service, so that its end must not be awaited.
                if wanted && self.accept(vector, true) {
                    self.lines.remote_irr = Some(vector);
                }
                false
            }
            Pin::Fixed { vector, .. } => {
                if rises && self.enabled() {
                    self.accept(vector, false);
                }
                false
            }
            Pin::ExtInt | Pin::Masked => false,
        }
    }

    /// An external interrupt waits to be taken. It has no priority: neither TPR nor what is in
    /// service keeps it back, and a software-disabled APIC lets it through.
    #[must_use]
    pub fn extint_wanted(&self) -> bool {
        let through =
            self.base.mode() == ApicMode::Disabled || self.lvt.pin(Entry::Lint0) == Pin::ExtInt;
        self.lines.external || (self.lines.asserted[Lint::Lint0 as usize] && through)
    }

    /// The processor takes the external interrupt: it asks the PIC for the vector.
    pub fn take_extint(&mut self) {
        self.lines.external = false;
    }

    /// The guest has written an entry. A level-triggered pin that is asserted requests its vector as
    /// soon as it is unmasked; one that is no longer level-triggered awaits no end.
    pub(super) fn entry_changed(&mut self, entry: Entry) {
        if entry != Entry::Lint0 {
            return;
        }
        if !self.lvt.level_triggered(entry) {
            self.lines.remote_irr = None;
        }
        let asserted = self.lines.asserted[Lint::Lint0 as usize];
        let _no_edge_no_nmi = self.set_lint(Lint::Lint0, asserted);
    }

    /// An interrupt with this vector that was level-triggered has ended.
    pub(super) fn lint_ended(&mut self, vector: u8) {
        if self.lines.remote_irr == Some(vector) {
            self.lines.remote_irr = None;
            if self.lines.asserted[Lint::Lint0 as usize] {
                let _ = self.set_lint(Lint::Lint0, true);
            }
        }
    }

    /// Remote IRR of an entry, as the LVT shows it.
    pub(super) fn remote_irr(&self, entry: Entry) -> bool {
        entry == Entry::Lint0 && self.lines.remote_irr.is_some()
    }
}
