//! Faults that need two operations at once, and the races, with every order of their steps or the
//! one order that once did harm. Named after the rows of faults (`row_*`) and the races (`race_*`).

use super::steps::{Operation, Step, in_every_order};
use super::*;
use crate::GroupView;

/// What must hold of the groups when no operation is under way.
fn settled<const F: usize>(tree: &Hierarchy<F>) {
    let groups = tree.groups();
    let roots: Vec<&GroupView> = groups.iter().filter(|group| group.parent.is_none()).collect();
    assert_eq!(roots.len(), 1, "{groups:#?}");
    for group in &groups {
        assert_eq!(group.mask.count_ones(), 1, "{group:?}");
        match group.migrator {
            None => assert_eq!(group.active, 0, "{group:?}"),
            Some(mask) => assert!(mask.count_ones() == 1 && mask & group.active != 0, "{group:?}"),
        }
        if let Some(parent) = group.parent {
            let marked = groups[parent as usize].active & group.mask != 0;
            assert_eq!(marked, group.active != 0, "{group:?} in {:?}", groups[parent as usize]);
        }
    }
}

/// Who would come for the timer at `at`, when every slot acts on what it was told and knows.
fn is_cared_for<const F: usize>(tree: &Hierarchy<F>, slots: u32, at: u64) -> bool {
    (0..slots).any(|slot| tree.responsibility(Slot(slot)).is_some_and(|first| first <= at))
}

/// `count` slots, prepared and available, the first `active` of them active, with room for more.
fn roomy<const F: usize>(slots: u32, count: u32, active: u32) -> Hierarchy<F> {
    let tree = Hierarchy::<F>::new(slots, 1).unwrap();
    for slot in 0..count {
        let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
        let _ = tree.available(Slot(slot), slot >= active && slot > 0).unwrap();
    }
    tree
}

#[test]
fn row_7_a_walk_that_stalls_before_going_up_meets_growth_and_has_the_right_mask() {
    let tree = roomy::<2>(8, 2, 2);
    std::thread::scope(|scope| {
        let mut walk = Operation::start(scope, || tree.deactivate(Slot(1), Some(50)).unwrap());
        // Its own exchange is done; it is about to lock the group, with the tree one level high.
        walk.until(Step::Exchange, 1);
        walk.step();
        let _ = tree.prepare(Slot(2), 0, Slot(0)).unwrap();
        assert_eq!(walk.finish().first, None);
    });
    settled(&tree);
    assert!(is_cared_for(&tree, 3, 50));
}

#[test]
fn row_8_a_slot_is_added_while_another_goes_idle_or_wakes() {
    for wakes in [false, true] {
        let orders = in_every_order(
            || {
                let tree = roomy::<2>(8, 2, 2);
                if wakes {
                    assert_eq!(first(&tree, 1, Some(40)), None);
                }
                tree
            },
            |tree| tree.prepare(Slot(2), 0, Slot(0)).unwrap(),
            |tree| match wakes {
                true => tree.activate(Slot(1)).unwrap(),
                false => tree.deactivate(Slot(1), Some(50)).unwrap().notices,
            },
            |tree, _, _| {
                settled(tree);
                let _ = tree.available(Slot(2), true).unwrap();
                assert_eq!(tree.new_timer(Slot(2), Some(60)).unwrap().first, None);
                assert!(is_cared_for(tree, 3, 60));
                assert!(wakes || is_cared_for(tree, 3, 50));
                settled(tree);
            },
        );
        assert!(orders > 5, "{orders}");
    }
}

#[test]
fn row_9_a_walker_that_stalls_while_the_tree_grows_never_leaves_mask_0() {
    // The walk of the activation stalls after its exchange at the only level; the tree grows two
    // levels above it.
    let tree = roomy::<2>(8, 2, 1);
    std::thread::scope(|scope| {
        let mut walk = Operation::start(scope, || tree.activate(Slot(1)).unwrap());
        walk.until(Step::Exchange, 1);
        walk.step();
        for slot in 2..5 {
            let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
            let _ = tree.available(Slot(slot), true).unwrap();
        }
        let _ = walk.finish();
    });
    settled(&tree);
    let _ = tree.deactivate(Slot(0), None).unwrap();
    let _ = tree.deactivate(Slot(1), Some(9)).unwrap();
    settled(&tree);
    assert!(tree.groups().iter().all(|group| group.migrator.is_none()));
}

