//! The remote pass: expiring the timers of idle slots.
//!
//! Owns the pass. Must not know how timers are expired: the caller's `Expire` does that.
//!
//! **The pass always ends.** What it re-queues, it re-queues for after its own `now`: a timer that
//! is due again already waits for the next pass, one nanosecond later, behind everything that is
//! due in this one. So a pass takes nothing twice, and nobody starves behind a slot that keeps
//! arming in the past. Where this stands as the first expiry, it is the pass's responsibility.
//!
//! **Race 4, a slot that runs while its timers are expired**: between the hand-off to the caller and
//! the end of it the slot may have become active, armed other timers and gone idle again. So the
//! value that is re-queued is the slot's own next expiry, as its owner told it last, read under the
//! slot's lock in the critical section that ends `remote`.
//!
//! **Race 7, an activation during a pass**: the event was taken from the queue before the slot, or
//! a sibling, became active. Whether the slot is idle is asked under its lock, both before its
//! timers are expired and before it is queued again: if it is not, its owner looks after them. That
//! its group is active is seen under the groups' locks, as in race 3: then the group's own
//! migrator is told of the event, and nothing goes up.

use crate::events::Walk;
use crate::group::{Counters, Group, Place};
use crate::notify::Notice;
use crate::sync;
use crate::trace::TraceEvent;
use crate::walk::arm;
use crate::{Hierarchy, NEVER, Slot, never_if_none, some_unless_never};

/// What the caller of a remote pass does for it.
pub trait Expire {
    /// Expires the timers of `slot` that are due at `now`, in nanoseconds. No lock is held. Called
    /// for the pass's own slot, too, if that is idle and its event is due; its due timers were
    /// expired before.
    fn expire(&mut self, slot: Slot, now: u64) -> Expired;

    /// Gives up whatever protects the timers of `slot`. Called once after each `expire`, with the
    /// slot's lock held, in the critical section that re-queues the slot: it must not call the
    /// hierarchy.
    fn release(&mut self, slot: Slot);

    /// Instead of [`Expire::release`] where a lock was not to be had: nothing is queued for the slot, and
    /// whoever gets its timers has to look at them. Its lock may be held or not.
    fn abandon(&mut self, slot: Slot) {
        self.release(slot);
    }

    /// Somebody else's responsibility became earlier. No lock is held.
    fn notify(&mut self, notice: Notice);
}

/// What became of a slot's timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expired {
    /// What is to be queued for the slot.
    pub next: Next,
    /// The pass ends after this slot. The rest stays queued and becomes responsibility.
    pub stop: bool,
}

/// The slot's first timer after `expire`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The callee owns the slot until `release`; this is its first timer, in nanoseconds (`None`:
    /// it has none, or its own local timer comes first).
    Owned(Option<u64>),
    /// Somebody else owns it and looks at its timers: what it told the hierarchy since is queued.
    Foreign,
}

