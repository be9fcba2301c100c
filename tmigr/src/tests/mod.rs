//! Tests of the operations, of the faults that hierarchies of this kind have had, and of the races.

mod interleaved;
mod operations;
mod races;
mod rows;
mod slots;
mod states;
pub(crate) mod steps;
pub(crate) mod stuck;
mod traced;

use std::collections::VecDeque;

use crate::{Expire, Expired, Hierarchy, Next, Notice, Slot};

/// `count` prepared slots on one node, of which the first `active` are active, the rest idle.
fn tree<const F: usize>(count: u32, active: u32) -> Hierarchy<F> {
    let tree = Hierarchy::new(count, 1).unwrap();
    for slot in 0..count {
        assert!(tree.prepare(Slot(slot), 0, Slot(0)).unwrap().is_empty());
        if slot == 0 {
            let _ = tree.available(Slot(0), false).unwrap();
        }
    }
    for slot in 1..count {
        let _ = tree.available(Slot(slot), slot >= active).unwrap();
    }
    if active == 0 {
        let _ = tree.deactivate(Slot(0), None).unwrap();
    }
    tree
}

fn first<const F: usize>(tree: &Hierarchy<F>, slot: u32, next: Option<u64>) -> Option<u64> {
    tree.deactivate(Slot(slot), next).unwrap().first
}

/// Answers from a script and notes what it was asked.
#[derive(Default)]
struct Script {
    answers: VecDeque<Expired>,
    expired: Vec<u32>,
    released: Vec<u32>,
    notices: Vec<Notice>,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = Expired>) -> Self {
        Script { answers: answers.into_iter().collect(), ..Script::default() }
    }
}

fn owned(next: Option<u64>) -> Expired {
    Expired { next: Next::Owned(next), stop: false }
}

impl Expire for Script {
    fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
        self.expired.push(slot.0);
        self.answers.pop_front().unwrap_or(owned(None))
    }

    fn release(&mut self, slot: Slot) {
        self.released.push(slot.0);
    }

    fn notify(&mut self, notice: Notice) {
        self.notices.push(notice);
    }
}
