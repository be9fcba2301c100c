//! The hierarchy itself: its parts, and the views of it.
//!
//! Owns the groups, the slots and the serialising mutexes. Must not know how the tree is walked.

use thiserror::Error;

use crate::arena::{Arena, GroupId};
use crate::geometry::Geometry;
use crate::group::{Group, Place};
use crate::growth::Growth;
use crate::pool::Pool;
use crate::slot::SlotState;
use crate::sync::{self, AtomicU32, Mutex, Ordering, Patience, Waiting};
use crate::trace::{Totals, Trace};
use crate::{Slot, SlotError, some_unless_never};

/// Why a hierarchy could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CreateError {
    /// No slots, or more than [`crate::MAX_SLOTS`].
    #[error("a hierarchy cannot have {slots} slots")]
    Slots {
        /// How many were asked for.
        slots: u32,
    },
    /// No nodes.
    #[error("a hierarchy needs at least one node")]
    Nodes,
    /// The memory is used up.
    #[error("no memory for the slots of the hierarchy")]
    NoMemory,
    /// The housekeeper is no slot of the hierarchy.
    #[error("slot {keeper} cannot be housekeeper: there are {slots} slots")]
    Housekeeper {
        /// Who was named.
        keeper: Slot,
        /// How many slots there are.
        slots: u32,
    },
}

/// A tree of groups over the slots of vCPUs. See the crate's documentation.
///
/// `FANOUT`, the most children of a group, is 2, 4 or 8; model checks use 2.
pub struct Hierarchy<const FANOUT: usize = 8> {
    pub(crate) geometry: Geometry,
    pub(crate) groups: Arena<FANOUT>,
    pub(crate) slots: Box<[SlotState]>,
    /// Serialises growth. Outermost.
    pub(crate) growth: Mutex<Growth>,
    /// Serialises availability changes. Outermost.
    pub(crate) availability: Mutex<()>,
    /// How many slots are available. Written under `availability`; growth reads it (relaxed: who
    /// prepares with nobody available is told of a change by whoever made it).
    pub(crate) available: AtomicU32,
    /// The isolated slots; serialises their changes. Outermost.
    pub(crate) isolated: Mutex<Vec<Slot>>,
    pub(crate) housekeeper: Option<Slot>,
    pub(crate) pool: Pool,
    pub(crate) totals: Totals,
    /// How long a slot's owner waits for a lock. Written before anybody else knows the hierarchy.
    pub(crate) patience: Waiting,
    /// Slots whose expiry could not be ended, as their lock was not to be had.
    pub(crate) unfinished: Mutex<Vec<Slot>>,
    pub(crate) trace: Option<Box<dyn Trace>>,
}

/// Work done at the groups of one level, summed up since the creation of the hierarchy.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LevelCounters {
    /// Walks of an expiry up the tree (deactivation, new timer, re-queue) that reached the level.
    pub walks: u64,
    /// How often a group's lock was taken.
    pub locks: u64,
    /// Remote passes that worked through a group of the level.
    pub passes: u64,
    /// Events that a remote pass took from a group of the level.
    pub expiries: u64,
    /// Exchanges of a group's word that had to be tried again.
    pub retries: u64,
}

/// Work done since the creation of the hierarchy.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Statistics {
    /// Notices handed out: each one is a thread to be told.
    pub notices: u64,
    /// By level, the lowest first.
    pub levels: Vec<LevelCounters>,
}

