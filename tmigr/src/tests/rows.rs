//! Regression tests: each of these faults was once found in a hierarchy of this kind. The traces
//! in `tests/traces` replay most of them against a reference, too.

use super::*;
use crate::PrepareError;
use crate::group::LOCKS;

fn locks(of: impl FnOnce()) -> u32 {
    let before = LOCKS.get();
    of();
    LOCKS.get() - before
}

#[test]
fn row_1_the_forecast_counts_an_event_behind_an_ignored_one() {
    let tree = tree::<8>(3, 3);
    assert_eq!(first(&tree, 1, Some(100)), None);
    assert_eq!(first(&tree, 2, Some(200)), None);
    let _ = tree.activate(Slot(1)).unwrap();
    assert_eq!(first(&tree, 1, None), None);
    let forecast = tree.quick_check(Slot(0), Some(900)).unwrap().unwrap();
    assert!(forecast <= 200, "{forecast}");
    assert_eq!(first(&tree, 0, Some(900)), Some(200));
}

#[test]
fn row_2_a_single_level_tree_reports_a_siblings_event() {
    let tree = tree::<8>(2, 2);
    assert_eq!(first(&tree, 1, Some(100)), None);
    assert_eq!(first(&tree, 0, None), Some(100));
}

#[test]
fn row_3_deactivation_without_a_timer_takes_few_locks() {
    let tall = tree::<8>(9, 9);
    assert_eq!(locks(|| assert_eq!(first(&tall, 1, None), None)), 0);
    for slot in 2..9 {
        assert_eq!(first(&tall, slot, None), None);
    }
    let last = locks(|| assert_eq!(first(&tall, 0, None), None));
    assert!(last <= 3, "{last}");
    let flat = tree::<8>(2, 2);
    for slot in [1, 0] {
        let count = locks(|| assert_eq!(first(&flat, slot, None), None));
        assert!(count <= 2, "{count}");
    }
}

#[test]
fn row_4_a_former_keeper_forgets_what_another_has_expired() {
    let tree = tree::<8>(3, 3);
    assert_eq!(first(&tree, 2, Some(100)), None);
    assert_eq!(first(&tree, 1, None), None);
    assert_eq!(first(&tree, 0, None), Some(100));
    let _ = tree.activate(Slot(1)).unwrap();
    let _ = tree.handle_remote(Slot(1), 100, &mut Script::default());
    assert!(tree.requires_handle_remote(Slot(0), 100));
    let pass = tree.handle_remote(Slot(0), 100, &mut Script::default());
    assert_eq!(pass.wakeup, None);
    assert!(!tree.requires_handle_remote(Slot(0), u64::MAX - 1));
}

