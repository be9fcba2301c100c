//! What a slot's owner does: becoming active or idle, a new timer, the forecast.
//!
//! Owns these operations. Must not know how events are queued, or how timers are expired.
//!
//! **Race 1, a late deactivation**: a slot goes idle and stalls between two levels; a sibling
//! comes back and overtakes it above. The stalled exchange fails, as `seq` has moved on, looks at
//! the child again, finds it active and leaves its bit alone.
//!
//! **Race 2, growth under a walk**: the parent is loaded before the mask (`Group::above`), and both
//! are final before they are published, so the walk ends at the old top or goes on with a mask.
//! Ending at the old top is right: whoever grows the tree is active in it throughout.
//!
//! **Race 10, an event that comes after the last one has passed**: a slot goes idle, leaves the
//! group to another child and stalls before it queues its event; the last one goes idle, finds no
//! event and carries nothing upwards. So the word is looked at once more after the event is queued.
//! Does it show somebody active, then that one's exchange comes later, and its lock too: it finds
//! the event. Does it show nobody, then the event is carried upwards like an idle slot's new one.

use crate::events::{Climb, Walk};
use crate::group::{Group, Place};
use crate::slot::{Data, SlotState};
use crate::sync;
use crate::trace::{self, TraceEvent};
use crate::word::Departure;
use crate::{
    Activity, Hierarchy, NEVER, Notices, Slot, SlotError, never_if_none, some_unless_never,
};

/// When a slot that is idle has to be back, and who else has to be told.
#[must_use]
#[derive(Debug, Default)]
pub struct Wakeup {
    /// The expiry, in nanoseconds, that the slot has to be back for; `None`: somebody else cares,
    /// or there is nothing to care for.
    pub first: Option<u64>,
    /// Whose responsibility became earlier.
    pub notices: Notices,
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// An idle slot becomes active; nothing happens if it is not available.
    ///
    /// The owner asks for its `responsibility` before it lets its guest run.
    ///
    /// # Errors
    /// There is no such slot, it is active already, or a lock was not to be had.
    pub fn activate(&self, slot: Slot) -> Result<Notices, SlotError> {
        self.known_state(slot)?;
        let Some((state, place)) = self.member(slot) else {
            return Ok(Notices::default());
        };
        let _data = sync::lock_within(&state.data, &self.patience).ok_or(SlotError::Stuck)?;
        if state.available() {
            needs(slot, state, Activity::Idle)?;
            self.trace(|| TraceEvent::CpuActive(self.slot_trace(slot, place.group)));
            self.activate_locked(state, place);
        }
        Ok(Notices::default())
    }

    /// An active slot becomes idle. `next` is the expiry, in nanoseconds, of its first timer that
    /// needs care meanwhile; `None` if it has none or its own local timer comes first.
    ///
    /// A slot that is not available gets `next` back.
    ///
    /// # Errors
    /// There is no such slot, it is idle already, or a lock was not to be had: then it is active still.
    pub fn deactivate(&self, slot: Slot, next: Option<u64>) -> Result<Wakeup, SlotError> {
        self.known_state(slot)?;
        let Some((state, place)) = self.member(slot) else {
            return Ok(Wakeup { first: next, notices: Notices::default() });
        };
        let mut walk = Walk::new(slot, never_if_none(next));
        {
            let mut data =
                sync::lock_within(&state.data, &self.patience).ok_or(SlotError::Stuck)?;
            needs(slot, state, Activity::Active)?;
            data.own_next = walk.next;
            let group = self.groups.get(place.group);
            if walk.next != NEVER {
                arm(&mut data, group, place, walk.next);
            }
            self.deactivate_locked(group, place, &mut walk);
            if walk.stuck {
                // To others it looks like race 1: a deactivation that was overtaken.
                self.activate_locked(state, place);
                return Err(SlotError::Stuck);
            }
            state.set_wakeup(walk.first);
            state.set_idle(true);
            self.trace(|| TraceEvent::CpuIdle {
                slot: self.slot_trace(slot, place.group),
                nextevt: next,
            });
        }
        Ok(self.wakeup(place, walk))
    }

    /// The first timer of an idle slot is now `next`, in nanoseconds; `None`: it has none, and
    /// what is queued for it stays.
    ///
    /// A slot that is not available gets `next` back.
    ///
    /// # Errors
    /// There is no such slot, it is active, or a lock was not to be had: the timer may be queued or not.
    pub fn new_timer(&self, slot: Slot, next: Option<u64>) -> Result<Wakeup, SlotError> {
        self.known_state(slot)?;
        let Some((state, place)) = self.member(slot) else {
            return Ok(Wakeup { first: next, notices: Notices::default() });
        };
        let mut walk = Walk::new(slot, never_if_none(next));
        {
            let mut data =
                sync::lock_within(&state.data, &self.patience).ok_or(SlotError::Stuck)?;
            needs(slot, state, Activity::Idle)?;
            self.trace(|| TraceEvent::CpuNewTimer(self.slot_trace(slot, place.group)));
            data.own_next = walk.next;
            let group = self.groups.get(place.group);
            let queued = walk.next == data.event_expires && !group.ignores(place.mask);
            if walk.next == NEVER || queued {
                walk.first = state.wakeup();
            } else {
                // While `remote`, the pass queues `own_next` at its end.
                if !data.remote {
                    arm(&mut data, group, place, walk.next);
                    self.update_upwards(place, &mut walk);
                    if walk.stuck {
                        return Err(SlotError::Stuck);
                    }
                }
                state.set_wakeup(walk.first);
                self.trace(|| TraceEvent::CpuNewTimerIdle {
                    slot: self.slot_trace(slot, place.group),
                    nextevt: next,
                });
            }
        }
        Ok(self.wakeup(place, walk))
    }