/// The state of a group at some moment, its fields read one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupView {
    /// The number of the group, in order of creation.
    pub id: u32,
    /// Its level, 0 at the bottom.
    pub level: u32,
    /// The node of all its children; `None`: it crosses nodes.
    pub node: Option<u32>,
    /// How many children it has.
    pub children: u8,
    /// Its mask in its parent; 0 as long as it never had one and was not made as a top.
    pub mask: u8,
    /// Its parent's number.
    pub parent: Option<u32>,
    /// The mask of its migrator.
    pub migrator: Option<u8>,
    /// The mask of its active children.
    pub active: u8,
    /// The first expiry as stored, in nanoseconds: it may be too early, never too late.
    pub next: Option<u64>,
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    const FANOUT_IS_SUPPORTED: () = assert!(FANOUT == 2 || FANOUT == 4 || FANOUT == 8);

    /// A hierarchy for `slots` slots (1 to [`crate::MAX_SLOTS`]) on `nodes` NUMA nodes (at least
    /// 1), none of them prepared.
    ///
    /// # Errors
    /// A number is out of range, or the memory does not suffice.
    pub fn new(slots: u32, nodes: u32) -> Result<Self, CreateError> {
        let () = Self::FANOUT_IS_SUPPORTED;
        let geometry = Geometry::new(slots, nodes, FANOUT as u32)?;
        let mut states = Vec::new();
        states.try_reserve_exact(slots as usize).map_err(|_| CreateError::NoMemory)?;
        states.resize_with(slots as usize, SlotState::new);
        Ok(Hierarchy {
            geometry,
            groups: Arena::new(),
            slots: states.into_boxed_slice(),
            growth: Mutex::new(Growth::new(geometry.levels).ok_or(CreateError::NoMemory)?),
            availability: Mutex::new(()),
            available: AtomicU32::new(0),
            isolated: Mutex::new(Vec::new()),
            housekeeper: None,
            pool: Pool::new(slots).ok_or(CreateError::NoMemory)?,
            totals: Totals::default(),
            patience: None,
            unfinished: Mutex::new(Vec::new()),
            trace: None,
        })
    }

    /// The same, with a slot that keeps the hierarchy alive: it cannot be isolated.
    ///
    /// # Errors
    /// As [`Hierarchy::new`]; the housekeeper is no slot of the hierarchy.
    pub fn with_housekeeper(slots: u32, nodes: u32, keeper: Slot) -> Result<Self, CreateError> {
        let mut hierarchy = Self::new(slots, nodes)?;
        if keeper.0 >= slots {
            return Err(CreateError::Housekeeper { keeper, slots });
        }
        hierarchy.housekeeper = Some(keeper);
        Ok(hierarchy)
    }

    /// Slots' owners wait for a lock only as long as `patience` says from now on. Whoever has it may be
    /// stopped, and nobody can take it from him.
    ///
    /// Where a lock was not to be had ([`SlotError::Stuck`], [`crate::Pass::stuck`],
    /// [`crate::Unavailable::stuck`]) who is active and who is idle remains right, but events may be
    /// queued nowhere, and notices are lost. The callers then look after all timers themselves until
    /// [`Hierarchy::is_sound`], and after that each idle slot becomes active and idle once.
    pub fn set_patience(&mut self, patience: Box<dyn Patience>) {
        self.patience = Some(patience);
    }

    /// Whether nobody has a lock that a slot's owner may need, so that it can be relied on again. Ends what
    /// was left undone. It may be outdated by the time it is looked at.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sound = sync::is_free(&self.availability)
            && self.slots.iter().all(|state| sync::is_free(&state.data))
            && self.groups.ids().all(|id| self.groups.get(id).is_free());
        sound && self.finish()
    }

    /// Ends passes that could not queue what they had expired. `false`: a lock was not to be had.
    fn finish(&self) -> bool {
        let Some(mut unfinished) = sync::try_lock(&self.unfinished) else { return false };
        unfinished.retain(|slot| match self.state(*slot) {
            Some(state) => match sync::try_lock(&state.data) {
                Some(mut data) => {
                    data.remote = false;
                    false
                }
                None => true,
            },
            None => false,
        });
        unfinished.is_empty()
    }

    /// The most levels that the tree may grow to; 0: one slot, no hierarchy.
    #[must_use]
    pub fn levels(&self) -> u32 {
        self.geometry.levels
    }

    /// Groups of this level and above have children of several nodes.
    #[must_use]
    pub fn crossnode_level(&self) -> u32 {
        self.geometry.crossnode
    }

    /// Whether the slot takes part in the hierarchy.
    #[must_use]
    pub fn is_available(&self, slot: Slot) -> bool {
        self.state(slot).is_some_and(SlotState::available)
    }

    /// Whether the slot is idle: as told by the last `available`, `activate` or `deactivate`.
    #[must_use]
    pub fn is_idle(&self, slot: Slot) -> bool {
        self.state(slot).is_some_and(SlotState::idle)
    }

    /// Work done so far, by level.
    #[must_use]
    pub fn level_counters(&self) -> Vec<LevelCounters> {
        let mut levels = vec![LevelCounters::default(); self.geometry.levels as usize];
        for id in self.groups.ids() {
            let group = self.groups.get(id);
            let sum = &mut levels[group.level as usize];
            let counters = &group.counters;
            let walks_locked = counters.walks_locked.load(Ordering::Relaxed);
            sum.walks += counters.walks_unlocked.load(Ordering::Relaxed) + walks_locked;
            sum.locks += counters.locks.load(Ordering::Relaxed) + walks_locked;
            sum.passes += counters.passes.load(Ordering::Relaxed);
            sum.expiries += counters.expiries.load(Ordering::Relaxed);
            sum.retries += counters.retries.load(Ordering::Relaxed);
        }
        levels
    }

    /// Work done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            notices: self.totals.notices.load(Ordering::Relaxed),
            levels: self.level_counters(),
        }
    }

    /// All groups, in order of creation.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupView> {
        self.groups.ids().map(|id| self.view(id)).collect()
    }

    /// Where a slot that takes part or did hangs: the number of its group, and its mask there.
    #[must_use]
    pub fn place(&self, slot: Slot) -> Option<(u32, u8)> {
        let place = self.state(slot)?.place()?;
        Some((place.group.number(), place.mask))
    }

    fn view(&self, id: GroupId) -> GroupView {
        let group = self.groups.get(id);
        let word = group.word.load();
        GroupView {
            id: id.number(),
            level: group.level,
            node: group.node,
            children: group.occupied(),
            mask: group.mask(),
            parent: group.above().map(|place| place.group.number()),
            migrator: word.migrator(),
            active: word.active(),
            next: some_unless_never(group.next_expiry()),
        }
    }

    pub(crate) fn state(&self, slot: Slot) -> Option<&SlotState> {
        self.slots.get(slot.0 as usize)
    }

    /// The state of a slot, or that there is none.
    pub(crate) fn known_state(&self, slot: Slot) -> Result<&SlotState, SlotError> {
        self.state(slot).ok_or(SlotError::NoSuchSlot(slot))
    }

    /// The state and place of a slot that takes part.
    pub(crate) fn member(&self, slot: Slot) -> Option<(&SlotState, Place)> {
        let state = self.state(slot).filter(|state| state.available())?;
        Some((state, state.place()?))
    }

    /// The groups from a place up to the root, each with the mask of the branch in it. The way up
    /// is looked for when the next group is asked for, after what was done at the last.
    pub(crate) fn path(&self, from: Place) -> impl Iterator<Item = (&Group<FANOUT>, Place)> {
        let mut last: Option<&Group<FANOUT>> = None;
        std::iter::from_fn(move || {
            let place = match last {
                None => from,
                Some(group) => group.above()?,
            };
            let group = self.groups.get(place.group);
            last = Some(group);
            Some((group, place))
        })
    }
}
