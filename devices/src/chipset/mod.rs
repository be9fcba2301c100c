//! The chipset: I/O APIC, PIC pair, PIT, CMOS clock, ACPI power management, and the lines between.
//!
//! Owns these machines, which port or address is whose, and which output drives which input. What an
//! access or the passing of time asks for beyond them comes out as [`Errand`]s. Must not know local
//! APICs, vCPUs or KVM; [`Board`] is what several threads share.
//!
//! | ISA interrupt | driven by | PIC | I/O APIC pin |
//! |---|---|---|---|
//! | 0 | PIT, channel 0 | 0 | 2 |
//! | 4 | serial port | 4 | 4 |
//! | 8 | CMOS clock | 8 | 8 |
//! | 9 | ACPI (SCI), level; also by the CMOS clock | 9 | 9 |
//! | INTR | PIC | | 0 |
//! | 0 to 23 | the guest itself, by ports 0x2000 to 0x2017 | as above | as above |
//!
//! **Timers.** The three that can interrupt have one next time, [`Chipset::deadline`]. It counts
//! only what can get through: a PIT whose line is masked everywhere costs its host nothing, and its
//! counter is computed when it is looked at.
//!
//! **The PIT's line.** It stays asserted from one rising edge to the next: a host that comes late
//! would else find the line low again, and the PIC would take the request for a spurious one.
//!
//! | threat | answer |
//! |---|---|
//! | accesses of several bytes | ports take bytes, each its own; so no access reaches beyond a device |
//! | a line that a level-triggered entry sends again and again | the next message is sent after the guest's EOI |
//! | timers with the shortest periods | [`ChipsetConfig::least_period_ns`] |

mod board;
mod ports;
#[cfg(test)]
mod tests;

pub use self::board::Board;
use self::ports::Region;

use crate::acpi_pm::AcpiPm;
use crate::acpi_pm::ports::{Port92, ResetControl};
use crate::apic::{DeliveryMode, Ipi};
use crate::ioapic::{Delivery, IoApic, Message};
use crate::pic::PicPair;
use crate::pit::{self, Pit};
use crate::rtc::{Rtc, RtcConfig};

/// ISA interrupt of the PIT.
const PIT_IRQ: u8 = 0;
/// ISA interrupt of the first serial port.
pub const SERIAL_IRQ: u8 = 4;
/// ISA interrupt of the CMOS clock.
const RTC_IRQ: u8 = 8;
/// ISA interrupt of ACPI events.
const SCI_IRQ: u8 = 9;
/// Interrupt lines that the PICs have, too.
const ISA_LINES: u8 = 16;
/// Interrupt lines.
const LINES: u8 = 24;
/// Pin of the I/O APIC that the PIC's output drives.
const EXTINT_PIN: u8 = 0;

/// What is decided about a chipset before it exists.
#[derive(Clone, Copy, Debug)]
pub struct ChipsetConfig {
    /// ID of the I/O APIC, 0 to 15.
    pub ioapic_id: u8,
    /// The CMOS clock.
    pub rtc: RtcConfig,
    /// Host monotonic ns at which the ACPI timer is zero.
    pub start_ns: u64,
    /// Shortest time between two interrupts of a periodic timer, in ns.
    pub least_period_ns: u64,
    /// Interrupt controllers and PIT are elsewhere (KVM's): lines come out by [`Board::tell_lines`].
    pub external_controllers: bool,
}

/// Something that a chipset wants done outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Errand {
    /// The I/O APIC sends this to the local APICs that it names.
    Message(Ipi),
    /// The PIC's output (INTR) has changed: [`Board::intr`] is the new level.
    Intr,
    /// The next time became earlier, or there is one at last: [`Board::deadline`].
    Earlier,
    /// With external controllers: interrupt lines are to be told of ([`Board::tell_lines`]).
    Lines,
}

/// A level of an interrupt line, for external controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct LineLevel {
    /// ISA interrupt, 0 to 15, or a line of the I/O APIC alone, 16 to 23.
    pub irq: u8,
    /// Asserted.
    pub asserted: bool,
}

/// The chipset of one VM.
pub struct Chipset {
    pic: PicPair,
    ioapic: IoApic,
    pit: Pit,
    rtc: Rtc,
    pm: AcpiPm,
    port92: Port92,
    reset_control: ResetControl,
    external: bool,
    /// Levels of the lines, one bit each, as last driven.
    lines: u32,
    /// Of those, what has not been told outside yet.
    untold: u32,
    /// Lines that the guest holds asserted itself, whatever else drives them.
    held: u32,
    /// With external controllers: edges that have not been told.
    pulses: u32,
}

impl Chipset {
    /// A chipset after power-up.
    #[must_use]
    pub fn new(config: &ChipsetConfig) -> Self {
        Chipset {
            pic: PicPair::new(),
            ioapic: IoApic::new(config.ioapic_id),
            pit: Pit::new(config.least_period_ns),
            rtc: Rtc::new(&config.rtc),
            pm: AcpiPm::new(config.start_ns),
            port92: Port92::default(),
            reset_control: ResetControl::default(),
            external: config.external_controllers,
            lines: 0,
            untold: 0,
            held: 0,
            pulses: 0,
        }
    }

    /// Brings all timers up to `now` (host monotonic ns), and their lines with them.
    pub fn advance(&mut self, now: u64) {
        if self.pit.advance(now) {
            self.drive(PIT_IRQ, false);
            self.drive(PIT_IRQ, true);
        }
        self.rtc.advance(now);
        self.pm.advance(now);
        self.settle();
    }

