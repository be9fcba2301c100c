//! Bringing the queues up to date, level by level: the heart of every walk.
//!
//! Owns the rules by which a child's first expiry enters its group's queue. Must not know who
//! walks, or why.
//!
//! Locks: the slot's lock is held by the caller; a child group is locked before its parent. A walk
//! that goes on keeps the lock of the group that it was at, whose first expiry is published by then,
//! until that is queued above: as if nobody had locked the group in between.
//!
//! **Race 3, the last one going idle against a new first event**: the words are read under the
//! locks. A slot going idle has exchanged the word before it locks the group, so whichever of the
//! two locks second sees both the event and the idle word. Both may be told the expiry, which
//! costs a wakeup and loses nothing.

use crate::group::{Counters, Events, Group, Place, index_of};
use crate::queue::Event;
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
}

impl Walk {
    pub(crate) fn new(slot: Slot, next: u64) -> Self {
        Walk { slot, next, remote: false, first: NEVER, touched: 0 }
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

/// A child's event on its way into the group's queue.
struct Offer {
    mask: u8,
    event: Event,
    ignore: bool,
}

/// The group that a walk comes from.
pub(crate) struct Below<'a, const F: usize> {
    pub group: &'a Group<F>,
    /// Its queue, if the walk has locked it.
    events: Option<Events<'a, F>>,
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// Updates the queue of `group` with the event of what the walk came from: the slot itself if
    /// `below` is `None`, else that group. Returns `group` as what the walk goes on from.
    #[inline]
    pub(crate) fn update_events<'a>(
        &self,
        group: &'a Group<FANOUT>,
        below: Option<Below<'a, FANOUT>>,
        place: Place,
        walk: &mut Walk,
    ) -> (Climb, Below<'a, FANOUT>) {
        let child = below.as_ref().map(|below| below.group);
        let (climb, events) = match below {
            None => update_from_slot(group, place, walk),
            Some(below) => update_from_group(group, below, place, walk),
        };
        self.trace(|| updated(group, child, place, walk));
        (climb, Below { group, events })
    }

    /// Walks `update_events` from a slot's place upwards until it is done.
    pub(crate) fn update_upwards(&self, from: Place, walk: &mut Walk) {
        self.update_from(from, None, walk);
    }

    /// Walks `update_events` from a group that is up to date upwards until it is done.
    pub(crate) fn update_above<'a>(&'a self, below: Below<'a, FANOUT>, walk: &mut Walk) {
        if let Some(above) = below.group.above() {
            self.update_from(above, Some(below), walk);
        }
    }

    fn update_from<'a>(&'a self, from: Place, below: Option<Below<'a, FANOUT>>, walk: &mut Walk) {
        let mut last = below;
        for (group, place) in self.path(from) {
            let (climb, below) = self.update_events(group, last, place, walk);
            if climb == Climb::Done {
                return;
            }
            last = Some(below);
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
        child: below.and_then(|_| group.child(place.mask)),
        group: place.group,
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

/// Whether the walk goes on, and the queue of the group that it is at, if that is locked.
type Updated<'a, const F: usize> = (Climb, Option<Events<'a, F>>);

#[inline]
fn update_from_slot<'a, const F: usize>(
    group: &'a Group<F>,
    place: Place,
    walk: &mut Walk,
) -> Updated<'a, F> {
    let ignore = group.ignores(place.mask);
    // The level above cleans up. With no level above, the first event has to be reported.
    if ignore && !walk.remote && group.above().is_some() {
        Counters::count(&group.counters.walks_unlocked);
        return (Climb::Done, None);
    }
    let mut events = group.lock();
    events.count_walk();
    let event = Event { expires: walk.next, slot: walk.slot };
    let offer = Offer { mask: place.mask, event, ignore };
    let climb = settle(group, &mut events, group.word.load(), offer, walk);
    (climb, Some(events))
}

fn update_from_group<'a, const F: usize>(
    group: &'a Group<F>,
    below: Below<'a, F>,
    place: Place,
    walk: &mut Walk,
) -> Updated<'a, F> {
    let child = below.group;
    let mut below = below.events.unwrap_or_else(|| child.lock());
    let mut events = group.lock();
    events.count_walk();
    let word = group.word.load();
    if child.word.load().active() != 0 {
        return (Climb::Done, None);
    }
    let first = below.first().filter(|event| event.expires != NEVER);
    group.set_ignored(place.mask, first.is_none());
    let event = first.unwrap_or(Event { expires: NEVER, slot: walk.slot });
    let offer = Offer { mask: place.mask, event, ignore: first.is_none() };
    // `below` stays locked: what it says must not change before it is queued here.
    let climb = settle(group, &mut events, word, offer, walk);
    (climb, Some(events))
}

#[inline]
fn settle<const F: usize>(
    group: &Group<F>,
    events: &mut Events<'_, F>,
    word: Word,
    offer: Offer,
    walk: &mut Walk,
) -> Climb {
    let mut climb = Climb::Up;
    events.put(index_of(offer.mask), (!offer.ignore).then_some(offer.event));
    // After a remote expiry a queued event of an idle group could be lost without the levels above.
    if offer.ignore && !(walk.remote && word.active() == 0) {
        climb = Climb::Done;
    }
    if word.migrator().is_none() && group.above().is_none() {
        climb = Climb::Done;
        if !walk.remote {
            walk.first = events.first().map_or(NEVER, |event| event.expires);
        }
    }
    if events.publish() {
        walk.touch(group.level);
    }
    climb
}
