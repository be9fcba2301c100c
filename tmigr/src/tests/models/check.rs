//! How a model is run, and what must hold at its end.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use loom::sync::atomic::Ordering::SeqCst;
use loom::thread::{JoinHandle, spawn};

use super::world::World;
use crate::{NEVER, Slot};

/// Runs the body in every order with at most so many preemptions, and says how many orders those
/// were.
pub(super) fn check(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    let counter = runs.clone();
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        body();
    });
    println!("{} executions with up to {bound} preemptions", runs.load(Relaxed));
}

/// A thread that acts in the world.
pub(super) fn act(world: &Rc<World>, act: impl FnOnce(&Rc<World>) + 'static) -> JoinHandle<()> {
    let world = world.clone();
    spawn(move || act(&world))
}

/// Waits for the threads, then checks: the words, that nobody sleeps past its responsibility
/// without having been told, and, by letting the clock run, that no timer is lost or late.
pub(super) fn finish(world: &Rc<World>, threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    words_agree(world);
    if world.triggered.get() {
        let mut there = (0..).filter(|&slot| world.tree.is_available(Slot(slot)));
        assert!(world.wake(there.next().unwrap()), "nobody holds its word");
    }
    everybody_knows(world);
    let before = world.clock.get();
    drain(world);
    assert_eq!(world.fired.get(), world.armed.get(), "since {before}: a timer was lost");
}

fn words_agree(world: &World) {
    let groups = world.tree.groups();
    let active = |id: u32| groups[id as usize].active;
    for group in &groups {
        assert!(group.migrator != Some(0) && group.active < 4, "{group:?}");
        match group.migrator {
            None => assert_eq!(group.active, 0, "{group:?}"),
            Some(bit) => assert!(bit.count_ones() == 1 && group.active & bit != 0, "{group:?}"),
        }
        if let Some(parent) = group.parent {
            assert_eq!(group.mask.count_ones(), 1, "{group:?}");
            let marked = active(parent) & group.mask != 0;
            assert_eq!(marked, group.active != 0, "{group:?} in {:?}", groups[parent as usize]);
        }
    }
    assert_eq!(groups.iter().filter(|group| group.parent.is_none()).count(), 1, "{groups:?}");
    for (state, slot) in world.tree.slots.iter().zip(0..) {
        let Some(place) = state.place() else { continue };
        let runs = state.available() && !world.tree.is_idle(Slot(slot));
        assert_eq!(
            active(place.group.number()) & place.mask != 0,
            runs,
            "slot {slot} in {groups:?}"
        );
    }
}

fn everybody_knows(world: &World) {
    for (member, slot) in world.members.iter().zip(0..) {
        let Some((state, place)) = world.tree.member(Slot(slot)) else { continue };
        let must = if state.idle() { state.wakeup() } else { world.tree.duty(place) };
        let told = member.told.load(SeqCst);
        assert!(told || member.host.get() <= must, "slot {slot} sleeps past {must}");
    }
}

/// Nothing happens but by host timers and notices.
fn drain(world: &Rc<World>) {
    for _ in 0..100 {
        let slots = 0..world.members.len() as u32;
        let there = slots.filter(|&slot| world.tree.is_available(Slot(slot)));
        let when = |slot: u32| match world.member(slot).told.load(SeqCst) {
            true => 0,
            false => world.member(slot).host.get(),
        };
        let Some(next) = there.min_by_key(|&slot| when(slot)).filter(|&s| when(s) != NEVER) else {
            return;
        };
        world.clock.set(world.clock.get().max(when(next)));
        world.look(next);
    }
    panic!("the tree does not come to rest");
}
