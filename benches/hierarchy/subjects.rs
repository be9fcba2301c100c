//! The single operations that are measured.
//!
//! Owns the trees and heaps that they work on, and how they take turns. Must not know the goals.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tmigr::{Hierarchy, Slot};

use crate::baselines::{Heap, HostTimer};
use crate::exchanges::Exchanges;
use crate::table::Samples;

pub const NEAR_64: &str = "halt and wake, 64 slots, a sibling active";
pub const ROOT_64: &str = "halt and wake, 64 slots, to the root";
pub const NEAR_65536: &str = "halt and wake, 65,536 slots, a sibling active";
pub const ROOT_65536: &str = "halt and wake, 65,536 slots, to the root";
pub const HEAP_64: &str = "halt and wake, one heap, 64 slots";
pub const EXCHANGES_NEAR: &str = "the exchanges of one level";
pub const EXCHANGES_ROOT: &str = "the exchanges of six levels, as for 65,536 slots";
pub const HOST_TIMER: &str = "timer_settime";
pub const REQUIRES_64: &str = "requires_handle_remote, 64 slots";
pub const REQUIRES_65536: &str = "requires_handle_remote, 65,536 slots";
pub const QUICK_64: &str = "quick_check, 64 slots";
pub const QUICK_65536: &str = "quick_check, 65,536 slots";

/// Where the timers of those begin that stay idle: after all others.
const IDLE_TIMERS: u64 = 1 << 50;

/// Long enough for the clock, short enough that most are not interrupted.
const BATCH: Duration = Duration::from_micros(200);

/// An operation: `run` does it so often, and says how long that took.
pub struct Subject {
    pub name: &'static str,
    pub run: Box<dyn FnMut(u64) -> Duration>,
}

/// Something that vCPUs halt and wake in.
pub trait Halts: Sync {
    /// An active slot halts with a timer, and wakes.
    fn halt_and_wake(&self, slot: u32, at: u64);
}

impl Halts for Hierarchy {
    fn halt_and_wake(&self, slot: u32, at: u64) {
        let _ = black_box(self.deactivate(Slot(slot), Some(at)));
        let _ = black_box(self.activate(Slot(slot)));
    }
}

impl Halts for Heap {
    fn halt_and_wake(&self, slot: u32, at: u64) {
        black_box(self.halt(slot, at));
        self.wake(slot);
    }
}

/// A hierarchy whose slots are idle and have timers, but for slot 0 and those that are `active`.
pub fn tree(slots: u32, active: &[u32]) -> Hierarchy {
    let tree = Hierarchy::new(slots, 1).expect("so many slots are possible");
    for slot in 0..slots {
        let _ = tree.prepare(Slot(slot), 0, Slot(0)).expect("slot 0 is active");
        let _ = tree.available(Slot(slot), slot != 0).expect("it was prepared");
    }
    for slot in 1..slots {
        let timer = Some(IDLE_TIMERS + u64::from(slot));
        let _ = tree.new_timer(Slot(slot), timer).expect("it is idle");
    }
    for &slot in active {
        let _ = tree.activate(Slot(slot)).expect("it is idle");
    }
    tree
}

/// A heap with as many timers.
pub fn heap(slots: u32) -> Heap {
    Heap::new((0..slots).map(|slot| IDLE_TIMERS + u64::from(slot)))
}

fn subject(name: &'static str, mut once: impl FnMut(u64) + 'static) -> Subject {
    let mut at = 1_000_000;
    let run = move |times: u64| {
        let began = Instant::now();
        for _ in 0..times {
            at += 1;
            once(at);
        }
        began.elapsed()
    };
    Subject { name, run: Box::new(run) }
}

fn halts(name: &'static str, in_what: impl Halts + 'static, slot: u32) -> Subject {
    subject(name, move |at| in_what.halt_and_wake(slot, at))
}

fn exchanges(name: &'static str, levels: usize) -> Subject {
    let exchanges = Exchanges::new(levels);
    subject(name, move |_| exchanges.halt_and_wake())
}

/// What a running vCPU that looks after everybody pays for looking, up to the root.
fn looks(slots: u32, requires: &'static str, quick: &'static str) -> [Subject; 2] {
    let tree = Arc::new(tree(slots, &[]));
    let same = Arc::clone(&tree);
    [
        subject(requires, move |at| {
            black_box(tree.requires_handle_remote(Slot(0), black_box(at)));
        }),
        subject(quick, move |at| {
            let _ = black_box(same.quick_check(Slot(0), black_box(Some(at))));
        }),
    ]
}

/// All of them.
///
/// # Errors
/// The host gives no timer.
pub fn all() -> io::Result<Vec<Subject>> {
    let timer = HostTimer::new()?;
    let mut subjects = vec![
        halts(NEAR_64, tree(64, &[1]), 1),
        subject(HOST_TIMER, move |at| timer.arm(at)),
        halts(HEAP_64, heap(64), 1),
        halts(ROOT_64, tree(64, &[63]), 63),
        halts(NEAR_65536, tree(65_536, &[1]), 1),
        halts(ROOT_65536, tree(65_536, &[65_535]), 65_535),
        exchanges(EXCHANGES_NEAR, 1),
        exchanges(EXCHANGES_ROOT, 6),
    ];
    subjects.extend(looks(64, REQUIRES_64, QUICK_64));
    subjects.extend(looks(65_536, REQUIRES_65536, QUICK_65536));
    Ok(subjects)
}

/// The group locks that an active slot takes that halts without a timer beside an active sibling.
pub fn locks_of_a_halt() -> Samples {
    let tree = tree(64, &[1]);
    let locks = || tree.level_counters().iter().map(|level| level.locks).sum::<u64>();
    let before = locks();
    let _ = tree.deactivate(Slot(1), None).expect("it is active");
    Samples::new(vec![(locks() - before) as f64])
}

/// Nanoseconds of each operation: all subjects in turns, so that a sample of one stands beside a
/// sample of every other that had the same host.
pub fn in_turns(subjects: &mut [Subject], rounds: usize) -> Vec<(&'static str, Samples)> {
    const TRIAL: u64 = 10_000;
    let times: Vec<u64> = subjects
        .iter_mut()
        .map(|subject| {
            let one = (subject.run)(TRIAL).as_nanos().max(1) as u64 / TRIAL;
            (BATCH.as_nanos() as u64 / one.max(1)).max(1)
        })
        .collect();
    let mut all = vec![Vec::with_capacity(rounds); subjects.len()];
    for _ in 0..rounds {
        for ((subject, times), samples) in subjects.iter_mut().zip(&times).zip(&mut all) {
            samples.push((subject.run)(*times).as_nanos() as f64 / *times as f64);
        }
    }
    let names = subjects.iter().map(|subject| subject.name);
    names.zip(all.into_iter().map(Samples::new)).collect()
}
