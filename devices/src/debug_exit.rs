//! The debug-exit port: how a test guest ends its VM with a value.
//!
//! Owns no state. Must not know what the value means; QEMU's `isa-debug-exit` at the same port takes
//! the same writes.
//!
//! | threat | answer |
//! |---|---|
//! | a write of another width than 1, 2 or 4 bytes, or not to the first port | ignored |
//! | a read | zero |

use std::ops::RangeInclusive;

use crate::bus::{Device, Outcome};

/// The ports.
pub const PORTS: RangeInclusive<u16> = 0xf4..=0xf7;

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugExit;

impl Device for DebugExit {
    fn read(&mut self, _offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        data.fill(0);
        Outcome::None
    }

    fn write(&mut self, offset: u64, data: &[u8], _now: u64) -> Outcome {
        let value = match *data {
            _ if offset != 0 => return Outcome::None,
            [a] => u32::from(a),
            [a, b] => u32::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => return Outcome::None,
        };
        Outcome::Exit(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_of_each_width_ends_the_vm_with_its_value() {
        assert_eq!(DebugExit.write(0, &[0x21], 0), Outcome::Exit(0x21));
        assert_eq!(DebugExit.write(0, &[0x21, 0x43], 0), Outcome::Exit(0x4321));
        assert_eq!(DebugExit.write(0, &[1, 2, 3, 4], 0), Outcome::Exit(0x0403_0201));
    }

    #[test]
    fn other_widths_and_ports_are_ignored() {
        assert_eq!(DebugExit.write(1, &[1], 0), Outcome::None);
        assert_eq!(DebugExit.write(0, &[1, 2, 3], 0), Outcome::None);
        assert_eq!(DebugExit.write(0, &[], 0), Outcome::None);
    }

    #[test]
    fn reads_zero() {
        let mut data = [0xaa; 4];
        assert_eq!(DebugExit.read(0, &mut data, 0), Outcome::None);
        assert_eq!(data, [0; 4]);
    }
}
