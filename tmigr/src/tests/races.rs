//! The races of the crate's documentation, by their numbers. Race 1 is tested next to the word.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::sync;

const ROUNDS: u64 = 3_000;

/// Two threads start each round at the same moment, as closely as they can.
struct Start(AtomicUsize);

impl Start {
    fn together(&self, round: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
        while self.0.load(Ordering::SeqCst) < 2 * (round as usize + 1) {
            thread::yield_now();
        }
    }
}

/// Whose thread fails lets the other go, so that the failure is seen.
struct LetGo<'a>([&'a Start; 3]);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.iter().for_each(|start| start.0.store(usize::MAX / 2, Ordering::SeqCst));
        }
    }
}

fn in_rounds(one: impl Fn(u64) + Sync, other: impl Fn(u64) + Sync, check: impl Fn(u64) + Sync) {
    let (start, end) = (Start(AtomicUsize::new(0)), Start(AtomicUsize::new(0)));
    let checked = Start(AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = LetGo([&start, &end, &checked]);
            for round in 0..ROUNDS {
                start.together(round);
                other(round);
                end.together(round);
                checked.together(round);
            }
        });
        let _guard = LetGo([&start, &end, &checked]);
        for round in 0..ROUNDS {
            start.together(round);
            one(round);
            end.together(round);
            check(round);
            checked.together(round);
        }
    });
}

#[test]
fn race_2_a_walk_that_meets_growth_goes_on_with_a_mask() {
    let tree = Hierarchy::<2>::new(4, 1).unwrap();
    for slot in 0..2 {
        let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
        let _ = tree.available(Slot(slot), false).unwrap();
    }
    let (_, place) = tree.member(Slot(1)).unwrap();
    let mut walk = tree.path(place);
    let (bottom, _) = walk.next().unwrap();
    assert!(bottom.above().is_none());
    // The walker stalls here; the tree grows above it.
    let _ = tree.prepare(Slot(2), 0, Slot(0)).unwrap();
    let (_, above) = walk.next().unwrap();
    assert_eq!(above.mask, 1);
    assert!(walk.next().is_none());
}

#[test]
fn race_3_one_of_the_last_two_is_told_the_first_expiry() {
    for count in [2, 9] {
        let tree = tree::<8>(count, 1);
        let other = Slot(count - 1);
        let told = [AtomicBool::new(false), AtomicBool::new(false)];
        let expiry = |round: u64| Some(1000 + round);
        in_rounds(
            |_| {
                told[0].store(
                    tree.deactivate(Slot(0), None).unwrap().first.is_some(),
                    Ordering::SeqCst,
                )
            },
            |round| {
                let first = tree.new_timer(other, expiry(round)).unwrap().first;
                told[1].store(first.is_some(), Ordering::SeqCst);
            },
            |round| {
                let somebody = told.iter().any(|told| told.load(Ordering::SeqCst));
                assert!(somebody, "round {round} with {count}");
                let _ = tree.activate(Slot(0)).unwrap();
                let _ = tree.activate(other).unwrap();
                let _ = tree.deactivate(other, None).unwrap();
            },
        );
    }
}

#[test]
fn race_10_an_event_queued_after_the_last_one_has_passed_goes_up() {
    let tree = tree::<2>(5, 1);
    let _ = tree.activate(Slot(2)).unwrap();
    assert_eq!(tree.new_timer(Slot(3), Some(10)).unwrap().first, None);
    let (_, place) = tree.member(Slot(2)).unwrap();
    let group = tree.groups.get(place.group);
    let above = tree.groups.get(group.above().unwrap().group);
    thread::scope(|scope| {
        let stall = group.lock(&None).unwrap();
        let early = scope.spawn(|| tree.deactivate(Slot(2), None).unwrap().first);
        // It has left the group above, and cannot queue its sibling's event there.
        while above.word.load().active() != 1 {
            thread::yield_now();
        }
        assert_eq!(tree.deactivate(Slot(0), None).unwrap().first, None, "it is not there yet");
        drop(stall);
        assert_eq!(early.join().unwrap(), Some(10));
    });
    assert_eq!(tree.responsibility(Slot(2)), Some(10));
}

/// While its timers are expired, the slot runs, arms and goes idle again.
struct RunsMeanwhile<'a> {
    tree: &'a Hierarchy<8>,
    next: Option<u64>,
    by_new_timer: bool,
}

impl Expire for RunsMeanwhile<'_> {
    fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
        if self.by_new_timer {
            assert_eq!(self.tree.new_timer(slot, self.next).unwrap().first, None);
        } else {
            let _ = self.tree.activate(slot).unwrap();
            assert_eq!(self.tree.deactivate(slot, self.next).unwrap().first, None);
        }
        Expired { next: Next::Foreign, stop: false }
    }

    fn release(&mut self, slot: Slot) {
        let state = self.tree.state(slot).unwrap();
        assert!(state.data.try_lock().is_err(), "the slot's lock is held");
    }

    fn notify(&mut self, notice: Notice) {
        unreachable!("{notice:?} concerns the pass itself");
    }
}

