//! Models of the notices, and of who leaves.

use super::{World, act, check, finish};

#[test]
fn race_6_a_notice_meets_its_receiver_arming() {
    check("race_6_notice", 3, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.leave(0);
        finish(&world, threads);
    });
}

#[test]
fn race_8_a_role_handed_over_meets_a_new_first_event() {
    check("race_8_in_the_group", 2, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads =
            [act(&world, |world| world.arm(2, 10)), act(&world, |world| world.sleep(0, None))];
        world.leave(1);
        finish(&world, threads);
    });
    check("race_8_at_the_top", 2, || {
        let world = World::new(4, 4, &[0, 2]);
        let threads =
            [act(&world, |world| world.arm(1, 10)), act(&world, |world| world.sleep(0, None))];
        world.leave(2);
        finish(&world, threads);
    });
}

#[test]
fn race_9_the_last_active_one_leaves() {
    check("race_9_against_a_timer", 3, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.leave_tree(0);
        finish(&world, threads);
    });
    check("race_9_against_an_activation", 2, || {
        let world = World::new(4, 4, &[0]);
        world.arm(2, 10);
        let threads = [act(&world, |world| assert!(world.wake(1)))];
        world.leave_tree(0);
        finish(&world, threads);
    });
}
