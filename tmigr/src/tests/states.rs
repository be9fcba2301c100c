//! Calls that are not for a slot in its state.

use super::*;
use crate::{Activity, SlotError};

fn refused(slot: u32, found: Activity, needed: Activity) -> SlotError {
    SlotError::WrongState { slot: Slot(slot), found, needed }
}

#[test]
fn call_in_the_wrong_state_names_both_states_and_changes_nothing() {
    let tree = tree::<8>(9, 2);
    assert_eq!(first(&tree, 1, Some(40)), None);
    let before = (tree.groups(), tree.statistics());
    let (idle, active) = (Activity::Idle, Activity::Active);
    assert_eq!(tree.activate(Slot(0)).unwrap_err(), refused(0, active, idle));
    assert_eq!(tree.new_timer(Slot(0), Some(1)).unwrap_err(), refused(0, active, idle));
    assert_eq!(tree.deactivate(Slot(1), Some(1)).unwrap_err(), refused(1, idle, active));
    assert_eq!(tree.quick_check(Slot(1), Some(1)), Err(refused(1, idle, active)));
    assert_eq!((tree.groups(), tree.statistics()), before);
    let text = tree.deactivate(Slot(1), None).unwrap_err().to_string();
    assert_eq!(text, "slot 1 is idle, the call needs an active one");
    assert_eq!(first(&tree, 0, None), Some(40), "the timer is still there");
}

#[test]
fn slot_that_is_not_available_gets_back_what_it_gives_in_either_state() {
    let tree = tree::<8>(9, 2);
    for slot in [1, 8] {
        let slot = Slot(slot);
        let _ = tree.unavailable(slot);
        assert_eq!(tree.deactivate(slot, Some(3)).unwrap().first, Some(3));
        assert_eq!(tree.new_timer(slot, Some(3)).unwrap().first, Some(3));
        assert_eq!(tree.quick_check(slot, Some(3)), Ok(Some(3)));
        assert!(tree.activate(slot).unwrap().is_empty());
    }
}

#[test]
fn clock_that_is_read_earlier_than_before_loses_nothing() {
    let tree = tree::<8>(9, 1);
    assert_eq!(tree.new_timer(Slot(3), Some(50)).unwrap().first, None);
    assert_eq!(tree.new_timer(Slot(8), Some(90)).unwrap().first, None);
    let mut script = Script::default();
    let _ = tree.handle_remote(Slot(0), 60, &mut script);
    let _ = tree.handle_remote(Slot(0), 40, &mut script);
    assert_eq!(script.expired, [3]);
    assert_eq!(tree.responsibility(Slot(0)), Some(90));
    let _ = tree.handle_remote(Slot(0), 90, &mut script);
    assert_eq!(script.expired, [3, 8]);
}