#[test]
fn race_4_a_slot_that_ran_meanwhile_is_queued_for_what_it_armed() {
    for by_new_timer in [false, true] {
        // 100 again is the expiry that its event still has.
        for next in [Some(200), Some(101), Some(100), None] {
            let tree = tree::<8>(9, 9);
            assert_eq!(first(&tree, 8, Some(100)), None);
            let mut expire = RunsMeanwhile { tree: &tree, next, by_new_timer };
            let _ = tree.handle_remote(Slot(0), 100, &mut expire);
            let expected = next.map(|at| at.max(101));
            assert_eq!(tree.responsibility(Slot(0)), expected, "{next:?} {by_new_timer}");
            assert!(!sync::lock(&tree.state(Slot(8)).unwrap().data).remote);
        }
    }
}

#[test]
fn race_5_the_tree_grows_while_others_come_and_go() {
    for _ in 0..40 {
        let tree = Hierarchy::<2>::new(64, 1).unwrap();
        for slot in 0..3 {
            let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
            let _ = tree.available(Slot(slot), false).unwrap();
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for slot in 3..64 {
                    let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            let mut round = 0;
            while !done.load(Ordering::SeqCst) {
                for slot in 1..3 {
                    assert_eq!(first(&tree, slot, Some(round + 10)), None, "slot 0 is active");
                }
                for slot in 1..3 {
                    let _ = tree.activate(Slot(slot)).unwrap();
                }
                round += 1;
            }
        });
        let groups = tree.groups();
        assert_eq!(groups.iter().filter(|group| group.parent.is_none()).count(), 1);
        for child in &groups {
            let Some(parent) = child.parent.map(|id| &groups[id as usize]) else { continue };
            let marked = parent.active & child.mask != 0;
            assert_eq!(marked, child.active != 0, "{child:?} in {parent:?}");
        }
    }
}

#[test]
fn race_6_a_notice_reaches_who_arms_at_the_same_moment() {
    let tree = tree::<8>(9, 1);
    let armed = AtomicUsize::new(0);
    let noticed = AtomicBool::new(false);
    let expiry = |round: u64| 1_000_000 - round;
    in_rounds(
        |_| {
            let first = tree.responsibility(Slot(0)).unwrap_or(u64::MAX);
            armed.store(first as usize, Ordering::SeqCst);
        },
        |round| {
            let told = tree.new_timer(Slot(8), Some(expiry(round))).unwrap();
            noticed.store(told.notices.into_iter().next().is_some(), Ordering::SeqCst);
        },
        |round| {
            let knows = armed.load(Ordering::SeqCst) as u64 <= expiry(round);
            assert!(knows || noticed.load(Ordering::SeqCst), "round {round}");
        },
    );
}

#[test]
fn race_6_a_role_handed_over_meets_a_new_first_event() {
    let tree = tree::<8>(9, 2);
    let noticed = AtomicUsize::new(0);
    let expiry = |round: u64| 1_000_000 - round;
    let _ = tree.responsibility(Slot(1));
    let count = |notices: crate::Notices| {
        let mine = notices.into_iter().filter(|notice| notice.slot == Slot(1)).count();
        noticed.fetch_add(mine, Ordering::SeqCst);
    };
    in_rounds(
        |_| count(tree.deactivate(Slot(0), None).unwrap().notices),
        |round| count(tree.new_timer(Slot(8), Some(expiry(round))).unwrap().notices),
        |round| {
            assert!(noticed.swap(0, Ordering::SeqCst) > 0, "round {round}");
            assert_eq!(tree.responsibility(Slot(1)), Some(expiry(round)));
            // Slot 0 becomes the migrator again.
            let _ = tree.activate(Slot(0)).unwrap();
            let _ = tree.deactivate(Slot(1), None).unwrap();
            let _ = tree.activate(Slot(1)).unwrap();
            assert_eq!(tree.responsibility(Slot(1)), None);
        },
    );
}

/// While a slot's timers are expired, it arms one that is due, and another pass comes by.
struct SecondPass<'a> {
    tree: &'a Hierarchy<8>,
    second: Script,
}

impl Expire for SecondPass<'_> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        let _ = self.tree.activate(slot).unwrap();
        let _ = self.tree.deactivate(slot, Some(now)).unwrap();
        let _ = self.tree.handle_remote(Slot(0), now, &mut self.second);
        Expired { next: Next::Foreign, stop: false }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, _notice: Notice) {}
}

#[test]
fn race_4_two_passes_do_not_expire_one_slot_at_once() {
    let tree = tree::<8>(9, 9);
    assert_eq!(first(&tree, 8, Some(100)), None);
    let mut expire = SecondPass { tree: &tree, second: Script::default() };
    let _ = tree.handle_remote(Slot(0), 100, &mut expire);
    assert!(expire.second.expired.is_empty());
    assert_eq!(tree.responsibility(Slot(0)), Some(101), "nor is what it armed lost");
}
