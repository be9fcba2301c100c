use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Answers reads with the offset, and notes the last write's offset plus one.
struct Probe(Arc<AtomicU64>);

impl Device for Probe {
    fn read(&mut self, offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        data.fill(offset as u8);
        Outcome::None
    }

    fn write(&mut self, offset: u64, data: &[u8], _now: u64) -> Outcome {
        self.0.store(offset + 1, Ordering::Relaxed);
        Outcome::Exit(data.len() as u32)
    }
}

fn probe() -> Box<dyn Device> {
    Box::new(Probe(Arc::default()))
}

fn built(builder: Result<BusBuilder, BusError>) -> BusBuilder {
    builder.expect("ranges that do not overlap")
}

#[test]
fn device_sees_offsets_into_its_own_range() {
    let (a, b) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let bus = built(
        BusBuilder::new()
            .pio(0x20..=0x2f, Box::new(Probe(Arc::clone(&b))))
            .and_then(|bus| bus.pio(0x10..=0x1f, Box::new(Probe(Arc::clone(&a))))),
    )
    .freeze();
    assert_eq!(bus.pio_write(0x13, &[1, 2], 0), Outcome::Exit(2));
    assert_eq!(bus.pio_write(0x2f, &[1], 0), Outcome::Exit(1));
    assert_eq!(a.load(Ordering::Relaxed), 4);
    assert_eq!(b.load(Ordering::Relaxed), 16);
    let mut data = [0; 2];
    assert_eq!(bus.pio_read(0x25, &mut data, 0), Outcome::None);
    assert_eq!(data, [5, 5]);
}

#[test]
fn overlap_is_refused_on_either_side_and_inside() {
    for range in [0x0f..=0x10, 0x1f..=0x20, 0x12..=0x13, 0x00..=0xff, 0x10..=0x1f] {
        let builder = built(BusBuilder::new().pio(0x10..=0x1f, probe()));
        let error = builder.pio(range.clone(), probe()).err();
        assert_eq!(
            error,
            Some(BusError::Overlap {
                start: u64::from(*range.start()),
                end: u64::from(*range.end()),
                taken_start: 0x10,
                taken_end: 0x1f
            })
        );
    }
}

#[test]
fn neighbours_are_no_overlap() {
    let builder = built(BusBuilder::new().pio(0x10..=0x1f, probe()));
    let builder = built(builder.pio(0x20..=0x20, probe()));
    let bus = built(builder.pio(0x0f..=0x0f, probe())).freeze();
    for port in 0x0f..=0x20 {
        assert_eq!(bus.pio_read(port, &mut [0], 0), Outcome::None);
    }
}

#[test]
#[allow(clippy::reversed_empty_ranges)]
fn empty_range_is_refused() {
    let error = BusBuilder::new().mmio(0x20..=0x1f, probe()).err();
    assert_eq!(error, Some(BusError::Empty { start: 0x20, end: 0x1f }));
}

#[test]
fn ports_and_memory_are_separate_spaces() {
    let builder = built(BusBuilder::new().pio(0x10..=0x1f, probe()));
    let bus = built(builder.mmio(0x10..=0x1f, probe())).freeze();
    assert_eq!(bus.mmio_write(0x10, &[0; 8], 0), Outcome::Exit(8));
    assert_eq!(bus.mmio_read(0x1f, &mut [0], 0), Outcome::None);
    assert_eq!(bus.pio_write(0x10, &[0; 4], 0), Outcome::Exit(4));
}

#[test]
fn unclaimed_read_returns_all_ones() {
    let bus = BusBuilder::new().freeze();
    let mut data = [0; 4];
    assert_eq!(bus.pio_read(0x80, &mut data, 0), Outcome::Unclaimed);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(bus.mmio_write(0xd000_0000, &[1], 0), Outcome::Unclaimed);
}

#[test]
fn access_that_leaves_the_range_is_unclaimed() {
    let bus = built(BusBuilder::new().pio(0x10..=0x13, probe())).freeze();
    let mut data = [0; 4];
    assert_eq!(bus.pio_read(0x10, &mut data, 0), Outcome::None);
    assert_eq!(bus.pio_read(0x11, &mut data, 0), Outcome::Unclaimed);
    assert_eq!(data, [0xff; 4]);
    assert_eq!(bus.pio_read(0x0f, &mut [0; 2], 0), Outcome::Unclaimed);
    assert_eq!(bus.pio_read(0x13, &mut [0], 0), Outcome::None);
    assert_eq!(bus.pio_read(0x14, &mut [0], 0), Outcome::Unclaimed);
    assert_eq!(bus.pio_read(0x10, &mut [], 0), Outcome::Unclaimed);
}

#[test]
fn end_of_the_address_space_neither_overflows_nor_hides_a_device() {
    let bus = built(BusBuilder::new().mmio(u64::MAX - 3..=u64::MAX, probe())).freeze();
    assert_eq!(bus.mmio_write(u64::MAX - 3, &[0; 4], 0), Outcome::Exit(4));
    assert_eq!(bus.mmio_write(u64::MAX, &[0], 0), Outcome::Exit(1));
    assert_eq!(bus.mmio_write(u64::MAX, &[0; 2], 0), Outcome::Unclaimed);
    let ports = built(BusBuilder::new().pio(0xffff..=0xffff, probe())).freeze();
    assert_eq!(ports.pio_write(0xffff, &[0], 0), Outcome::Exit(1));
    assert_eq!(ports.pio_write(0xffff, &[0; 2], 0), Outcome::Unclaimed);
}

#[test]
fn device_survives_a_poisoned_lock() {
    struct Fragile(bool);
    impl Device for Fragile {
        fn read(&mut self, _: u64, data: &mut [u8], _: u64) -> Outcome {
            assert!(std::mem::replace(&mut self.0, true), "first access");
            data.fill(7);
            Outcome::None
        }
        fn write(&mut self, _: u64, _: &[u8], _: u64) -> Outcome {
            Outcome::None
        }
    }
    let bus = built(BusBuilder::new().pio(0..=0, Box::new(Fragile(false)))).freeze();
    let first = std::thread::scope(|s| s.spawn(|| bus.pio_read(0, &mut [0], 0)).join());
    assert!(first.is_err());
    let mut data = [0];
    assert_eq!(bus.pio_read(0, &mut data, 0), Outcome::None);
    assert_eq!(data, [7]);
}
