//! The balloon.

use super::*;
use crate::virtio::balloon::{Balloon, DEFLATE, GivesBack, INFLATE, MOST_PAGES, PAGE, STATISTICS};

const STATS_VQ: u64 = 1 << 1;

#[derive(Default)]
struct Seen(Vec<(u64, u64)>);

impl GivesBack for Seen {
    fn give_back(&mut self, start: u64, count: u64) {
        self.0.push((start, count));
    }
}

fn driver(target: u64) -> Driver<Balloon<Seen>> {
    Driver::running(Balloon::new(Seen::default(), target), STATS_VQ)
}

fn numbers(pages: &[u32]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_le_bytes()).collect()
}

fn seen(driver: &Driver<Balloon<Seen>>) -> Vec<(u64, u64)> {
    driver.transport.inspect(|device, _| device.host().0.clone())
}

fn config(driver: &Driver<Balloon<Seen>>) -> [u32; 2] {
    [driver.get(0x100), driver.get(0x104)]
}

#[test]
fn pages_that_go_into_it_are_given_back_neighbours_together() {
    let mut driver = driver(0);
    driver.on(INFLATE).write(DATA, &numbers(&[7, 5, 6, 9, 9, u32::MAX]));
    driver.offer(0, &[(DATA, 10, false), (DATA + 10, 14, false)]);
    let served = driver.transport.serve(|device, memory| device.notified(INFLATE, memory));
    assert!(served.interrupt);
    assert_eq!(driver.used(), [(0, 0)]);
    let last = u64::from(u32::MAX) * PAGE;
    assert_eq!(seen(&driver), [(5 * PAGE, 3), (9 * PAGE, 1), (last, 1)]);
}

#[test]
fn pages_that_come_out_are_only_acknowledged() {
    let mut driver = driver(0);
    driver.on(DEFLATE).write(DATA, &numbers(&[1, 2]));
    driver.offer(0, &[(DATA, 8, false)]);
    let _ = driver.transport.serve(|device, memory| device.notified(DEFLATE, memory));
    assert_eq!(driver.used(), [(0, 0)]);
    assert!(seen(&driver).is_empty());
}

#[test]
fn long_list_is_given_back_in_part_and_a_broken_number_not_at_all() {
    let mut driver = driver(0);
    let pages: Vec<u32> = (0..2 * MOST_PAGES as u32).map(|page| 2 * page).collect();
    driver.on(INFLATE).write(DATA, &numbers(&pages));
    driver.offer(0, &[(DATA, 8 * MOST_PAGES as u32, false)]);
    driver.offer(1, &[(DATA + 4, 7, false)]);
    let _ = driver.transport.serve(|device, memory| device.notified(INFLATE, memory));
    assert_eq!(driver.used(), [(0, 0), (1, 0)]);
    assert_eq!(seen(&driver).len(), MOST_PAGES + 1);
}

#[test]
fn endless_lists_are_served_in_turns() {
    let mut driver = driver(0);
    for at in 0..10 {
        driver.on(INFLATE).offer(at, &[(DATA, 4, false)]);
    }
    let turn = |device: &mut Balloon<Seen>, memory: &Memory| device.notified(INFLATE, memory);
    let mut turns = 1;
    while driver.transport.serve(turn).more {
        turns += 1;
    }
    assert_eq!((turns, driver.used().len()), (3, 10));
}

#[test]
fn target_is_in_the_configuration_and_the_driver_tells_the_size() {
    let mut driver = driver(8 << 20);
    assert_eq!(config(&driver), [2048, 0]);
    assert!(!driver.transport.write(0x104, &100_u32.to_le_bytes()).interrupt);
    let _ = driver.transport.write(0x100, &100_u32.to_le_bytes());
    let _ = driver.transport.write(0x105, &[1]);
    assert_eq!(config(&driver), [2048, 100]);
    let served = driver.transport.serve(|device, _| device.set_target((1 << 20) + 4095));
    assert!(served.interrupt);
    assert_eq!(config(&driver), [256, 100]);
    let report = driver.transport.inspect(|device, _| device.report());
    assert_eq!((report.target, report.actual), (1 << 20, 100 * PAGE));
    driver.begin(STATS_VQ);
    assert_eq!(config(&driver), [256, 0], "a reset takes all out of it");
}

#[test]
fn statistics_are_kept_until_asked_for_again() {
    let mut driver = driver(0);
    let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
    let told = [entry(4, 1000), entry(5, 5000), entry(99, 1), entry(4, 2000), vec![5, 0]].concat();
    driver.on(STATISTICS).write(DATA, &told);
    driver.offer(0, &[(DATA, told.len() as u32, false)]);
    let _ = driver.transport.serve(|device, memory| device.notified(STATISTICS, memory));
    assert!(driver.used().is_empty(), "it is kept");
    let statistics = driver.transport.inspect(|device, _| device.report().statistics);
    assert_eq!((statistics.free, statistics.total), (Some(2000), Some(5000)));
    assert_eq!(statistics.swap_in, None);
    assert!(driver.transport.serve(Balloon::ask).interrupt);
    assert_eq!(driver.used(), [(0, 0)]);
    assert!(!driver.transport.serve(Balloon::ask).interrupt, "there is nothing to ask with");
    for at in 0..2 {
        driver.offer(at, &[(DATA, 10, false)]);
    }
    let _ = driver.transport.serve(|device, memory| device.notified(STATISTICS, memory));
    assert_eq!(driver.used(), [(0, 0)], "one is enough");
}
