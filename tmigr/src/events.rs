//! Bringing the queues up to date, level by level: the heart of every walk.
//!
//! Owns the rules by which a child's first expiry enters its group's queue. Must not know who
//! walks, or why.
//!
//! Locks: the slot's lock is held by the caller; a child group is locked before its parent. A walk
//! that goes on keeps the lock of the group that it was at, whose first expiry is published by then,
//! until that is queued above: as if nobody had locked the group in between.
//!
//! What a step of a walk hands to the next has to stay in registers: where it is written to memory in
//! parts and read back as a whole, the processor waits longer than for all else that a level costs.
//! So the steps are always inlined, and what the trace sees is copied, not lent.
//!
//! **Race 3, the last one going idle against a new first event**: the words are read under the
//! locks. A slot going idle has exchanged the word before it locks the group, so whichever of the
//! two locks second sees both the event and the idle word. Both may be told the expiry, which
//! costs a wakeup and loses nothing.

use crate::arena::GroupId;
use crate::group::{Counters, Group, Locked, Place, index_of};
use crate::queue::{Event, Queue};
use crate::trace::TraceEvent;
use crate::word::Word;
use crate::{Hierarchy, NEVER, Slot, some_unless_never};

/// What a walk carries upwards and brings back.
pub(crate) struct Walk {
    /// The slot that it starts from.
    pub slot: Slot,
    /// The slot's expiry.
    pub next: u64,
    /// It belongs to a remote pass.
    pub remote: bool,
    /// The result: the first expiry of an idle tree.
    pub first: u64,
    /// The levels, as bits, where somebody else may have become responsible for more.
    pub touched: u64,
    /// A lock was not to be had: the walk has ended before its time.
    pub stuck: bool,
}

impl Walk {
    pub(crate) fn new(slot: Slot, next: u64) -> Self {
        Walk { slot, next, remote: false, first: NEVER, touched: 0, stuck: false }
    }

    pub(crate) fn touch(&mut self, level: u32) {
        self.touched |= 1 << level;
    }
}

/// Whether the walk has to go on.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Climb {
    Up,
    Done,
}

/// Whether the walk goes on, and the queue that it goes on from, if it has locked that.
type Updated<'a, const F: usize> = (Climb, Option<Locked<'a, F>>);

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// Updates the queue of `group` with the event of the slot that the walk starts from.
    #[inline(always)]
    pub(crate) fn update_from_slot<'a>(
        &self,
        group: &'a Group<FANOUT>,
        place: Place,
        walk: &mut Walk,
    ) -> Updated<'a, FANOUT> {
        let ignore = group.ignores(place.mask);
        // The level above cleans up. With no level above, the first event has to be reported.
        if ignore && !walk.remote && group.above().is_some() {
            Counters::count(&group.counters.walks_unlocked);
            self.trace(move || updated(group, None, place, walk));
            return (Climb::Done, None);
        }
        let Some(mut queue) = group.lock_for_walk(&self.patience) else {
            walk.stuck = true;
            return (Climb::Done, None);
        };
        let event = (!ignore).then_some(Event { expires: walk.next, slot: walk.slot });
        let word = group.word.load();
        queue.put(index_of(place.mask), event);
        let climb = settle(group, &mut queue, word, event.is_some(), walk);
        self.trace(move || updated(group, None, place, walk));
        (climb, Some(queue))
    }

    /// Updates the queue of `group` with the first event of `child`, whose queue is `below` if the
    /// walk has locked it.
    #[inline(always)]
    pub(crate) fn update_from_group<'a>(
        &self,
        group: &'a Group<FANOUT>,
        place: Place,
        child: &Group<FANOUT>,
        below: Option<Locked<'_, FANOUT>>,
        walk: &mut Walk,
    ) -> Updated<'a, FANOUT> {
        let Some(mut below) = below.or_else(|| child.lock(&self.patience)) else {
            walk.stuck = true;
            return (Climb::Done, None);
        };
        let Some(mut queue) = group.lock_for_walk(&self.patience) else {
            walk.stuck = true;
            return (Climb::Done, None);
        };
        let word = group.word.load();
        if child.word.load().active() != 0 {
            drop((queue, below));
            self.trace(move || updated(group, Some(child), place, walk));
            return (Climb::Done, None);
        }
        let first = child.first(&mut below).filter(|event| event.expires != NEVER);
        group.set_ignored(place.mask, first.is_none());
        // `below` stays locked: what it says must not change before it is queued here.
        queue.put(index_of(place.mask), first);
        let climb = settle(group, &mut queue, word, first.is_some(), walk);
        child.publish(&below);
        drop(below);
        self.trace(move || updated(group, Some(child), place, walk));
        (climb, Some(queue))
    }

    /// Updates the queues from a slot's place upwards until it is done.
    pub(crate) fn update_upwards(&self, from: Place, walk: &mut Walk) {
        let group = self.groups.get(from.group);
        let (climb, queue) = self.update_from_slot(group, from, walk);
        if climb == Climb::Up {
            self.update_above(group, queue, walk);
        }
    }

    /// Updates the queues above a group that is up to date until it is done.
    #[inline(never)]
    pub(crate) fn update_above<'a>(
        &'a self,
        mut child: &'a Group<FANOUT>,
        mut queue: Option<Locked<'a, FANOUT>>,
        walk: &mut Walk,
    ) {
        while let Some(above) = child.above() {
            let group = self.groups.get(above.group);
            let (climb, here) = self.update_from_group(group, above, child, queue, walk);
            if climb == Climb::Done {
                return;
            }
            (child, queue) = (group, here);
        }
    }
}

fn updated<const F: usize>(
    group: &Group<F>,
    below: Option<&Group<F>>,
    place: Place,
    walk: &Walk,
) -> TraceEvent {
    let expiry = below.map_or(walk.next, Group::next_expiry);
    TraceEvent::UpdateEvents {
        child: below
            .and_then(|_| group.child(place.mask))
            .map(|child| GroupId::of_bits(child).number()),
        group: place.group.number(),
        child_lvl: below.map_or(0, |child| child.level),
        group_lvl: group.level,
        nextevt: some_unless_never(walk.first),
        group_next_expiry: some_unless_never(group.next_expiry()),
        child_evt_expiry: some_unless_never(expiry),
        child_evtcpu: walk.slot.0,
        child_active: below.map_or(0, |child| child.word.load().active()),
        group_active: group.word.load().active(),
    }
}

/// What follows from a child's event that was `queued`, or else taken out, under the group's lock.
#[inline(always)]
fn settle<const F: usize>(
    group: &Group<F>,
    queue: &mut Queue<F>,
    word: Word,
    queued: bool,
    walk: &mut Walk,
) -> Climb {
    let mut climb = Climb::Up;
    // After a remote expiry a queued event of an idle group could be lost without the levels above.
    let above_knows = !walk.remote || word.active() != 0;
    if !queued && above_knows {
        climb = Climb::Done;
    }
    if word.migrator().is_none() && group.above().is_none() {
        climb = Climb::Done;
        if !walk.remote {
            walk.first = group.first(queue).map_or(NEVER, |event| event.expires);
        }
    }
    if group.publish(queue) {
        walk.touch(group.level);
    }
    climb
}
