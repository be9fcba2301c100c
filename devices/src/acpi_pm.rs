//! ACPI fixed hardware: power management events, control, and timer, in one block of I/O ports.
//!
//! Owns the registers of PM1a and the power-management timer. Must not know tables (which have to name
//! the ports and values below), what ends a machine, or what the interrupt is wired to. Sections are
//! those of the ACPI specification 6.5: 4.8.3 (registers), 4.8.2.1 (timer), 4.8.2.2 (buttons). The
//! machine's other ways to end are in [`ports`].
//!
//! There is no SMI command port and no legacy mode: SCI_EN is always one (5.2.9, SMI_CMD of zero). The
//! one sleeping state is S5.
//!
//! | offset | bytes | register |
//! |---|---|---|
//! | 0 | 2 | PM1 status; writing ones clears |
//! | 2 | 2 | PM1 enable |
//! | 4 | 2 | PM1 control |
//! | 8 | 4 | timer, 32 bits, read-only |
//!
//! **Time.** `now` is the host's monotonic clock in ns; one that is earlier than another seen before
//! counts as the latest seen. The timer's ticks are counted from the start, so no error adds up.
//!
//! | threat | answer |
//! |---|---|
//! | accesses of any width, across registers or beyond the block | taken byte by byte; a byte that is no register reads as zero and ignores writes |
//! | a sleeping state that is not there | ignored; the guest goes on |
//! | the timer's interrupt as a load on the host | one in ten minutes |
//! | a power button that nobody looks at | one bit, however often it is pressed |
//! | time going backwards, or to its end | the latest time seen; an event beyond 64 bits of ns is none |

pub mod ports;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use crate::time::Rate;

/// First port: PM1a event block (FADT: PM1a_EVT_BLK, length 4).
pub const PM1A_EVENT: u16 = 0xb000;
/// PM1a control block (FADT: PM1a_CNT_BLK, length 2).
pub const PM1A_CONTROL: u16 = PM1A_EVENT + CONTROL as u16;
/// Timer (FADT: PM_TMR_BLK, length 4, flag TMR_VAL_EXT as it has 32 bits).
pub const PM_TIMER: u16 = PM1A_EVENT + TIMER as u16;
/// The block's ports.
pub const PORTS: RangeInclusive<u16> = PM1A_EVENT..=PM1A_EVENT + 11;
/// SLP_TYP of soft-off, for the `_S5` object.
pub const SLP_TYP_S5: u8 = 5;
/// Frequency of the timer.
pub const TIMER_HZ: u32 = 3_579_545;

const CLOCK: Rate = Rate::of_hz(TIMER_HZ);
/// The status bit is set whenever the timer's highest bit changes.
const TICKS_TO_CHANGE: u64 = 1 << 31;

const STATUS: u64 = 0;
const ENABLE: u64 = 2;
const CONTROL: u64 = 4;
const TIMER: u64 = 8;

/// PM1 status and enable: the timer's highest bit has changed.
const TMR: u16 = 1 << 0;
/// PM1 enable: firmware wants the driver's attention, which this machine's never does.
const GBL: u16 = 1 << 5;
/// PM1 status and enable: the power button was pressed.
const PWRBTN: u16 = 1 << 8;
/// PM1 enable: sleep button, which is not there.
const SLPBTN: u16 = 1 << 9;
/// PM1 status and enable: the clock's interrupt, by which an idle machine can be woken that listens to
/// nothing else (suspend-to-idle).
const RTC: u16 = 1 << 10;
const ENABLE_WRITABLE: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC;

/// PM1 control: interrupts are the operating system's.
const SCI_EN: u16 = 1 << 0;
/// PM1 control: bus masters end C3. Kept, without effect.
const BM_RLD: u16 = 1 << 1;
const SLP_TYP_SHIFT: u32 = 10;
const SLP_TYP: u16 = 7 << SLP_TYP_SHIFT;
/// PM1 control, reads as zero: go to sleep.
const SLP_EN: u16 = 1 << 13;

/// What a write asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Nothing.
    None,
    /// Power off.
    PowerOff,
    /// Reset.
    Reset,
}

