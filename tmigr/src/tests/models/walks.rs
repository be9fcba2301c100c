//! Models of the walks against each other, and against growth.

use super::{World, act, check, finish};

#[test]
fn race_1_a_late_deactivation_meets_a_newer_activation() {
    check(3, || {
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
fn race_1_a_late_deactivation_meets_one_who_comes_and_goes() {
    check(4, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| {
            assert!(world.wake(1));
            world.sleep(1, Some(20));
        })];
        world.sleep(0, Some(10));
        assert!(world.wake(0));
        finish(&world, threads);
    });
}

#[test]
fn race_2_a_walk_meets_a_new_parent() {
    check(4, || {
        let world = World::new(4, 2, &[0, 1]);
        let threads = [act(&world, |world| {
            world.sleep(1, Some(10));
            assert!(world.wake(1));
        })];
        world.grow(2, 0);
        world.sleep(0, Some(30));
        finish(&world, threads);
    });
}

#[test]
fn race_2_the_last_ones_go_idle_below_a_new_parent() {
    check(4, || {
        let world = World::new(4, 2, &[0, 1]);
        let threads = [act(&world, |world| world.sleep(1, Some(10)))];
        world.grow(2, 0);
        world.sleep(0, None);
        world.arm(2, 20);
        finish(&world, threads);
    });
}

#[test]
fn race_3_the_last_one_of_a_single_level_meets_a_first_timer() {
    check(6, || {
        let world = World::new(2, 2, &[0]);
        let threads = [act(&world, |world| world.arm(1, 10))];
        world.sleep(0, None);
        finish(&world, threads);
    });
}

#[test]
fn race_3_the_last_one_meets_a_first_timer() {
    check(6, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.sleep(0, None);
        finish(&world, threads);
    });
}

#[test]
fn race_3_the_last_one_of_three_levels_meets_a_first_timer() {
    check(6, || {
        let world = World::new(8, 5, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10))];
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_3_the_last_one_meets_two_first_timers() {
    check(3, || {
        let world = World::new(4, 4, &[0]);
        let threads = [act(&world, |world| world.arm(2, 10)), act(&world, |world| world.arm(3, 5))];
        world.sleep(0, None);
        finish(&world, threads);
    });
}

#[test]
fn race_5_growth_meets_one_who_goes_idle() {
    check(4, || {
        let world = World::new(8, 4, &[0, 2]);
        let threads = [act(&world, |world| world.sleep(2, Some(10)))];
        world.grow(4, 0);
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_5_growth_meets_one_who_comes() {
    check(4, || {
        let world = World::new(8, 4, &[0]);
        let threads = [act(&world, |world| assert!(world.wake(2)))];
        world.grow(4, 0);
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_5_growth_meets_growth() {
    check(3, || {
        let world = World::new(4, 2, &[0, 1]);
        let threads = [act(&world, |world| {
            world.grow(3, 1);
            world.sleep(1, Some(10));
        })];
        world.grow(2, 0);
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_10_siblings_go_idle_at_once() {
    check(6, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads = [act(&world, |world| world.sleep(1, Some(10)))];
        world.sleep(0, None);
        finish(&world, threads);
    });
}

#[test]
fn race_10_cousins_go_idle_at_once() {
    check(6, || {
        let world = World::new(8, 5, &[0, 2]);
        let threads = [act(&world, |world| world.sleep(2, Some(10)))];
        world.sleep(0, None);
        finish(&world, threads);
    });
}

#[test]
fn race_10_siblings_go_idle_while_another_comes() {
    check(3, || {
        let world = World::new(4, 4, &[0, 1]);
        let threads = [
            act(&world, |world| world.sleep(1, Some(10))),
            act(&world, |world| assert!(world.wake(2))),
        ];
        world.sleep(0, Some(20));
        finish(&world, threads);
    });
}
