//! Locks that are not to be had: whoever has them is stopped.

use std::cell::Cell;

use super::*;
use crate::SlotError;
use crate::sync::{self, Patience};

thread_local! {
    /// The lock of that number from now on is not to be had.
    static FAILS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Called by the implementation for each lock; whether this is the one.
pub(crate) fn fails() -> bool {
    FAILS.with(|fails| {
        let left = fails.get();
        fails.set(left.and_then(|left| left.checked_sub(1)));
        left == Some(0)
    })
}

/// Does something with the lock of that number missing. Answers also whether it came to it.
fn without_lock<T>(number: u32, act: impl FnOnce() -> T) -> (T, bool) {
    FAILS.set(Some(number));
    let answer = act();
    (answer, FAILS.replace(None).is_none())
}

struct Impatient;

impl Patience for Impatient {
    fn wait(&self, tries: u32) -> bool {
        tries < 3
    }
}

/// Three levels.
fn impatient(active: u32) -> Hierarchy<2> {
    let mut tree = tree::<2>(7, active);
    tree.set_patience(Box::new(Impatient));
    tree
}

/// Who is active says the same at every level.
fn check<const F: usize>(tree: &Hierarchy<F>, when: &str) {
    let groups = tree.groups();
    let mut active = vec![0_u8; groups.len()];
    for slot in (0..tree.slots.len() as u32).map(Slot) {
        if let Some((group, mask)) = tree.place(slot)
            && tree.is_available(slot)
            && !tree.is_idle(slot)
        {
            active[group as usize] |= mask;
        }
    }
    for level in 0..tree.levels() {
        for group in groups.iter().filter(|group| group.level == level) {
            let wanted = active[group.id as usize];
            assert_eq!(group.active, wanted, "{when}: group {} of level {level}", group.id);
            match group.migrator {
                None => assert_eq!(wanted, 0, "{when}: nobody is migrator of group {}", group.id),
                Some(migrator) => assert!(wanted & migrator != 0, "{when}: group {}", group.id),
            }
            if let Some(parent) = group.parent.filter(|_| wanted != 0) {
                active[parent as usize] |= group.mask;
            }
        }
    }
}

/// The hierarchy answers again: each slot becomes active and idle, and then every timer is served.
fn check_way_back(tree: &Hierarchy<2>, when: &str) {
    assert!(tree.is_sound(), "{when}");
    let count = tree.slots.len() as u32;
    let expiry = |slot: u32| u64::from(1_000 + slot * 10);
    for slot in 0..count {
        let _ = tree.available(Slot(slot), false).unwrap();
        if tree.is_idle(Slot(slot)) {
            let _ = tree.activate(Slot(slot)).unwrap();
        }
        let _ = tree.deactivate(Slot(slot), Some(expiry(slot))).unwrap();
        check(tree, when);
    }
    let server = Slot(count - 1);
    let _ = tree.activate(server).unwrap();
    assert_eq!(tree.responsibility(server), Some(expiry(0)), "{when}");
    let mut script = Script::default();
    let pass = tree.handle_remote(server, 5_000, &mut script);
    assert!(!pass.stuck, "{when}");
    script.expired.sort_unstable();
    assert_eq!(script.expired, (0..count - 1).collect::<Vec<_>>(), "{when}");
}

/// In every state of a small tree: does something with each of its locks missing in turn.
fn each_lock_missing(what: &str, mut act: impl FnMut(&Hierarchy<2>) -> bool) {
    let mut tried = 0;
    for active in 1..=7 {
        for number in 0.. {
            let tree = impatient(active);
            for slot in active..7 {
                let _ = tree.new_timer(Slot(slot), Some(u64::from(100 + slot))).unwrap();
            }
            let when = format!("{what}, {active} active, without lock {number}");
            let (stuck, missed) = without_lock(number, || act(&tree));
            assert_eq!(stuck, missed, "{when}: it says so");
            check(&tree, &when);
            check_way_back(&tree, &when);
            if !missed {
                assert!(number > 0, "{what} takes a lock");
                break;
            }
            tried += 1;
        }
    }
    assert!(tried >= 7, "{what}: {tried}");
}

fn is_stuck<T>(answer: Result<T, SlotError>) -> bool {
    match answer {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error, SlotError::Stuck);
            true
        }
    }
}

#[test]
fn slot_that_cannot_go_idle_is_active_still() {
    each_lock_missing("deactivate", |tree| {
        let stuck = is_stuck(tree.deactivate(Slot(0), Some(40)));
        assert_eq!(tree.is_idle(Slot(0)), !stuck);
        stuck
    });
}

#[test]
fn slot_that_cannot_become_active_is_idle_still() {
    each_lock_missing("activate", |tree| {
        if !tree.is_idle(Slot(6)) {
            let number = FAILS.take();
            let _ = tree.deactivate(Slot(6), Some(7)).unwrap();
            FAILS.set(number);
        }
        let stuck = is_stuck(tree.activate(Slot(6)));
        assert_eq!(tree.is_idle(Slot(6)), stuck);
        stuck
    });
}

