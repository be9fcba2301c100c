//! A group: one node of the tree.
//!
//! Owns what a group is made of and how each part may be touched. Must not know the walks.
//!
//! | field | writers | readers | ordering |
//! |---|---|---|---|
//! | `word` | walks, by exchange, no lock | all | see `word` |
//! | `next_expiry` | under the group's lock: when all is done to the queue, and once more, only later, where a climbing walk has cleaned its front | all | `SeqCst` where it becomes earlier, see `notify`, else release |
//! | `ignored` | one for each child; set by activations without a lock; cleared under the lock of this group, or for a slot's event of the slot | under this group's lock, or the slot's | relaxed: the flag itself is all that is read, and both sides of a race are right |
//! | `parent` | growth, once | all | release, pairs with the acquire of whoever goes up; the last to be written of a branch |
//! | `mask` | growth, before `parent` | after `parent` was loaded | relaxed, ordered by `parent` |
//! | `children` | growth, before the child's `parent` | after the child's bit was seen in `word` | relaxed, ordered by `parent` and `word` |
//! | `occupied` | growth | growth, views | relaxed, under the growth mutex |
//! | `counters` | walks and passes; `walks_locked` and `locks` under the group's lock | views | relaxed: statistics |

use crate::NEVER;
use crate::arena::GroupId;
use crate::queue::{Event, Queue};
use crate::sync::{
    self, AtomicBool, AtomicU8, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, Tally, Waiting,
};
use crate::word::AtomicWord;

/// Where a child is: its group and its place there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub group: GroupId,
    /// One bit.
    pub mask: u8,
}

/// The index of a child from its mask, which has one bit.
pub(crate) fn index_of(mask: u8) -> usize {
    mask.trailing_zeros() as usize
}

/// What happened at a group, for the reports.
#[derive(Default)]
pub(crate) struct Counters {
    /// Walks that turned back without taking the lock.
    pub walks_unlocked: Tally,
    /// The others, each with one lock.
    pub walks_locked: Tally,
    /// All other locks.
    pub locks: Tally,
    pub passes: Tally,
    pub expiries: Tally,
    pub retries: Tally,
}

impl Counters {
    pub(crate) fn count(counter: &Tally) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The same for a counter that is written under a lock only: no exchange is needed.
    fn count_locked(counter: &Tally) {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// A group. What an activation touches is in the first line, with what the other walks begin with:
/// two walks that meet in a group pass each other as few lines as possible.
#[repr(C)]
pub(crate) struct Group<const FANOUT: usize> {
    pub word: AtomicWord,
    parent: AtomicU32,
    next_expiry: AtomicU64,
    /// Flags of their own, not bits of one: setting them takes no exchange.
    ignored: [AtomicBool; FANOUT],
    mask: AtomicU8,
    occupied: AtomicU8,
    pub level: u32,
    queue: Mutex<Queue<FANOUT>>,
    pub counters: Counters,
    children: [AtomicU32; FANOUT],
    pub node: Option<u32>,
}

impl<const FANOUT: usize> Group<FANOUT> {
    /// A group without children. One that is made as a top has its mask from the beginning, and
    /// may have `reserved` places, for an old root.
    pub(crate) fn new(level: u32, node: Option<u32>, top: bool, reserved: u8) -> Self {
        Group {
            level,
            node,
            word: AtomicWord::new(),
            next_expiry: AtomicU64::new(NEVER),
            ignored: std::array::from_fn(|_| AtomicBool::new(true)),
            mask: AtomicU8::new(u8::from(top)),
            parent: AtomicU32::new(GroupId::NOBODY),
            queue: Mutex::new(Queue::new()),
            children: std::array::from_fn(|_| AtomicU32::new(0)),
            occupied: AtomicU8::new(reserved),
            counters: Counters::default(),
        }
    }

    /// The first expiry as last stored: it may be too early, never too late.
    pub(crate) fn next_expiry(&self) -> u64 {
        self.next_expiry.load(Ordering::SeqCst)
    }

    /// The place of this group in its parent. The parent is read before the mask, which is final
    /// by then: a walker never carries a mask of 0 upwards.
    pub(crate) fn above(&self) -> Option<Place> {
        let group = self.parent.load(Ordering::Acquire);
        (group != GroupId::NOBODY)
            .then(|| Place { group: GroupId::of_bits(group), mask: self.mask() })
    }

    /// The mask in the parent, which counts once there is a parent.
    pub(crate) fn mask(&self) -> u8 {
        self.mask.load(Ordering::Relaxed)
    }

    /// Makes `place` this group's parent and place, for everybody to see.
    pub(crate) fn publish_above(&self, place: Place) {
        self.mask.store(place.mask, Ordering::Relaxed);
        #[cfg(all(test, not(loom)))]
        crate::tests::steps::before_publish();
        self.parent.store(place.group.bits(), Ordering::Release);
    }

    /// How many places are taken.
    pub(crate) fn occupied(&self) -> u8 {
        self.occupied.load(Ordering::Relaxed)
    }

    /// Whether another child fits in.
    pub(crate) fn has_room(&self) -> bool {
        usize::from(self.occupied()) < FANOUT
    }

    /// Takes the next free place and returns its mask.
    pub(crate) fn occupy(&self) -> u8 {
        let place = self.occupied.fetch_add(1, Ordering::Relaxed);
        debug_assert!(usize::from(place) < FANOUT, "the plan saw room");
        1 << place
    }

    /// Names the child behind a mask: a slot's number at level 0, a group's name above.
    pub(crate) fn name_child(&self, mask: u8, child: u32) {
        self.children[index_of(mask)].store(child, Ordering::Relaxed);
    }

    /// The child behind a mask that was seen in the word.
    pub(crate) fn child(&self, mask: u8) -> Option<u32> {
        Some(self.children.get(index_of(mask))?.load(Ordering::Relaxed))
    }

    /// Whether the child's event is to be ignored.
    pub(crate) fn ignores(&self, mask: u8) -> bool {
        self.ignores_child(index_of(mask))
    }

    fn ignores_child(&self, child: usize) -> bool {
        self.ignored.get(child).is_none_or(|ignored| ignored.load(Ordering::Relaxed))
    }

    /// Says whether the child's event is to be ignored.
    pub(crate) fn set_ignored(&self, mask: u8, ignore: bool) {
        if self.ignores(mask) != ignore {
            self.ignored[index_of(mask)].store(ignore, Ordering::Relaxed);
        }
    }

    /// Locks the queue. Whoever changes it publishes what became of its first expiry. `None`: the lock was
    /// not to be had.
    pub(crate) fn lock(&self, waiting: &Waiting) -> Option<Locked<'_, FANOUT>> {
        self.lock_and_count(&self.counters.locks, waiting)
    }

    /// The same for a walk that has come this far.
    #[inline]
    pub(crate) fn lock_for_walk(&self, waiting: &Waiting) -> Option<Locked<'_, FANOUT>> {
        self.lock_and_count(&self.counters.walks_locked, waiting)
    }

