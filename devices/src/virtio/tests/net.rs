//! The network device.

use std::collections::VecDeque;

use super::*;
use crate::virtio::net::{
    HEADER, MOST_FRAME, MOST_FRAMES, Net, Port, RECEIVE, Received, Sent, TRANSMIT,
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 42];

#[derive(Default)]
struct Cable {
    sent: Vec<Vec<u8>>,
    /// How many frames it has room for.
    room: usize,
    coming: VecDeque<Vec<u8>>,
    gone: bool,
    asked: usize,
}

impl Port for Cable {
    fn send(&mut self, frame: &[u8]) -> Sent {
        if self.gone {
            return Sent::Gone;
        }
        if self.sent.len() >= self.room {
            return Sent::Later;
        }
        self.sent.push(frame.to_vec());
        Sent::Done
    }

    fn receive(&mut self, frame: &mut [u8]) -> Received {
        self.asked += 1;
        match self.coming.pop_front() {
            Some(bytes) => {
                let count = bytes.len().min(frame.len());
                frame[..count].copy_from_slice(&bytes[..count]);
                Received::Frame(bytes.len())
            }
            None if self.gone => Received::Gone,
            None => Received::Nothing,
        }
    }
}

fn driver(cable: Cable) -> Driver<Net<Cable>> {
    Driver::running(Net::new(cable, MAC), 0)
}

fn cable(coming: &[&[u8]]) -> Cable {
    let coming = coming.iter().map(|frame| frame.to_vec()).collect();
    Cable { room: 1000, coming, ..Cable::default() }
}

fn notify(driver: &Driver<Net<Cable>>, queue: usize) -> crate::virtio::mmio::Served {
    driver.transport.serve(|device, memory| device.notified(queue, memory))
}

fn sent(driver: &Driver<Net<Cable>>) -> Vec<Vec<u8>> {
    driver.transport.inspect(|device, _| device.port().sent.clone())
}

/// Wants frames; wants room.
fn wants(driver: &Driver<Net<Cable>>) -> (bool, bool) {
    driver.transport.inspect(|device, _| (device.wants_frames(), device.wants_room()))
}

#[test]
fn frame_is_sent_without_the_devices_header_however_it_is_cut() {
    let mut driver = driver(cable(&[]));
    driver.on(TRANSMIT).write(DATA, &[0xff; HEADER]);
    driver.write(DATA + 0x100, &[7; 60]);
    driver.offer(0, &[(DATA, 12, false), (DATA + 0x100, 60, false)]);
    driver.offer(2, &[(DATA + 8, 4, false), (DATA, 8, false), (DATA + 0x100, 30, false)]);
    driver.write(DATA + 0x1000, &[9; 40]);
    driver.offer(5, &[(DATA + 0x1000, 40, false)]);
    assert!(notify(&driver, TRANSMIT).interrupt);
    assert_eq!(driver.used(), [(0, 0), (2, 0), (5, 0)]);
    assert_eq!(sent(&driver), [vec![7; 60], vec![7; 30], vec![9; 28]]);
}

#[test]
fn what_is_no_frame_is_dropped_and_counted() {
    let mut driver = driver(cable(&[]));
    driver.on(TRANSMIT);
    for (at, len) in [0, 5, 12, 25, (HEADER + MOST_FRAME + 1) as u32].into_iter().enumerate() {
        driver.offer(at as u16, &[(DATA, len, false)]);
    }
    driver.offer(8, &[(DATA, 100, true)]);
    driver.offer(9, &[(DATA, (HEADER + MOST_FRAME) as u32, false)]);
    let _ = notify(&driver, TRANSMIT);
    assert_eq!(driver.used().len(), 7);
    assert_eq!(sent(&driver).iter().map(Vec::len).collect::<Vec<_>>(), [MOST_FRAME]);
    let counters = driver.transport.inspect(|device, _| device.counters());
    assert_eq!((counters.malformed, counters.sent), (6, 1));
}

