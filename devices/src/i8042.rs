//! The i8042 keyboard controller, as far as it resets the machine.
//!
//! Owns no state: no keyboard, no mouse, never any data. Must not know what a reset does. Of the
//! five ports only data (0x60) and status/command (0x64) are the controller's; those between read as
//! all ones, as if unclaimed, because guests poll bits of port 0x61 that the PIT would set.
//!
//! | threat | answer |
//! |---|---|
//! | any other command, or data | ignored |
//! | waiting for data | the status says for ever that there is none; the guest's own time-out ends it |
//! | accesses of several bytes | each byte goes to its own port |

use std::ops::RangeInclusive;

use crate::bus::{Device, Outcome};

/// The ports.
pub const PORTS: RangeInclusive<u16> = 0x60..=0x64;

const DATA: u64 = 0;
const STATUS_AND_COMMAND: u64 = 4;
/// Pulse output line 0, which is the processor's reset.
const PULSE_RESET: u8 = 0xfe;

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct I8042;

impl Device for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        for (i, byte) in data.iter_mut().enumerate() {
            let at = offset.saturating_add(i as u64);
            // Status: output buffer empty, so no data; input buffer empty, so ready for a command.
            *byte = if matches!(at, DATA | STATUS_AND_COMMAND) { 0 } else { 0xff };
        }
        Outcome::None
    }

    fn write(&mut self, offset: u64, data: &[u8], _now: u64) -> Outcome {
        let reset = data.iter().enumerate().any(|(i, byte)| {
            offset.saturating_add(i as u64) == STATUS_AND_COMMAND && *byte == PULSE_RESET
        });
        if reset { Outcome::Reset } else { Outcome::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_command_resets() {
        assert_eq!(I8042.write(4, &[0xfe], 0), Outcome::Reset);
    }

    #[test]
    fn other_commands_data_and_ports_are_ignored() {
        assert_eq!(I8042.write(4, &[0xff], 0), Outcome::None);
        assert_eq!(I8042.write(0, &[0xfe], 0), Outcome::None);
        assert_eq!(I8042.write(1, &[0xfe], 0), Outcome::None);
    }

    #[test]
    fn wide_write_resets_only_with_the_byte_that_meets_the_command_port() {
        assert_eq!(I8042.write(3, &[0, 0xfe], 0), Outcome::Reset);
        assert_eq!(I8042.write(3, &[0xfe, 0], 0), Outcome::None);
    }

    #[test]
    fn status_says_no_data_and_ready() {
        let mut data = [0xaa];
        assert_eq!(I8042.read(4, &mut data, 0), Outcome::None);
        assert_eq!(data[0] & 0b11, 0);
    }

    #[test]
    fn ports_of_the_timer_and_speaker_read_as_unclaimed() {
        let mut data = [0; 4];
        assert_eq!(I8042.read(0, &mut data, 0), Outcome::None);
        assert_eq!(data, [0, 0xff, 0xff, 0xff]);
    }
}
