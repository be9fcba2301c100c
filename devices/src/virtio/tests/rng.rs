//! The entropy device.

use super::*;
use crate::virtio::rng::{Entropy, Rng};

struct Empty;

impl Entropy for Empty {
    fn fill(&mut self, _bytes: &mut [u8]) -> bool {
        false
    }
}

#[test]
fn source_that_fails_gives_empty_requests() {
    let mut driver = Driver::running(Rng::new(Empty), 0);
    driver.write(DATA, &[3; 8]);
    driver.offer(0, &[(DATA, 8, true)]);
    let served = driver.transport.serve(|device, memory| device.notified(0, memory));
    assert!(served.interrupt);
    assert_eq!(driver.used(), [(0, 0)]);
    assert_eq!(driver.read(DATA, 8), [3; 8]);
}

#[test]
fn buffers_that_the_device_may_not_write_stay_as_they_are() {
    struct Sevens;
    impl Entropy for Sevens {
        fn fill(&mut self, bytes: &mut [u8]) -> bool {
            bytes.fill(7);
            true
        }
    }
    let mut driver = Driver::running(Rng::new(Sevens), 0);
    driver.offer(0, &[(DATA, 8, false)]);
    let _ = driver.transport.serve(|device, memory| device.notified(0, memory));
    assert_eq!(driver.used(), [(0, 0)]);
    assert_eq!(driver.read(DATA, 8), [0; 8]);
}
