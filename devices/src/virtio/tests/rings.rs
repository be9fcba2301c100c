//! What a driver can do to a ring.

use super::*;
use crate::virtio::rng::{Entropy, MOST_BYTES, Rng};

struct Sevens;

impl Entropy for Sevens {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        bytes.fill(7);
        true
    }
}

fn driver() -> Driver<Rng<Sevens>> {
    Driver::running(Rng::new(Sevens), 0)
}

fn serve(driver: &Driver<Rng<Sevens>>) -> bool {
    driver.transport.serve(|device, memory| device.notified(0, memory)).interrupt
}

#[test]
fn chains_of_several_descriptors_are_filled_in_order() {
    let mut driver = driver();
    driver.offer(0, &[(DATA, 10, true), (DATA + 0x100, 0, true), (DATA + 0x200, 20, true)]);
    assert!(serve(&driver));
    assert_eq!(driver.used(), [(0, 30)]);
    assert_eq!(driver.read(DATA, 11), [[7; 10].as_slice(), &[0]].concat());
    assert_eq!(driver.read(DATA + 0x200, 21), [[7; 20].as_slice(), &[0]].concat());
}

#[test]
fn indirect_tables_are_followed_once() {
    let mut driver = driver();
    let buffers = [(DATA, 8, NEXT | WRITE, 1), (DATA + 64, 8, WRITE, 0)];
    driver.table(DATA + 0x1000, 0, &buffers);
    driver.offer_raw(3, &[(DATA + 0x1000, 32, INDIRECT, 0)]);
    assert!(serve(&driver));
    assert_eq!(driver.used(), [(3, 16)]);
    driver.table(DATA + 0x1000, 0, &[(DATA + 0x1000, 16, INDIRECT, 0)]);
    driver.offer_raw(3, &[(DATA + 0x1000, 16, INDIRECT, 0)]);
    assert!(serve(&driver) && driver.is_broken());
}

#[test]
fn chains_that_are_none_stop_the_device() {
    let last = MEMORY - 8;
    let cases: &[(&str, &[Descriptor])] = &[
        ("a loop", &[(DATA, 8, NEXT | WRITE, 0)]),
        ("a longer loop", &[(DATA, 8, NEXT | WRITE, 1), (DATA, 8, NEXT | WRITE, 0)]),
        ("no such descriptor", &[(DATA, 8, NEXT | WRITE, 16)]),
        ("beyond memory", &[(last, 9, WRITE, 0)]),
        ("nowhere near memory", &[(u64::MAX - 3, 8, WRITE, 0)]),
        ("4 GiB", &[(DATA, u32::MAX, WRITE, 0)]),
        ("read after written", &[(DATA, 8, NEXT | WRITE, 1), (DATA, 8, 0, 0)]),
        ("a table of no descriptors", &[(DATA, 0, INDIRECT, 0)]),
        ("a table of half a descriptor", &[(DATA, 24, INDIRECT, 0)]),
        ("a table nowhere", &[(u64::MAX - 15, 16, INDIRECT, 0)]),
    ];
    for (what, descriptors) in cases {
        let mut driver = driver();
        driver.offer_raw(0, descriptors);
        assert!(serve(&driver) && driver.is_broken(), "{what}");
        assert_eq!(driver.used(), [], "{what}");
        assert!(!serve(&driver), "{what}: nothing happens before the reset");
        driver.begin(0);
        driver.offer(0, &[(DATA, 8, true)]);
        assert!(serve(&driver) && driver.used() == [(0, 8)], "{what}: a reset mends it");
    }
}

#[test]
fn indirect_chain_longer_than_the_queue_stops_the_device() {
    let mut driver = driver();
    let long: Vec<Descriptor> = (1..=17).map(|next| (DATA, 1, NEXT | WRITE, next)).collect();
    driver.table(DATA + 0x1000, 0, &long);
    driver.table(DATA + 0x1000, 16, &[(DATA, 1, WRITE, 0)]);
    driver.offer_raw(0, &[(DATA + 0x1000, 17 * 16, INDIRECT, 0)]);
    assert!(serve(&driver) && driver.is_broken());
}

#[test]
fn heads_and_indices_that_cannot_be_stop_the_device() {
    let mut one = driver();
    one.make_available(16);
    assert!(serve(&one) && one.is_broken(), "a head that does not exist");
    let two = driver();
    two.set_available_index(17);
    assert!(serve(&two) && two.is_broken(), "more chains than there is room for");
}

#[test]
fn driver_is_interrupted_as_often_as_it_wants() {
    let mut driver = Driver::running(Rng::new(Sevens), EVENT_IDX);
    let used_event = AVAILABLE + 4 + 2 * 16;
    driver.write(used_event, &1_u16.to_le_bytes());
    driver.offer(0, &[(DATA, 8, true)]);
    assert!(!serve(&driver), "it wants the second one");
    driver.offer(0, &[(DATA, 8, true)]);
    assert!(serve(&driver));
    let available_event = USED + 4 + 8 * 16;
    assert_eq!(driver.u16(available_event), 2, "the device wants to be told of the next");
    assert_eq!(driver.used().len(), 2);
}

#[test]
fn requests_are_bounded_in_size_and_in_number() {
    let mut driver = driver();
    driver.offer(0, &[(DATA, 100_000, true)]);
    for _ in 1..16 {
        driver.make_available(0);
    }
    let served = driver.transport.serve(|device, memory| device.notified(0, memory));
    assert!(served.more, "it may be that there are more");
    assert_eq!(driver.used(), [(0, MOST_BYTES as u32); 16]);
    let served = driver.transport.serve(|device, memory| device.notified(0, memory));
    assert!(!served.more && !served.interrupt);
    assert_eq!(driver.read(DATA + MOST_BYTES as u64, 8), [0; 8]);
}
