//! Models of the notices, and of who leaves.

use super::{World, act, check, finish};

#[test]
fn race_6_a_notice_meets_its_receiver_entering_the_guest() {
    check(6, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.leave(0);
        finish(&world, threads);
    });
}

#[test]
fn race_6_two_notices_meet_their_receiver_entering_the_guest() {
    check(3, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10)), act(&world, |world| world.arm(1, 5))];
        world.leave(0);
        finish(&world, threads);
    });
}

#[test]
fn race_6_a_notice_meets_a_receiver_whose_work_is_done() {
    check(5, || {
        let world = World::new(4, 4, &[0]);
        world.arm(1, 5);
        world.leave(0);
        world.clock.set(5);
        let threads = [act(&world, |world| {
            world.arm(2, 10);
            world.arm(3, 7);
        })];
        world.look(0);
        finish(&world, threads);
    });
}

#[test]
fn race_6_a_notice_meets_a_receiver_that_takes_the_role() {
    check(6, || {
        let world = World::new(4, 4, &[]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        assert!(world.wake(0));
        finish(&world, threads);
    });
}

#[test]
fn race_8_a_role_handed_over_in_the_group_meets_a_first_event() {
    check(3, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads =
            [act(&world, |world| world.arm(2, 10)), act(&world, |world| world.sleep(0, None))];
        world.leave(1);
        finish(&world, threads);
    });
}

#[test]
fn race_8_a_role_handed_over_at_the_top_meets_a_first_event() {
    check(3, || {
        let world = World::new(4, 4, &[0, 2]);
        let threads =
            [act(&world, |world| world.arm(1, 10)), act(&world, |world| world.sleep(0, None))];
        world.leave(2);
        finish(&world, threads);
    });
}

#[test]
fn race_9_the_last_active_one_leaves_and_a_timer_is_armed() {
    check(6, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.quit(0);
        finish(&world, threads);
    });
}

#[test]
fn race_9_the_last_active_one_leaves_and_another_comes() {
    check(6, || {
        let world = World::new(4, 4, &[0]);
        world.arm(2, 10);
        let threads = [act(&world, |world| assert!(world.wake(1)))];
        world.quit(0);
        finish(&world, threads);
    });
}

#[test]
fn race_9_the_last_two_leave_and_go_idle() {
    check(3, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads =
            [act(&world, |world| world.sleep(1, Some(10))), act(&world, |world| world.arm(2, 5))];
        world.quit(0);
        finish(&world, threads);
    });
}

#[test]
fn race_9_the_keeper_leaves_and_a_timer_is_armed() {
    check(6, || {
        let world = World::new(4, 4, &[0, 3]);
        world.sleep(3, Some(20));
        world.sleep(0, None);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.quit(0);
        finish(&world, threads);
    });
}

#[test]
fn race_9_the_keeper_leaves_and_so_does_another() {
    check(6, || {
        let world = World::new(4, 4, &[0, 3]);
        world.sleep(3, Some(20));
        world.sleep(0, None);
        let threads = [act(&world, |world| world.quit(1))];
        world.quit(0);
        finish(&world, threads);
    });
}
