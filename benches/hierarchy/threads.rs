//! What two threads get done in the time of one.
//!
//! Owns the threads. Must not know what they work on.
//!
//! On a host with other work a thread loses its CPU now and then, and two lose more than one. So
//! the time is short, all threads are on a CPU when it begins, and what was disturbed is not counted
//! but tried again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::baselines::times_preempted;
use crate::subjects::{Halts, heap, tree};
use crate::table::{Samples, Table};

const TIME: Duration = Duration::from_millis(2);
const REPETITIONS: usize = 51;
/// For each ratio, before it is given up.
const TRIALS: usize = 2_000;
/// How much later than another a thread may begin.
const TOGETHER: Duration = Duration::from_micros(100);
/// The slots of the two threads: in different groups of level 0.
const SLOTS: [u32; 2] = [1, 17];

/// What one thread did.
struct Work {
    began: Instant,
    /// Halts and wakes of a second.
    rate: f64,
    preempted: bool,
}

fn work(halts: &dyn Halts, slot: u32, mut at: u64, missing: &AtomicUsize) -> Work {
    missing.fetch_sub(1, Ordering::AcqRel);
    while missing.load(Ordering::Acquire) > 0 {
        std::hint::spin_loop();
    }
    let (before, began, mut count) = (times_preempted(), Instant::now(), 0u32);
    while began.elapsed() < TIME {
        for _ in 0..64 {
            at += 1;
            halts.halt_and_wake(slot, at);
        }
        count += 64;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    Work { began, rate, preempted: times_preempted() != before }
}

/// What the threads of these slots got done in a second; `None`: they were disturbed.
fn throughput(halts: &dyn Halts, slots: &[u32], at: u64) -> Option<f64> {
    let missing = &AtomicUsize::new(slots.len());
    let done: Vec<Work> = thread::scope(|scope| {
        let start = |&slot: &u32| scope.spawn(move || work(halts, slot, at, missing));
        let threads: Vec<_> = slots.iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let first = done.iter().map(|work| work.began).min()?;
    let undisturbed = |work: &Work| !work.preempted && work.began - first < TOGETHER;
    done.iter().all(undisturbed).then(|| done.iter().map(|work| work.rate).sum())
}

/// The ratios of two threads' throughput to one's.
fn ratios(halts: &dyn Halts) -> Samples {
    let mut ratios = Vec::new();
    for trial in 0..TRIALS as u64 {
        // Each has later timers than those before it.
        let at = 10_000_000 * (2 * trial + 1);
        let one = throughput(halts, &SLOTS[..1], at);
        let two = throughput(halts, &SLOTS, at + 10_000_000);
        if let (Some(one), Some(two)) = (one, two) {
            ratios.push(two / one);
        }
        if ratios.len() == REPETITIONS {
            break;
        }
    }
    Samples::new(ratios)
}

pub fn rows(table: &mut Table) {
    let near = ratios(&tree(64, &[1, 2, 16, 17]));
    table.at_least("two threads to one, siblings active", &near, 1.7, "x");
    let root = ratios(&tree(64, &[1, 17]));
    table.shown("two threads to one, the second to the root", &root, "x");
    table.shown("two threads to one, the heap", &ratios(&heap(64)), "x");
}
