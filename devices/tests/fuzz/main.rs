//! Random accesses mixed with steps of time, against each controller.
//!
//! What a coverage-guided fuzzer would drive, on the stable toolchain: seeded, for `FUZZ_SECS`
//! seconds each (default 1; virtio devices half of that), each seed a run of its own. A failure names
//! the seed; `FUZZ_SEED=N` runs that one alone. Owns the loop. Each file is one controller, or the
//! virtio devices: what a run does, and what must hold after every step.

#![allow(clippy::disallowed_methods)] // how long to go on is asked of the clock

mod acpi_pm;
mod apic;
mod chipset;
mod fw_cfg;
mod ioapic;
mod pic;
mod pit;
mod registers;
mod rtc;
mod virtio;
mod virtio_queues;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Gives `once` one random stream after another.
pub fn run(name: &str, once: impl Fn(&mut SmallRng)) {
    run_for(Duration::from_secs(seconds()), name, once);
}

/// As [`run`], for half the time: there are many virtio devices.
pub fn run_half(name: &str, once: impl Fn(&mut SmallRng)) {
    run_for(Duration::from_millis(seconds() * 500), name, once);
}

fn seconds() -> u64 {
    variable("FUZZ_SECS").unwrap_or(1)
}

fn run_for(limit: Duration, name: &str, once: impl Fn(&mut SmallRng)) {
    let try_seed = |seed: u64| {
        let run = AssertUnwindSafe(|| once(&mut SmallRng::seed_from_u64(seed)));
        catch_unwind(run).unwrap_or_else(|_| panic!("{name}: FUZZ_SEED={seed} fails"));
    };
    if let Some(seed) = variable("FUZZ_SEED") {
        return try_seed(seed);
    }
    let started = Instant::now();
    let mut runs = 0_u64;
    while started.elapsed() < limit {
        try_seed(RandomState::new().build_hasher().finish());
        runs += 1;
    }
    assert!(runs > 0, "{name}: not one run in {limit:?}");
}

/// The next moment, in ns: mostly a little later, sometimes much, sometimes earlier.
pub fn step(random: &mut SmallRng, now: u64) -> u64 {
    match random.random_range(0..40) {
        0 => now.saturating_sub(random.random_range(0..1 << 30)),
        1 => now.saturating_add(random.random_range(0..1 << 45)),
        2 if random.random_range(0..20) == 0 => random.random(),
        _ => {
            let bits = random.random_range(1..28);
            now.saturating_add(random.random_range(0..1 << bits))
        }
    }
}