    /// Whether nobody has the lock.
    pub(crate) fn is_free(&self) -> bool {
        sync::is_free(&self.queue)
    }

    #[inline]
    fn lock_and_count(&self, counter: &Tally, waiting: &Waiting) -> Option<Locked<'_, FANOUT>> {
        #[cfg(test)]
        LOCKS.with(|locks| locks.set(locks.get() + 1));
        let queue = sync::lock_within(&self.queue, waiting)?;
        Counters::count_locked(counter);
        Some(queue)
    }

    /// The first event that counts of this group's queue; ignored ones before it are dropped.
    #[inline]
    pub(crate) fn first(&self, queue: &mut Queue<FANOUT>) -> Option<Event> {
        queue.first(|child| self.ignores_child(child))
    }

    /// Takes out the first event that counts of this group's queue, if it is due.
    pub(crate) fn take_expired(&self, queue: &mut Queue<FANOUT>, now: u64) -> Option<Event> {
        let due = queue.take_expired(now, |child| self.ignores_child(child));
        self.publish(queue);
        due
    }

    /// Publishes what became of the first expiry; true if it became earlier. Done when all is done
    /// to the queue, so a reader without the lock sees no state that is too late.
    #[inline]
    pub(crate) fn publish(&self, queue: &Queue<FANOUT>) -> bool {
        let next = queue.next_expiry();
        let published = self.next_expiry.load(Ordering::Relaxed);
        if next < published {
            self.next_expiry.store(next, Ordering::SeqCst);
        } else if next > published {
            // The usual case, as time goes on. Who still reads the earlier one wakes needlessly.
            self.next_expiry.store(next, Ordering::Release);
        }
        next < published
    }
}

/// The locked queue of a group.
pub(crate) type Locked<'a, const F: usize> = MutexGuard<'a, Queue<F>>;

#[cfg(test)]
thread_local! {
    /// How often this thread has locked a group.
    pub(crate) static LOCKS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn an_activation_touches_one_line_of_a_group() {
        let ends = [
            offset_of!(Group<8>, word) + size_of::<AtomicWord>(),
            offset_of!(Group<8>, parent) + size_of::<AtomicU32>(),
            offset_of!(Group<8>, ignored) + size_of::<[AtomicBool; 8]>(),
            offset_of!(Group<8>, mask) + size_of::<AtomicU8>(),
        ];
        assert!(ends.iter().all(|&end| end <= 64), "{ends:?}");
    }
}