    /// What `deactivate(slot, next)` would answer, guessed without a lock, for an active slot:
    /// `None` if somebody else would care.
    ///
    /// A slot that is not available gets `next` back.
    ///
    /// # Errors
    /// There is no such slot, or it is idle.
    pub fn quick_check(&self, slot: Slot, next: Option<u64>) -> Result<Option<u64>, SlotError> {
        self.known_state(slot)?;
        let Some((state, place)) = self.member(slot) else {
            return Ok(next);
        };
        needs(slot, state, Activity::Active)?;
        let word = self.groups.get(place.group).word.load();
        if !word.falls_to(place.mask) {
            return Ok(None);
        }
        let mut first = never_if_none(next);
        // An active slot's events are not sorted into the levels above: all of them count.
        for (group, _) in self.path(place) {
            if !group.word.load().lonely() {
                return Ok(None);
            }
            first = first.min(group.next_expiry());
        }
        Ok(some_unless_never(first))
    }

    /// The activation walk of a slot whose lock is held.
    pub(crate) fn activate_locked(&self, state: &SlotState, place: Place) {
        state.set_idle(false);
        state.set_wakeup(NEVER);
        let group = self.groups.get(place.group);
        group.set_ignored(place.mask, true);
        self.activate_upwards(group, place);
    }

    /// Marks a branch active from its place in a group upwards.
    #[inline]
    pub(crate) fn activate_upwards<'a>(&'a self, mut group: &'a Group<FANOUT>, mut place: Place) {
        loop {
            let (word, took) = group.word.activate(place.mask, &group.counters.retries);
            self.trace(move || {
                TraceEvent::GroupSetCpuActive(trace::group_state(group, place, word))
            });
            let Some(above) = group.above() else {
                return;
            };
            // The group's own migrator looks after its events again.
            let parent = self.groups.get(above.group);
            parent.set_ignored(above.mask, true);
            if !took {
                return;
            }
            (group, place) = (parent, above);
        }
    }

    /// The deactivation walk of a slot whose lock is held.
    pub(crate) fn deactivate_locked<'a>(
        &'a self,
        mut group: &'a Group<FANOUT>,
        place: Place,
        walk: &mut Walk,
    ) {
        let mut departure = self.leave(group, place, || true);
        let (mut climb, mut queue) = self.update_from_slot(group, place, walk);
        while departure == Departure::Vacant && !walk.stuck {
            let Some(above) = group.above() else {
                return;
            };
            let child = group;
            group = self.groups.get(above.group);
            departure = self.leave(group, above, || child.word.load().active() == 0);
            (climb, queue) = self.update_from_group(group, above, child, queue, walk);
        }
        if departure == Departure::HandedOver {
            walk.touch(group.level);
        }
        // Race 10: whoever vacated the group since may have passed before the event was there.
        if climb == Climb::Up && group.word.load().active() == 0 {
            self.update_above(group, queue, walk);
        }
    }

    /// Marks a child idle in its group, unless `child_idle` says that it is active again.
    #[inline]
    fn leave(
        &self,
        group: &Group<FANOUT>,
        place: Place,
        child_idle: impl Fn() -> bool,
    ) -> Departure {
        let retries = &group.counters.retries;
        let (word, departure) = group.word.deactivate(place.mask, retries, child_idle);
        self.trace(move || TraceEvent::GroupSetCpuInactive(trace::group_state(group, place, word)));
        departure
    }

    fn wakeup(&self, place: Place, walk: Walk) -> Wakeup {
        let notices = self.notices(place, walk.slot, walk.touched);
        Wakeup { first: some_unless_never(walk.first), notices }
    }
}

/// The slot's event counts from now on, and is about to be queued in its group for `next`.
pub(crate) fn arm<const F: usize>(data: &mut Data, group: &Group<F>, place: Place, next: u64) {
    group.set_ignored(place.mask, false);
    data.event_expires = next;
}

/// Refuses a call that is not for a slot in its state.
fn needs(slot: Slot, state: &SlotState, needed: Activity) -> Result<(), SlotError> {
    let found = if state.idle() { Activity::Idle } else { Activity::Active };
    if found == needed { Ok(()) } else { Err(SlotError::WrongState { slot, found, needed }) }
}
