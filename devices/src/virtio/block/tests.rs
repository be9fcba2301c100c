//! A disk in memory, behind a driver by hand.

use std::io;

use virtio_bindings::virtio_mmio as reg;

use super::request::{IOERR, OK, UNSUPP};
use super::*;
use crate::virtio::mmio::Transport;
use crate::virtio::tests::{DATA, Driver};

const SECTORS: u64 = 64;
const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x80;
const BUFFER: u64 = DATA + 0x1000;
const FLUSH: u64 = 1 << blk::VIRTIO_BLK_F_FLUSH;

/// What was done to a disk beyond reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Write(u64, usize),
    Flush,
    Discard(u64, u64),
    Zero(u64, u64, bool),
}

#[derive(Default)]
struct Ram {
    bytes: Vec<u8>,
    did: Vec<Did>,
    fails: bool,
}

impl Ram {
    fn new() -> Self {
        let bytes = (0..SECTORS * SECTOR).map(|at| (at / SECTOR) as u8 ^ at as u8).collect();
        Ram { bytes, ..Ram::default() }
    }

    fn did(&mut self, what: Did) -> io::Result<()> {
        self.did.push(what);
        if self.fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Ram {
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if self.fails {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.copy_from_slice(&self.bytes[offset as usize..][..bytes.len()]);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.did(Did::Write(offset, bytes.len()))?;
        self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.did(Did::Flush)
    }
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.did(Did::Discard(offset, len))
    }
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.did(Did::Zero(offset, len, unmap))?;
        self.bytes[offset as usize..][..len as usize].fill(0);
        Ok(())
    }
}

fn geometry(block: u32, read_only: bool) -> Geometry {
    let mut id = [0; 20];
    id[..4].copy_from_slice(b"name");
    Geometry { bytes: SECTORS * SECTOR, block, read_only, id }
}

fn running(read_only: bool, features: u64) -> Driver<Block> {
    Driver::running(Block::new(geometry(512, read_only)), features)
}

/// Makes a request available: type, sector, and its data.
fn ask(driver: &mut Driver<Block>, kind: u32, sector: u64, data: &[(u64, u32, bool)]) {
    let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
    driver.write(HEADER, &header);
    driver.write(STATUS, &[0xee]);
    let chain = [&[(HEADER, 16, false)], data, &[(STATUS, 1, true)]].concat();
    driver.offer(0, &chain);
}

/// Has one request carried out in pieces of a KiB. Answers its status, and the bytes written.
fn serve(driver: &mut Driver<Block>, disk: &mut impl Disk) -> (u8, u32) {
    let turn = serve::one(&driver.transport, disk, &mut [0; 1024]).expect("there is a request");
    assert!(turn.served.interrupt);
    let [(0, written)] = driver.used()[..] else { panic!("one request is done") };
    (driver.read(STATUS, 1)[0], written)
}

#[test]
fn what_was_written_is_read_back() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram::new());
    let bytes: Vec<u8> = (0..3 * 512).map(|at| (at % 251) as u8).collect();
    driver.write(BUFFER, &bytes[..700]);
    driver.write(BUFFER + 0x1000, &bytes[700..]);
    // Buffers need no alignment.
    let data = [(BUFFER, 700, false), (BUFFER + 0x1000, 3 * 512 - 700, false)];
    ask(&mut driver, blk::VIRTIO_BLK_T_OUT, 5, &data);
    assert_eq!(serve(&mut driver, &mut disk), (OK, 1));
    assert_eq!(disk.bytes[5 * 512..8 * 512], bytes);
    assert_eq!(disk.did, [Did::Write(5 * 512, 1024), Did::Write(7 * 512, 512)]);
    let data = [(BUFFER + 0x2000, 1, true), (BUFFER + 0x3000, 3 * 512 - 1, true)];
    ask(&mut driver, blk::VIRTIO_BLK_T_IN, 5, &data);
    assert_eq!(serve(&mut driver, &mut disk), (OK, 3 * 512 + 1));
    let read = [driver.read(BUFFER + 0x2000, 1), driver.read(BUFFER + 0x3000, 3 * 512 - 1)];
    assert_eq!(read.concat(), bytes);
    assert!(serve::one(&driver.transport, &mut disk, &mut [0; 1024]).is_none());
}

