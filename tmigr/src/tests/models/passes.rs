//! Models of what a remote pass meets.

use super::{World, act, check, finish};

#[test]
fn race_4_what_a_pass_queues_again() {
    check("race_4_armed_meanwhile", 2, || {
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
fn race_7_activation_during_a_pass() {
    check("race_7_activation", 2, || {
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
