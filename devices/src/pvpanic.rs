//! The pvpanic device: how a guest's kernel says that it has panicked.
//!
//! Owns no state. Must not know what a panic leads to. QEMU's ISA device of that name, at the same
//! port, takes the same writes; kernels find it by the ACPI device `QEMU0001`.
//!
//! | bit | read: what is understood | written: what has happened |
//! |---|---|---|
//! | 0 | yes | the kernel has panicked |
//! | 1 | yes | it has, and a crash kernel looks after it: the guest goes on |
//!
//! | threat | answer |
//! |---|---|
//! | any other bit | ignored |
//! | a guest that only says that it panicked | its VM ends, as it asked for |

use std::ops::RangeInclusive;

use crate::bus::{Device, Outcome};

/// The port.
pub const PORT: RangeInclusive<u16> = 0x505..=0x505;

const PANICKED: u8 = 1 << 0;
const CRASH_LOADED: u8 = 1 << 1;

/// The device.
#[derive(Clone, Copy, Debug, Default)]
pub struct PvPanic;

impl Device for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        data.fill(PANICKED | CRASH_LOADED);
        Outcome::None
    }

    fn write(&mut self, _offset: u64, data: &[u8], _now: u64) -> Outcome {
        match data {
            [events] if events & PANICKED != 0 => Outcome::Panicked,
            _ => Outcome::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_told_and_a_loaded_crash_kernel_goes_on() {
        let mut events = [0];
        assert_eq!(PvPanic.read(0, &mut events, 0), Outcome::None);
        assert_eq!(events, [3]);
        assert_eq!(PvPanic.write(0, &[1], 0), Outcome::Panicked);
        for other in [&[0][..], &[2], &[4], &[0xfe], &[]] {
            assert_eq!(PvPanic.write(0, other, 0), Outcome::None);
        }
    }
}
