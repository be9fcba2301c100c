//! The pair of 8259A interrupt controllers of a PC, the second one on input 2 of the first.
//!
//! Source: the 8259A datasheet (order number 231468), sections "Interrupt Sequence", "Initialization
//! Command Words", "Operation Command Words" and those on each mode; for ELCR, the I/O Controller Hub 10 datasheet,
//! section "Interrupt Controller I/O Registers".
//!
//! Owns the registers and what the lines last were. Must not know which device is at which line, nor
//! who is at INTR: after every access, change of a line and acknowledgement,
//! [`PicPair::intr`] may be another one.
//!
//! A request is as long as its line: the 8259A wants an edge, and the line high until the first INTA.
//! A device must not pulse its line; one that does is not heard.
//!
//! What the datasheets leave open or a PC does not have, beside KVM's and QEMU's models:
//!
//! | question | here | KVM | QEMU |
//! |---|---|---|---|
//! | an edge whose line falls before INTA | withdrawn, as the datasheet says (INTR falls) | stays | stays |
//! | INTA without a request | vector of IR7, nothing in service; so on each chip | same | same |
//! | the same on the second chip only (IRQ 15) | does not occur, as both INTA cycles are one step: what its lines withdraw is withdrawn from the first chip too, which gives IRQ 7 | occurs | occurs |
//! | power-up, never programmed | OCWs work (guests probe for a PIC by its mask), nothing masked; INTR stays low, so that no guest meets an interrupt with vectors from 0 on | INTR from the start | INTR from the start |
//! | between ICW1 and the last ICW | INTR stays low | as before | as before |
//! | ICW1 in mid-use | clears ISR too, so that a restarted guest is not blocked by what another one left; lines that are high need a new edge, or are level-triggered | keeps ISR | clears ISR |
//! | LTIM | all eight inputs are level-triggered, whatever ELCR says | ignored | newer versions the same |
//! | SNGL | no ICW3 is expected; the wire between the chips stays | ICW3 is expected all the same | same |
//! | ICW3, buffered mode, 8080 mode (no ICW4, or its bit 0 clear) | ignored: as wired, 8086 mode | same | same |
//! | special fully nested mode, IR2 in service | lets IR2 through again, and nothing lower | lower ones too | lower ones too |
//! | non-specific EOI in special mask mode | passes over what is masked, as the datasheet says | does not | does not |
//! | poll | puts the request in service; without one, bits 2:0 are 7 | not in service; 7 | in service; 0 |
//! | OCW3 without P after one with P | takes the poll back | does not | does not |
//!
//! | threat | answer |
//! |---|---|
//! | any byte at any port in any order, initialisation broken off at any point | state of fixed size, loops over eight inputs; every `match` is total |
//! | a line that toggles | no queue, one bit each |
//! | EOI when nothing is in service | ignored |
//! | acknowledgement at any time | a vector comes back in every state |
//! | ELCR's reserved bits (IRQ 0, 1, 2, 8, 13) | read as zero: always edge-triggered, unless LTIM |
//! | an interrupt that is never ended | blocks lower priorities of this guest alone |
//! | ports and IRQs that do not exist | all ones, ignored |

mod chip;
#[cfg(test)]
mod tests;

use self::chip::Chip;

/// The ports: command and data of the first chip, of the second, and both ELCRs.
pub const PORTS: [u16; 6] = [FIRST, FIRST_DATA, SECOND, SECOND_DATA, FIRST_ELCR, SECOND_ELCR];

const FIRST: u16 = 0x20;
const FIRST_DATA: u16 = 0x21;
const SECOND: u16 = 0xa0;
const SECOND_DATA: u16 = 0xa1;
const FIRST_ELCR: u16 = 0x4d0;
const SECOND_ELCR: u16 = 0x4d1;

/// The first chip's input that the second one drives.
const CASCADE: u8 = 2;
const FIRST_ELCR_WRITABLE: u8 = 0b1111_1000;
const SECOND_ELCR_WRITABLE: u8 = 0b1101_1110;

/// The interrupt controllers of one VM.
#[derive(Clone, Debug)]
pub struct PicPair {
    first: Chip,
    second: Chip,
}

impl Default for PicPair {
    fn default() -> Self {
        PicPair::new()
    }
}

impl PicPair {
    /// The pair after power-up, all lines low.
    #[must_use]
    pub fn new() -> Self {
        PicPair {
            first: Chip::new(1 << CASCADE, FIRST_ELCR_WRITABLE),
            second: Chip::new(0, SECOND_ELCR_WRITABLE),
        }
    }

    /// Everything as after power-up, but the lines stay as the devices have them; those that are
    /// high need a new edge, or ELCR.
    pub fn reset(&mut self) {
        let PicPair { first, second } = self;
        first.reset();
        second.reset();
        self.cascade();
    }

    /// Reads one of [`PORTS`]. A read after the poll command acknowledges.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            FIRST | FIRST_DATA => self.first.read(port == FIRST_DATA),
            SECOND | SECOND_DATA => self.second.read(port == SECOND_DATA),
            FIRST_ELCR => self.first.elcr(),
            SECOND_ELCR => self.second.elcr(),
            _ => 0xff,
        };
        self.cascade();
        value
    }

    /// Writes one of [`PORTS`].
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            FIRST | FIRST_DATA => self.first.write(port == FIRST_DATA, value),
            SECOND | SECOND_DATA => self.second.write(port == SECOND_DATA, value),
            FIRST_ELCR => self.first.set_elcr(value),
            SECOND_ELCR => self.second.set_elcr(value),
            _ => {}
        }
        self.cascade();
    }

    /// The device at line `irq`, 0 to 15, wants service, or no longer does. Line 2 is between the
    /// chips; it is ignored, as are lines that do not exist.
    pub fn set_line(&mut self, irq: u8, asserted: bool) {
        match irq {
            CASCADE => return,
            0..8 => self.first.set_line(irq, asserted),
            8..16 => self.second.set_line(irq - 8, asserted),
            _ => return,
        }
        self.cascade();
    }

    /// The INTR output: an interrupt is asked for.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.first.request().is_some()
    }

    /// The processor acknowledges an interrupt (two INTA cycles), and is given the vector. Without a
    /// request it is that of IRQ 7, and nothing is in service.
    pub fn acknowledge(&mut self) -> u8 {
        let acknowledged = self.first.acknowledge();
        let vector = if acknowledged == Some(CASCADE) {
            let acknowledged = self.second.acknowledge();
            self.second.vector(acknowledged)
        } else {
            self.first.vector(acknowledged)
        };
        self.cascade();
        vector
    }

    /// Whether the line's being asserted now, after it was not, could change INTR, now or when what
    /// is in service ends: it is not masked, and there is no request yet. If not, a timer at the
    /// line need not be kept, until the guest accesses a port or acknowledges; a guest that reads IRR
    /// would see the line, so it should be brought up to date before.
    #[must_use]
    pub fn edge_matters(&self, irq: u8) -> bool {
        match irq {
            CASCADE => false,
            0..8 => self.first.edge_matters(irq),
            8..16 => {
                let heard = self.first.is_ready() && !self.first.is_masked(CASCADE);
                heard && self.second.edge_matters(irq - 8)
            }
            _ => false,
        }
    }

    /// The second chip's INT output is the first one's input.
    fn cascade(&mut self) {
        self.first.set_line(CASCADE, self.second.request().is_some());
    }
}