    /// Host ns at which a timer's line rises next and somebody would notice.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let heard = |irq| {
            self.external || self.pic.edge_matters(irq) || self.ioapic.edge_matters(pin_of(irq))
        };
        let pit = self.pit.next_edge().filter(|_| !self.external && heard(PIT_IRQ));
        let by_sci = self.pm.hears_clock() && heard(SCI_IRQ);
        let rtc = self.rtc.next_event().filter(|_| by_sci || heard(RTC_IRQ));
        let sci = self.pm.next_event().filter(|_| heard(SCI_IRQ));
        [pit, rtc, sci].into_iter().flatten().min()
    }

    /// Whether all that the timers can cause is maskable interrupts.
    fn maskable(&self) -> bool {
        [PIT_IRQ, RTC_IRQ, SCI_IRQ].iter().all(|irq| self.ioapic.is_maskable(pin_of(*irq)))
    }

    /// The PIC's output.
    #[must_use]
    pub fn intr(&self) -> bool {
        !self.external && self.pic.intr()
    }

    /// The processor acknowledges the PIC's interrupt and learns its vector.
    pub fn acknowledge(&mut self, now: u64) -> u8 {
        self.advance(now);
        let vector = self.pic.acknowledge();
        // The output may stay high for the next request, which is an edge of its own.
        self.ioapic.set_line(EXTINT_PIN, false);
        self.settle();
        vector
    }

    /// A local APIC ended a level-triggered interrupt.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
    }

    /// A device gives an edge on a line, 0 to 23, of which those from 16 on are the I/O APIC's alone;
    /// others are ignored. The line stays asserted until the next one: a PIC does not hear of a
    /// request that is gone before it is acknowledged.
    pub fn pulse(&mut self, irq: u8) {
        if irq >= LINES {
            return;
        }
        if self.external {
            self.pulses |= 1 << irq;
        } else {
            self.drive(irq, false);
            self.drive(irq, true);
        }
    }

    /// The ACPI power button is pressed. Answers whether the guest wants to hear of it.
    pub fn press_power_button(&mut self, now: u64) -> bool {
        self.pm.press_power_button(now);
        self.settle();
        self.pm.hears_power_button()
    }

    /// Whether there is a message or a line to be told of.
    fn has_errand(&self) -> bool {
        self.has_line() || self.ioapic.has_message()
    }

    /// The PIT was programmed: its output may have risen, and what it does not assert any more is
    /// withdrawn.
    fn pit_programmed(&mut self, port: u16, now: u64) {
        self.advance(now);
        let first = [*pit::PORTS.start(), *pit::PORTS.end()];
        if first.contains(&port) && !self.pit.line() {
            self.drive(PIT_IRQ, false);
        }
    }

    /// The next message of the I/O APIC.
    fn take_message(&mut self) -> Option<Ipi> {
        while let Some(Message { mode, vector, target, level }) = self.ioapic.take_message() {
            let mode = match mode {
                Delivery::Fixed => DeliveryMode::Fixed,
                Delivery::LowestPriority => DeliveryMode::LowestPriority,
                Delivery::Nmi => DeliveryMode::Nmi,
                Delivery::Init => DeliveryMode::Init,
                Delivery::ExtInt => DeliveryMode::ExtInt,
                // There is no system management mode.
                Delivery::Smi => continue,
            };
            return Some(Ipi { mode, vector, target, level });
        }
        None
    }

    /// Whether [`Chipset::take_line`] would find one.
    fn has_line(&self) -> bool {
        self.untold != 0 || self.pulses != 0
    }

    /// The next level of a line that is to be told outside. The end of a pulse comes before the next
    /// one begins: a line that is asserted already has no edge.
    fn take_line(&mut self) -> Option<LineLevel> {
        if self.untold != 0 {
            let irq = self.untold.trailing_zeros() as u8;
            self.untold &= self.untold - 1;
            return Some(LineLevel { irq, asserted: self.lines & 1 << irq != 0 });
        }
        if self.pulses == 0 {
            return None;
        }
        let bit = self.pulses & self.pulses.wrapping_neg();
        self.pulses ^= bit;
        // What follows is the end of the pulse, or the level that the line has now.
        self.untold |= bit;
        Some(LineLevel { irq: bit.trailing_zeros() as u8, asserted: true })
    }

    /// Drives the lines that follow a device's state, and the PIC's output.
    fn settle(&mut self) {
        // Once for each time that it is asserted.
        if self.rtc.line() && self.lines & 1 << RTC_IRQ == 0 {
            self.pm.clock_rings();
        }
        self.drive(RTC_IRQ, self.rtc.line());
        self.drive(SCI_IRQ, self.pm.line());
        if !self.external {
            self.ioapic.set_line(EXTINT_PIN, self.pic.intr());
        }
    }

    /// The guest drives a line, 0 to 23, by hand; others are ignored.
    fn hold(&mut self, line: u8, asserted: bool) {
        if line < LINES {
            self.held &= !(1 << line);
            self.held |= u32::from(asserted) << line;
            self.drive(line, asserted);
        }
    }

    fn drive(&mut self, irq: u8, asserted: bool) {
        let Some(bit) = 1_u32.checked_shl(u32::from(irq)) else { return };
        let asserted = asserted || self.held & bit != 0;
        if (self.lines & bit != 0) == asserted {
            return;
        }
        self.lines ^= bit;
        if self.external {
            self.untold |= bit;
            return;
        }
        if irq < ISA_LINES {
            self.pic.set_line(irq, asserted);
        }
        self.ioapic.set_line(pin_of(irq), asserted);
    }
}

/// The I/O APIC's pin of an ISA interrupt.
fn pin_of(irq: u8) -> u8 {
    if irq == PIT_IRQ { 2 } else { irq }
}
