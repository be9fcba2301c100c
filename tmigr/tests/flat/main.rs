//! Random operations against a flat oracle: a list of all armed timers. The world has no tick:
//! a slot does something only when the host timer that it armed itself fires, or when it is told.
//! So a timer that fires late, early, twice or never shows a missing wakeup or notice at once.
//!
//! A failure is shrunk, and its trace printed: save it, and feed it to the replay example.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

#[path = "../../examples/replay/interpreter.rs"]
mod interpreter;
mod members;
mod pass;
mod quiet;
mod recorded;
mod world;

use std::fmt;

use proptest::prelude::*;

use world::World;

/// A slot, what it does, how much of it, and after how many calls the clock moves on by how much.
type Step = (usize, u8, u64, (u8, u64));

/// Shown on one line: what is to be read is the trace.
struct Steps(Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn steps(most: usize) -> impl Strategy<Value = Steps> {
    let clock = prop_oneof![2 => Just((0, 0)), 1 => (0u8..6, 0u64..150)];
    let at = prop_oneof![3 => 0usize..20, 2 => 0usize..90, 1 => 0usize..600];
    let step = (at, 0u8..22, 0u64..10_000, clock);
    proptest::collection::vec(step, 1..most).prop_map(Steps)
}

/// Mostly around the sizes where a tree grows a level.
fn slots() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 1u32..=20, 3 => 1u32..=90, 1 => 1u32..=600]
}

fn play<const F: usize>(
    slots: u32,
    nodes: u32,
    prepared: u32,
    Steps(steps): Steps,
) -> Result<(), TestCaseError> {
    let mut world = World::<F>::new(slots, nodes);
    let played = quiet::run(|| {
        world.begin(prepared.min(slots) as usize);
        for (at, operation, amount, clock) in steps {
            world.step(at, operation, amount, clock);
        }
        world.finish();
    });
    let trace = world.trace();
    played.map_err(|why| TestCaseError::fail(format!("{why}\n{trace}")))?;
    // The replay has groups of eight.
    if F == 8 { trace.compare_with_replay() } else { Ok(()) }
}

/// `PROPTEST_CASES` makes it more, or less.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(1_500),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_timer_is_lost_early_late_or_fired_twice(
        slots in slots(), nodes in 1u32..=5, prepared in slots().prop_map(|slots| slots - 1), steps in steps(250)
    ) {
        play::<8>(slots, nodes, prepared, steps)?;
    }

    #[test]
    fn nor_in_a_tall_tree(
        slots in 1u32..=60, nodes in 1u32..=5, prepared in 0u32..=60, steps in steps(250)
    ) {
        play::<2>(slots, nodes, prepared, steps)?;
    }
}