#[test]
fn row_5_with_equal_expiries_each_slot_is_expired() {
    for count in [16, 128] {
        let tree = tree::<8>(count, count);
        for slot in 1..count {
            assert_eq!(first(&tree, slot, Some(100)), None);
        }
        assert_eq!(first(&tree, 0, Some(100)), Some(100));
        let mut script = Script::default();
        let _ = tree.handle_remote(Slot(0), 100, &mut script);
        script.expired.sort_unstable();
        assert_eq!(script.expired, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn row_6_a_timer_armed_for_a_halted_slot_reaches_its_migrator() {
    let tree = tree::<8>(70, 1);
    assert_eq!(tree.responsibility(Slot(0)), None);
    let told = tree.new_timer(Slot(69), Some(100)).unwrap();
    assert_eq!(told.first, None);
    let notices: Vec<_> = told.notices.into_iter().collect();
    assert_eq!(notices, [Notice { slot: Slot(0), expires: 100 }]);
    assert_eq!(tree.responsibility(Slot(0)), Some(100));
}

#[test]
fn row_8_and_11_growth_keeps_one_root_and_the_active_branch() {
    for count in [9, 65, 513] {
        let tree = tree::<8>(count, 1);
        let groups = tree.groups();
        let roots: Vec<_> = groups.iter().filter(|group| group.parent.is_none()).collect();
        assert_eq!(roots.len(), 1, "{count}");
        assert_eq!((roots[0].active, roots[0].migrator), (1, Some(1)));
        assert_eq!(tree.new_timer(Slot(count - 1), Some(5)).unwrap().first, None);
        assert_eq!(tree.responsibility(Slot(0)), Some(5), "{count}");
        assert_eq!(first(&tree, 0, None), Some(5));
    }
}

#[test]
fn row_9_and_10_no_mask_is_ever_zero() {
    let tree = tree::<2>(64, 1);
    let groups = tree.groups();
    assert!(groups.iter().all(|group| group.mask.count_ones() == 1), "{groups:?}");
    for parent in &groups {
        let children = groups.iter().filter(|group| group.parent == Some(parent.id));
        let masks = children.fold(0, |sum, child| {
            assert_eq!(sum & child.mask, 0, "a place is given once");
            sum | child.mask
        });
        assert!(parent.level == 0 || masks.count_ones() == u32::from(parent.children));
    }
}

#[test]
fn row_13_without_room_nothing_is_changed() {
    // Two groups of one node fill the root of two levels; one of the other has no place.
    let crowd = Hierarchy::<2>::new(4, 2).unwrap();
    let _ = crowd.prepare(Slot(0), 0, Slot(0)).unwrap();
    let _ = crowd.available(Slot(0), false).unwrap();
    let _ = crowd.prepare(Slot(1), 0, Slot(0)).unwrap();
    let _ = crowd.prepare(Slot(2), 0, Slot(0)).unwrap();
    let shape = crowd.groups();
    assert_eq!(crowd.prepare(Slot(3), 1, Slot(0)).unwrap_err(), PrepareError::NoRoom(1));
    assert_eq!(crowd.groups(), shape);
    assert_eq!(crowd.available(Slot(3), true).err(), Some(crate::SlotError::NotPrepared(Slot(3))));
    assert!(crowd.prepare(Slot(3), 0, Slot(0)).is_ok(), "its own node still has room");
}

#[test]
fn row_14_who_is_not_available_neither_pulls_nor_is_pulled() {
    let tree = tree::<8>(3, 3);
    assert_eq!(first(&tree, 2, Some(10)), None);
    assert_eq!(tree.unavailable(Slot(0)).trigger, None);
    assert!(tree.groups().iter().all(|group| group.migrator == Some(2)));
    assert!(!tree.requires_handle_remote(Slot(0), 10));
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), 10, &mut script);
    assert!(script.expired.is_empty());
    assert_eq!(tree.unavailable(Slot(2)).trigger, None);
    let _ = tree.handle_remote(Slot(1), 10, &mut script);
    assert!(script.expired.is_empty());
}

#[test]
fn row_15_a_slot_that_arms_in_the_past_does_not_hold_up_the_pass() {
    for next in [0, 50, 100] {
        let tree = tree::<8>(9, 9);
        for slot in 1..9 {
            assert_eq!(first(&tree, slot, Some(50)), None);
        }
        let mut script = Script::of((0..8).map(|_| owned(Some(next))));
        let _ = tree.handle_remote(Slot(0), 100, &mut script);
        script.expired.sort_unstable();
        assert_eq!(script.expired, (1..9).collect::<Vec<_>>(), "each one once");
        assert_eq!(tree.responsibility(Slot(0)), Some(101), "and the rest at once");
        let mut again = Script::default();
        let _ = tree.handle_remote(Slot(0), 101, &mut again);
        assert_eq!(again.expired.len(), 8);
    }
}

#[test]
fn row_15_an_event_for_never_is_not_due_at_the_end_of_time() {
    let tree = tree::<8>(2, 2);
    assert_eq!(first(&tree, 1, Some(50)), None);
    let _ = tree.handle_remote(Slot(0), 50, &mut Script::default());
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), u64::MAX, &mut script);
    assert!(script.expired.is_empty());
}

#[test]
fn row_17_the_keeper_that_leaves_has_a_successor() {
    let tree = tree::<8>(9, 0);
    assert_eq!(tree.new_timer(Slot(3), Some(60)).unwrap().first, Some(60));
    assert_eq!(tree.new_timer(Slot(8), Some(40)).unwrap().first, Some(40));
    assert!(tree.is_idle(Slot(8)));
    assert_eq!(tree.unavailable(Slot(8)).trigger, Some(60), "its own goes with it");
    assert!(tree.is_idle(Slot(8)));
    let _ = tree.activate(Slot(0)).unwrap();
    assert_eq!(tree.responsibility(Slot(0)), Some(60));
    assert_eq!(tree.unavailable(Slot(0)).trigger, Some(60));
}
