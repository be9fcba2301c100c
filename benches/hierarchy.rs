//! What a halt and a wake cost in the hierarchy, beside the obvious alternative: one ordered queue of
//! all timers behind one lock.

#![allow(missing_docs)] // criterion's macros make public items

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tmigr::{Hierarchy, Slot};

/// A hierarchy of `slots`, all idle but slot 0.
fn hierarchy(slots: u32) -> Hierarchy {
    let hierarchy = Hierarchy::new(slots, 1).expect("so many slots are possible");
    for slot in 0..slots {
        let _ = hierarchy.prepare(Slot(slot), 0, Slot(0)).expect("slot 0 is active");
        let _ = hierarchy.available(Slot(slot), slot != 0).expect("it was prepared");
    }
    hierarchy
}

/// A vCPU that wakes and halts again, with a timer that is never due.
fn halt_and_wake(c: &mut Criterion) {
    let mut group = c.benchmark_group("wake and halt");
    for slots in [1, 8, 64, 512] {
        let tree = hierarchy(slots + 1);
        let last = Slot(slots);
        group.bench_function(BenchmarkId::new("hierarchy", slots), |b| {
            let mut at = 1_000_000;
            b.iter(|| {
                at += 1;
                let _ = black_box(tree.activate(last));
                let _ = black_box(tree.deactivate(last, Some(at)));
            });
        });
        let queue: Mutex<BTreeSet<(u64, u32)>> =
            Mutex::new((0..slots).map(|slot| (u64::from(slot), slot)).collect());
        group.bench_function(BenchmarkId::new("one queue", slots), |b| {
            let mut at = 1_000_000;
            b.iter(|| {
                let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
                lock().remove(&(at, slots));
                at += 1;
                lock().insert((at, slots));
            });
        });
    }
    group.finish();
}

/// What a running vCPU pays for looking whether anybody is due.
fn nothing_due(c: &mut Criterion) {
    let mut group = c.benchmark_group("nothing due");
    for slots in [8, 64, 512] {
        let tree = hierarchy(slots + 1);
        for slot in 1..=slots {
            let _ = tree.new_timer(Slot(slot), Some(u64::MAX / 2));
        }
        group.bench_function(BenchmarkId::new("requires_handle_remote", slots), |b| {
            b.iter(|| tree.requires_handle_remote(Slot(0), 1));
        });
        group.bench_function(BenchmarkId::new("responsibility", slots), |b| {
            b.iter(|| tree.responsibility(Slot(0)));
        });
    }
    group.finish();
}

criterion_group!(benches, halt_and_wake, nothing_due);
criterion_main!(benches);
