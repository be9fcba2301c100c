//! A slot: the place of one vCPU in the hierarchy.
//!
//! Owns the slot's number and state. Must not know the walks.
//!
//! | field | writers | readers | ordering |
//! |---|---|---|---|
//! | `place`, `node` | growth, once, `node` first | all | release/acquire on `place`, which orders `node`, too |
//! | `data` | under its lock | under its lock | |
//! | `available`, `idle` | under the slot's lock, by the slot's owner | the owner without the lock, everybody under it | release/acquire |
//! | `wakeup` | under the slot's lock: its owner, and a pass that takes the slot's timers | the owner, without the lock | release/acquire; read late it means one needless wakeup |
//! | `marks` | whoever gives the slot up, hands it out, isolates it | all | release/acquire |
//! | `known` | its owner (`responsibility`), and whoever makes it earlier | the same | `SeqCst`, see `notify` |

use std::fmt;

use crate::NEVER;
use crate::arena::GroupId;
use crate::group::Place;
use crate::pool::Marks;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};

/// The number of a slot: the place of one vCPU in the hierarchy, from 0 up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the slot's lock protects.
pub(crate) struct Data {
    /// Somebody is expiring this slot's timers at the moment.
    pub remote: bool,
    /// The vCPU's own next expiry: what a pass re-queues.
    pub own_next: u64,
    /// The expiry that the slot's event got last, queued or not.
    pub event_expires: u64,
}

/// Not prepared.
const NOWHERE: u64 = u64::MAX;
/// Prepared, but there is no hierarchy.
const ALONE: u64 = u64::MAX - 1;

/// A slot: one cache line, of its own.
#[repr(align(64))]
pub(crate) struct SlotState {
    /// The group below the mask, or one of the two above.
    place: AtomicU64,
    pub data: Mutex<Data>,
    available: AtomicBool,
    idle: AtomicBool,
    wakeup: AtomicU64,
    pub known: AtomicU64,
    node: AtomicU32,
    pub marks: Marks,
}

impl SlotState {
    pub(crate) fn new() -> Self {
        SlotState {
            place: AtomicU64::new(NOWHERE),
            data: Mutex::new(Data { remote: false, own_next: NEVER, event_expires: NEVER }),
            available: AtomicBool::new(false),
            idle: AtomicBool::new(true),
            wakeup: AtomicU64::new(NEVER),
            known: AtomicU64::new(NEVER),
            node: AtomicU32::new(0),
            marks: Marks::new(),
        }
    }

    pub(crate) fn prepared(&self) -> bool {
        self.place.load(Ordering::Acquire) != NOWHERE
    }

    /// The node that it was prepared for.
    pub(crate) fn node(&self) -> u32 {
        self.node.load(Ordering::Relaxed)
    }

    /// Publishes the slot's place. Growth does it once.
    pub(crate) fn set_place(&self, place: Option<Place>, node: u32) {
        self.node.store(node, Ordering::Relaxed);
        debug_assert!(!self.prepared(), "a slot is prepared once");
        let word = place
            .map_or(ALONE, |place| u64::from(place.mask) << 32 | u64::from(place.group.bits()));
        self.place.store(word, Ordering::Release);
    }

    pub(crate) fn place(&self) -> Option<Place> {
        let word = self.place.load(Ordering::Acquire);
        (word < ALONE)
            .then_some(Place { group: GroupId::of_bits(word as u32), mask: (word >> 32) as u8 })
    }

    pub(crate) fn available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }

    pub(crate) fn set_available(&self, available: bool) {
        self.available.store(available, Ordering::Release);
    }

    pub(crate) fn idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::Release);
    }

    pub(crate) fn wakeup(&self) -> u64 {
        self.wakeup.load(Ordering::Acquire)
    }

    pub(crate) fn set_wakeup(&self, wakeup: u64) {
        self.wakeup.store(wakeup, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_one_cache_line() {
        assert_eq!(size_of::<SlotState>(), 64);
    }

    #[test]
    fn a_place_is_what_was_published() {
        let state = SlotState::new();
        assert_eq!((state.prepared(), state.place()), (false, None));
        let place = Place { group: GroupId::of_bits(u32::MAX - 1), mask: 0x80 };
        state.set_place(Some(place), 3);
        assert_eq!((state.prepared(), state.place(), state.node()), (true, Some(place), 3));
        let alone = SlotState::new();
        alone.set_place(None, 0);
        assert_eq!((alone.prepared(), alone.place()), (true, None));
    }
}
