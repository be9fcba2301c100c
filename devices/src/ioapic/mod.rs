//! The I/O APIC: 24 pins that become interrupt messages.
//!
//! Source: the 82093AA datasheet (order number 290566), sections 3.1 "Memory Mapped Registers for
//! Accessing IOAPIC Registers" and 3.2 "IOAPIC Registers"; and, for what came after that chip
//! (version 0x20, the EOI register), the I/O Controller Hub 10 datasheet, section "APIC Registers".
//!
//! Owns the registers and what its pins last were. Must not know which device is at which pin, who
//! the destination of a message is, or when it is taken: [`IoApic::take_message`] is to be called
//! until it has none, after every write, change of a line and end of interrupt. A message is what
//! the entry says when it is taken.
//!
//! What the manuals leave open, beside what KVM's and QEMU's models do:
//!
//! | question | here | KVM | QEMU |
//! |---|---|---|---|
//! | polarity | stored, without effect: a line is asserted or not, whatever voltage that is | same | same |
//! | an edge on a masked pin | lost (82093AA, "Interrupt Mask") | lost, though noted inside | lost |
//! | unmasking a level entry whose line is asserted | sent | same | same |
//! | level to edge | remote IRR is cleared (Linux ends interrupts so where there is no EOI register); an asserted line is no edge | same | same |
//! | edge to level, line asserted | sent | same | only if the edge was not yet sent |
//! | SMI, NMI, INIT, external interrupts with the level bit set | edge-triggered, as 82093AA has it; remote IRR stays clear | level-triggered | level-triggered |
//! | reserved delivery modes | never sent | same | same |
//! | nobody accepts a level message | remote IRR is set all the same | same | same |
//! | delivery status | set while a message waits to be taken | clear | clear |
//! | an end of interrupt whose line is still asserted | sent again at once | the same, 10,000 times, then 10 ms late | as KVM |
//! | arbitration register | the ID | same | same |
//! | index 0x03 to 0x0f, 0x40 and more | zero | all ones | zero |
//! | accesses narrower than 4 bytes | reads give the low bytes, writes are extended with zeros | same | IOREGSEL the same; of the others, zero and ignored |
//! | 8 bytes | the low half counts, the high half reads as zero | same | as above |
//! | other lengths | like the widths next to them | ignored | do not occur |
//! | anything that does not start at a register, and reads of EOI | zero, ignored | same | same, with aliases every 256 bytes |
//! | EOI register | there, as the version says | missing; version 0x11 | there |
//!
//! | threat | answer |
//! |---|---|
//! | any access anywhere in the page, or beyond | table above; nothing overflows |
//! | an index without register | table above |
//! | read-only and reserved bits | dropped; reserved bits read as zero |
//! | vectors below 16 | sent; the receiver's ESR notes them |
//! | many lines at once, or a line that toggles | one bit a pin: at most 24 messages wait, and taking one makes the pin wait for an edge or an EOI |
//! | a storm: a level line that nobody lowers, ended again and again | one message for each EOI, which costs the guest an exit |
//! | rewriting an entry whose message waits | masking withdraws it, anything else changes it |
//! | an EOI for a vector that is not in service, or that several pins share | clears remote IRR of every level entry that has the vector; those with lines still asserted send again |
//! | remote IRR that is stuck, as the vector was changed before its EOI | the guest's own doing; writing the entry as edge-triggered clears it |

mod entry;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use self::entry::Entry;
use crate::apic::Target;

/// The guest-physical addresses: one page, of which three registers are used.
pub const MMIO: RangeInclusive<u64> = 0xfec0_0000..=0xfec0_0fff;
/// How many pins there are.
pub const PINS: u8 = 24;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;

const INDEX_ID: u8 = 0x00;
const INDEX_VERSION: u8 = 0x01;
const INDEX_ARBITRATION: u8 = 0x02;
const INDEX_TABLE: u8 = 0x10;

/// Version 0x20; the last entry is number 23.
const VERSION: u32 = (PINS as u32 - 1) << 16 | 0x20;
const ID_SHIFT: u32 = 24;
const ID_BITS: u8 = 0xf;

/// What a message does at its destination (82093AA, "Delivery Mode").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Requests the vector.
    Fixed,
    /// Requests the vector at one of the destinations.
    LowestPriority,
    /// A system management interrupt. Without system management mode, the receiver drops it.
    Smi,
    /// A non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// An interrupt whose vector is to be asked of the PIC.
    ExtInt,
}

/// A message to local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it does there.
    pub mode: Delivery,
    /// The vector, 0 to 255: those below 16 are an error that the receiver notes. Meaningless but for
    /// [`Delivery::Fixed`] and [`Delivery::LowestPriority`].
    pub vector: u8,
    /// Whom it is for: [`Target::Physical`] or [`Target::Logical`], of 8 bits.
    pub target: Target,
    /// Level-triggered: the receiver's end of interrupt is to be told to
    /// [`IoApic::end_of_interrupt`]. Only of [`Delivery::Fixed`] and [`Delivery::LowestPriority`].
    pub level: bool,
}

/// The I/O APIC of one VM.
#[derive(Clone, Debug)]
pub struct IoApic {
    /// The ID after reset.
    initial_id: u8,
    id: u8,
    /// IOREGSEL.
    index: u8,
    entries: [Entry; PINS as usize],
    /// Which lines are asserted, bit by pin.
    lines: u32,
    /// Which pins had an edge that is not sent yet. None of them is masked or level-triggered.
    edges: u32,
}

