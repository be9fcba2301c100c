//! The i8042 keyboard controller, as far as it resets the machine.
//!
//! Owns no state: no keyboard, no mouse, never any data. Must not know what a reset does. Its two
//! ports are apart: those between are others'.
//!
//! | threat | answer |
//! |---|---|
//! | any other command, or data | ignored |
//! | waiting for data | the status says for ever that there is none; the guest's own time-out ends it |
//! | accesses of several bytes | leave the one port of each, so they are nobody's |

use std::ops::RangeInclusive;

use crate::bus::{Device, Outcome};

/// The port of its data.
pub const DATA: RangeInclusive<u16> = 0x60..=0x60;
/// The port of its status (read) and commands (write).
pub const COMMAND: RangeInclusive<u16> = 0x64..=0x64;

/// Pulse output line 0, which is the processor's reset.
const PULSE_RESET: u8 = 0xfe;

/// The device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum I8042 {
    /// At [`DATA`].
    Data,
    /// At [`COMMAND`].
    Command,
}

impl Device for I8042 {
    fn read(&mut self, _offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        // Status: output buffer empty, so no data; input buffer empty, so ready for a command.
        data.fill(0);
        Outcome::None
    }

    fn write(&mut self, _offset: u64, data: &[u8], _now: u64) -> Outcome {
        let reset = *self == I8042::Command && data.first() == Some(&PULSE_RESET);
        if reset { Outcome::Reset } else { Outcome::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_command_resets() {
        assert_eq!(I8042::Command.write(0, &[0xfe], 0), Outcome::Reset);
    }

    #[test]
    fn other_commands_and_data_are_ignored() {
        assert_eq!(I8042::Command.write(0, &[0xff], 0), Outcome::None);
        assert_eq!(I8042::Data.write(0, &[0xfe], 0), Outcome::None);
    }

    #[test]
    fn status_says_no_data_and_ready() {
        let mut data = [0xaa];
        assert_eq!(I8042::Command.read(0, &mut data, 0), Outcome::None);
        assert_eq!(data[0] & 0b11, 0);
    }
}
