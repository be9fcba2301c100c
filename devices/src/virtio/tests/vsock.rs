//! The socket device.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::*;
use crate::virtio::mmio::Served;
use crate::virtio::vsock::packet::{HEADER, NO_RECEIVE, NO_SEND, Operation, Packet, STREAM};
use crate::virtio::vsock::{
    Got, Host, Interest, MOST_CONNECTIONS, MOST_RESETS, Put, RECEIVE, ROOM, Stream, TRANSMIT, Vsock,
};

use Operation::{CreditRequest, CreditUpdate, Data, Request, Reset as Rst, Response, Shutdown};

const CID: u64 = 5;
const GUEST_PORT: u32 = 1000;
/// Where packets to the device are written, and those from it.
const TO: u64 = DATA;
const FROM: u64 = DATA + 0x4_0000;
const BUFFER: u32 = 0x1000;

/// A stream as its test sees it.
#[derive(Default)]
struct Ends {
    coming: VecDeque<u8>,
    no_more: bool,
    written: Vec<u8>,
    /// Bytes that it takes.
    room: usize,
    finished: bool,
    opened: Option<u32>,
    dropped: bool,
    watched: Interest,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Ends>>);

impl Shared {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct End(Shared);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ends().dropped = true;
    }
}

impl Stream for End {
    fn read(&mut self, bytes: &mut [u8]) -> Got {
        let mut ends = self.0.ends();
        let count = bytes.len().min(ends.coming.len());
        bytes.iter_mut().zip(ends.coming.drain(..count)).for_each(|(to, from)| *to = from);
        match count {
            0 if ends.no_more => Got::End,
            0 => Got::Nothing,
            count => Got::Bytes(count),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Put {
        let mut ends = self.0.ends();
        let count = bytes.len().min(ends.room);
        ends.room -= count;
        ends.written.extend(&bytes[..count]);
        if count == 0 { Put::Later } else { Put::Bytes(count) }
    }

    fn finish(&mut self) {
        self.0.ends().finished = true;
    }

    fn opened(&mut self, host_port: u32) -> bool {
        self.0.ends().opened = Some(host_port);
        true
    }
}

/// Somebody listens at port 80 alone.
#[derive(Default)]
struct Everybody(Vec<Shared>);

impl Host for Everybody {
    type Stream = End;

    fn connect(&mut self, port: u32) -> Option<End> {
        (port == 80).then(|| {
            let shared = Shared::default();
            shared.ends().room = usize::MAX;
            self.0.push(shared.clone());
            End(shared)
        })
    }

    fn watch(&mut self, _slot: u16, stream: &End, interest: Interest) {
        stream.0.ends().watched = interest;
    }
}

type Device = Vsock<Everybody>;

fn driver() -> Driver<Device> {
    let mut driver = Driver::running(Vsock::new(Everybody::default(), CID), 0);
    driver.size = 16;
    driver
}

fn buffers(driver: &mut Driver<Device>, count: u16) {
    for at in 0..count {
        let place = FROM + u64::from(at) * u64::from(BUFFER);
        driver.on(RECEIVE).offer(at, &[(place, BUFFER, true)]);
    }
}

fn packet(operation: Operation, host_port: u32) -> Packet {
    Packet {
        from_cid: CID,
        to_cid: 2,
        from_port: GUEST_PORT,
        to_port: host_port,
        len: 0,
        kind: STREAM,
        operation: Some(operation),
        flags: 0,
        room: 1 << 20,
        taken: 0,
    }
}

fn turn(driver: &Driver<Device>) -> Served {
    driver.transport.serve(|device, memory| device.notified(TRANSMIT, memory))
}

fn send(driver: &mut Driver<Device>, packet: Packet, payload: &[u8]) {
    let packet = Packet { len: payload.len() as u32, ..packet };
    driver.write(TO, &[&packet.bytes()[..], payload].concat());
    driver.on(TRANSMIT).offer(0, &[(TO, (HEADER + payload.len()) as u32, false)]);
    let _ = turn(driver);
    assert_eq!(driver.used().len(), 1, "taken at once");
}

/// What the driver was told, and with what bytes; its buffers are offered again.
fn told(driver: &mut Driver<Device>) -> Vec<(Packet, Vec<u8>)> {
    let used = driver.on(RECEIVE).used();
    let mut all = Vec::new();
    for (head, len) in used {
        let at = FROM + u64::from(head) * u64::from(BUFFER);
        let bytes = driver.read(at, len as usize);
        let header = bytes[..HEADER].try_into().expect("a header");
        all.push((Packet::parse(header), bytes[HEADER..].to_vec()));
        driver.offer(head as u16, &[(at, BUFFER, true)]);
    }
    all
}

fn operations(driver: &mut Driver<Device>) -> Vec<Operation> {
    told(driver).into_iter().map(|(packet, _)| packet.operation.expect("a known one")).collect()
}

fn streams(driver: &Driver<Device>) -> Vec<Shared> {
    driver.transport.inspect(|device, _| device.host().0.clone())
}

fn ready(driver: &Driver<Device>, found: Interest) -> Served {
    driver.transport.serve(|device, memory| device.stream_ready(memory, 0, found))
}

const READ: Interest = Interest { read: true, write: false, gone: false };
const WRITE: Interest = Interest { read: false, write: true, gone: false };
const GONE: Interest = Interest { read: false, write: false, gone: true };

/// A connection of the guest's with port 80.
fn connected() -> (Driver<Device>, Shared) {
    let mut driver = driver();
    buffers(&mut driver, 8);
    send(&mut driver, packet(Request, 80), b"");
    assert_eq!(operations(&mut driver), [Response]);
    let stream = streams(&driver)[0].clone();
    (driver, stream)
}

#[test]
fn guest_connects_sends_receives_and_ends() {
    let (mut driver, stream) = connected();
    assert_eq!(stream.ends().watched, READ);
    send(&mut driver, packet(Data, 80), b"question");
    assert_eq!(stream.ends().written, b"question");
    stream.ends().coming.extend(b"answer");
    let served = ready(&driver, READ);
    assert!(served.interrupt && !served.more);
    let told_now = told(&mut driver);
    assert_eq!(told_now.len(), 1);
    let (header, bytes) = &told_now[0];
    assert_eq!((header.operation, &bytes[..]), (Some(Data), &b"answer"[..]));
    assert_eq!((header.from_cid, header.to_cid, header.len), (2, CID, 6));
    assert_eq!((header.from_port, header.to_port), (80, GUEST_PORT));
    assert_eq!((header.room, header.taken), (ROOM, 8));
    send(&mut driver, Packet { flags: NO_SEND, ..packet(Shutdown, 80) }, b"");
    assert!(stream.ends().finished && !stream.ends().dropped);
    stream.ends().no_more = true;
    let _ = ready(&driver, READ);
    let told_now = told(&mut driver);
    assert_eq!((told_now[0].0.operation, told_now[0].0.flags), (Some(Shutdown), NO_SEND));
    send(&mut driver, Packet { flags: NO_SEND | NO_RECEIVE, ..packet(Shutdown, 80) }, b"");
    assert_eq!(operations(&mut driver), [Rst]);
    assert!(stream.ends().dropped);
    assert_eq!(driver.transport.inspect(|device, _| device.connections()), 0);
}

#[test]
fn host_connects_once_the_guest_has_accepted() {
    let mut driver = driver();
    buffers(&mut driver, 4);
    let stream = Shared::default();
    stream.ends().room = 100;
    let end = End(stream.clone());
    let _ = driver.transport.serve(|device, memory| device.open(memory, end, GUEST_PORT));
    let asked = told(&mut driver);
    let (request, _) = &asked[0];
    assert_eq!((request.operation, request.to_port), (Some(Request), GUEST_PORT));
    assert_eq!(stream.ends().watched, GONE, "bytes wait");
    assert_eq!(stream.ends().opened, None);
    send(&mut driver, packet(Response, request.from_port), b"");
    assert_eq!(stream.ends().opened, Some(request.from_port));
    assert_eq!(stream.ends().watched, READ);
    send(&mut driver, packet(Rst, request.from_port), b"");
    assert!(stream.ends().dropped && operations(&mut driver).is_empty());
}

#[test]
fn host_that_goes_before_the_guest_answers_is_forgotten() {
    let mut driver = driver();
    buffers(&mut driver, 4);
    let end = End(Shared::default());
    let _ = driver.transport.serve(|device, memory| device.open(memory, end, GUEST_PORT));
    let _ = ready(&driver, GONE);
    assert_eq!(operations(&mut driver), [Request, Rst]);
}

#[test]
fn bytes_wait_for_the_drivers_credit() {
    let (mut driver, stream) = connected();
    send(&mut driver, Packet { room: 10, ..packet(CreditUpdate, 80) }, b"");
    stream.ends().coming.extend([7; 25]);
    let _ = ready(&driver, READ);
    let told_now = told(&mut driver);
    let lens: Vec<_> = told_now.iter().map(|(packet, _)| (packet.operation, packet.len)).collect();
    assert_eq!(lens, [(Some(Data), 10), (Some(CreditRequest), 0)], "asked once, no polling");
    assert_eq!(stream.ends().watched, Interest::default(), "it would be ready for ever");
    send(&mut driver, Packet { room: 10, taken: 10, ..packet(CreditUpdate, 80) }, b"");
    let told_now = told(&mut driver);
    assert_eq!(told_now[0].0.len, 10);
    // A driver that claims more than was sent gets nothing.
    send(&mut driver, Packet { room: 10, taken: 1000, ..packet(CreditUpdate, 80) }, b"");
    assert!(told(&mut driver).iter().all(|(packet, _)| packet.operation != Some(Data)));
}

#[test]
fn slow_host_fills_its_room_and_no_more() {
    let (mut driver, stream) = connected();
    stream.ends().room = 0;
    let piece = vec![3; ROOM as usize / 2];
    send(&mut driver, packet(Data, 80), &piece);
    send(&mut driver, packet(Data, 80), &piece);
    assert!(stream.ends().watched.write);
    stream.ends().room = piece.len();
    let _ = ready(&driver, WRITE);
    let told_now = told(&mut driver);
    assert_eq!(told_now[0].0.operation, Some(CreditUpdate));
    assert_eq!(told_now[0].0.taken, ROOM / 2);
    send(&mut driver, packet(Data, 80), &piece);
    assert!(operations(&mut driver).is_empty());
    send(&mut driver, packet(Data, 80), b"x");
    assert_eq!(operations(&mut driver), [Rst], "there was no room");
    assert!(stream.ends().dropped);
}

#[test]
fn end_of_the_guest_reaches_the_host_behind_all_bytes() {
    let (mut driver, stream) = connected();
    stream.ends().room = 0;
    send(&mut driver, packet(Data, 80), b"last words");
    send(&mut driver, Packet { flags: NO_SEND | NO_RECEIVE, ..packet(Shutdown, 80) }, b"");
    assert!(!stream.ends().finished && operations(&mut driver).is_empty());
    stream.ends().room = 100;
    let _ = ready(&driver, WRITE);
    assert_eq!(stream.ends().written, b"last words");
    assert!(stream.ends().finished && stream.ends().dropped);
    assert_eq!(operations(&mut driver), [Rst]);
}

#[test]
fn host_that_has_gone_is_read_to_the_end_first() {
    let (mut driver, stream) = connected();
    stream.ends().coming.extend(b"bye");
    stream.ends().no_more = true;
    let _ = ready(&driver, Interest { gone: true, ..READ });
    let told_now = told(&mut driver);
    assert_eq!(told_now[0].1, b"bye");
    let (end, _) = &told_now[1];
    assert_eq!((end.operation, end.flags), (Some(Shutdown), NO_SEND | NO_RECEIVE));
    assert_eq!(stream.ends().watched, Interest::default());
}

#[test]
fn what_belongs_to_no_connection_is_reset_and_resets_are_not_answered() {
    let mut driver = driver();
    buffers(&mut driver, 4);
    for operation in [Data, Shutdown, Response, CreditUpdate, CreditRequest] {
        send(&mut driver, packet(operation, 80), b"");
        let told_now = told(&mut driver);
        let (reset, _) = &told_now[0];
        assert_eq!((reset.operation, reset.from_port), (Some(Rst), 80), "{operation:?}");
        assert_eq!((reset.to_port, reset.to_cid), (GUEST_PORT, CID));
    }
    send(&mut driver, packet(Request, 81), b"");
    assert_eq!(operations(&mut driver), [Rst], "nobody listens");
    send(&mut driver, packet(Rst, 80), b"");
    for wrong in
        [Packet { from_cid: 6, ..packet(Request, 80) }, Packet { to_cid: 1, ..packet(Request, 80) }]
    {
        send(&mut driver, wrong, b"");
    }
    assert!(operations(&mut driver).is_empty());
    send(&mut driver, Packet { kind: 2, ..packet(Request, 80) }, b"");
    assert_eq!(operations(&mut driver), [Rst], "another kind of socket");
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    for wrong in [
        packet(Request, 80),
        packet(Response, 80),
        Packet { operation: None, ..packet(Data, 80) },
        Packet { kind: 7, ..packet(Data, 80) },
    ] {
        let (mut driver, stream) = connected();
        send(&mut driver, wrong, b"");
        assert_eq!(operations(&mut driver), [Rst], "{wrong:?}");
        assert!(stream.ends().dropped);
    }
    // Less payload than the header says, and more than anybody has room for.
    for len in [1, ROOM + 1, u32::MAX] {
        let (mut driver, _) = connected();
        driver.write(TO, &Packet { len, ..packet(Data, 80) }.bytes());
        driver.on(TRANSMIT).offer(0, &[(TO, HEADER as u32, false)]);
        let _ = turn(&driver);
        assert_eq!(operations(&mut driver), [Rst], "{len}");
    }
}

#[test]
fn packet_without_a_whole_header_is_dropped() {
    let mut driver = driver();
    buffers(&mut driver, 1);
    driver.write(TO, &packet(Data, 80).bytes());
    driver.on(TRANSMIT).offer(0, &[(TO, HEADER as u32 - 1, false)]);
    let _ = turn(&driver);
    assert_eq!(driver.used(), [(0, 0)]);
    assert!(operations(&mut driver).is_empty());
}

#[test]
fn connections_are_bounded() {
    let mut driver = driver();
    buffers(&mut driver, 8);
    for port in 0..MOST_CONNECTIONS as u32 + 1 {
        send(&mut driver, Packet { from_port: port, ..packet(Request, 80) }, b"");
        let expected = if port < MOST_CONNECTIONS as u32 { Response } else { Rst };
        assert_eq!(operations(&mut driver), [expected], "{port}");
    }
    let end = End(Shared::default());
    let ends = end.0.clone();
    let _ = driver.transport.serve(|device, memory| device.open(memory, end, 9));
    assert!(ends.ends().dropped, "there is no place");
}

#[test]
fn packets_wait_while_resets_wait_for_buffers() {
    let mut driver = driver();
    driver.write(TO, &packet(Data, 80).bytes());
    let mut taken = 0;
    for at in 0..MOST_RESETS + 10 {
        driver.on(TRANSMIT).offer((at % 16) as u16, &[(TO, HEADER as u32, false)]);
        assert!(!turn(&driver).more, "nothing is polled for");
        taken += driver.used().len();
    }
    assert_eq!(taken, MOST_RESETS);
    buffers(&mut driver, 8);
    let mut more = true;
    while more {
        more = turn(&driver).more;
        assert!(operations(&mut driver).iter().all(|operation| *operation == Rst));
        taken += driver.on(TRANSMIT).used().len();
    }
    assert_eq!(taken, MOST_RESETS + 10, "the rest was read then");
}

#[test]
fn connections_take_turns() {
    let mut driver = driver();
    buffers(&mut driver, 2);
    for port in 0..2 {
        send(&mut driver, Packet { from_port: port, ..packet(Request, 80) }, b"");
    }
    for stream in streams(&driver) {
        stream.ends().coming.extend([1; 0x4000]);
    }
    // The driver has no buffers until both are known to have something.
    let _ = driver.transport.serve(|device, memory| {
        device.stream_ready(memory, 0, READ) | device.stream_ready(memory, 1, READ)
    });
    let _ = told(&mut driver);
    let mut ports = Vec::new();
    for _ in 0..3 {
        let _ = turn(&driver);
        ports.extend(told(&mut driver).iter().map(|(packet, _)| packet.to_port));
    }
    assert_eq!(ports, [0, 1, 0, 1, 0, 1]);
}

#[test]
fn reset_of_the_device_closes_all_streams() {
    let (mut driver, stream) = connected();
    driver.begin(0);
    assert!(stream.ends().dropped);
    assert_eq!(stream.ends().watched, Interest::default());
    let _ = ready(&driver, READ);
    assert_eq!(driver.transport.inspect(|device, _| device.connections()), 0);
}

#[test]
fn buffer_without_room_breaks_the_device() {
    let mut driver = driver();
    driver.on(RECEIVE).offer(0, &[(FROM, HEADER as u32, true)]);
    send(&mut driver, packet(Data, 80), b"");
    assert!(driver.is_broken());
}
