//! Real threads on one hierarchy, with a clock of their own, that acquire slots, use them and give
//! them up while it grows. Again and again they stand still, and everything is checked.
//!
//! `STRESS_SECS` is how long each test takes (2). `STRESS_SEED` repeats the choice of operations,
//! as a failure prints it; how they meet is up to the machine.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail
#![allow(clippy::disallowed_methods)] // the time here is the test's own duration

mod invariants;
mod owner;
mod world;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use tmigr::Slot;

use owner::Owner;
use world::World;

const THREADS: usize = 4;
/// Growth is soon over, so no hierarchy lives long.
const PHASES: u64 = 3;
const ROUNDS: usize = 1_000;

fn number_from(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Says how to do it again.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("STRESS_SEED={} repeats the choice of operations", self.0);
        }
    }
}

/// Runs owners at the same time, each with its number.
fn together<'a, const F: usize>(
    owners: &mut [Owner<'a, F>],
    what: impl Fn(usize, &mut Owner<'a, F>) + Sync,
) {
    thread::scope(|scope| {
        for (index, owner) in owners.iter_mut().enumerate() {
            let what = &what;
            scope.spawn(move || what(index, owner));
        }
    });
}

#[derive(Default, Debug)]
struct Work {
    timers: usize,
    served: usize,
    foreign: usize,
    groups: usize,
}

fn live<const F: usize>(seed: u64, work: &mut Work) {
    let _repeat = Repeat(seed);
    let world = World::<F>::new(THREADS * ROUNDS);
    let mut owners: Vec<Owner<'_, F>> = Vec::new();
    for index in 0..THREADS {
        let (slot, notices) = world.tree.acquire(index as u32 % world::NODES, Slot(0)).unwrap();
        world.tell(notices);
        let choices = seed.wrapping_mul(THREADS as u64) + index as u64;
        owners.push(Owner::new(&world, slot, choices, seed.is_multiple_of(2)));
    }
    for _ in 0..PHASES {
        together(&mut owners, |index, owner| owner.run(index * ROUNDS..(index + 1) * ROUNDS));
        invariants::settle(&world, &mut owners);
        together(&mut owners, |_, owner| owner.drain());
        invariants::settle(&world, &mut owners);
        work.timers += world.settle_accounts();
        let groups = world.tree.groups();
        assert!(groups.iter().all(|group| group.active == 0), "{groups:?}");
    }
    work.served += world.served.load(SeqCst);
    work.foreign += world.foreign.load(SeqCst);
    work.groups += world.tree.groups().len();
}

fn stress<const F: usize>() {
    let start = Instant::now();
    let seconds = number_from("STRESS_SECS").unwrap_or(2);
    let seed = number_from("STRESS_SEED").unwrap_or_else(|| {
        // Small enough to be typed.
        RandomState::new().build_hasher().finish() % 1_000_000_000
    });
    println!("STRESS_SEED={seed}");
    let mut work = Work::default();
    let mut lives = 0;
    while lives == 0 || start.elapsed() < Duration::from_secs(seconds) {
        live::<F>(seed + lives, &mut work);
        lives += 1;
    }
    println!("{lives} hierarchies: {work:?}");
    let lives = lives as usize;
    assert!(work.timers > 1_000 * lives && work.served > lives, "hardly any work: {work:?}");
    assert!(work.groups > 5 * lives, "hardly any growth: {work:?}");
}

#[test]
fn every_timer_fires_once_with_groups_of_eight() {
    stress::<8>();
}

#[test]
fn every_timer_fires_once_in_a_tall_tree() {
    stress::<2>();
}
