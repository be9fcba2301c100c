//! What a slot's owner does between the moment a pass takes the slot's event and the moment it
//! queues what is left (race 4), played in one thread: the pass hands the slot back to its owner,
//! who acts before the pass goes on.
//!
//! Owns the sequences that were once found to lose a timer. Must not need luck to meet them.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

use tmigr::{Expire, Expired, Hierarchy, Next, Notice, Slot};

const MIGRATOR: Slot = Slot(0);

/// The owner of a slot, who acts while the slot's event is out of the queue.
struct Owner<'a> {
    tree: &'a Hierarchy,
    slot: Slot,
    acts: fn(&Hierarchy, Slot),
    turns: usize,
}

impl Expire for Owner<'_> {
    fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
        assert_eq!(slot, self.slot);
        self.turns += 1;
        (self.acts)(self.tree, slot);
        Expired { next: Next::Foreign, stop: false }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, _notice: Notice) {}
}

/// The timer for 900 that the owner arms meanwhile is looked after, in trees of one level and two.
#[track_caller]
fn is_kept(acts: fn(&Hierarchy, Slot)) {
    for (slots, slot) in [(2, Slot(1)), (20, Slot(1)), (20, Slot(19))] {
        let tree = Hierarchy::<8>::new(slots, 1).unwrap();
        for at in (0..slots).map(Slot) {
            let _nobody_to_tell = tree.prepare(at, 0, MIGRATOR).unwrap();
            let _nobody_to_tell = tree.available(at, at != MIGRATOR && at != slot).unwrap();
        }
        let _told_below = tree.deactivate(slot, Some(500)).unwrap();
        assert_eq!(tree.responsibility(MIGRATOR), Some(500));
        let mut owner = Owner { tree: &tree, slot, acts, turns: 0 };
        let _told_below = tree.handle_remote(MIGRATOR, 500, &mut owner);
        assert_eq!(owner.turns, 1);
        assert_eq!(tree.responsibility(MIGRATOR), Some(900), "{slot} of {slots}");
        let mut owner = Owner { tree: &tree, slot, acts: |_, _| {}, turns: 0 };
        let _no_more = tree.handle_remote(MIGRATOR, 900, &mut owner);
        assert_eq!(owner.turns, 1, "{slot} of {slots}");
    }
}

#[test]
fn a_timer_armed_meanwhile_is_kept() {
    is_kept(|tree, slot| {
        let _the_pass_cares = tree.new_timer(slot, Some(900)).unwrap();
    });
}

#[test]
fn a_timer_armed_meanwhile_is_kept_after_the_slot_ran_and_went_idle_with_it() {
    is_kept(|tree, slot| {
        let _nobody_to_tell = tree.activate(slot).unwrap();
        let _the_pass_cares = tree.deactivate(slot, Some(900)).unwrap();
    });
}

/// The activation has the event ignored, and going idle without a timer leaves it so.
#[test]
fn a_timer_armed_meanwhile_is_kept_after_the_slot_ran_and_went_idle_without_one() {
    is_kept(|tree, slot| {
        let _nobody_to_tell = tree.activate(slot).unwrap();
        let _no_timer = tree.deactivate(slot, None).unwrap();
        let _the_pass_cares = tree.new_timer(slot, Some(900)).unwrap();
    });
}

#[test]
fn a_timer_armed_meanwhile_is_kept_after_the_slot_left_and_came_back_idle() {
    is_kept(|tree, slot| {
        let _nobody_is_idle_alone = tree.unavailable(slot);
        let _nobody_to_tell = tree.available(slot, true).unwrap();
        let _the_pass_cares = tree.new_timer(slot, Some(900)).unwrap();
    });
}