impl IoApic {
    /// An I/O APIC after reset, with no line asserted. Of `id`, the low 4 bits count. The hardware's
    /// ID is zero until firmware writes another one; as there may be no firmware, it is given here.
    #[must_use]
    pub fn new(id: u8) -> Self {
        let id = id & ID_BITS;
        let entries = [Entry::RESET; PINS as usize];
        IoApic { initial_id: id, id, index: 0, entries, lines: 0, edges: 0 }
    }

    /// What the reset line does: every entry is masked, and nothing waits to be sent. The lines stay
    /// as the devices have them.
    pub fn reset(&mut self) {
        let IoApic { initial_id, id, index, entries, lines: _, edges } = self;
        *id = *initial_id;
        *index = 0;
        *entries = [Entry::RESET; PINS as usize];
        *edges = 0;
    }

    /// Reads `data.len()` bytes, `offset` bytes into [`MMIO`]. All of `data` is written.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            IOREGSEL => u32::from(self.index),
            IOWIN => self.read_register(),
            _ => 0,
        };
        let bytes = value.to_le_bytes().into_iter().chain(std::iter::repeat(0));
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = from;
        }
    }

    /// Writes `data`, `offset` bytes into [`MMIO`].
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let mut bytes = [0; 4];
        for (to, from) in bytes.iter_mut().zip(data) {
            *to = *from;
        }
        match offset {
            IOREGSEL => self.index = bytes[0],
            IOWIN => self.write_register(u32::from_le_bytes(bytes)),
            EOI => self.end_of_interrupt(bytes[0]),
            _ => {}
        }
    }

    /// The device at the pin wants service, or no longer does. For an edge-triggered entry the change
    /// to `asserted` is the edge. A pin that does not exist is ignored.
    pub fn set_line(&mut self, pin: u8, asserted: bool) {
        let Some(entry) = self.entries.get(usize::from(pin)) else {
            return;
        };
        let bit = 1 << pin;
        if !asserted {
            self.lines &= !bit;
            return;
        }
        let rises = self.lines & bit == 0;
        self.lines |= bit;
        if rises && entry.can_send() && !entry.is_level() {
            self.edges |= bit;
        }
    }

    /// A local APIC has ended the service of this vector and has said so to everyone (SDM 12.8.5), or
    /// the guest has through the EOI register.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for entry in &mut self.entries {
            if entry.vector() == vector {
                entry.end_of_interrupt();
            }
        }
    }

    /// Takes a message that is to be sent, that of the lowest pin first. At most [`PINS`] calls find
    /// one, unless something else is called in between.
    pub fn take_message(&mut self) -> Option<Message> {
        let pin = (0..PINS).find(|pin| self.waits(*pin))?;
        self.edges &= !(1 << pin);
        self.entries.get_mut(usize::from(pin))?.send()
    }

    /// Whether a message would come of the pin's line being asserted now, after it was not. If not, a
    /// timer at the pin need not be kept, until the guest accesses the I/O APIC or ends an interrupt.
    #[must_use]
    pub fn edge_matters(&self, pin: u8) -> bool {
        let entry = self.entries.get(usize::from(pin));
        entry.is_some_and(|entry| entry.can_send() && !entry.remote_irr())
    }

    /// Whether [`IoApic::take_message`] would find one.
    #[must_use]
    pub fn has_message(&self) -> bool {
        (0..PINS).any(|pin| self.waits(pin))
    }

    /// Whether all that the pin can cause is maskable interrupts.
    #[must_use]
    pub fn is_maskable(&self, pin: u8) -> bool {
        self.entries.get(usize::from(pin)).is_none_or(Entry::is_maskable)
    }

    /// Whether the pin has a message to send.
    fn waits(&self, pin: u8) -> bool {
        let Some(entry) = self.entries.get(usize::from(pin)) else {
            return false;
        };
        let bit = 1 << pin;
        match entry.is_level() {
            true => self.lines & bit != 0 && entry.can_send() && !entry.remote_irr(),
            false => self.edges & bit != 0,
        }
    }

    /// Which pin's entry IOREGSEL chooses, and whether its high half.
    fn chosen(&self) -> Option<(u8, bool)> {
        let at = self.index.checked_sub(INDEX_TABLE)?;
        let pin = at / 2;
        (pin < PINS).then_some((pin, at % 2 == 1))
    }

    fn read_register(&self) -> u32 {
        match self.index {
            INDEX_ID | INDEX_ARBITRATION => u32::from(self.id) << ID_SHIFT,
            INDEX_VERSION => VERSION,
            _ => self.chosen().map_or(0, |(pin, high)| {
                let entry = self.entries[usize::from(pin)];
                if high { entry.high() } else { entry.low(self.waits(pin)) }
            }),
        }
    }

    fn write_register(&mut self, value: u32) {
        if self.index == INDEX_ID {
            self.id = (value >> ID_SHIFT) as u8 & ID_BITS;
            return;
        }
        let Some((pin, high)) = self.chosen() else {
            return;
        };
        let entry = &mut self.entries[usize::from(pin)];
        if high {
            entry.set_high(value);
        } else {
            entry.set_low(value);
            if !entry.can_send() || entry.is_level() {
                self.edges &= !(1 << pin);
            }
        }
    }
}