#[test]
fn flush_comes_after_what_was_written_before_it() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram::new());
    for (kind, data) in [
        (blk::VIRTIO_BLK_T_OUT, &[(BUFFER, 512, false)][..]),
        (blk::VIRTIO_BLK_T_FLUSH, &[]),
        (blk::VIRTIO_BLK_T_OUT, &[(BUFFER, 512, false)]),
    ] {
        ask(&mut driver, kind, 0, data);
        assert_eq!(serve(&mut driver, &mut disk).0, OK);
    }
    assert_eq!(disk.did, [Did::Write(0, 512), Did::Flush, Did::Write(0, 512)]);
}

#[test]
fn each_write_of_a_driver_that_does_not_flush_is_permanent() {
    let (mut driver, mut disk) = (running(false, 0), Ram::new());
    ask(&mut driver, blk::VIRTIO_BLK_T_OUT, 0, &[(BUFFER, 512, false)]);
    assert_eq!(serve(&mut driver, &mut disk).0, OK);
    assert_eq!(disk.did, [Did::Write(0, 512), Did::Flush]);
}

#[test]
fn ranges_beyond_the_end_are_refused_untouched() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram::new());
    for (sector, len) in
        [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (1 << 55, 512), (0, 511), (0, 513)]
    {
        for (kind, writes) in [(blk::VIRTIO_BLK_T_IN, true), (blk::VIRTIO_BLK_T_OUT, false)] {
            ask(&mut driver, kind, sector, &[(BUFFER, len, writes)]);
            assert_eq!(serve(&mut driver, &mut disk), (IOERR, 1), "{kind} {sector} {len}");
        }
    }
    assert_eq!(disk.did, []);
    assert_eq!(driver.read(BUFFER, 512), [0; 512]);
}

#[test]
fn read_only_disk_is_offered_as_such_and_refuses_all_changes() {
    let (mut driver, mut disk) = (running(true, 0), Ram::new());
    assert_eq!(
        driver.transport.inspect(|device, _| device.features()) >> blk::VIRTIO_BLK_F_RO & 1,
        1
    );
    let segment = [&0_u64.to_le_bytes()[..], &1_u32.to_le_bytes(), &[0; 4]].concat();
    driver.write(BUFFER, &segment);
    for (kind, len) in [
        (blk::VIRTIO_BLK_T_OUT, 512),
        (blk::VIRTIO_BLK_T_DISCARD, 16),
        (blk::VIRTIO_BLK_T_WRITE_ZEROES, 16),
    ] {
        ask(&mut driver, kind, 0, &[(BUFFER, len, false)]);
        assert_eq!(serve(&mut driver, &mut disk), (IOERR, 1));
    }
    assert_eq!(disk.did, []);
    ask(&mut driver, blk::VIRTIO_BLK_T_IN, 0, &[(BUFFER, 512, true)]);
    assert_eq!(serve(&mut driver, &mut disk).0, OK);
}

