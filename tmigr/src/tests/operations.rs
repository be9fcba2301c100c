//! Each operation by itself.

use super::*;
use crate::group::LOCKS;
use crate::{CreateError, MAX_SLOTS, PrepareError, SlotError};

#[test]
fn a_slot_out_of_range_takes_part_in_nothing() {
    let tree = tree::<8>(2, 1);
    let far = Slot(2);
    assert_eq!(tree.prepare(far, 0, Slot(0)).unwrap_err(), PrepareError::NoSuchSlot(far));
    assert_eq!(tree.available(far, true).unwrap_err(), SlotError::NoSuchSlot(far));
    assert_eq!(tree.deactivate(far, Some(3)).unwrap_err(), SlotError::NoSuchSlot(far));
    assert_eq!(tree.new_timer(far, Some(3)).unwrap_err(), SlotError::NoSuchSlot(far));
    assert_eq!(tree.quick_check(far, Some(3)), Err(SlotError::NoSuchSlot(far)));
    assert_eq!(tree.activate(far).unwrap_err(), SlotError::NoSuchSlot(far));
    assert_eq!(tree.give_up(far).unwrap_err(), SlotError::NoSuchSlot(far));
    assert!(!tree.requires_handle_remote(far, 3));
    assert_eq!(tree.unavailable(far).trigger, None);
    assert_eq!(tree.responsibility(far), None);
    assert!(!tree.is_available(far) && !tree.is_idle(far));
    assert_eq!(tree.handle_remote(far, 3, &mut Script::default()).wakeup, None);
}

#[test]
fn creation_refuses_what_it_cannot_number() {
    assert_eq!(Hierarchy::<8>::new(0, 1).err(), Some(CreateError::Slots { slots: 0 }));
    assert!(Hierarchy::<8>::new(MAX_SLOTS + 1, 1).is_err());
    assert_eq!(Hierarchy::<8>::new(1, 0).err(), Some(CreateError::Nodes));
}

#[test]
fn preparing_needs_an_active_slot_and_a_node() {
    let tree = Hierarchy::<8>::new(20, 1).unwrap();
    assert_eq!(tree.available(Slot(0), true).unwrap_err(), SlotError::NotPrepared(Slot(0)));
    assert_eq!(tree.prepare(Slot(0), 1, Slot(0)).unwrap_err(), PrepareError::NoSuchNode(1));
    let stranger = tree.prepare(Slot(0), 0, Slot(1)).unwrap_err();
    assert_eq!(stranger, PrepareError::NoActiveSlot(Slot(1)));
    // Nobody is available: each does it itself, as long as no level is added.
    for slot in 0..8 {
        assert!(tree.prepare(Slot(slot), 0, Slot(slot)).unwrap().is_empty());
    }
    let before = tree.groups();
    let alone = tree.prepare(Slot(8), 0, Slot(8)).unwrap_err();
    assert_eq!(alone, PrepareError::NoActiveSlot(Slot(8)));
    assert_eq!(tree.groups(), before, "nothing changed");
    let _ = tree.available(Slot(3), true).unwrap();
    let idle = tree.prepare(Slot(8), 0, Slot(3)).unwrap_err();
    assert_eq!(idle, PrepareError::NoActiveSlot(Slot(3)));
    let others = tree.prepare(Slot(8), 0, Slot(8)).unwrap_err();
    assert_eq!(others, PrepareError::NoActiveSlot(Slot(8)));
    let _ = tree.activate(Slot(3)).unwrap();
    assert!(tree.prepare(Slot(8), 0, Slot(3)).unwrap().is_empty());
    assert_eq!(tree.groups().len(), 3);
    assert!(tree.prepare(Slot(8), 0, Slot(8)).unwrap().is_empty(), "a second time is no error");
    assert_eq!(tree.groups().len(), 3);
}

#[test]
fn place_of_a_slot_is_a_child_of_its_group() {
    let tree = tree::<8>(17, 1);
    let groups = tree.groups();
    let mut taken = std::collections::BTreeSet::new();
    for slot in 0..17 {
        let (group, mask) = tree.place(Slot(slot)).expect("it was prepared");
        assert!(taken.insert((group, mask)), "slot {slot} is where another one is");
        assert_eq!(mask.count_ones(), 1);
        assert_eq!(groups[group as usize].level, 0);
    }
    assert_eq!(tree.place(Slot(17)), None);
    assert_eq!(Hierarchy::<8>::new(3, 1).unwrap().place(Slot(0)), None, "not prepared");
}

