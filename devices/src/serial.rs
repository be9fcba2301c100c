//! The serial port: a 16550A at eight I/O ports.
//!
//! Owns the UART's registers (the state machine is `vm-superio`'s) and the writer that takes its
//! output, and the reader that it is given input from. Must not know where the output goes, nor the
//! interrupt controllers: a request of the UART is an edge on its ISA line ([`Outcome::Edge`]).
//!
//! Input is looked for whenever the port is read. Whoever knows that some has come reads the scratch
//! register, so that a guest that waits for the interrupt gets it.
//!
//! | threat | answer |
//! |---|---|
//! | endless input | the receive FIFO takes 64 bytes, the rest stays with the reader |
//! | endless output | passed to the writer byte by byte; the writer must neither block nor grow without bound |
//! | a writer that fails | the byte is lost, the guest does not notice |
//! | loop-back mode, filling the receive FIFO | 64 bytes at most, the rest is dropped |
//! | accesses of several bytes | each byte goes to its own register, none beyond the eighth |

use std::convert::Infallible;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::bus::{Device, Outcome};

/// The ports of the first serial port of a PC (COM1).
pub const COM1: RangeInclusive<u16> = 0x3f8..=0x3ff;

/// The scratch register, which nothing depends on: its offset.
pub const SCRATCH: u16 = 7;

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

/// Modem control register, and its bit that connects the port to itself (16550A data sheet).
const MODEM_CONTROL: u8 = 4;
const LOOP_BACK: u8 = 1 << 4;

/// What the receive FIFO holds, in bytes.
const FIFO_BYTES: usize = 64;

/// A serial port whose output goes to `W`.
///
/// The writer is called from the vCPU's thread for every byte, and flushed, so it must not block.
pub struct SerialPort<W: Write + Send> {
    uart: Serial<Line, NoEvents, W>,
    irq: u8,
    input: Option<Box<dyn Read + Send>>,
}

impl<W: Write + Send> SerialPort<W> {
    /// A port after reset, whose interrupts come on this ISA line.
    #[must_use]
    pub fn new(out: W, irq: u8) -> Self {
        SerialPort { uart: Serial::new(Line::default(), out), irq, input: None }
    }

    /// The port with what this reader has as its input. The reader is called from the vCPU's thread
    /// whenever the guest reads the port, so it must not block; no bytes or an error: nothing came.
    #[must_use]
    pub fn with_input(mut self, input: Box<dyn Read + Send>) -> Self {
        self.input = Some(input);
        self
    }

    /// Fills the receive FIFO.
    fn receive(&mut self) {
        let Some(input) = &mut self.input else { return };
        // A port that is connected to itself does not hear what comes from outside.
        if self.uart.read(MODEM_CONTROL) & LOOP_BACK != 0 {
            return;
        }
        let mut bytes = [0; FIFO_BYTES];
        let room = self.uart.fifo_capacity().min(FIFO_BYTES);
        if room > 0
            && let Ok(count @ 1..) = input.read(&mut bytes[..room])
        {
            // It fits.
            let _ = self.uart.enqueue_raw_bytes(&bytes[..count.min(room)]);
        }
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
        self.receive();
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
    const MODEM_CONTROL: u64 = super::MODEM_CONTROL as u64;
    const SCRATCH: u64 = super::SCRATCH as u64;

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
    fn input_arrives_in_order_and_waits_outside_while_the_fifo_is_full_or_looped() {
        let said: Vec<u8> = (0..200).collect();
        let mut port =
            SerialPort::new(Vec::new(), 4).with_input(Box::new(io::Cursor::new(said.clone())));
        write(&mut port, MODEM_CONTROL, &[0x10]);
        assert_eq!(read(&mut port, LINE_STATUS) & 1, 0, "connected to itself");
        write(&mut port, MODEM_CONTROL, &[0]);
        let mut heard = Vec::new();
        while read(&mut port, LINE_STATUS) & 1 != 0 {
            heard.push(read(&mut port, DATA));
        }
        assert_eq!(heard, said);
    }

    #[test]
    fn input_asks_for_an_edge_where_the_guest_wants_one() {
        let mut port =
            SerialPort::new(Vec::new(), 4).with_input(Box::new(io::Cursor::new(b"x".to_vec())));
        write(&mut port, 1, &[1]);
        assert_eq!(port.read(LINE_STATUS, &mut [0], 0), Outcome::Edge(4));
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