#[test]
fn frame_that_there_is_no_room_for_waits_in_the_ring() {
    let mut driver = driver(Cable { room: 1, ..Cable::default() });
    driver.on(TRANSMIT).write(DATA + 12, &[1; 60]);
    driver.write(DATA + 0x112, &[2; 60]);
    driver.offer(0, &[(DATA, 72, false)]);
    driver.offer(1, &[(DATA + 0x100, 72, false)]);
    let served = notify(&driver, TRANSMIT);
    assert!(!served.more, "nothing is polled for");
    assert_eq!((driver.used(), wants(&driver)), (vec![(0, 0)], (false, true)));
    assert!(!notify(&driver, TRANSMIT).more);
    driver.transport.inspect(|device, _| assert_eq!(device.port().sent.len(), 1));
    // There is room now, and the device is told so.
    driver.transport.inspect(|device, _| set_room(device, 5));
    assert!(driver.transport.serve(Net::room_came).interrupt);
    assert_eq!((driver.used(), wants(&driver)), (vec![(1, 0)], (false, false)));
    assert_eq!(sent(&driver).len(), 2);
}

fn set_room(device: &mut Net<Cable>, room: usize) {
    device.port_mut().room = room;
}

#[test]
fn port_is_not_read_without_a_buffer() {
    let mut driver = driver(cable(&[&[5; 60], &[6; 61]]));
    let _ = notify(&driver, RECEIVE);
    assert_eq!(wants(&driver), (false, false));
    assert_eq!(driver.transport.inspect(|device, _| device.port().asked), 0);
    driver.on(RECEIVE).offer(0, &[(DATA, 12, true), (DATA + 0x100, 2000, true)]);
    let served = notify(&driver, RECEIVE);
    assert!(served.interrupt && !served.more);
    assert_eq!((driver.used(), wants(&driver)), (vec![(0, 72)], (false, false)));
    assert_eq!(driver.read(DATA, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(driver.read(DATA + 0x100, 60), [5; 60]);
    driver.offer(2, &[(DATA, 2000, true)]);
    driver.offer(3, &[(DATA, 2000, true)]);
    let _ = notify(&driver, RECEIVE);
    assert_eq!((driver.used(), wants(&driver)), (vec![(2, 73)], (true, false)));
}

#[test]
fn frame_that_fits_no_buffer_is_lost_and_the_buffer_is_not() {
    let mut driver = driver(cable(&[&[5; 100], &[6; 10], &[7; 60]]));
    driver.on(RECEIVE).offer(0, &[(DATA, 80, true)]);
    let _ = notify(&driver, RECEIVE);
    assert_eq!(driver.used(), [(0, 72)]);
    assert_eq!(driver.read(DATA + 12, 60), [7; 60]);
    assert_eq!(driver.transport.inspect(|device, _| device.counters().lost), 2);
}

#[test]
fn many_frames_are_carried_in_turns() {
    let mut port = cable(&[]);
    port.coming = (0..3 * MOST_FRAMES).map(|_| vec![1; 10]).collect();
    let mut driver = driver(port);
    driver.on(RECEIVE).offer(0, &[(DATA, 80, true)]);
    assert!(notify(&driver, RECEIVE).more);
    assert_eq!(driver.transport.inspect(|device, _| device.port().asked), MOST_FRAMES);
}

#[test]
fn link_is_down_when_nobody_is_there_any_more() {
    let mut driver = driver(Cable { gone: true, ..cable(&[]) });
    let config = |driver: &Driver<_>| {
        let mut data = [0xaa; 8];
        driver.transport.read(0x100, &mut data);
        data
    };
    assert_eq!(config(&driver), [2, 0, 0, 0, 0, 42, 1, 0]);
    driver.on(RECEIVE).offer(0, &[(DATA, 2000, true)]);
    let served = notify(&driver, RECEIVE);
    assert!(served.interrupt && !served.more, "the configuration has changed");
    assert_eq!((config(&driver)[6], wants(&driver)), (0, (false, false)));
    driver.on(TRANSMIT).offer(0, &[(DATA, 72, false)]);
    assert!(notify(&driver, TRANSMIT).interrupt);
    assert_eq!(driver.used(), [(0, 0)], "it is dropped");
}