#[test]
fn one_slot_gets_back_what_it_gives() {
    let tree = Hierarchy::<8>::new(1, 3).unwrap();
    assert_eq!((tree.levels(), tree.crossnode_level()), (0, 0));
    assert!(tree.prepare(Slot(0), 0, Slot(0)).unwrap().is_empty());
    assert!(tree.available(Slot(0), false).unwrap().is_empty());
    assert!(!tree.is_available(Slot(0)));
    assert_eq!(first(&tree, 0, Some(7)), Some(7));
    assert!(tree.level_counters().is_empty());
}

#[test]
fn the_last_to_go_idle_is_told_the_first_expiry() {
    let tree = tree::<8>(65, 65);
    for slot in (1..65).rev() {
        assert_eq!(first(&tree, slot, Some(1000 + u64::from(slot))), None);
    }
    assert_eq!(first(&tree, 0, Some(5000)), Some(1001));
    assert_eq!(tree.responsibility(Slot(0)), Some(1001));
    assert_eq!(tree.responsibility(Slot(1)), None);
}

#[test]
fn a_new_timer_of_an_idle_tree_has_a_keeper() {
    let tree = tree::<8>(9, 0);
    assert_eq!(tree.new_timer(Slot(8), Some(50)).unwrap().first, Some(50));
    assert_eq!(tree.new_timer(Slot(8), Some(50)).unwrap().first, Some(50), "known already");
    assert_eq!(tree.new_timer(Slot(1), Some(70)).unwrap().first, Some(50), "the first of all");
    assert_eq!(tree.new_timer(Slot(1), None).unwrap().first, Some(50), "unchanged");
}

#[test]
fn quick_check_sees_what_deactivate_would_answer() {
    let tree = tree::<8>(9, 2);
    assert_eq!(tree.quick_check(Slot(0), Some(9)).unwrap(), None, "slot 1 is active");
    assert_eq!(tree.quick_check(Slot(1), Some(9)).unwrap(), None, "not the migrator");
    assert_eq!(first(&tree, 1, Some(20)), None);
    assert_eq!(tree.quick_check(Slot(0), Some(30)).unwrap(), Some(20));
    assert_eq!(tree.quick_check(Slot(0), Some(9)).unwrap(), Some(9));
    assert_eq!(tree.quick_check(Slot(0), None).unwrap(), Some(20));
}

#[test]
fn a_pass_releases_what_it_expires_once_and_counts() {
    let tree = tree::<8>(9, 9);
    assert_eq!(first(&tree, 1, Some(10)), None);
    assert_eq!(first(&tree, 8, Some(20)), None);
    assert!(!tree.requires_handle_remote(Slot(0), 9));
    assert!(tree.requires_handle_remote(Slot(0), 10));
    let mut script = Script::of([owned(Some(40)), owned(None)]);
    let pass = tree.handle_remote(Slot(0), 30, &mut script);
    assert!(!pass.stopped);
    assert_eq!((&script.expired[..], &script.released[..]), (&[1, 8][..], &[1, 8][..]));
    assert_eq!(tree.responsibility(Slot(0)), Some(40));
    let counters = tree.level_counters();
    assert_eq!((counters[0].expiries, counters[1].expiries), (1, 1));
    assert_eq!((counters[0].passes, counters[1].passes), (1, 1));
    assert!(counters[0].walks >= 4 && counters[1].walks >= 2, "{counters:?}");
}

#[test]
fn every_lock_of_a_group_is_counted() {
    let before = LOCKS.get();
    let tree = tree::<8>(9, 9);
    assert_eq!(first(&tree, 8, Some(10)), None);
    let _ = tree.handle_remote(Slot(0), 10, &mut Script::of([owned(Some(40))]));
    assert_eq!(first(&tree, 0, None), None);
    let counters = tree.level_counters();
    let counted: u64 = counters.iter().map(|level| level.locks).sum();
    assert_eq!(counted, u64::from(LOCKS.get() - before));
    assert!(counters[0].walks > 0 && counters[1].locks > counters[1].walks, "{counters:?}");
}

#[test]
fn a_stopped_pass_leaves_the_rest_as_responsibility() {
    for keeper in [false, true] {
        let tree = tree::<8>(20, 20);
        for slot in (1..20).rev() {
            assert_eq!(first(&tree, slot, Some(10)), None);
        }
        if keeper {
            assert_eq!(first(&tree, 0, None), Some(10));
        }
        let stop = Expired { next: Next::Owned(None), stop: true };
        let mut count = 0;
        while tree.responsibility(Slot(0)).is_some_and(|at| at <= 10) {
            let mut script = Script::of([stop]);
            assert!(tree.handle_remote(Slot(0), 10, &mut script).stopped);
            assert_eq!(script.expired.len(), 1);
            count += 1;
        }
        assert_eq!(count, 19, "keeper: {keeper}");
    }
}

