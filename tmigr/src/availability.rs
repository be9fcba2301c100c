//! Coming into the hierarchy and leaving it.
//!
//! Owns both operations. Must not know what a slot's owner does in between.
//!
//! **Race 9, the last active one leaves**: its deactivation is that of a slot that goes idle, so
//! an event that is queued at the same moment finds it still active, or is found by it (race 3). But
//! it does not stay as the keeper: what it finds it gives to its caller as the `trigger`.

use crate::events::Walk;
use crate::sync::{self, Ordering};
use crate::trace::TraceEvent;
use crate::{Hierarchy, NEVER, Notices, Slot, SlotError, some_unless_never};

/// What taking out a slot brought about.
#[must_use]
#[derive(Debug, Default)]
pub struct Unavailable {
    /// The tree is idle and nobody will be back for the timer of this expiry, in nanoseconds: the
    /// caller makes another available slot active, or has it re-arm, at once.
    pub trigger: Option<u64>,
    /// Whose responsibility became earlier.
    pub notices: Notices,
    /// A lock was not to be had: the slot is available still, and active unless it was idle and its own
    /// lock, or that of all changes, was the one.
    pub stuck: bool,
}

impl Unavailable {
    fn refused() -> Self {
        Unavailable { stuck: true, ..Unavailable::default() }
    }
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// A prepared slot takes part from now on, `idle` (without a timer) or active. Nothing happens
    /// if it is available already.
    ///
    /// # Errors
    /// There is no such slot, it is not prepared, isolated, or given up, or a lock was not to be had.
    pub fn available(&self, slot: Slot, idle: bool) -> Result<Notices, SlotError> {
        let state = self.known_state(slot)?;
        if !state.prepared() {
            return Err(SlotError::NotPrepared(slot));
        }
        if state.marks.isolated.load(Ordering::Acquire) {
            return Err(SlotError::Isolated(slot));
        }
        if state.marks.given_up.load(Ordering::Acquire) {
            return Err(SlotError::GivenUp(slot));
        }
        let Some(place) = state.place() else {
            return Ok(Notices::default());
        };
        let lock = || sync::lock_within(&self.availability, &self.patience);
        let _changes = lock().ok_or(SlotError::Stuck)?;
        let mut data = sync::lock_within(&state.data, &self.patience).ok_or(SlotError::Stuck)?;
        if state.available() {
            return Ok(Notices::default());
        }
        data.own_next = NEVER;
        state.set_idle(idle);
        if !idle {
            self.activate_locked(state, place);
        }
        state.set_available(true);
        self.trace(|| TraceEvent::CpuOnline(self.slot_trace(slot, place.group)));
        self.available.fetch_add(1, Ordering::Relaxed);
        Ok(Notices::default())
    }

    /// A slot leaves: it looks after its own timers, and nobody else's. Nothing happens if it is
    /// not available.
    pub fn unavailable(&self, slot: Slot) -> Unavailable {
        let Some((state, place)) = self.state(slot).and_then(|state| Some((state, state.place()?)))
        else {
            return Unavailable::default();
        };
        let mut walk = Walk::new(slot, NEVER);
        {
            let Some(_changes) = sync::lock_within(&self.availability, &self.patience) else {
                return Unavailable::refused();
            };
            let Some(mut data) = sync::lock_within(&state.data, &self.patience) else {
                return Unavailable::refused();
            };
            if !state.available() {
                return Unavailable::default();
            }
            // An idle one may be the keeper, or its event may stand for its siblings': activated
            // first, it hands all of that on.
            let idle = state.idle();
            if idle {
                self.activate_locked(state, place);
                state.set_idle(true);
            }
            data.own_next = NEVER;
            state.set_available(false);
            state.set_wakeup(NEVER);
            self.deactivate_locked(self.groups.get(place.group), place, &mut walk);
            if walk.stuck {
                state.set_available(true);
                self.activate_locked(state, place);
                return Unavailable::refused();
            }
            self.available.fetch_sub(1, Ordering::Relaxed);
            self.trace(|| TraceEvent::CpuOffline(self.slot_trace(slot, place.group)));
        }
        let notices = self.notices(place, slot, walk.touched);
        Unavailable { trigger: some_unless_never(walk.first), notices, stuck: false }
    }
}
