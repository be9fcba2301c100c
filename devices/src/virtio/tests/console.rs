//! The console device.

use std::collections::VecDeque;

use super::*;
use crate::virtio::Signal;
use crate::virtio::console::{Console, MOST_BYTES, RECEIVE, TRANSMIT, Terminal};

#[derive(Default)]
struct Both {
    said: Vec<u8>,
    typed: VecDeque<u8>,
}

impl Terminal for Both {
    fn write(&mut self, bytes: &[u8]) {
        self.said.extend(bytes);
    }

    fn read(&mut self, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.typed.len());
        bytes.iter_mut().zip(self.typed.drain(..count)).for_each(|(to, from)| *to = from);
        count
    }
}

fn driver(typed: &[u8]) -> Driver<Console<Both>> {
    let typed = typed.iter().copied().collect();
    Driver::running(Console::new(Both { typed, ..Both::default() }), 0)
}

fn said(driver: &Driver<Console<Both>>) -> Vec<u8> {
    driver.transport.inspect(|device, _| device.terminal().said.clone())
}

#[test]
fn what_the_guest_says_comes_out_in_order() {
    let mut driver = driver(b"");
    driver.on(TRANSMIT).write(DATA, b"hello world");
    driver.offer(0, &[(DATA, 5, false), (DATA + 5, 1, false)]);
    driver.offer(2, &[(DATA + 6, 5, false)]);
    let served = driver.transport.serve(|device, memory| device.notified(TRANSMIT, memory));
    assert!(served.interrupt && !served.more);
    assert_eq!(driver.used(), [(0, 0), (2, 0)]);
    assert_eq!(said(&driver), b"hello world");
}

#[test]
fn what_is_typed_waits_for_a_buffer() {
    let mut driver = driver(b"hello");
    let served = driver.transport.serve(Console::input_came);
    assert!(!served.interrupt && !served.more);
    driver.offer(0, &[(DATA, 3, true)]);
    driver.offer(1, &[(DATA + 8, 100, true)]);
    driver.offer(2, &[(DATA + 200, 100, true)]);
    let served = driver.transport.serve(|device, memory| device.notified(RECEIVE, memory));
    assert!(served.interrupt && !served.more);
    assert_eq!(driver.used(), [(0, 3), (1, 2)]);
    assert_eq!((driver.read(DATA, 3), driver.read(DATA + 8, 2)), (b"hel".to_vec(), b"lo".to_vec()));
    // The third buffer is still there for what is typed next.
    driver.transport.inspect(|device, _| *device = Console::new(Both::default()));
}

#[test]
fn long_buffer_is_carried_in_turns_and_nothing_twice() {
    let mut driver = driver(b"");
    let all: Vec<u8> = (0..3 * MOST_BYTES / 2 + 5).map(|at| (at % 251) as u8).collect();
    driver.on(TRANSMIT).write(DATA, &all);
    driver.offer(0, &[(DATA, 7, false), (DATA + 7, all.len() as u32 - 7, false)]);
    let turn = |device: &mut Console<Both>, memory: &Memory| device.notified(TRANSMIT, memory);
    assert!(driver.transport.serve(turn).more);
    assert_eq!(said(&driver), all[..MOST_BYTES]);
    assert!(driver.used().is_empty());
    assert!(!driver.transport.serve(turn).more);
    assert_eq!(said(&driver), all);
    assert_eq!(driver.used(), [(0, 0)]);
}

#[test]
fn buffers_of_no_bytes_are_given_back_and_others_served() {
    let mut driver = driver(b"x");
    driver.offer(0, &[(DATA, 0, true)]);
    driver.offer(1, &[(DATA, 1, false)]);
    driver.offer(2, &[(DATA, 1, true)]);
    let _ = driver.transport.serve(Console::input_came);
    assert_eq!(driver.used(), [(0, 0), (1, 0), (2, 1)]);
}

#[test]
fn device_that_was_reset_touches_nothing() {
    let mut driver = driver(b"x");
    driver.offer(0, &[(DATA, 1, true)]);
    let _ = driver.set(reg::VIRTIO_MMIO_STATUS, 0);
    let served = driver.transport.serve(|_, _| unreachable!("it is not active"));
    assert!(!served.interrupt);
    let _: Signal = driver.transport.inspect(|device, active| {
        assert!(!active);
        device.input_came(&Memory::default())
    });
    assert!(driver.used().is_empty());
}
