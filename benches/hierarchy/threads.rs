//! What two threads get done in the time of one.
//!
//! Owns the threads. Must not know what they work on.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::baselines::thread_cpu_time;
use crate::subjects::{Halts, heap, tree};
use crate::table::{Samples, Table};

const TIME: Duration = Duration::from_millis(100);
const REPETITIONS: usize = 15;
/// The slots of the two threads: in different groups of level 0.
const SLOTS: [u32; 2] = [1, 17];

/// What threads got done: by the clock, and had each of them had its CPU for itself all the time.
struct Throughput {
    real: f64,
    undisturbed: f64,
}

fn throughput(halts: &dyn Halts, slots: &[u32], at: u64) -> Throughput {
    let stop = AtomicBool::new(false);
    let start = Barrier::new(slots.len() + 1);
    let work = |slot: u32| {
        let (mut count, mut at) = (0u64, at);
        start.wait();
        let before = thread_cpu_time();
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..64 {
                at += 1;
                halts.halt_and_wake(slot, at);
            }
            count += 64;
        }
        (count as f64, (thread_cpu_time() - before).as_secs_f64())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = slots.iter().map(|&slot| scope.spawn(move || work(slot))).collect();
        start.wait();
        let began = Instant::now();
        thread::sleep(TIME);
        stop.store(true, Ordering::Relaxed);
        let passed = began.elapsed().as_secs_f64();
        let done: Vec<(f64, f64)> =
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect();
        Throughput {
            real: done.iter().map(|(count, _)| count / passed).sum(),
            undisturbed: done.iter().map(|(count, cpu)| count / cpu).sum(),
        }
    })
}

/// The ratios of two threads' throughput to one's.
fn ratios(halts: &dyn Halts) -> [Samples; 2] {
    let (mut real, mut undisturbed) = (Vec::new(), Vec::new());
    for repetition in 0..REPETITIONS as u64 {
        // Each has later timers than those before it.
        let at = 1_000_000_000 * (2 * repetition + 1);
        let one = throughput(halts, &SLOTS[..1], at);
        let two = throughput(halts, &SLOTS, at + 1_000_000_000);
        real.push(two.real / one.real);
        undisturbed.push(two.undisturbed / one.undisturbed);
    }
    [real, undisturbed].map(Samples::new)
}

pub fn rows(table: &mut Table) {
    let [real, undisturbed] = ratios(&tree(64, &[1, 2, 16, 17]));
    table.at_least("two threads to one, siblings active", &real, 1.7, "x");
    table.shown("  by their CPU time", &undisturbed, "x");
    let [real, undisturbed] = ratios(&tree(64, &[1, 17]));
    table.shown("two threads to one, the second to the root", &real, "x");
    table.shown("  by their CPU time", &undisturbed, "x");
    let [real, undisturbed] = ratios(&heap(64));
    table.shown("two threads to one, the heap", &real, "x");
    table.shown("  by their CPU time", &undisturbed, "x");
}
