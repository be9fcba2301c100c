//! Ports that end the machine without ACPI's registers.
//!
//! Owns the two bits that such ports keep. Must not know how a machine ends. Facts: RST_CNT (0xcf9)
//! and port 0x92 are in the ICH datasheets; 0x600 is where Cloud Hypervisor, and 0x604 where QEMU and
//! Bochs, have a port that existing guest images write to.
//!
//! | threat | answer |
//! |---|---|
//! | any other value, width or offset | ignored, or a kept bit |
//! | turning the A20 line off | kept and read back, without effect on addresses |

use super::Action;

/// The reset control register, one byte.
pub const RESET_CONTROL: u16 = 0xcf9;
/// The value for the reset register of a FADT: a reset of the whole machine.
pub const RESET_VALUE: u8 = SYSTEM_RESET | RESET_NOW;
/// System control port A, one byte.
pub const PORT_92: u16 = 0x92;
/// One byte.
pub const CLOUD_HYPERVISOR_SHUTDOWN: u16 = 0x600;
/// Two bytes.
pub const BOCHS_SHUTDOWN: u16 = 0x604;

/// Reset control: which kind; both are a reset of the machine here.
const SYSTEM_RESET: u8 = 1 << 1;
/// Reset control, reads as zero.
const RESET_NOW: u8 = 1 << 2;
/// Reset control: with a power cycle.
const FULL_RESET: u8 = 1 << 3;

/// Port 0x92, reads as zero: reset.
const FAST_RESET: u8 = 1 << 0;
/// Port 0x92: address line 20 is passed on.
const A20: u8 = 1 << 1;

/// A sleep-control value: SLP_TYP 5 in bits 4:2, and SLP_EN in bit 5.
const SLEEP_5: u8 = 0x34;
/// A PM1 control value: SLP_TYP 0 and SLP_EN.
const SLEEP_0: [u8; 2] = 0x2000_u16.to_le_bytes();

/// The reset control register. A write of 0x06 or 0x0e resets, as does any with bit 2.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResetControl {
    kept: u8,
}

impl ResetControl {
    /// Reads the register.
    #[must_use]
    pub fn read(&self) -> u8 {
        self.kept
    }

    /// Writes the register.
    pub fn write(&mut self, value: u8) -> Action {
        self.kept = value & (SYSTEM_RESET | FULL_RESET);
        if value & RESET_NOW != 0 { Action::Reset } else { Action::None }
    }
}

/// System control port A.
#[derive(Clone, Copy, Debug)]
pub struct Port92 {
    kept: u8,
}

impl Default for Port92 {
    fn default() -> Self {
        Port92 { kept: A20 }
    }
}

impl Port92 {
    /// Reads the port.
    #[must_use]
    pub fn read(&self) -> u8 {
        self.kept
    }

    /// Writes the port.
    pub fn write(&mut self, value: u8) -> Action {
        self.kept = value & A20;
        if value & FAST_RESET != 0 { Action::Reset } else { Action::None }
    }
}

/// What a write to [`CLOUD_HYPERVISOR_SHUTDOWN`] or [`BOCHS_SHUTDOWN`] comes to. The ports keep
/// nothing; what they read as is the bus's business.
pub fn write_shutdown(port: u16, data: &[u8]) -> Action {
    match (port, data) {
        (CLOUD_HYPERVISOR_SHUTDOWN, [SLEEP_5, ..]) => Action::PowerOff,
        (BOCHS_SHUTDOWN, data) if data == SLEEP_0 => Action::PowerOff,
        _ => Action::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_control_resets_with_bit_2_and_keeps_the_kind() {
        let mut control = ResetControl::default();
        assert_eq!(control.write(0x02), Action::None);
        assert_eq!(control.read(), 0x02);
        for value in [0x06, 0x0e, RESET_VALUE] {
            assert_eq!(control.write(value), Action::Reset);
        }
        assert_eq!(control.write(0xfb), Action::None);
        assert_eq!(control.read(), 0x0a);
    }

    #[test]
    fn port_92_resets_with_bit_0_and_keeps_a20() {
        let mut port = Port92::default();
        assert_eq!(port.read(), 0x02);
        assert_eq!(port.write(0xfc), Action::None);
        assert_eq!(port.read(), 0);
        assert_eq!(port.write(0xfe), Action::None);
        assert_eq!(port.read(), 0x02);
        assert_eq!(port.write(0x01), Action::Reset);
        assert_eq!(port.read(), 0);
    }

    #[test]
    fn shutdown_ports_take_their_one_value() {
        assert_eq!(write_shutdown(0x600, &[0x34]), Action::PowerOff);
        // The low byte of a wider write goes to this port.
        assert_eq!(write_shutdown(0x600, &[0x34, 0]), Action::PowerOff);
        assert_eq!(write_shutdown(0x604, &[0x00, 0x20]), Action::PowerOff);
        for (port, data) in [
            (0x600, &[0x35][..]),
            (0x600, &[0, 0x20]),
            (0x601, &[0x34]),
            (0x604, &[0x34]),
            (0x604, &[0x20, 0x00]),
            (0x604, &[0, 0x20, 0, 0]),
            (0x604, &[]),
        ] {
            assert_eq!(write_shutdown(port, data), Action::None, "{port:#x} {data:?}");
        }
    }
}