#[test]
fn row_10_and_11_a_group_is_whole_when_it_can_be_reached_and_roots_are_one() {
    let tree = roomy::<2>(16, 4, 1);
    std::thread::scope(|scope| {
        let mut growth = Operation::start(scope, || tree.prepare(Slot(4), 0, Slot(0)).unwrap());
        while growth.next.is_some() {
            // Whatever a walker finds on its way up from a slot that has a place.
            for slot in 0..5 {
                let place = tree.state(Slot(slot)).unwrap().place();
                let Some(place) = place else { continue };
                for (level, (group, at)) in (0..).zip(tree.path(place)) {
                    assert_eq!((group.level, at.mask.count_ones()), (level, 1));
                }
            }
            // The event of an idle slot is still looked after in the middle of it.
            assert_eq!(tree.new_timer(Slot(3), Some(100)).unwrap().first, None);
            assert!(is_cared_for(&tree, 4, 100));
            growth.step();
        }
        let _ = growth.finish();
    });
    settled(&tree);
}

#[test]
fn row_12_groups_below_the_crossnode_level_have_children_of_one_node() {
    let tree = Hierarchy::<8>::new(40, 3).unwrap();
    let mut of_node = [0; 40];
    for slot in 0..40_u32 {
        let node = [0, 1, 1, 2, 0][slot as usize % 5];
        if tree.prepare(Slot(slot), node, Slot(0)).is_ok() {
            of_node[slot as usize] = node;
            let _ = tree.available(Slot(slot), slot != 0).unwrap();
        }
    }
    let groups = tree.groups();
    for slot in 0..40 {
        let Some(place) = tree.state(Slot(slot)).unwrap().place() else { continue };
        for (group, at) in tree.path(place) {
            let shown = groups[at.group.number() as usize].node;
            let expected = (group.level < tree.crossnode_level()).then_some(of_node[slot as usize]);
            assert_eq!(shown, expected, "slot {slot} below group {}", at.group.number());
        }
    }
    settled(&tree);
}

#[test]
fn row_16_a_migrator_that_does_not_execute_is_taken_out_and_others_take_over() {
    let tree = tree::<8>(70, 2);
    assert_eq!(tree.new_timer(Slot(69), Some(30)).unwrap().first, None);
    assert_eq!(tree.responsibility(Slot(0)), Some(30), "the migrator's vCPU is about to be paused");
    assert_eq!(tree.responsibility(Slot(1)), None);
    let left = tree.unavailable(Slot(0));
    assert_eq!(left.trigger, None);
    let told: Vec<_> = left.notices.into_iter().collect();
    assert_eq!(told, [Notice { slot: Slot(1), expires: 30 }]);
    assert!(tree.requires_handle_remote(Slot(1), 30));
    // Nobody else is active: whoever took it out must make another one run.
    let left = tree.unavailable(Slot(1));
    assert_eq!(left.trigger, Some(30));
    let _ = tree.activate(Slot(40)).unwrap();
    assert_eq!(tree.responsibility(Slot(40)), Some(30));
}

#[test]
fn row_17_a_sibling_of_the_last_keeper_leaves_and_the_keeper_stays() {
    in_every_order(
        || tree::<2>(4, 2),
        |tree| tree.deactivate(Slot(0), Some(70)).unwrap().first,
        |tree| tree.unavailable(Slot(1)).trigger,
        |tree, kept, trigger| {
            settled(tree);
            if trigger.is_some() {
                let _ = tree.activate(Slot(2)).unwrap();
            }
            assert!(kept.is_some() || trigger.is_some(), "nobody is told");
            assert!(is_cared_for(tree, 4, 70));
        },
    );
}

#[test]
fn race_1_a_late_deactivation_meets_the_activation_of_the_same_branch() {
    let orders = in_every_order(
        || roomy::<2>(4, 4, 2),
        |tree| {
            let wakeup = tree.deactivate(Slot(1), Some(50)).unwrap();
            let _ = tree.activate(Slot(1)).unwrap();
            wakeup
        },
        |tree| tree.deactivate(Slot(0), None).unwrap(),
        |tree, _, _| {
            settled(tree);
            let groups = tree.groups();
            let root = groups.iter().find(|group| group.parent.is_none()).unwrap();
            assert_eq!(root.active.count_ones(), 1, "slot 1 is active: {groups:#?}");
        },
    );
    assert!(orders > 50, "{orders}");
}

#[test]
fn race_3_the_last_one_going_idle_meets_a_new_first_timer_in_every_order() {
    for slots in [2, 4] {
        let orders = in_every_order(
            || tree::<2>(slots, 1),
            |tree| tree.deactivate(Slot(0), None).unwrap().first,
            |tree| tree.new_timer(Slot(slots - 1), Some(70)).unwrap().first,
            |tree, last, new| {
                settled(tree);
                assert!(last == Some(70) || new == Some(70), "{last:?} {new:?}");
                assert!(is_cared_for(tree, slots, 70));
            },
        );
        assert!(orders > 5, "{orders}");
    }
}

