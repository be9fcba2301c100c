//! The local APIC (SDM vol. 3A, chapter 12), in xAPIC and x2APIC mode.
//!
//! Split by who owns what. [`LocalApic`] is plain state of whoever holds the vCPU. [`Inbox`] is what
//! other threads want of it. [`Routing`] is how a sender finds inboxes. None of them knows a thread,
//! a clock or KVM: time is an argument, and an inter-processor interrupt comes back as an
//! [`Effect`].
//!
//! Owns IRR, ISR, TMR, the priorities, the LVT, the timer. Must not know who is woken, when a vector
//! is injected, or what INIT does to the rest of a processor.
//!
//! Left out: an arbitration bus (APR and remote read are zero), SMI, and sources for the LVT entries
//! of thermal, performance and corrected-machine-check interrupts, which are registers alone.
//!
//! | threat | answer |
//! |---|---|
//! | access to a register that does not exist, or with reserved bits | x2APIC: #GP. xAPIC: the bits are dropped, ESR notes the register |
//! | MMIO of another width or alignment than 4 bytes at a multiple of 16 | reads within the first 4 bytes of a register are served, others are zero; writes are ignored |
//! | a pin's level-triggered entry with an illegal vector, or rewritten while its end is awaited | no end is awaited; the next assertion requests again |
//! | vectors below 16, from the guest's own LVT or from another vCPU | never enter IRR; ESR notes them |
//! | an error interrupt whose own vector is illegal | noted in ESR once, no recursion |
//! | a periodic timer with the shortest period | passed periods are one expiry; the work is the same for one or 2^64 ns late; [`ApicConfig::least_period_ns`] |
//! | the largest counts, deadlines and times | 128-bit arithmetic that saturates to "never" |
//! | disabling or resetting the APIC with the timer armed or interrupts in service | everything is cleared by a reset that names every field |

mod access;
mod base;
mod icr;
mod inbox;
mod lint;
mod lvt;
#[cfg(all(test, loom))]
#[path = "tests/models.rs"]
mod models;
mod pv_eoi;
mod regs;
mod report;
mod routing;
#[cfg(all(test, not(loom)))]
mod tests;
mod timer;

use thiserror::Error;

pub use self::icr::{DeliveryMode, Ipi, Target};
pub use self::inbox::{Inbox, Pulled};
pub use self::lint::Lint;
pub use self::pv_eoi::EoiGrant;
pub use self::routing::{Routing, Targets};

use self::base::{ApicBase, ApicMode};
use self::lint::Lines;
use self::lvt::{Entry, Lvt};
use self::pv_eoi::PvEoi;
use self::regs::{FIRST_LEGAL_VECTOR, VectorSet, class};
use self::timer::Timer;
use crate::time::Moment;

/// The guest's access raises #GP(0) in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("general-protection fault")]
pub struct GeneralProtection;

/// What a register write asks of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// An inter-processor interrupt is to be posted to everyone that [`Routing::resolve`] names.
    Ipi(Ipi),
    /// The APIC is reached in another way than before: [`Routing::update`] is to be called.
    Routing,
    /// A level-triggered interrupt with this vector has ended: the I/O APICs are to be told.
    EndOfInterrupt(u8),
}

/// What is decided about a local APIC before it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicConfig {
    /// APIC ID: what x2APIC mode shows; xAPIC mode shows the low 8 bits. The guest cannot change it
    /// (SDM 12.4.6 leaves that to the model).
    pub id: u32,
    /// The bootstrap processor: bit 8 of IA32_APIC_BASE after reset.
    pub bsp: bool,
    /// Physical-address bits of the processor (CPUID.80000008H:EAX bits 7:0), at most 52 of which
    /// count: the bits of IA32_APIC_BASE beyond are reserved.
    pub physical_bits: u8,
    /// Frequency of the guest's TSC in kHz. Zero counts as 1.
    pub tsc_khz: u32,
    /// Frequency of the timer's counter at divide-by-1, in Hz; KVM and QEMU have 1 GHz. Zero counts
    /// as 1, more than 2^40 as 2^40.
    pub timer_hz: u64,
    /// The TSC-deadline mode exists (CPUID.01H:ECX bit 24). If not, bit 18 of the LVT timer entry is
    /// reserved, and IA32_TSC_DEADLINE raises #GP.
    pub tsc_deadline: bool,
    /// Shortest period of the periodic timer, in ns; 0: none. KVM's own APIC has 200,000
    /// (`min_timer_period_us`).
    pub least_period_ns: u64,
    /// There is an LVT entry for corrected machine checks: IA32_MCG_CAP bit 10 says so to the guest.
    /// If not, its register does not exist.
    pub cmci: bool,
    /// Paravirtual EOI is offered (CPUID 0x40000001, EAX bit 6). If not, its MSR raises #GP.
    pub pv_eoi: bool,
}