/// How a remote pass ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pass {
    /// The expiry, in nanoseconds, that the slot has to be back for if it is idle. It is stored
    /// for an active slot, too, where it says nothing.
    pub wakeup: Option<u64>,
    /// `Expired::stop` ended it, or `stuck`.
    pub stopped: bool,
    /// A lock was not to be had ([`Hierarchy::set_patience`]).
    pub stuck: bool,
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// Whether a pass has something to do at `now`, in nanoseconds: cheap, without a lock.
    #[must_use]
    pub fn requires_handle_remote(&self, slot: Slot, now: u64) -> bool {
        let Some((state, place)) = self.member(slot) else {
            return false;
        };
        if state.idle() {
            return now >= state.wakeup();
        }
        self.path(place)
            .take_while(|(group, place)| group.word.load().falls_to(place.mask))
            .any(|(group, _)| group.next_expiry() <= now)
    }

    /// Expires what is due at `now`, in nanoseconds, in the groups that fall to the slot. The
    /// slot's own due timers were expired before, by the same `now`.
    pub fn handle_remote<E: Expire>(&self, slot: Slot, now: u64, expire: &mut E) -> Pass {
        let stored = |stopped, stuck| Pass {
            wakeup: self.state(slot).and_then(|state| some_unless_never(state.wakeup())),
            stopped,
            stuck,
        };
        let Some((state, place)) = self.member(slot) else {
            return stored(false, false);
        };
        let mine = self.groups.get(place.group).word.load().falls_to(place.mask);
        if !mine && state.wakeup() == NEVER {
            return stored(false, false);
        }
        // An event for `NEVER` is not due, whatever the clock says.
        let now = now.min(NEVER - 1);
        let mut pass = Run { by: slot, now, first: NEVER, stopped: false, stuck: false };
        for (group, place) in self.path(place) {
            if !self.work_through(group, place, &mut pass, expire) {
                break;
            }
        }
        if !pass.stuck {
            match sync::lock_within(&state.data, &self.patience) {
                Some(_data) => state.set_wakeup(pass.first),
                None => pass.stuck = true,
            }
        }
        stored(pass.stopped || pass.stuck, pass.stuck)
    }

    /// Works through one level; false: it is looked after by somebody else.
    fn work_through<E: Expire>(
        &self,
        group: &Group<FANOUT>,
        place: Place,
        pass: &mut Run,
        expire: &mut E,
    ) -> bool {
        let mut counted = false;
        loop {
            if !group.word.load().falls_to(place.mask) {
                return false;
            }
            if pass.stopped {
                // Whoever comes back must come for the earliest of what was left.
                pass.first = pass.first.min(group.next_expiry());
                return true;
            }
            if !counted {
                Counters::count(&group.counters.passes);
                let (group, lvl) = (place.group.number(), group.level);
                self.trace(|| TraceEvent::HandleRemote { group, lvl });
                counted = true;
            }
            let Some(mut queue) = group.lock(&self.patience) else {
                pass.stuck = true;
                return false;
            };
            let Some(event) = group.take_expired(&mut queue, pass.now) else {
                pass.first = queue.next_expiry();
                return true;
            };
            drop(queue);
            Counters::count(&group.counters.expiries);
            let stop = self.expire_slot(event.slot, pass, expire);
            if pass.stuck {
                return false;
            }
            if stop {
                pass.stopped = true;
                pass.first = NEVER;
            }
        }
    }

    /// Has the timers of a slot expired and queues what is left; true: the pass shall stop.
    fn expire_slot<E: Expire>(&self, slot: Slot, pass: &mut Run, expire: &mut E) -> bool {
        let Some(state) = self.state(slot) else {
            return false;
        };
        let Some(place) = state.place() else {
            return false;
        };
        {
            let Some(mut data) = sync::lock_within(&state.data, &self.patience) else {
                pass.stuck = true;
                return false;
            };
            let ignored = self.groups.get(place.group).ignores(place.mask);
            if !state.available() || data.remote || ignored || pass.now < data.event_expires {
                return false;
            }
            data.remote = true;
            data.own_next = NEVER;
            state.set_wakeup(NEVER);
            self.trace(|| TraceEvent::HandleRemoteCpu(self.slot_trace(slot, place.group)));
        }
        let expired = expire.expire(slot, pass.now);
        let mut walk = Walk::new(slot, NEVER);
        walk.remote = true;
        {
            let Some(mut data) = sync::lock_within(&state.data, &self.patience) else {
                pass.stuck = true;
                sync::lock(&self.unfinished).push(slot);
                expire.abandon(slot);
                return true;
            };
            if let Next::Owned(next) = expired.next {
                data.own_next = never_if_none(next);
            }
            if state.available() && state.idle() {
                walk.next = data.own_next.max(pass.now + 1);
                let group = self.groups.get(place.group);
                if walk.next != NEVER {
                    // Its owner may have run it since, which has its event ignored, and armed a
                    // timer that was left to this pass.
                    arm(&mut data, group, place, walk.next);
                } else if !group.ignores(place.mask) {
                    data.event_expires = NEVER;
                }
                self.update_upwards(place, &mut walk);
            }
            if walk.stuck {
                expire.abandon(slot);
            } else {
                expire.release(slot);
            }
            data.remote = false;
        }
        pass.stuck = walk.stuck;
        for notice in self.notices(place, pass.by, walk.touched) {
            expire.notify(notice);
        }
        expired.stop
    }
}

/// A pass under way.
struct Run {
    by: Slot,
    now: u64,
    first: u64,
    stopped: bool,
    stuck: bool,
}
