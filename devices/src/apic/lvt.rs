//! The local vector table.
//!
//! Owns its seven entries, their writable bits, and the rule that a software-disabled APIC masks them
//! all (SDM 12.4.7.2, 12.5.1). Must not know when an entry's source fires.

use super::regs::{LVT_CMCI, LVT_FIRST, LVT_LAST};
use super::timer::Mode;

const MASKED: u32 = 1 << 16;
const TIMER_PERIODIC: u32 = 1 << 17;
const TIMER_DEADLINE: u32 = 1 << 18;
/// Delivery status: read-only, always idle here.
const DELIVERY_STATUS: u32 = 1 << 12;
/// Remote IRR, of the pins: read-only.
const REMOTE_IRR: u32 = 1 << 14;

const MODE_SHIFT: u32 = 8;
const FIXED: u32 = 0b000;
const NMI: u32 = 0b100;
const EXTINT: u32 = 0b111;
const LEVEL: u32 = 1 << 15;

/// Vector, mask.
const VECTOR_AND_MASK: u32 = 0x0001_00ff;
/// Vector, delivery mode, mask.
const WITH_DELIVERY_MODE: u32 = 0x0001_07ff;
/// Vector, delivery mode, polarity, trigger mode, mask.
const PIN: u32 = 0x0001_a7ff;

/// An entry, in the order of the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Timer = 0,
    Thermal = 1,
    Performance = 2,
    Lint0 = 3,
    Lint1 = 4,
    Error = 5,
    Cmci = 6,
}

impl Entry {
    const ALL: [Entry; 6] = [
        Entry::Timer,
        Entry::Thermal,
        Entry::Performance,
        Entry::Lint0,
        Entry::Lint1,
        Entry::Error,
    ];

    pub(super) fn from_register(register: u32) -> Option<Entry> {
        match register {
            LVT_CMCI => Some(Entry::Cmci),
            LVT_FIRST..=LVT_LAST => Some(Entry::ALL[(register - LVT_FIRST) as usize]),
            _ => None,
        }
    }
}

/// What a pin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// Nothing: masked, or a mode that this processor has no use for (SMI, INIT, reserved).
    Masked,
    /// Requests the vector.
    Fixed { vector: u8, level: bool },
    /// A non-maskable interrupt.
    Nmi,
    /// The PIC has the vector.
    ExtInt,
}

/// The table.
#[derive(Clone, Debug)]
pub(super) struct Lvt {
    entries: [u32; 7],
    /// LINT0 of the boot processor passes the PIC's interrupts on from the start.
    virtual_wire: bool,
    /// The TSC-deadline mode is offered.
    tsc_deadline: bool,
}

impl Lvt {
    pub(super) fn new(tsc_deadline: bool, virtual_wire: bool) -> Self {
        let mut lvt = Lvt { entries: [MASKED; 7], virtual_wire, tsc_deadline };
        lvt.reset();
        lvt
    }

    pub(super) fn reset(&mut self) {
        let Lvt { entries, virtual_wire, tsc_deadline: _ } = self;
        *entries = [MASKED; 7];
        if *virtual_wire {
            entries[Entry::Lint0 as usize] = EXTINT << MODE_SHIFT;
        }
    }

    pub(super) fn get(&self, entry: Entry) -> u32 {
        self.entries[entry as usize]
    }

    /// Writes an entry. Bits that are not writable, and the second mode bit of a timer mode that
    /// does not exist, are dropped. `enabled` says that the APIC is software-enabled.
    pub(super) fn set(&mut self, entry: Entry, value: u32, enabled: bool) {
        let mut value = value & self.writable(entry);
        if entry == Entry::Timer && value & TIMER_DEADLINE != 0 && value & TIMER_PERIODIC != 0 {
            value &= !TIMER_DEADLINE;
        }
        if !enabled {
            value |= MASKED;
        }
        self.entries[entry as usize] = value;
    }

    /// What a software-disabled APIC does to the table.
    pub(super) fn mask_all(&mut self) {
        for entry in &mut self.entries {
            *entry |= MASKED;
        }
    }

    /// Whether x2APIC mode takes the value; it raises #GP otherwise (SDM 12.12.1.3).
    pub(super) fn legal_in_x2apic(&self, entry: Entry, value: u32) -> bool {
        let reserved_mode = entry == Entry::Timer
            && value & TIMER_DEADLINE != 0
            && (value & TIMER_PERIODIC != 0 || !self.tsc_deadline);
        !reserved_mode && value & !(self.writable(entry) | read_only(entry)) == 0
    }

    pub(super) fn masked(&self, entry: Entry) -> bool {
        self.get(entry) & MASKED != 0
    }

    pub(super) fn vector(&self, entry: Entry) -> u8 {
        self.get(entry) as u8
    }

    /// What an unmasked pin does when it is asserted.
    pub(super) fn pin(&self, entry: Entry) -> Pin {
        let value = self.get(entry);
        match value >> MODE_SHIFT & 7 {
            _ if value & MASKED != 0 => Pin::Masked,
            FIXED => Pin::Fixed { vector: value as u8, level: value & LEVEL != 0 },
            NMI => Pin::Nmi,
            EXTINT => Pin::ExtInt,
            _ => Pin::Masked,
        }
    }

    /// Whether a pin's entry is one of fixed delivery and level-triggered, masked or not.
    pub(super) fn level_triggered(&self, entry: Entry) -> bool {
        let value = self.get(entry);
        value >> MODE_SHIFT & 7 == FIXED && value & LEVEL != 0
    }

    pub(super) fn timer_mode(&self) -> Mode {
        let timer = self.get(Entry::Timer);
        if timer & TIMER_DEADLINE != 0 {
            Mode::TscDeadline
        } else if timer & TIMER_PERIODIC != 0 {
            Mode::Periodic
        } else {
            Mode::OneShot
        }
    }

    fn writable(&self, entry: Entry) -> u32 {
        match entry {
            Entry::Timer if self.tsc_deadline => VECTOR_AND_MASK | TIMER_PERIODIC | TIMER_DEADLINE,
            Entry::Timer => VECTOR_AND_MASK | TIMER_PERIODIC,
            Entry::Thermal | Entry::Performance | Entry::Cmci => WITH_DELIVERY_MODE,
            Entry::Lint0 | Entry::Lint1 => PIN,
            Entry::Error => VECTOR_AND_MASK,
        }
    }
}

/// What can be written in x2APIC mode and is not kept.
fn read_only(entry: Entry) -> u32 {
    match entry {
        Entry::Lint0 | Entry::Lint1 => DELIVERY_STATUS | REMOTE_IRR,
        _ => DELIVERY_STATUS,
    }
}
