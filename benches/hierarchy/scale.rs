//! What a million slots cost: memory, and the time until they are prepared.
//!
//! Owns that hierarchy. Must not know what is done in it afterwards.

use std::time::Instant;

use tmigr::{Hierarchy, Slot};

use crate::allocator;
use crate::table::{Samples, Table};

const SLOTS: u32 = 1_000_000;
const REPETITIONS: usize = 5;

pub fn rows(table: &mut Table) {
    let (mut bytes, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let before = allocator::in_use();
        let began = Instant::now();
        let tree: Hierarchy = Hierarchy::new(SLOTS, 1).expect("so many slots are possible");
        for slot in 0..SLOTS {
            let _ = tree.prepare(Slot(slot), 0, Slot(0)).expect("slot 0 is active");
            if slot == 0 {
                let _ = tree.available(Slot(0), false).expect("it was prepared");
            }
        }
        seconds.push(began.elapsed().as_secs_f64());
        let all = allocator::in_use() - before + size_of::<Hierarchy>();
        bytes.push(all as f64 / f64::from(SLOTS));
    }
    table.at_most("memory of a slot, 1,000,000 slots", &Samples::new(bytes), 192.0, "bytes");
    table.at_most("preparing 1,000,000 slots", &Samples::new(seconds), 2.0, "s");
}
