//! The registers and the status handshake, before and after a device runs.

use std::sync::{Arc, Mutex};

use virtio_bindings::virtio_mmio as reg;
use virtio_queue::{Queue, QueueT};

use super::*;
use crate::virtio::Signal;

/// What a model was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Activate(u64, Vec<(bool, u16)>),
    Reset,
    Config(u64, Vec<u8>),
}

/// A device with two queues that notes what it is told.
struct Probe(Arc<Mutex<Vec<Told>>>);

const OWN_FEATURE: u64 = 1 << 3;

impl Model for Probe {
    fn id(&self) -> u32 {
        42
    }
    fn features(&self) -> u64 {
        OWN_FEATURE
    }
    fn queue_sizes(&self) -> &[u16] {
        &[16, 256]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = at as u8;
        }
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.0.lock().unwrap().push(Told::Config(offset, data.to_vec()));
    }
    fn activate(&mut self, features: u64, queues: Vec<Queue>) {
        let queues = queues.iter().map(|queue| (queue.ready(), queue.size())).collect();
        self.0.lock().unwrap().push(Told::Activate(features, queues));
    }
    fn reset(&mut self) {
        self.0.lock().unwrap().push(Told::Reset);
    }
    fn notified(&mut self, _queue: usize, _memory: &Memory) -> Signal {
        Signal { config: true, ..Signal::used(true) }
    }
}

fn probe() -> (Driver<Probe>, impl Fn() -> Vec<Told>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let driver = Driver::new(Probe(Arc::clone(&told)));
    (driver, move || std::mem::take(&mut *told.lock().unwrap()))
}