/// The register block.
#[derive(Clone, Debug)]
pub struct AcpiPm {
    start_ns: u64,
    /// The latest time seen, not before the start.
    now: u64,
    status: u16,
    enable: u16,
    /// What is kept of PM1 control.
    control: u16,
}

impl AcpiPm {
    /// Registers after power-on, with a timer that is zero at `start_ns`.
    #[must_use]
    pub fn new(start_ns: u64) -> Self {
        AcpiPm { start_ns, now: start_ns, status: 0, enable: 0, control: 0 }
    }

    /// As after power-on. The timer goes on, which 4.8.3.3 leaves open.
    pub fn reset(&mut self) {
        let AcpiPm { start_ns: _, now: _, status, enable, control } = self;
        *status = 0;
        *enable = 0;
        *control = 0;
    }

    /// Reads bytes from `offset` on.
    pub fn read(&mut self, offset: u64, data: &mut [u8], now: u64) {
        self.advance(now);
        let mut block = [0; 12];
        block[..2].copy_from_slice(&self.status.to_le_bytes());
        block[2..4].copy_from_slice(&self.enable.to_le_bytes());
        block[4..6].copy_from_slice(&(self.control | SCI_EN).to_le_bytes());
        // The counter wraps at 32 bits.
        let [a, b, c, d, ..] = self.ticks().to_le_bytes();
        block[8..].copy_from_slice(&[a, b, c, d]);
        for (i, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset.saturating_add(i as u64)).ok();
            *byte = at.and_then(|at| block.get(at)).copied().unwrap_or(0);
        }
    }

    /// Writes bytes from `offset` on.
    pub fn write(&mut self, offset: u64, data: &[u8], now: u64) -> Action {
        self.advance(now);
        let mut action = Action::None;
        for (i, byte) in data.iter().enumerate() {
            let at = offset.saturating_add(i as u64);
            let (shift, mask) = if at.is_multiple_of(2) { (0, 0x00ff) } else { (8, 0xff00) };
            let value = u16::from(*byte) << shift;
            match at & !1 {
                STATUS => self.status &= !value,
                ENABLE => {
                    self.enable = (self.enable & !mask | value) & ENABLE_WRITABLE;
                }
                CONTROL => {
                    self.control = (self.control & !mask | value) & (BM_RLD | SLP_TYP);
                    // SLP_TYP and SLP_EN share a byte.
                    if value & SLP_EN != 0 && self.control >> SLP_TYP_SHIFT == u16::from(SLP_TYP_S5)
                    {
                        action = Action::PowerOff;
                    }
                }
                _ => {}
            }
        }
        action
    }

    /// Brings the timer's status to `now`. Afterwards [`AcpiPm::next_event`] is later than `now`.
    pub fn advance(&mut self, now: u64) {
        let before = self.ticks() / TICKS_TO_CHANGE;
        self.now = self.now.max(now);
        if self.ticks() / TICKS_TO_CHANGE > before {
            self.status |= TMR;
        }
    }

    /// Presses the power button: asks the guest to shut down.
    pub fn press_power_button(&mut self, now: u64) {
        self.advance(now);
        self.status |= PWRBTN;
    }

    /// The clock asserts its interrupt.
    pub fn clock_rings(&mut self) {
        self.status |= RTC;
    }

    /// Whether the clock's interrupt is one of this block's, too.
    #[must_use]
    pub fn hears_clock(&self) -> bool {
        self.enable & RTC != 0
    }

    /// Whether the guest wants to hear of its power button: a press is an interrupt to it.
    #[must_use]
    pub fn hears_power_button(&self) -> bool {
        self.enable & PWRBTN != 0
    }

    /// Whether the SCI is requested, as of the latest time seen: a level.
    #[must_use]
    pub fn line(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Host ns at which the line goes up next if nothing is written, rounded up. `None` while it is
    /// up, and while the timer's interrupt is not enabled.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        if self.line() || self.enable & TMR == 0 {
            return None;
        }
        let change = (self.ticks() / TICKS_TO_CHANGE + 1) * TICKS_TO_CHANGE;
        CLOCK.ns_of(change)?.checked_add(self.start_ns)
    }

    fn ticks(&self) -> u64 {
        CLOCK.ticks(self.now - self.start_ns)
    }
}