#[test]
fn slot_that_cannot_leave_is_available_still() {
    for slot in [0, 6].map(Slot) {
        each_lock_missing("unavailable", |tree| {
            let left = tree.unavailable(slot);
            assert_eq!(tree.is_available(slot), left.stuck);
            left.stuck
        });
        each_lock_missing("give_up", |tree| {
            let stuck = is_stuck(tree.give_up(slot));
            assert_eq!(tree.is_available(slot), stuck);
            // Another owner's, for the way back.
            tree.state(slot).unwrap().marks.given_up.store(false, sync::Ordering::Release);
            stuck
        });
    }
}

#[test]
fn slot_that_cannot_leave_is_not_isolated() {
    each_lock_missing("isolate", |tree| {
        let done = tree.isolate(&[Slot(5)], |_| None);
        let stuck = done.refused.contains(&SlotError::Stuck);
        assert_eq!((tree.is_available(Slot(5)), tree.is_isolated(Slot(5))), (stuck, !stuck));
        // Back again, for the way back.
        let number = FAILS.take();
        let _ = tree.isolate(&[], |_| Some(false));
        FAILS.set(number);
        stuck
    });
}

#[test]
fn slot_that_cannot_come_is_not_available() {
    each_lock_missing("available", |tree| {
        let number = FAILS.take();
        let _ = tree.unavailable(Slot(3));
        FAILS.set(number);
        let stuck = is_stuck(tree.available(Slot(3), false));
        assert_eq!(tree.is_available(Slot(3)), !stuck);
        stuck
    });
}

/// Counts how the slots were given up.
#[derive(Default)]
struct GivenUp {
    expired: Vec<Slot>,
    released: Vec<Slot>,
    abandoned: Vec<Slot>,
}

impl Expire for GivenUp {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        self.expired.push(slot);
        owned(Some(now + 50))
    }

    fn release(&mut self, slot: Slot) {
        self.released.push(slot);
    }

    fn abandon(&mut self, slot: Slot) {
        self.abandoned.push(slot);
    }

    fn notify(&mut self, _notice: Notice) {}
}

#[test]
fn every_slot_that_a_pass_took_is_given_back_queued_or_abandoned() {
    let mut abandoned = 0;
    each_lock_missing("handle_remote", |tree| {
        let mut calls = GivenUp::default();
        let pass = tree.handle_remote(Slot(0), 1_000, &mut calls);
        let returned: Vec<_> = calls.released.iter().chain(&calls.abandoned).copied().collect();
        assert_eq!(returned, calls.expired, "each once, in order");
        assert!(calls.abandoned.len() <= usize::from(pass.stuck));
        assert!(!pass.stuck || pass.stopped);
        abandoned += calls.abandoned.len();
        pass.stuck
    });
    assert!(abandoned > 10, "{abandoned}");
}

#[test]
fn lock_that_is_held_is_given_up_after_as_many_tries_as_allowed_and_had_afterwards() {
    let tree = impatient(2);
    let root = tree.groups().iter().find(|group| group.parent.is_none()).unwrap().id;
    for group in [root, tree.place(Slot(1)).unwrap().0] {
        let id = tree.groups.ids().nth(group as usize).unwrap();
        let stopped = tree.groups.get(id).lock(&None);
        std::thread::scope(|s| {
            s.spawn(|| {
                assert!(!tree.is_sound());
                let _ = tree.deactivate(Slot(0), None);
                assert!(is_stuck(tree.deactivate(Slot(1), Some(40))), "group {group}");
                assert!(!tree.is_idle(Slot(1)));
                if tree.is_idle(Slot(0)) {
                    let _ = tree.activate(Slot(0)).unwrap();
                }
            });
        });
        drop(stopped);
        check_way_back(&tree, "held");
        for slot in 0..2 {
            if tree.is_idle(Slot(slot)) {
                let _ = tree.activate(Slot(slot)).unwrap();
            }
        }
    }
}

#[test]
fn slot_whose_expiry_could_not_be_ended_is_served_again_after_the_stall() {
    /// Whoever has the slot's lock is stopped while the timers are expired.
    struct Stops<'a>(&'a Hierarchy<2>, Option<sync::MutexGuard<'a, crate::slot::Data>>);
    impl Expire for Stops<'_> {
        fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
            self.1 = Some(sync::lock(&self.0.state(slot).unwrap().data));
            Expired { next: Next::Foreign, stop: false }
        }
        fn release(&mut self, _slot: Slot) {
            panic!("nothing was queued");
        }
        fn abandon(&mut self, _slot: Slot) {}
        fn notify(&mut self, _notice: Notice) {}
    }
    let tree = impatient(1);
    let _ = tree.new_timer(Slot(1), Some(100)).unwrap();
    let mut stops = Stops(&tree, None);
    assert!(tree.handle_remote(Slot(0), 100, &mut stops).stuck);
    assert!(!tree.is_sound());
    drop(stops);
    check_way_back(&tree, "unfinished");
}