#[test]
fn a_foreign_slot_is_queued_with_what_it_keeps() {
    let tree = tree::<8>(2, 2);
    assert_eq!(first(&tree, 1, Some(10)), None);
    let foreign = Expired { next: Next::Foreign, stop: false };
    let _ = tree.handle_remote(Slot(0), 10, &mut Script::of([foreign]));
    assert_eq!(tree.responsibility(Slot(0)), None, "whoever has it looks at its timers");
    let told = tree.new_timer(Slot(1), Some(15)).unwrap();
    assert_eq!(told.first, None);
    let notices: Vec<_> = told.notices.into_iter().collect();
    assert_eq!(notices, [Notice { slot: Slot(0), expires: 15 }]);
}

#[test]
fn nobody_is_told_twice_or_for_later() {
    let tree = tree::<8>(10, 1);
    assert_eq!(tree.responsibility(Slot(0)), None);
    let tell = |slot, at| tree.new_timer(Slot(slot), Some(at)).unwrap().notices.into_iter().count();
    assert_eq!(tell(1, 100), 1);
    assert_eq!(tell(2, 100), 0, "known");
    assert_eq!(tell(3, 200), 0, "later");
    assert_eq!(tell(9, 50), 1, "two levels up");
    assert_eq!(tree.responsibility(Slot(0)), Some(50));
}

#[test]
fn a_role_handed_over_is_reported_with_all_that_comes_with_it() {
    let tree = tree::<8>(10, 2);
    assert_eq!(tree.new_timer(Slot(9), Some(70)).unwrap().first, None);
    assert_eq!(tree.responsibility(Slot(1)), None);
    let wakeup = tree.deactivate(Slot(0), Some(90)).unwrap();
    let notices: Vec<_> = wakeup.notices.into_iter().collect();
    assert_eq!(notices, [Notice { slot: Slot(1), expires: 70 }], "of the level above");
}

#[test]
fn a_requeue_tells_the_migrator_of_the_level() {
    // Slot 0 has to be back for its own and slot 8's, then slot 9 becomes active above it.
    let tree = tree::<8>(10, 1);
    assert_eq!(tree.new_timer(Slot(1), Some(10)).unwrap().first, None);
    assert_eq!(first(&tree, 0, None), Some(10));
    let _ = tree.activate(Slot(9)).unwrap();
    assert_eq!(tree.responsibility(Slot(9)), Some(10));
    let mut far = Script::of([owned(Some(500))]);
    let _ = tree.handle_remote(Slot(9), 10, &mut far);
    assert_eq!((far.expired, far.notices.len()), (vec![1], 0), "itself need not be told");
    assert_eq!(tree.responsibility(Slot(9)), Some(500));
    // Slot 0, idle and asked to look, works below slot 9, which learns of what is left.
    assert_eq!(tree.new_timer(Slot(1), Some(300)).unwrap().first, None);
    assert_eq!(tree.responsibility(Slot(9)), Some(300));
    let _ = tree.handle_remote(Slot(9), 300, &mut Script::default());
    assert_eq!(tree.responsibility(Slot(9)), None);
}

#[test]
fn the_event_of_an_active_group_stays_out_of_its_parent() {
    let tree = tree::<8>(9, 1);
    assert_eq!(tree.new_timer(Slot(1), Some(100)).unwrap().first, None);
    let next: Vec<_> = tree.groups().iter().map(|group| group.next).collect();
    assert_eq!(next, [Some(100), None, None]);
}

#[test]
fn a_group_that_is_active_again_is_ignored_above() {
    let tree = tree::<8>(9, 9);
    assert_eq!(first(&tree, 8, Some(100)), None);
    let _ = tree.activate(Slot(8)).unwrap();
    assert_eq!(tree.responsibility(Slot(0)), Some(100), "stale, too early");
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), 50, &mut script);
    assert_eq!((script.expired.len(), tree.responsibility(Slot(0))), (0, None));
}

#[test]
fn owner_that_forgets_what_it_knew_is_told_again() {
    let tree = tree::<8>(3, 2);
    let _ = tree.new_timer(Slot(2), Some(40)).unwrap();
    assert_eq!((tree.responsibility(Slot(0)), tree.known(Slot(0))), (Some(40), Some(40)));
    let told = |at| !tree.new_timer(Slot(2), Some(at)).unwrap().notices.is_empty();
    assert!(!told(45) && !told(41), "it knows an earlier one");
    tree.forget_known(Slot(0));
    assert_eq!((tree.known(Slot(0)), tree.prospect(Slot(0))), (None, Some(41)));
    assert!(told(40));
}
