//! Handing out slots, and taking them back: vCPUs come and go, groups stay.
//!
//! Owns the list of slots that were given up. Must not know what slots are used for. A slot that
//! is handed out again has its place in the tree already, so a machine whose VMs come and go for
//! years has as many groups as it once needed at the same time.
//!
//! Locks: the pool's mutex is outermost, and not held while a slot is prepared or leaves.

use crate::sync::{self, AtomicBool, Mutex, Ordering};
use crate::{Hierarchy, Notices, PrepareError, Slot, SlotError, Unavailable};

/// The slots that nobody uses.
pub(crate) struct Pool(Mutex<Free>);

#[derive(Default)]
struct Free {
    /// Given up, with the node of each, the latest at the end: its groups are still in the caches.
    given_up: Vec<(Slot, u32)>,
    /// All slots below this one were handed out or prepared at some time.
    fresh: u32,
}

impl Pool {
    /// With room for all slots, as giving one up cannot be refused for want of memory; `None`: the
    /// memory is used up.
    pub(crate) fn new(slots: u32) -> Option<Self> {
        let mut free = Free::default();
        free.given_up.try_reserve_exact(slots as usize).ok()?;
        Some(Pool(Mutex::new(free)))
    }
}

/// Marks of a slot that only change while nobody owns it.
pub(crate) struct Marks {
    pub given_up: AtomicBool,
    pub isolated: AtomicBool,
}

impl Marks {
    pub(crate) fn new() -> Self {
        Marks { given_up: AtomicBool::new(false), isolated: AtomicBool::new(false) }
    }
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// Hands out a slot on the node: one that was given up there, else one that is prepared for
    /// it, by an active slot as [`Hierarchy::prepare`] says. It is not available yet.
    ///
    /// # Errors
    /// See [`PrepareError`]; [`PrepareError::NoSuchSlot`] names the number of slots when all are in
    /// use.
    pub fn acquire(&self, node: u32, by: Slot) -> Result<(Slot, Notices), PrepareError> {
        loop {
            let (slot, used) = self.next_free(node)?;
            if used {
                if let Some(state) = self.state(slot) {
                    state.marks.given_up.store(false, Ordering::Release);
                }
                return Ok((slot, Notices::default()));
            }
            if self.state(slot).is_some_and(|state| state.prepared()) {
                // Prepared by its number before, so it is somebody's.
                continue;
            }
            return match self.prepare(slot, node, by) {
                Ok(notices) => Ok((slot, notices)),
                Err(error) => {
                    let mut free = sync::lock(&self.pool.0);
                    // Nobody else took a fresh one meanwhile, or there is a gap that is lost only
                    // until that one is given up; either way no slot is handed out twice.
                    if free.fresh == slot.0 + 1 {
                        free.fresh = slot.0;
                    }
                    Err(error)
                }
            };
        }
    }

    /// A free slot, and whether it was used before.
    fn next_free(&self, node: u32) -> Result<(Slot, bool), PrepareError> {
        let mut free = sync::lock(&self.pool.0);
        if let Some(at) = free.given_up.iter().rposition(|(_, of)| *of == node) {
            return Ok((free.given_up.swap_remove(at).0, true));
        }
        let slot = Slot(free.fresh);
        if slot.0 as usize >= self.slots.len() {
            return Err(PrepareError::NoSuchSlot(slot));
        }
        free.fresh += 1;
        Ok((slot, false))
    }

    /// The slot leaves, as by [`Hierarchy::unavailable`], and may be handed out again. Its owner
    /// calls this last.
    ///
    /// # Errors
    /// There is no such slot, it was not prepared or was given up before; or another slot's pass is
    /// expiring its timers just now ([`SlotError::Remote`]), or a lock was not to be had
    /// ([`SlotError::Stuck`]): the owner tries again.
    pub fn give_up(&self, slot: Slot) -> Result<Unavailable, SlotError> {
        let state = self.state(slot).ok_or(SlotError::NoSuchSlot(slot))?;
        if !state.prepared() {
            return Err(SlotError::NotPrepared(slot));
        }
        let data = sync::lock_within(&state.data, &self.patience).ok_or(SlotError::Stuck)?;
        if data.remote {
            return Err(SlotError::Remote(slot));
        }
        drop(data);
        if state.marks.given_up.swap(true, Ordering::AcqRel) {
            return Err(SlotError::GivenUp(slot));
        }
        let left = self.unavailable(slot);
        if left.stuck {
            state.marks.given_up.store(false, Ordering::Release);
            return Err(SlotError::Stuck);
        }
        sync::lock(&self.pool.0).given_up.push((slot, state.node()));
        Ok(left)
    }
}
