//! What a halt and a wake cost in the hierarchy, how that grows with the slots and with threads, and
//! what a slot takes of memory: beside one global heap, and beside arming a host timer.
//!
//! ```text
//! cargo bench -p siesta-benches --bench hierarchy
//! ```
//!
//! Owns the order of things: criterion first, for comparisons between runs, then the same
//! operations once more in turns, for the table of goals: on a host that others use, too, only what
//! ran in turns can be compared. Must not know how anything is measured.

#![allow(clippy::disallowed_methods)] // a benchmark measures time

mod allocator;
mod baselines;
mod exchanges;
mod scale;
mod subjects;
mod table;
mod threads;

use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;
use subjects::Subject;
use table::{Samples, Table};

/// Enough for medians that stay: a round of all subjects takes some milliseconds.
const ROUNDS: usize = 400;

fn with_criterion(subjects: &mut [Subject]) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for subject in subjects {
        criterion.bench_function(subject.name, |b| b.iter_custom(&mut subject.run));
    }
    criterion.final_summary();
}

/// All rows about single operations.
fn operations(table: &mut Table, subjects: &mut [Subject]) {
    let all = subjects::in_turns(subjects, ROUNDS);
    let of = |name: &str| all.iter().find(|(of, _)| *of == name).map(|(_, samples)| samples);
    let [
        Some(near),
        Some(root),
        Some(far_near),
        Some(far_root),
        Some(one_level),
        Some(six_levels),
        Some(timer),
        Some(heap),
    ] = [
        subjects::NEAR_64,
        subjects::ROOT_64,
        subjects::NEAR_65536,
        subjects::ROOT_65536,
        subjects::EXCHANGES_NEAR,
        subjects::EXCHANGES_ROOT,
        subjects::HOST_TIMER,
        subjects::HEAP_64,
    ]
    .map(of)
    else {
        return;
    };
    let sixth = Samples::ratio(near, timer);
    table.at_most("halt and wake, 64 slots, a sibling active", near, 120.0, "ns");
    table.at_most("  of one timer_settime", &sixth, 1.0 / 6.0, "x");
    table.shown("  of the heap's, 64 slots", &Samples::ratio(near, heap), "x");
    table.at_most("halt and wake, 64 slots, to the root", root, 120.0, "ns");
    table.at_most("  of one timer_settime", &Samples::ratio(root, timer), 1.0 / 6.0, "x");
    table.shown("one timer_settime", timer, "ns");
    table.shown("the heap, 64 slots", heap, "ns");
    table.at_most("65,536 slots, a sibling active", &Samples::ratio(far_near, near), 1.5, "x");
    table.at_most("65,536 slots, to the root", &Samples::ratio(far_root, near), 3.0, "x");
    table.at_most("  of 64 slots to the root", &Samples::ratio(far_root, root), 3.0, "x");
    table.shown("  of its exchanges alone", &Samples::ratio(far_root, six_levels), "x");
    table.shown("  these of one level's", &Samples::ratio(six_levels, one_level), "x");
    table.shown(subjects::EXCHANGES_NEAR, one_level, "ns");
    table.shown(subjects::EXCHANGES_ROOT, six_levels, "ns");
    table.shown(subjects::ROOT_65536, far_root, "ns");
    for name in [subjects::REQUIRES_64, subjects::QUICK_64] {
        if let Some(samples) = of(name) {
            table.at_most(name, samples, 15.0, "ns");
        }
    }
    for name in [subjects::REQUIRES_65536, subjects::QUICK_65536] {
        if let Some(samples) = of(name) {
            table.shown(name, samples, "ns");
        }
    }
}

fn main() -> ExitCode {
    let mut subjects = match subjects::all() {
        Ok(subjects) => subjects,
        Err(why) => {
            eprintln!("hierarchy: no host timer: {why}");
            return ExitCode::FAILURE;
        }
    };
    with_criterion(&mut subjects);
    let asked = |flag: &str| std::env::args().any(|arg| arg == flag);
    if !asked("--bench") || ["--test", "--list", "--profile-time"].into_iter().any(asked) {
        return ExitCode::SUCCESS;
    }
    let mut table = Table::default();
    operations(&mut table, &mut subjects);
    threads::rows(&mut table);
    scale::rows(&mut table);
    let locks = subjects::locks_of_a_halt();
    table.at_most("group locks of a halt without a timer", &locks, 0.0, "locks");
    println!("{table}");
    ExitCode::SUCCESS
}