/// One local APIC, as the holder of its vCPU sees it.
#[derive(Clone, Debug)]
pub struct LocalApic {
    config: ApicConfig,
    base: ApicBase,
    tpr: u8,
    /// Of xAPIC mode; x2APIC mode derives its own from the ID.
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    /// Errors that the guest sees, as of its last write to ESR (SDM 12.5.3).
    esr: u32,
    /// Errors since then.
    errors: u32,
    /// The error interrupt was raised since then.
    error_told: bool,
    icr: u64,
    lvt: Lvt,
    timer: Timer,
    /// Interrupts that the timer caused, since power-up.
    timer_interrupts: u64,
    pv_eoi: PvEoi,
    lines: Lines,
}

impl LocalApic {
    /// An APIC after power-up: in xAPIC mode at 0xfee00000, software-disabled (SDM 12.4.7.1).
    #[must_use]
    pub fn new(config: ApicConfig) -> Self {
        LocalApic {
            config,
            base: ApicBase::new(config.bsp),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: regs::SVR_RESET,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: 0,
            errors: 0,
            error_told: false,
            icr: 0,
            lvt: Lvt::new(config.tsc_deadline, config.bsp),
            timer: Timer::new(config.timer_hz, config.tsc_khz, config.least_period_ns),
            timer_interrupts: 0,
            pv_eoi: PvEoi::default(),
            lines: Lines::default(),
        }
    }

    /// What INIT does: everything as after power-up, but ID, IA32_APIC_BASE, and with it the mode,
    /// stay (SDM 12.4.7.3, 12.12.5.1). [`Routing::update`] is to be called afterwards.
    pub fn init_reset(&mut self) {
        let LocalApic {
            config: _,
            base: _,
            timer_interrupts: _,
            tpr,
            ldr,
            dfr,
            svr,
            isr,
            tmr,
            irr,
            esr,
            errors,
            error_told,
            icr,
            lvt,
            timer,
            pv_eoi,
            lines,
        } = self;
        *tpr = 0;
        *ldr = 0;
        *dfr = u32::MAX;
        *svr = regs::SVR_RESET;
        *isr = VectorSet::default();
        *tmr = VectorSet::default();
        *irr = VectorSet::default();
        *esr = 0;
        *errors = 0;
        *error_told = false;
        *icr = 0;
        lvt.reset();
        timer.reset();
        pv_eoi.reset();
        lines.reset();
    }

    /// The APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// IA32_APIC_BASE.
    #[must_use]
    pub fn base_msr(&self) -> u64 {
        self.base.get()
    }

