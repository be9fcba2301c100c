//! ACPI fixed hardware: event and control registers, the power-management timer, and the two reset
//! ports beside them.
//!
//! Owns the registers at [`BASE`] (ACPI 6.5, section 4.8.3), port 0xcf9 and port 0x92. Drives the
//! system control interrupt (ISA 9, level-triggered). Must not know who ends a VM. There is no legacy
//! mode: SCI_EN is always set, so there is no command port that would set it.
//!
//! | offset | register |
//! |---|---|
//! | 0, 2 bytes | PM1 status: written ones clear |
//! | 2, 2 bytes | PM1 enable |
//! | 4, 2 bytes | PM1 control: SLP_EN with SLP_TYP [`SLEEP_TYPE_OFF`] powers off |
//! | 8, 4 bytes | timer: 3.579545 MHz, 32 bits |
//!
//! | threat | answer |
//! |---|---|
//! | accesses of any width and alignment | the bytes that lie in registers count |
//! | other sleep types | ignored: nothing sleeps |
//! | a time that runs backwards, or to the end of 64 bits | the last time counts; 128-bit arithmetic |

/// First port of the block.
pub const BASE: u16 = 0xb000;
/// Ports of the block.
pub const LEN: u16 = 12;
/// SLP_TYP of S5, off.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Frequency of the timer, in Hz.
pub const TIMER_HZ: u64 = 3_579_545;

const NS_PER_SECOND: u128 = 1_000_000_000;
/// The status bit of the timer follows every change of its highest bit.
const TIMER_HALF: u64 = 1 << 31;

const TMR: u16 = 1;
const PWRBTN: u16 = 1 << 8;
/// Timer, global lock, power button, sleep button, clock.
const ENABLE_WRITABLE: u16 = 0x0721;
const SCI_EN: u16 = 1;
const SLP_TYP: u16 = 7 << 10;
const SLP_EN: u16 = 1 << 13;

const RESET_CPU: u8 = 4;
const PORT92_RESET: u8 = 1;
const PORT92_A20: u8 = 2;

/// What a write asks for beyond the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Nothing.
    None,
    /// The machine is to be switched off.
    PowerOff,
    /// The machine is to be reset.
    Reset,
}

/// The registers.
#[derive(Clone, Debug)]
pub struct AcpiPm {
    start: u64,
    /// The latest time that was seen, in host ns.
    now: u64,
    status: u16,
    enable: u16,
    control: u16,
    port92: u8,
    reset_control: u8,
}

impl AcpiPm {
    /// Registers after power-up; the timer is zero at `start_ns` (host monotonic ns).
    #[must_use]
    pub fn new(start_ns: u64) -> Self {
        AcpiPm {
            start: start_ns,
            now: start_ns,
            status: 0,
            enable: 0,
            control: SCI_EN,
            // A20 is open, as the kernel finds it.
            port92: PORT92_A20,
            reset_control: 0,
        }
    }

    /// Brings the timer up to `now`.
    pub fn advance(&mut self, now: u64) {
        let before = self.ticks();
        self.now = self.now.max(now);
        if self.ticks() / TIMER_HALF != before / TIMER_HALF {
            self.status |= TMR;
        }
    }

    fn ticks(&self) -> u64 {
        let ns = u128::from(self.now - self.start);
        u64::try_from(ns * u128::from(TIMER_HZ) / NS_PER_SECOND).unwrap_or(u64::MAX)
    }

    /// The interrupt line.
    #[must_use]
    pub fn line(&self) -> bool {
        self.status & self.enable != 0
    }

