//! Isolation: slots that neither serve nor are served.
//!
//! Owns the set of isolated slots. Must not know why they are isolated.
//!
//! Calls are serialised by a mutex of their own, outermost. As every availability change is the
//! business of a slot's owner, the caller owns all slots that come or go with the call.

use crate::sync::{self, Ordering};
use crate::{Hierarchy, Notice, Slot, SlotError};

/// What a change of the isolated set brought about.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Isolated {
    /// As [`crate::Unavailable::trigger`], of the last slot that left the tree idle.
    pub trigger: Option<u64>,
    /// Whose responsibility became earlier.
    pub notices: Vec<Notice>,
    /// What could not be done; the rest was.
    pub refused: Vec<SlotError>,
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// Makes `set` the isolated slots. First those that are in it no longer come back, each as by
    /// [`Hierarchy::available`] with the answer of `idle`; then those that are new in it leave, each
    /// as by [`Hierarchy::unavailable`]. Slots that were not available when they were isolated do
    /// not become so by coming back: `idle` answers `None` for them.
    ///
    /// The housekeeper ([`Hierarchy::housekeeper`]) is left in, slots that do not exist or are not
    /// prepared are passed over; both are named in the answer. So is one whose lock is not to be had
    /// ([`SlotError::Stuck`]), which is available still.
    pub fn isolate(&self, set: &[Slot], idle: impl Fn(Slot) -> Option<bool>) -> Isolated {
        let mut done = Isolated::default();
        let mut isolated = sync::lock(&self.isolated);
        let mut wanted = Vec::new();
        for &slot in set {
            match self.may_be_isolated(slot) {
                Ok(()) if !wanted.contains(&slot) => wanted.push(slot),
                Ok(()) => {}
                Err(error) => done.refused.push(error),
            }
        }
        for &slot in isolated.iter().filter(|slot| !wanted.contains(slot)) {
            self.mark_isolated(slot, false);
            match idle(slot).map(|idle| self.available(slot, idle)) {
                Some(Ok(notices)) => done.notices.extend(notices),
                Some(Err(error)) => done.refused.push(error),
                None => {}
            }
        }
        wanted.retain(|&slot| {
            if isolated.contains(&slot) {
                return true;
            }
            let left = self.unavailable(slot);
            if left.stuck {
                done.refused.push(SlotError::Stuck);
                return false;
            }
            self.mark_isolated(slot, true);
            done.notices.extend(left.notices);
            done.trigger = left.trigger.or(done.trigger);
            true
        });
        *isolated = wanted;
        done
    }

    /// Whether the slot is isolated.
    #[must_use]
    pub fn is_isolated(&self, slot: Slot) -> bool {
        self.state(slot).is_some_and(|state| state.marks.isolated.load(Ordering::Acquire))
    }

    /// The slot that keeps the hierarchy alive, as named at its creation.
    #[must_use]
    pub fn housekeeper(&self) -> Option<Slot> {
        self.housekeeper
    }

    fn may_be_isolated(&self, slot: Slot) -> Result<(), SlotError> {
        let state = self.state(slot).ok_or(SlotError::NoSuchSlot(slot))?;
        if self.housekeeper == Some(slot) {
            return Err(SlotError::Housekeeper(slot));
        }
        if state.prepared() { Ok(()) } else { Err(SlotError::NotPrepared(slot)) }
    }

    fn mark_isolated(&self, slot: Slot, isolated: bool) {
        if let Some(state) = self.state(slot) {
            state.marks.isolated.store(isolated, Ordering::Release);
        }
    }
}