    /// Writes IA32_APIC_BASE. Disabling the APIC loses all its state; enabling x2APIC mode keeps it,
    /// but for the high half of ICR (SDM 12.12.5.1). If the mode changed, [`Routing::update`] is to be
    /// called.
    ///
    /// # Errors
    /// #GP for reserved bits and for a transition that SDM figure 12-27 does not have; nothing has
    /// changed then.
    pub fn set_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let old = self.base.mode();
        self.base = self.base.written(value, self.config.physical_bits)?;
        match (old, self.base.mode()) {
            (ApicMode::Xapic | ApicMode::X2apic, ApicMode::Disabled) => self.init_reset(),
            (ApicMode::Xapic, ApicMode::X2apic) => self.icr &= u64::from(u32::MAX),
            _ => {}
        }
        Ok(())
    }

    /// The guest-physical address of the register page; none unless in xAPIC mode.
    #[must_use]
    pub fn mmio_base(&self) -> Option<u64> {
        (self.base.mode() == ApicMode::Xapic).then(|| self.base.address())
    }

    /// Whether it is in x2APIC mode.
    #[must_use]
    pub fn is_x2apic(&self) -> bool {
        self.base.mode() == ApicMode::X2apic
    }

    /// The logical destination register; in x2APIC mode cluster (bits 31:16) and bit within it
    /// (15:0), both from the ID (SDM 12.12.10.2).
    #[must_use]
    pub fn ldr(&self) -> u32 {
        if self.is_x2apic() { x2apic_ldr(self.config.id) } else { self.ldr }
    }

    /// The destination format register. Without meaning in x2APIC mode.
    #[must_use]
    pub fn dfr(&self) -> u32 {
        self.dfr
    }

    /// Moves what was posted into IRR, and hands on the rest. Fixed interrupts that arrive while the
    /// APIC is software-disabled are lost; NMI, INIT and SIPI arrive (SDM 12.4.7.2).
    pub fn pull(&mut self, inbox: &Inbox) -> Pulled {
        self.accept_all(inbox.take_vectors(), false);
        let (levels, pulled) = inbox.take_events();
        self.accept_all(levels, true);
        if pulled.extint {
            self.lines.external = true;
        }
        pulled
    }

    fn accept_all(&mut self, vectors: [u64; 4], level: bool) {
        for (word, mut bits) in (0_u8..).zip(vectors) {
            while bits != 0 {
                let vector = word * 64 + bits.trailing_zeros() as u8;
                bits &= bits - 1;
                if self.enabled() {
                    self.accept(vector, level);
                }
            }
        }
    }

    /// The guest's TSC was moved, by IA32_TIME_STAMP_COUNTER or IA32_TSC_ADJUST; `now` has the new
    /// one.
    pub fn tsc_changed(&mut self, now: Moment) {
        self.timer.tsc_changed(now);
    }

    /// Host time in ns at which the timer fires next; none when it is disarmed or its LVT entry
    /// masked. Computed when the timer is armed, so this costs nothing.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.timer.expiry().filter(|_| !self.lvt.masked(Entry::Timer))
    }

    /// Lets the timer fire if it is due; true if it caused an interrupt.
    ///
    /// Periods that have passed unnoticed are one interrupt, and the next one stays on the grid of
    /// the first. Afterwards [`LocalApic::deadline`] is later than `now`, or none.
    pub fn advance(&mut self, now: Moment) -> bool {
        if !self.timer.settle(now) || self.lvt.masked(Entry::Timer) {
            return false;
        }
        let accepted = self.accept(self.lvt.vector(Entry::Timer), false);
        self.timer_interrupts += u64::from(accepted);
        accepted
    }

    /// Interrupts that the timer has caused since power-up: what the guest counts too, but for those
    /// that came while the one before was not taken yet.
    #[must_use]
    pub fn timer_interrupts(&self) -> u64 {
        self.timer_interrupts
    }

    /// Whether a timer interrupt, if it fired now, would reach the processor: its LVT entry is
    /// unmasked, the APIC enabled, the vector's class above PPR's.
    #[must_use]
    pub fn timer_vector_deliverable(&self) -> bool {
        let vector = self.lvt.vector(Entry::Timer);
        self.enabled()
            && !self.lvt.masked(Entry::Timer)
            && vector >= FIRST_LEGAL_VECTOR
            && class(vector) > class(self.ppr())
    }

    /// The vector to inject next: the highest in IRR if its class is above PPR's. What was requested
    /// before the APIC was software-disabled is still delivered (SDM 12.4.7.2: it is held, and the
    /// processor masks or handles it).
    #[must_use]
    #[inline]
    pub fn next_vector(&self) -> Option<u8> {
        self.irr.highest().filter(|vector| class(*vector) > class(self.ppr()))
    }

    /// The processor has taken this vector: it moves from IRR to ISR. A vector that is not in IRR is
    /// ignored.
    pub fn acknowledge(&mut self, vector: u8) {
        if self.irr.contains(vector) {
            self.irr.remove(vector);
            self.isr.insert(vector);
        }
    }

    /// The interrupt in service with the highest priority ends (SDM 12.8.5).
    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else { return Effect::None };
        self.isr.remove(vector);
        if !self.tmr.contains(vector) {
            return Effect::None;
        }
        self.lint_ended(vector);
        if self.svr & regs::SVR_NO_BROADCAST != 0 {
            return Effect::None;
        }
        Effect::EndOfInterrupt(vector)
    }

    /// The task-priority register.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// CR8: the class of TPR, 0 to 15.
    #[must_use]
    pub fn cr8(&self) -> u8 {
        class(self.tpr)
    }

    /// Takes over CR8 after the guest ran. Bits 7:4 are ignored. The sub-class of TPR is cleared, as
    /// a move to CR8 does (SDM 12.8.6), unless the class is what it was: then the guest most likely
    /// did not write CR8 at all.
    pub fn set_cr8(&mut self, cr8: u8) {
        if cr8 & 0xf != self.cr8() {
            self.tpr = cr8 << 4;
        }
    }

    /// The processor-priority register (SDM 12.8.3.1).
    fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if class(self.tpr) >= class(in_service) { self.tpr } else { in_service & 0xf0 }
    }

    /// Enabled, by IA32_APIC_BASE and by SVR.
    fn enabled(&self) -> bool {
        self.base.mode() != ApicMode::Disabled && self.svr & regs::SVR_ENABLE != 0
    }

    /// An interrupt has arrived or arisen here; true if it is now in IRR.
    fn accept(&mut self, vector: u8, level: bool) -> bool {
        if vector < FIRST_LEGAL_VECTOR {
            self.note_error(regs::ESR_RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        self.irr.insert(vector);
        if level {
            self.tmr.insert(vector)
        } else {
            self.tmr.remove(vector)
        }
        true
    }

    /// Notes an error, and raises the error interrupt, which only a write to ESR arms again (SDM
    /// 12.5.3).
    fn note_error(&mut self, error: u32) {
        self.errors |= error;
        if self.error_told || self.lvt.masked(Entry::Error) {
            return;
        }
        self.error_told = true;
        let vector = self.lvt.vector(Entry::Error);
        if vector < FIRST_LEGAL_VECTOR {
            self.errors |= regs::ESR_RECEIVE_ILLEGAL_VECTOR;
        } else {
            let _ = self.accept(vector, false);
        }
    }
}

/// The logical ID that x2APIC mode gives an APIC: SDM 12.12.10.2.
fn x2apic_ldr(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}
