//! The debug port: a byte written to port 0xe9 appears on the console.
//!
//! Owns the writer that takes the bytes. Must not know where they go. Source: Bochs's "port E9 hack",
//! which QEMU's `isa-debugcon` offers too; reading the port's own number tells a guest that it is there.
//!
//! | threat | answer |
//! |---|---|
//! | endless output | passed to the writer as it comes; the writer must neither block nor grow without bound |
//! | a writer that fails | the byte is lost, the guest does not notice |

use std::io::Write;
use std::ops::RangeInclusive;

use crate::bus::{Device, Outcome};

/// The port.
pub const PORTS: RangeInclusive<u16> = 0xe9..=0xe9;

/// What the port reads as.
const PRESENT: u8 = 0xe9;

/// A debug port whose output goes to `W`.
///
/// The writer is called from the vCPU's thread for every byte, so it must not block.
pub struct DebugPort<W: Write + Send> {
    out: W,
}

impl<W: Write + Send> DebugPort<W> {
    /// A port with this output.
    #[must_use]
    pub fn new(out: W) -> Self {
        DebugPort { out }
    }
}

impl<W: Write + Send> Device for DebugPort<W> {
    fn read(&mut self, _offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        data.fill(PRESENT);
        Outcome::None
    }

    fn write(&mut self, _offset: u64, data: &[u8], _now: u64) -> Outcome {
        // Only the writer can fail, and a port cannot tell its guest.
        let _ = self.out.write_all(data);
        Outcome::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn bytes_written_come_out_in_order() {
        let mut port = DebugPort::new(Vec::new());
        for byte in b"hello" {
            assert_eq!(port.write(0, &[*byte], 0), Outcome::None);
        }
        assert_eq!(port.out, b"hello");
    }

    #[test]
    fn port_reads_as_its_own_number() {
        let mut data = [0];
        assert_eq!(DebugPort::new(Vec::new()).read(0, &mut data, 0), Outcome::None);
        assert_eq!(data, [0xe9]);
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failing_writer_loses_bytes_without_the_guest_noticing() {
        assert_eq!(DebugPort::new(Broken).write(0, b"x", 0), Outcome::None);
    }
}