#[test]
fn a_driver_finds_the_device_and_its_features() {
    let (driver, _) = probe();
    assert_eq!(driver.get(reg::VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(driver.get(reg::VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_DEVICE_ID), 42);
    let half = |half| {
        let _ = driver.set(reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL, half);
        driver.get(reg::VIRTIO_MMIO_DEVICE_FEATURES)
    };
    assert_eq!([half(0), half(1), half(2)], [0x3000_0008, 1, 0]);
    for (queue, most) in [(0, 16), (1, 256), (2, 0), (u32::MAX, 0)] {
        let _ = driver.set(reg::VIRTIO_MMIO_QUEUE_SEL, queue);
        assert_eq!(driver.get(reg::VIRTIO_MMIO_QUEUE_NUM_MAX), most);
    }
    assert_eq!(driver.get(reg::VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
}

#[test]
fn configuration_is_accessed_in_any_width_and_registers_in_one() {
    let (driver, told) = probe();
    for len in [1, 2, 4, 8] {
        let mut data = vec![0xff; len];
        driver.transport.read(0x100 + 3, &mut data);
        assert_eq!(data, (3..3 + len as u8).collect::<Vec<_>>());
        let mut data = vec![0xff; len];
        driver.transport.read(reg::VIRTIO_MMIO_VERSION.into(), &mut data);
        assert_eq!(data[0], if len == 4 { 2 } else { 0 });
    }
    let mut data = [0xff; 4];
    driver.transport.read(2, &mut data);
    assert_eq!(data, [0; 4]);
    assert_eq!(driver.transport.write(0x110, &[1, 2]), Change::default());
    assert_eq!(told(), [Told::Config(0x10, vec![1, 2])]);
}

#[test]
fn device_runs_with_what_both_agreed_on() {
    let (driver, told) = probe();
    assert_eq!(driver.negotiate(VERSION_1 | OWN_FEATURE), 0xb);
    driver.describe(0, 8, [0x1000, 0x2000, 0x3000]);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    let change = driver.set(reg::VIRTIO_MMIO_STATUS, RUNNING);
    assert_eq!(change, Change { moved: true, ..Change::default() });
    let queues = vec![(true, 8), (false, 256)];
    assert_eq!(told(), [Told::Activate(VERSION_1 | OWN_FEATURE, queues)]);
    let notified = |queue| driver.set(reg::VIRTIO_MMIO_QUEUE_NOTIFY, queue).notified;
    assert_eq!([notified(0), notified(1), notified(2)], [Some(0), Some(1), None]);
    let change = driver.set(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(change, Change { moved: true, ..Change::default() });
    assert_eq!(told(), [Told::Reset]);
    for register in [reg::VIRTIO_MMIO_STATUS, reg::VIRTIO_MMIO_QUEUE_READY] {
        assert_eq!(driver.get(register), 0);
    }
    assert_eq!(notified(0), None);
}

#[test]
fn features_that_were_not_offered_or_are_too_old_are_refused() {
    let (driver, told) = probe();
    assert_eq!(driver.negotiate(VERSION_1 | 1 << 4), 3);
    assert_eq!(driver.negotiate(OWN_FEATURE), 3, "legacy");
    let _ = driver.set(reg::VIRTIO_MMIO_STATUS, RUNNING);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_STATUS), 3, "no DRIVER_OK without FEATURES_OK");
    assert_eq!(told(), []);
}

#[test]
fn status_bits_are_cleared_by_a_reset_alone() {
    let (driver, told) = probe();
    assert_eq!(driver.negotiate(VERSION_1), 0xb);
    for value in [1, 4, 8, NEEDS_RESET] {
        let _ = driver.set(reg::VIRTIO_MMIO_STATUS, value);
        assert_eq!(driver.get(reg::VIRTIO_MMIO_STATUS), 0xb);
    }
    let _ = driver.set(reg::VIRTIO_MMIO_STATUS, 0x8b);
    let _ = driver.set(reg::VIRTIO_MMIO_STATUS, 0x8f);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_STATUS), 0x8b, "a driver that failed does not run");
    assert_eq!(told(), []);
}

#[test]
fn features_and_queues_are_fixed_once_they_count() {
    let (driver, told) = probe();
    driver.negotiate(VERSION_1);
    driver.put(reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.put(reg::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.describe(0, 8, [0x1000, 0x2000, 0x3000]);
    driver.put(reg::VIRTIO_MMIO_QUEUE_NUM, 3);
    driver.put(reg::VIRTIO_MMIO_STATUS, RUNNING);
    driver.put(reg::VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_QUEUE_READY), 1);
    assert_eq!(told(), [Told::Activate(VERSION_1, vec![(true, 8), (false, 256)])]);
}

#[test]
fn queues_that_cannot_be_used_stop_the_device_before_it_begins() {
    let good = [0x1000, 0x2000, 0x3000];
    for (size, rings) in [
        (0, good),
        (3, good),
        (32, good),
        (u32::MAX, good),
        (16, [0x1008, 0x2000, 0x3000]),
        (16, [0x1000, 0x2001, 0x3000]),
        (16, [0x1000, 0x2000, 0x3002]),
        (16, [MEMORY, 0x2000, 0x3000]),
        (16, [0x1000, MEMORY - 16, 0x3000]),
        (16, [0x1000, 0x2000, MEMORY - 64]),
        (16, [0x1000, 0, 0x3000]),
        (16, [!0xf, 0x2000, 0x3000]),
        (16, [0x1000, !1, 0x3000]),
        (16, [0x1000, 0x2000, !3]),
    ] {
        let (driver, told) = probe();
        driver.negotiate(VERSION_1);
        driver.describe(0, size, rings);
        let change = driver.set(reg::VIRTIO_MMIO_STATUS, RUNNING);
        assert!(change.interrupt && !change.moved, "{size} {rings:x?}");
        assert!(driver.is_broken() && told().is_empty(), "{size} {rings:x?}");
        driver.negotiate(VERSION_1);
        driver.describe(0, 16, good);
        driver.put(reg::VIRTIO_MMIO_STATUS, RUNNING);
        assert!(!driver.is_broken(), "a reset mends it");
    }
}

#[test]
fn interrupts_stay_until_they_are_acknowledged() {
    let (mut driver, _) = probe();
    driver.begin(0);
    let generation = driver.get(reg::VIRTIO_MMIO_CONFIG_GENERATION);
    let served = driver.transport.serve(|device, memory| device.notified(0, memory));
    assert!(served.interrupt && !served.more);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    assert_ne!(driver.get(reg::VIRTIO_MMIO_CONFIG_GENERATION), generation);
    driver.put(reg::VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 2);
    driver.put(reg::VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.get(reg::VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    let served = driver.transport.serve(|_, _| panic!("it is not active"));
    assert!(!served.interrupt);
}
