//! Slots that are handed out and given up, and slots that are isolated.

use super::*;
use crate::{CreateError, Next, PrepareError, SlotError};

/// A tree whose slot 0 is active and housekeeper, all others fresh.
fn kept(slots: u32, nodes: u32) -> Hierarchy<8> {
    let tree = Hierarchy::with_housekeeper(slots, nodes, Slot(0)).unwrap();
    let _ = tree.prepare(Slot(0), 0, Slot(0)).unwrap();
    let _ = tree.available(Slot(0), false).unwrap();
    tree
}

#[test]
fn vms_that_come_and_go_do_not_make_the_tree_grow() {
    let tree = kept(200, 1);
    let mut used: Vec<Slot> = (0..100).map(|_| tree.acquire(0, Slot(0)).unwrap().0).collect();
    used.iter().for_each(|&slot| drop(tree.available(slot, true).unwrap()));
    let shape = tree.groups().len();
    for round in 0..100_000_u64 {
        let at = (round * 7919 % used.len() as u64) as usize;
        let gone = used.swap_remove(at);
        let _ = tree.new_timer(gone, Some(1_000_000 + round)).unwrap();
        let _ = tree.give_up(gone).unwrap();
        let (slot, _) = tree.acquire(0, Slot(0)).unwrap();
        let _ = tree.available(slot, true).unwrap();
        used.push(slot);
    }
    assert_eq!(tree.groups().len(), shape);
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 100, "no slot is handed out twice");
    assert!(!used.contains(&Slot(0)), "slot 0 was prepared by its number");
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), 10_000_000, &mut script);
    assert_eq!(script.expired, [], "no timer of a slot that is gone is left");
    assert_eq!(tree.responsibility(Slot(0)), None);
}

#[test]
fn given_up_slot_takes_part_in_nothing_until_it_is_handed_out_again() {
    let tree = kept(4, 1);
    let (slot, _) = tree.acquire(0, Slot(0)).unwrap();
    let _ = tree.available(slot, true).unwrap();
    let _ = tree.new_timer(slot, Some(10)).unwrap();
    let _ = tree.give_up(slot).unwrap();
    assert_eq!(tree.give_up(slot).unwrap_err(), SlotError::GivenUp(slot));
    assert_eq!(tree.available(slot, true).unwrap_err(), SlotError::GivenUp(slot));
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), 10, &mut script);
    assert!(script.expired.is_empty());
    assert_eq!(tree.acquire(0, Slot(0)).unwrap().0, slot);
    assert!(tree.available(slot, true).is_ok());
    assert_eq!(tree.give_up(Slot(3)).unwrap_err(), SlotError::NotPrepared(Slot(3)));
}

#[test]
fn slots_are_handed_out_again_on_their_own_node() {
    let tree = kept(32, 2);
    let on = |node| tree.acquire(node, Slot(0)).unwrap().0;
    let (first, second) = (on(0), on(1));
    let _ = tree.give_up(first).unwrap();
    let _ = tree.give_up(second).unwrap();
    assert_eq!(on(1), second);
    assert_ne!(on(1), first, "a fresh one rather than one of another node");
    assert_eq!(on(0), first);
}

#[test]
fn acquiring_fails_without_loss_when_slots_or_active_ones_run_out() {
    let tree = kept(3, 1);
    let _ = tree.deactivate(Slot(0), None).unwrap();
    assert_eq!(tree.acquire(0, Slot(0)).unwrap_err(), PrepareError::NoActiveSlot(Slot(0)));
    let _ = tree.activate(Slot(0)).unwrap();
    let slots = [tree.acquire(0, Slot(0)).unwrap().0, tree.acquire(0, Slot(0)).unwrap().0];
    assert_eq!(slots, [Slot(1), Slot(2)]);
    assert_eq!(tree.acquire(0, Slot(0)).unwrap_err(), PrepareError::NoSuchSlot(Slot(3)));
    assert_eq!(tree.acquire(9, Slot(0)).unwrap_err(), PrepareError::NoSuchSlot(Slot(3)));
}

/// Gives up the slot that is being expired.
struct GivesUp<'a>(&'a Hierarchy<8>, Option<SlotError>);

impl Expire for GivesUp<'_> {
    fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
        self.1 = self.0.give_up(slot).err();
        Expired { next: Next::Foreign, stop: false }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, _notice: Notice) {}
}

#[test]
fn slot_is_not_given_up_in_the_middle_of_a_pass() {
    let tree = tree::<8>(3, 1);
    let _ = tree.new_timer(Slot(2), Some(10)).unwrap();
    let mut gives_up = GivesUp(&tree, None);
    let _ = tree.handle_remote(Slot(0), 10, &mut gives_up);
    assert_eq!(gives_up.1, Some(SlotError::Remote(Slot(2))));
    assert!(tree.give_up(Slot(2)).is_ok());
}

#[test]
fn isolated_slots_neither_serve_nor_are_served_and_come_back() {
    let tree = kept(20, 1);
    for slot in 1..20 {
        let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
        let _ = tree.available(Slot(slot), true).unwrap();
    }
    let _ = tree.new_timer(Slot(5), Some(10)).unwrap();
    let _ = tree.new_timer(Slot(6), Some(10)).unwrap();
    let done = tree.isolate(&[Slot(5), Slot(7), Slot(5)], |_| None);
    assert!(done.refused.is_empty() && done.trigger.is_none());
    assert!(tree.is_isolated(Slot(5)) && !tree.is_available(Slot(5)));
    assert_eq!(tree.available(Slot(5), true).unwrap_err(), SlotError::Isolated(Slot(5)));
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), 10, &mut script);
    assert_eq!(script.expired, [6]);
    let done = tree.isolate(&[Slot(7)], |_| Some(true));
    assert!(done.refused.is_empty());
    assert!(tree.is_available(Slot(5)) && tree.is_idle(Slot(5)) && tree.is_isolated(Slot(7)));
    let _ = tree.new_timer(Slot(5), Some(20)).unwrap();
    let _ = tree.handle_remote(Slot(0), 20, &mut script);
    assert_eq!(script.expired, [6, 5]);
}

#[test]
fn housekeeper_is_left_in_and_the_rest_of_the_set_is_done() {
    let tree = kept(9, 1);
    let _ = tree.prepare(Slot(1), 0, Slot(0)).unwrap();
    let _ = tree.available(Slot(1), false).unwrap();
    let done = tree.isolate(&[Slot(0), Slot(1), Slot(2), Slot(99)], |_| None);
    let refused = [
        SlotError::Housekeeper(Slot(0)),
        SlotError::NotPrepared(Slot(2)),
        SlotError::NoSuchSlot(Slot(99)),
    ];
    assert_eq!(done.refused, refused);
    assert!(tree.is_available(Slot(0)) && tree.is_isolated(Slot(1)));
    assert_eq!(tree.housekeeper(), Some(Slot(0)));
    let wrong = Hierarchy::<8>::with_housekeeper(4, 1, Slot(4)).err();
    assert_eq!(wrong, Some(CreateError::Housekeeper { keeper: Slot(4), slots: 4 }));
}

#[test]
fn isolating_the_last_active_slot_asks_for_a_successor() {
    let tree = tree::<8>(9, 1);
    let _ = tree.new_timer(Slot(8), Some(70)).unwrap();
    let done = tree.isolate(&[Slot(0)], |_| None);
    assert_eq!(done.trigger, Some(70));
    let _ = tree.activate(Slot(3)).unwrap();
    assert_eq!(tree.responsibility(Slot(3)), Some(70));
}
