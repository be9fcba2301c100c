//! Models of what a remote pass meets.

use super::{World, act, check, finish};

#[test]
fn race_4_a_slot_arms_while_it_is_expired() {
    check(5, || {
        let world = World::new(4, 4, &[0]);
        world.arm(2, 10);
        world.arm(3, 12);
        world.clock.set(10);
        let threads = [act(&world, |world| world.arm(2, 15))];
        world.look(0);
        finish(&world, threads);
    });
}

#[test]
fn race_4_a_sibling_arms_while_a_slot_is_expired() {
    check(5, || {
        let world = World::new(4, 4, &[0]);
        world.arm(2, 10);
        world.clock.set(10);
        let threads = [act(&world, |world| world.arm(3, 11))];
        world.look(0);
        finish(&world, threads);
    });
}

#[test]
fn race_4_two_passes_at_once() {
    check(4, || {
        let world = World::new(4, 4, &[]);
        world.arm(2, 10);
        world.arm(1, 10);
        world.arm(0, 12);
        world.clock.set(10);
        let threads = [act(&world, |world| world.look(2))];
        world.look(1);
        finish(&world, threads);
    });
}

#[test]
fn race_4_a_pass_below_another_migrator() {
    check(4, || {
        let world = World::new(4, 4, &[]);
        world.arm(1, 10);
        world.arm(0, 12);
        assert!(world.wake(2));
        world.clock.set(10);
        let threads = [act(&world, |world| world.look(1))];
        world.look(2);
        finish(&world, threads);
    });
}

#[test]
fn race_4_the_last_one_goes_idle_during_a_pass() {
    check(4, || {
        let world = World::new(4, 4, &[0, 1]);
        world.arm(2, 10);
        world.arm(3, 12);
        world.clock.set(10);
        let threads = [act(&world, |world| {
            world.look(0);
            world.sleep(0, None);
        })];
        world.sleep(1, Some(20));
        finish(&world, threads);
    });
}

#[test]
fn race_7_a_slot_runs_during_a_pass() {
    check(4, || {
        let world = World::new(4, 4, &[0]);
        world.arm(2, 10);
        world.arm(3, 12);
        world.clock.set(10);
        let threads = [act(&world, |world| {
            if world.wake(2) {
                world.sleep(2, Some(15));
            }
        })];
        world.look(0);
        finish(&world, threads);
    });
}

#[test]
fn race_7_a_sibling_comes_during_a_pass() {
    check(4, || {
        let world = World::new(4, 4, &[0]);
        world.arm(2, 10);
        world.clock.set(10);
        let threads = [act(&world, |world| {
            assert!(world.wake(3));
            world.sleep(3, Some(15));
        })];
        world.look(0);
        finish(&world, threads);
    });
}

#[test]
fn race_7_a_keepers_pass_meets_an_activation() {
    check(4, || {
        let world = World::new(4, 4, &[]);
        world.arm(2, 10);
        world.arm(3, 12);
        world.clock.set(10);
        let threads = [act(&world, |world| assert!(world.wake(0)))];
        world.look(2);
        finish(&world, threads);
    });
}
