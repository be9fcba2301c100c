//! Models of the races of the walks with each other and with growth.

use super::{World, act, check, finish};
use crate::Slot;

#[test]
fn race_1_sequence_counter() {
    check("race_1_sequence_counter", 2, || {
        let world = World::new(4, 4, &[0, 2]);
        let threads = [
            act(&world, |world| world.sleep(0, Some(10))),
            act(&world, |world| assert!(world.wake(1))),
        ];
        world.sleep(2, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_2_publish_of_a_new_parent() {
    check("race_2_publish_of_a_new_parent", 3, || {
        let world = World::new(4, 2, &[0, 1]);
        let threads = [act(&world, |world| world.sleep(1, Some(10)))];
        let _ = world.tree.prepare(Slot(2), 0, Slot(0)).map(|notices| world.tell(notices)).unwrap();
        let _ = world.tree.available(Slot(2), true).map(|notices| world.tell(notices)).unwrap();
        world.sleep(0, None);
        world.arm(2, 20);
        finish(&world, threads);
    });
}

#[test]
fn race_3_the_last_one_goes_idle_against_a_new_first_timer() {
    check("race_3_one_level", 3, || {
        let world = World::new(2, 2, &[0]);
        let threads = [act(&world, |world| world.arm(1, 10))];
        world.sleep(0, None);
        finish(&world, threads);
    });
    check("race_3_two_levels", 3, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.sleep(0, None);
        finish(&world, threads);
    });
    check("race_3_two_timers", 2, || {
        let world = World::new(4, 4, &[0]);
        let threads =
            [act(&world, |world| world.arm(2, 10)), act(&world, |world| world.arm(3, 5))];
        world.sleep(0, None);
        finish(&world, threads);
    });
}

#[test]
fn race_5_growth_meets_those_who_come_and_go() {
    check("race_5_growth", 2, || {
        let world = World::new(8, 4, &[0, 2]);
        let threads = [act(&world, |world| world.sleep(2, Some(10)))];
        let _ = world.tree.prepare(Slot(4), 0, Slot(0)).map(|notices| world.tell(notices)).unwrap();
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
    check("race_5_two_growths", 2, || {
        let world = World::new(4, 2, &[0, 1]);
        let threads = [act(&world, |world| {
            let notices = world.tree.prepare(Slot(3), 0, Slot(1)).unwrap();
            world.tell(notices);
            world.sleep(1, Some(10));
        })];
        let notices = world.tree.prepare(Slot(2), 0, Slot(0)).unwrap();
        world.tell(notices);
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_10_the_first_to_go_idle_queues_after_the_last_has_passed() {
    check("race_10_siblings", 3, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads = [act(&world, |world| world.sleep(1, Some(10)))];
        world.sleep(0, None);
        finish(&world, threads);
    });
    check("race_10_cousins", 3, || {
        let world = World::new(8, 5, &[0, 2]);
        let threads = [act(&world, |world| world.sleep(2, Some(10)))];
        world.sleep(0, None);
        finish(&world, threads);
    });
    check("race_10_with_a_return", 2, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads = [
            act(&world, |world| world.sleep(1, Some(10))),
            act(&world, |world| assert!(world.wake(2))),
        ];
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}