#[test]
fn discards_and_zeros_name_their_ranges() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram::new());
    let segment = |sector: u64, sectors: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    driver.write(BUFFER, &[segment(1, 2, 0), segment(7, 1, 0)].concat());
    ask(&mut driver, blk::VIRTIO_BLK_T_DISCARD, 0, &[(BUFFER, 32, false)]);
    assert_eq!(serve(&mut driver, &mut disk).0, OK);
    driver.write(BUFFER, &segment(3, 1, 1));
    ask(&mut driver, blk::VIRTIO_BLK_T_WRITE_ZEROES, 0, &[(BUFFER, 16, false)]);
    assert_eq!(serve(&mut driver, &mut disk).0, OK);
    let expected = [Did::Discard(512, 1024), Did::Discard(3584, 512), Did::Zero(1536, 512, true)];
    assert_eq!(disk.did, expected);
    disk.did.clear();
    let many = 16 * (MOST_SEGMENTS + 1);
    for (kind, bytes, len, status) in [
        (blk::VIRTIO_BLK_T_DISCARD, segment(SECTORS, 1, 0), 16, IOERR),
        (blk::VIRTIO_BLK_T_DISCARD, segment(u64::MAX, u32::MAX, 0), 16, IOERR),
        (blk::VIRTIO_BLK_T_DISCARD, segment(0, 1, 1), 16, UNSUPP),
        (blk::VIRTIO_BLK_T_WRITE_ZEROES, segment(0, 1, 2), 16, UNSUPP),
        (blk::VIRTIO_BLK_T_WRITE_ZEROES, segment(0, 1, 0), 15, IOERR),
        (blk::VIRTIO_BLK_T_WRITE_ZEROES, segment(0, 1, 0), 0, IOERR),
        (blk::VIRTIO_BLK_T_WRITE_ZEROES, segment(0, 1, 0), many, IOERR),
    ] {
        driver.write(BUFFER, &bytes);
        ask(&mut driver, kind, 0, &[(BUFFER, len, false)]);
        assert_eq!(serve(&mut driver, &mut disk).0, status, "{kind} {bytes:?} {len}");
    }
    assert_eq!(disk.did, []);
}

#[test]
fn other_requests() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram::new());
    ask(&mut driver, blk::VIRTIO_BLK_T_GET_ID, 0, &[(BUFFER, 20, true)]);
    assert_eq!(serve(&mut driver, &mut disk), (OK, 21));
    assert_eq!(driver.read(BUFFER, 5), *b"name\0");
    ask(&mut driver, blk::VIRTIO_BLK_T_GET_ID, 0, &[(BUFFER, 3, true)]);
    assert_eq!(serve(&mut driver, &mut disk), (OK, 4));
    for unknown in [3, 7, 9, u32::MAX] {
        ask(&mut driver, unknown, 0, &[(BUFFER, 512, true)]);
        assert_eq!(serve(&mut driver, &mut disk), (UNSUPP, 1));
    }
    driver.offer(0, &[(HEADER, 15, false), (STATUS, 1, true)]);
    assert_eq!(serve(&mut driver, &mut disk), (IOERR, 1));
}

#[test]
fn disk_that_fails_is_an_error_for_the_guest_and_told_to_the_host() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram { fails: true, ..Ram::new() });
    for (kind, writes) in [(blk::VIRTIO_BLK_T_IN, true), (blk::VIRTIO_BLK_T_OUT, false)] {
        ask(&mut driver, kind, 0, &[(BUFFER, 512, writes)]);
        let turn = serve::one(&driver.transport, &mut disk, &mut [0; 512]).expect("a request");
        assert!(turn.failed.is_some() && turn.served.interrupt);
        assert_eq!((driver.used(), driver.read(STATUS, 1)), (vec![(0, 1)], vec![IOERR]));
    }
}

#[test]
fn request_without_a_status_stops_the_device() {
    let (mut driver, mut disk) = (running(false, FLUSH), Ram::new());
    driver.offer(0, &[(HEADER, 16, false), (BUFFER, 512, false)]);
    let turn = serve::one(&driver.transport, &mut disk, &mut [0; 512]).expect("it is told");
    assert!(turn.served.interrupt && driver.is_broken());
    assert!(serve::one(&driver.transport, &mut disk, &mut [0; 512]).is_none());
}

#[test]
fn blocks_larger_than_a_sector_are_told_and_kept() {
    let mut driver = Driver::running(Block::new(geometry(4096, false)), FLUSH);
    let mut disk = Ram::new();
    assert_eq!(driver.get(reg::VIRTIO_MMIO_CONFIG + 20), 4096);
    for (sector, len, status) in [(8, 4096, OK), (4, 4096, IOERR), (8, 2048, IOERR)] {
        ask(&mut driver, blk::VIRTIO_BLK_T_IN, sector, &[(BUFFER, len, true)]);
        let turn = serve::one(&driver.transport, &mut disk, &mut [0; 4096]).expect("a request");
        assert!(turn.failed.is_none());
        assert_eq!(driver.read(STATUS, 1), [status]);
    }
}