    /// Host ns at which the timer asserts the line next.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        if self.line() || self.enable & TMR == 0 {
            return None;
        }
        let half = u128::from(self.ticks() / TIMER_HALF + 1) * u128::from(TIMER_HALF);
        let ns = (half * NS_PER_SECOND).div_ceil(u128::from(TIMER_HZ));
        Some(u64::try_from(ns + u128::from(self.start)).unwrap_or(u64::MAX))
    }

    /// The power button is pressed.
    pub fn press_power_button(&mut self) {
        self.status |= PWRBTN;
    }

    /// Reads from the block. Places without a register read as zero.
    pub fn read(&mut self, offset: u64, data: &mut [u8], now: u64) {
        self.advance(now);
        let mut block = [0; LEN as usize];
        block[0..2].copy_from_slice(&self.status.to_le_bytes());
        block[2..4].copy_from_slice(&self.enable.to_le_bytes());
        block[4..6].copy_from_slice(&self.control.to_le_bytes());
        block[8..12].copy_from_slice(&(self.ticks() as u32).to_le_bytes());
        for (i, byte) in (0_u64..).zip(data) {
            let at = usize::try_from(offset.saturating_add(i)).unwrap_or(usize::MAX);
            *byte = block.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes to the block.
    pub fn write(&mut self, offset: u64, data: &[u8], now: u64) -> Action {
        self.advance(now);
        let mut action = Action::None;
        for (i, byte) in (0_u64..).zip(data) {
            let at = offset.saturating_add(i);
            let value = u16::from(*byte) << (8 * (at & 1));
            let mask = 0xff << (8 * (at & 1));
            match at {
                0 | 1 => self.status &= !value,
                2 | 3 => self.enable = (self.enable & !mask) | (value & ENABLE_WRITABLE),
                4 => {}
                5 => {
                    self.control = SCI_EN | (value & SLP_TYP);
                    let off = (value & SLP_TYP) >> 10 == u16::from(SLEEP_TYPE_OFF);
                    if value & SLP_EN != 0 && off {
                        action = Action::PowerOff;
                    }
                }
                _ => {}
            }
        }
        action
    }

    /// Reads port 0x92.
    #[must_use]
    pub fn read_port92(&self) -> u8 {
        self.port92
    }

    /// Writes port 0x92: bit 0 resets, bit 1 (A20) is kept and does nothing.
    pub fn write_port92(&mut self, value: u8) -> Action {
        self.port92 = value & PORT92_A20;
        if value & PORT92_RESET != 0 { Action::Reset } else { Action::None }
    }

    /// Reads port 0xcf9.
    #[must_use]
    pub fn read_reset_control(&self) -> u8 {
        self.reset_control
    }

    /// Writes port 0xcf9: bit 2, when it becomes set, resets.
    pub fn write_reset_control(&mut self, value: u8) -> Action {
        let rises = value & !self.reset_control & RESET_CPU != 0;
        self.reset_control = value & !RESET_CPU;
        if rises { Action::Reset } else { Action::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(pm: &mut AcpiPm, now: u64) -> u32 {
        let mut data = [0; 4];
        pm.read(8, &mut data, now);
        u32::from_le_bytes(data)
    }

    #[test]
    fn timer_counts_exactly_and_never_back() {
        let mut pm = AcpiPm::new(1_000);
        assert_eq!(timer(&mut pm, 1_000), 0);
        assert_eq!(timer(&mut pm, 1_000_001_000), 3_579_545);
        assert_eq!(timer(&mut pm, 500), 3_579_545);
        assert_eq!(timer(&mut pm, 100_000_001_000), 357_954_500);
    }

    #[test]
    fn timer_interrupt_comes_when_the_highest_bit_changes_and_stays_until_it_is_cleared() {
        let mut pm = AcpiPm::new(0);
        assert_eq!(pm.next_event(), None);
        let _ = pm.write(2, &[1, 0], 0);
        let due = pm.next_event().expect("it is enabled");
        pm.advance(due - 1);
        assert!(!pm.line());
        pm.advance(due);
        assert!(pm.line());
        assert_eq!(timer(&mut pm, due), 1 << 31);
        assert_eq!(pm.next_event(), None);
        let _ = pm.write(0, &[1, 0], due);
        assert!(!pm.line());
        assert!(pm.next_event().is_some_and(|at| at > due));
    }

    #[test]
    fn sleep_type_5_with_sleep_enable_powers_off() {
        let mut pm = AcpiPm::new(0);
        assert_eq!(pm.write(4, &[0, 5 << 2], 0), Action::None);
        assert_eq!(pm.write(4, &[0, 1 << 5 | 3 << 2], 0), Action::None);
        assert_eq!(pm.write(4, &[0, 1 << 5 | 5 << 2], 0), Action::PowerOff);
        let mut control = [0; 2];
        pm.read(4, &mut control, 0);
        assert_eq!(control, [1, 5 << 2], "SCI_EN is set, SLP_EN reads as zero");
    }

    #[test]
    fn power_button_asserts_the_line_when_enabled() {
        let mut pm = AcpiPm::new(0);
        pm.press_power_button();
        assert!(!pm.line());
        let _ = pm.write(3, &[1], 0);
        assert!(pm.line());
        let _ = pm.write(1, &[1], 0);
        assert!(!pm.line());
    }

    #[test]
    fn reset_ports_reset() {
        let mut pm = AcpiPm::new(0);
        assert_eq!(pm.write_port92(2), Action::None);
        assert_eq!(pm.read_port92(), 2);
        assert_eq!(pm.write_port92(3), Action::Reset);
        assert_eq!(pm.write_reset_control(2), Action::None);
        assert_eq!(pm.write_reset_control(6), Action::Reset);
    }

    #[test]
    fn odd_accesses_touch_the_bytes_that_they_meet() {
        let mut pm = AcpiPm::new(0);
        let _ = pm.write(1, &[0, 0x21, 0x07, 0xff, 0xff], 0);
        let mut data = [0xaa; 16];
        pm.read(0, &mut data, 0);
        assert_eq!(data[..6], [0, 0, 0x21, 0x07, 1, 0x1c]);
        let _ = pm.write(u64::MAX, &[0xff; 8], u64::MAX);
        pm.read(u64::MAX, &mut data, 3);
        assert_eq!(data[0], 0);
    }
}
