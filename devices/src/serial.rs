//! The serial port: a 16550A at eight I/O ports.
//!
//! Owns the UART's registers (the state machine is `vm-superio`'s) and the writer that takes its
//! output. Must not know where the output goes, nor the interrupt controllers: a request of the
//! UART is an edge on its ISA line ([`Outcome::Edge`]).
//!
//! | threat | answer |
//! |---|---|
//! | endless output | passed to the writer byte by byte; the writer must neither block nor grow without bound |
//! | a writer that fails | the byte is lost, the guest does not notice |
//! | loop-back mode, filling the receive FIFO | 64 bytes at most, the rest is dropped |
//! | accesses of several bytes | each byte goes to its own register, none beyond the eighth |

use std::convert::Infallible;
use std::io::Write;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::bus::{Device, Outcome};

/// The ports of the first serial port of a PC (COM1).
pub const COM1: RangeInclusive<u16> = 0x3f8..=0x3ff;

/// The interrupt line: whether the UART has asked for an edge since it was looked at.
#[derive(Default)]
struct Line(AtomicBool);

impl Trigger for Line {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        // The port's owner writes and reads it; it is atomic for `&self` alone.
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A serial port whose output goes to `W`.
///
/// The writer is called from the vCPU's thread for every byte, and flushed, so it must not block.
pub struct SerialPort<W: Write + Send> {
    uart: Serial<Line, NoEvents, W>,
    irq: u8,
}

impl<W: Write + Send> SerialPort<W> {
    /// A port after reset, whose interrupts come on this ISA line.
    #[must_use]
    pub fn new(out: W, irq: u8) -> Self {
        SerialPort { uart: Serial::new(Line::default(), out), irq }
    }

    fn outcome(&self) -> Outcome {
        let asked = self.uart.interrupt_evt().0.swap(false, Ordering::Relaxed);
        if asked { Outcome::Edge(self.irq) } else { Outcome::None }
    }

    /// The output's writer.
    #[must_use]
    pub fn writer(&self) -> &W {
        self.uart.writer()
    }
}

/// The register that byte `index` of an access at `offset` goes to.
fn register(offset: u64, index: usize) -> Option<u8> {
    let at = offset.checked_add(u64::try_from(index).ok()?)?;
    u8::try_from(at).ok().filter(|at| *at < 8)
}

impl<W: Write + Send> Device for SerialPort<W> {
    fn read(&mut self, offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = register(offset, i).map_or(0xff, |at| self.uart.read(at));
        }
        self.outcome()
    }

    fn write(&mut self, offset: u64, data: &[u8], _now: u64) -> Outcome {
        for (i, byte) in data.iter().enumerate() {
            if let Some(at) = register(offset, i) {
                // Only the writer can fail, and a UART cannot tell its guest.
                let _ = self.uart.write(at, *byte);
            }
        }
        self.outcome()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    const DATA: u64 = 0;
    const LINE_STATUS: u64 = 5;
    const MODEM_CONTROL: u64 = 4;
    const SCRATCH: u64 = 7;

    fn read(port: &mut impl Device, offset: u64) -> u8 {
        let mut byte = [0xaa];
        assert_eq!(port.read(offset, &mut byte, 0), Outcome::None);
        byte[0]
    }

    fn write(port: &mut impl Device, offset: u64, data: &[u8]) {
        assert_eq!(port.write(offset, data, 0), Outcome::None);
    }

    #[test]
    fn bytes_written_come_out_in_order() {
        let mut port = SerialPort::new(Vec::new(), 4);
        for byte in b"tick\n" {
            write(&mut port, DATA, &[*byte]);
        }
        assert_eq!(port.writer(), b"tick\n");
    }

    #[test]
    fn transmitter_is_always_empty() {
        let mut port = SerialPort::new(Vec::new(), 4);
        assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60);
        write(&mut port, DATA, b"x");
        assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60);
    }

    #[test]
    fn wide_access_touches_consecutive_registers_and_none_beyond_the_last() {
        let mut port = SerialPort::new(Vec::new(), 4);
        write(&mut port, SCRATCH, &[0x5a, 1, 2, 3]);
        let mut data = [0; 4];
        assert_eq!(port.read(SCRATCH, &mut data, 0), Outcome::None);
        assert_eq!(data, [0x5a, 0xff, 0xff, 0xff]);
        assert!(port.writer().is_empty());
    }

    #[test]
    fn offset_at_the_end_of_all_numbers_is_harmless() {
        let mut port = SerialPort::new(Vec::new(), 4);
        let mut data = [0; 2];
        assert_eq!(port.read(u64::MAX, &mut data, 0), Outcome::None);
        write(&mut port, u64::MAX, &[1, 2]);
        assert_eq!(data, [0xff; 2]);
    }

    #[test]
    fn loop_back_returns_what_was_sent_and_holds_a_bounded_number_of_bytes() {
        let mut port = SerialPort::new(Vec::new(), 4);
        write(&mut port, MODEM_CONTROL, &[0x10]);
        for i in 0..=255 {
            write(&mut port, DATA, &[i]);
        }
        let mut received = 0;
        while read(&mut port, LINE_STATUS) & 1 != 0 {
            assert_eq!(read(&mut port, DATA), received);
            received += 1;
        }
        assert_eq!(received, 64);
        assert!(port.writer().is_empty());
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
        let mut port = SerialPort::new(Broken, 4);
        write(&mut port, DATA, b"x");
        assert_eq!(read(&mut port, LINE_STATUS) & 0x60, 0x60);
    }

    #[test]
    fn transmitter_that_is_empty_asks_for_an_edge_when_enabled() {
        let mut port = SerialPort::new(Vec::new(), 4);
        write(&mut port, DATA, b"x");
        assert_eq!(port.write(1, &[2], 0), Outcome::Edge(4));
        assert_eq!(read(&mut port, 2) & 0xf, 2, "the reason, which reading ends");
        assert_eq!(port.write(DATA, b"y", 0), Outcome::Edge(4));
        assert_eq!(port.write(1, &[0], 0), Outcome::None);
        assert_eq!(port.write(DATA, b"z", 0), Outcome::None);
    }
}