#[test]
fn configuration_says_size_and_limits() {
    for (read_only, discards) in [(false, (MOST_DISCARDED / SECTOR) as u32), (true, 0)] {
        let driver = running(read_only, 0);
        let word = |at| driver.get(reg::VIRTIO_MMIO_CONFIG + at);
        assert_eq!((word(0), word(4)), (SECTORS as u32, 0));
        assert_eq!((word(12), word(20), word(36)), (u32::from(QUEUE_SIZE) - 2, 512, discards));
        assert_eq!((word(60), word(0x1000)), (0, 0));
    }
}

type End = dyn Fn(&Transport<Block>);

/// A disk on which something happens meanwhile.
struct Meanwhile<'a, F>(Ram, &'a Transport<Block>, F);

impl<F: FnMut(&Transport<Block>)> Disk for Meanwhile<'_, F> {
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, bytes)?;
        (self.2)(self.1);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)?;
        (self.2)(self.1);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        (self.2)(self.1);
        self.0.flush()
    }
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.0.discard(offset, len)
    }
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.0.write_zeroes(offset, len, unmap)
    }
}

#[test]
fn nothing_is_written_into_guest_memory_after_a_reset() {
    let reset = |transport: &Transport<Block>| {
        let _ = transport.write(reg::VIRTIO_MMIO_STATUS.into(), &[0; 4]);
    };
    let halt = |transport: &Transport<Block>| transport.halt();
    for end in [&reset as &End, &halt] {
        for (kind, writes) in [
            (blk::VIRTIO_BLK_T_IN, true),
            (blk::VIRTIO_BLK_T_OUT, false),
            (blk::VIRTIO_BLK_T_FLUSH, true),
        ] {
            let mut driver = running(false, FLUSH);
            ask(&mut driver, kind, 0, &[(BUFFER, 2048, writes)]);
            let mut disk = Meanwhile(Ram::new(), &driver.transport, end);
            let turn = serve::one(&driver.transport, &mut disk, &mut [0; 1024]).expect("one");
            assert!(!turn.served.interrupt && turn.failed.is_none());
            assert!(disk.0.did.len() <= 1, "no second piece: {:?}", disk.0.did);
            assert_eq!(driver.used(), []);
            assert_eq!(
                (driver.read(STATUS, 1), driver.read(BUFFER, 2048)),
                (vec![0xee], vec![0; 2048])
            );
        }
    }
}

#[test]
fn request_from_before_a_reset_is_not_finished_after_it() {
    let mut driver = running(false, FLUSH);
    ask(&mut driver, blk::VIRTIO_BLK_T_FLUSH, 0, &[]);
    let Driver { transport, .. } = &driver;
    // The device is reset and set up anew, all while the disk flushes.
    let again = |transport: &Transport<Block>| {
        let set = |register: u32, value: u32| {
            let _ = transport.write(register.into(), &value.to_le_bytes());
        };
        for status in [0, 1, 3] {
            set(reg::VIRTIO_MMIO_STATUS, status);
        }
        set(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        set(reg::VIRTIO_MMIO_DRIVER_FEATURES, 1);
        set(reg::VIRTIO_MMIO_STATUS, 0xb);
        set(reg::VIRTIO_MMIO_QUEUE_NUM, 16);
        set(reg::VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000);
        set(reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2000);
        set(reg::VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000);
        set(reg::VIRTIO_MMIO_QUEUE_READY, 1);
        set(reg::VIRTIO_MMIO_STATUS, 0xf);
    };
    let mut disk = Meanwhile(Ram::new(), transport, again);
    let turn = serve::one(transport, &mut disk, &mut [0; 1024]).expect("a request");
    assert!(!turn.served.interrupt && transport.inspect(|_, active| active));
    assert_eq!((driver.used(), driver.read(STATUS, 1)), (vec![], vec![0xee]));
}