#[test]
fn race_4_a_pass_meets_the_owner_that_arms_and_goes_idle_in_every_order() {
    // Somebody takes slot 1's timer while its owner wakes up and halts again with another one.
    let orders = in_every_order(
        || {
            let tree = tree::<2>(4, 1);
            assert_eq!(tree.new_timer(Slot(3), Some(10)).unwrap().first, None);
            tree
        },
        |tree| {
            let mut script = Script::of([Expired { next: Next::Foreign, stop: false }]);
            let _ = tree.handle_remote(Slot(0), 20, &mut script);
            script.expired
        },
        |tree| {
            let _ = tree.activate(Slot(3)).unwrap();
            tree.deactivate(Slot(3), Some(40)).unwrap().first
        },
        |tree, expired, _| {
            settled(tree);
            assert!(expired.is_empty() || expired == [3]);
            assert!(is_cared_for(tree, 4, 40), "the owner's later timer is lost");
        },
    );
    assert!(orders > 50, "{orders}");
}

#[test]
fn race_5_growth_meets_the_deactivation_of_another_branch_in_every_order() {
    let orders = in_every_order(
        || {
            let tree = roomy::<2>(16, 4, 1);
            let _ = tree.activate(Slot(3)).unwrap();
            tree
        },
        |tree| tree.prepare(Slot(4), 0, Slot(0)).unwrap(),
        |tree| tree.deactivate(Slot(3), Some(55)).unwrap().first,
        |tree, _, told| {
            settled(tree);
            assert_eq!(told, None, "slot 0 is active");
            assert!(is_cared_for(tree, 5, 55));
        },
    );
    assert!(orders > 5, "{orders}");
}

#[test]
fn race_6_a_new_first_timer_meets_a_migrator_that_arms_in_every_order() {
    let orders = in_every_order(
        || tree::<2>(4, 1),
        |tree| tree.responsibility(Slot(0)),
        |tree| tree.new_timer(Slot(3), Some(25)).unwrap().notices.into_iter().count(),
        |_, known, told| assert!(known == Some(25) || told == 1, "{known:?} {told}"),
    );
    assert!(orders >= 1, "{orders}");
}

#[test]
fn race_6_the_role_is_handed_over_while_a_new_first_timer_is_queued() {
    let orders = in_every_order(
        || {
            let tree = tree::<2>(4, 2);
            for slot in [0, 1] {
                assert_eq!(tree.responsibility(Slot(slot)), None);
            }
            tree
        },
        |tree| tree.deactivate(Slot(0), None).unwrap().notices.into_iter().collect::<Vec<_>>(),
        |tree| {
            let wakeup = tree.new_timer(Slot(3), Some(25)).unwrap();
            wakeup.notices.into_iter().collect::<Vec<_>>()
        },
        |tree, one, other| {
            settled(tree);
            let told = one.iter().chain(&other).any(|notice| notice.slot == Slot(1));
            assert!(told, "slot 1 sleeps in its guest and is not told: {one:?} {other:?}");
        },
    );
    assert!(orders > 5, "{orders}");
}

#[test]
fn race_10_both_siblings_go_idle_and_one_of_them_is_told_in_every_order() {
    for slots in [2, 4] {
        let orders = in_every_order(
            || tree::<2>(slots, 2),
            |tree| tree.deactivate(Slot(0), Some(70)).unwrap().first,
            |tree| tree.deactivate(Slot(1), None).unwrap().first,
            |tree, one, other| {
                settled(tree);
                assert!(one == Some(70) || other == Some(70), "{one:?} {other:?}");
                assert!(is_cared_for(tree, slots, 70));
            },
        );
        assert!(orders > 5, "{orders}");
    }
}

#[test]
fn race_10_two_branches_go_idle_and_one_of_them_is_told_in_every_order() {
    // Each is the last of its group: the role is handed over above, at the top or below it.
    for slots in [4, 8] {
        let orders = in_every_order(
            || {
                let tree = tree::<2>(slots, 1);
                let _ = tree.activate(Slot(2)).unwrap();
                tree
            },
            |tree| tree.deactivate(Slot(0), Some(70)).unwrap().first,
            |tree| tree.deactivate(Slot(2), None).unwrap().first,
            |tree, one, other| {
                settled(tree);
                assert!(one == Some(70) || other == Some(70), "{one:?} {other:?}");
                assert!(is_cared_for(tree, slots, 70));
            },
        );
        assert!(orders > 5, "{orders}");
    }
}
