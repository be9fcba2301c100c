//! Growth: giving a slot its place, and the tree the groups that this takes.
//!
//! Owns the shape of the tree. Must not know events.
//!
//! A preparation is planned first, without changing anything: which groups are joined and which are
//! made, for the new branch and, where there is a new top, for the old root. Whatever can fail
//! fails there, so there is nothing to take back. Then groups are made bottom-up and connected from
//! the top down, the parent link last.
//!
//! **Race 5, growth against everything else**: a group is reachable from below only by its
//! child's parent link, which is stored (release) when the parent's other fields, its own
//! reserved mask included, and the child's mask are final. The new branch is idle, so it needs
//! no mark above. The old root is active, because whoever prepares is active in it throughout; it
//! is marked active in what was put above it once it is connected, and until then a walk that ends
//! at it finds a migrator, and does not take it for an idle top.

use thiserror::Error;

use crate::arena::GroupId;
use crate::geometry::MAX_LEVELS;
use crate::group::{Group, Place};
use crate::sync::{self, Ordering};
use crate::trace::TraceEvent;
use crate::{Hierarchy, Notices, Slot};

/// Why a slot could not be prepared. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PrepareError {
    /// The hierarchy has no such slot.
    #[error("there is no slot {0}")]
    NoSuchSlot(Slot),
    /// The hierarchy has no such node.
    #[error("there is no node {0}")]
    NoSuchNode(u32),
    /// Who prepares is not available and active, or is the target itself although others are
    /// available or the tree has to grow a level.
    #[error("slot {0} cannot prepare another: it is not active in the hierarchy")]
    NoActiveSlot(Slot),
    /// The node has more slots than its share: the levels do not suffice.
    #[error("no room for another slot on node {0}")]
    NoRoom(u32),
    /// The memory is used up.
    #[error("no memory for the groups of the hierarchy")]
    NoMemory,
}

/// What growth knows about the tree, under the growth mutex.
pub(crate) struct Growth {
    root: Option<GroupId>,
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    /// How many groups it has.
    count: u32,
    /// By node, the group made last: if any group has room, it is this one.
    latest: Vec<(Option<u32>, GroupId)>,
}

impl Growth {
    /// `None`: the memory is used up.
    pub(crate) fn new(levels: u32) -> Option<Self> {
        let mut all = Vec::new();
        all.try_reserve_exact(levels as usize).ok()?;
        all.resize_with(levels as usize, Level::default);
        Some(Growth { root: None, levels: all })
    }
}

/// The groups of a new branch, bottom-up: the last one may exist, all others are made.
struct Branch {
    /// How many are made.
    fresh: u32,
    /// The existing group that it joins; `None`: its last one is the new top.
    joins: Option<GroupId>,
}

impl Branch {
    /// The level of the last group.
    fn top_level(&self) -> u32 {
        if self.joins.is_some() { self.fresh } else { self.fresh.saturating_sub(1) }
    }
}

/// The groups of a branch in the making, bottom-up. It takes no memory that could be refused while
/// the branch is half made.
struct Chain {
    ids: [GroupId; MAX_LEVELS],
    len: usize,
}

impl Chain {
    fn new() -> Self {
        Chain { ids: [GroupId::of_number(0); MAX_LEVELS], len: 0 }
    }

    fn push(&mut self, id: GroupId) {
        self.ids[self.len] = id;
        self.len += 1;
    }

    fn ids(&self) -> &[GroupId] {
        &self.ids[..self.len]
    }
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// Gives the slot its place on the node; nothing happens if it has one.
    ///
    /// `by` is an available slot that is active, and stays so until this returns; or the target
    /// itself, as long as nobody is available and no level has to be added.
    ///
    /// # Errors
    /// See [`PrepareError`]; nothing is changed then.
    pub fn prepare(&self, slot: Slot, node: u32, by: Slot) -> Result<Notices, PrepareError> {
        let state = self.state(slot).ok_or(PrepareError::NoSuchSlot(slot))?;
        if node >= self.geometry.nodes {
            return Err(PrepareError::NoSuchNode(node));
        }
        let mut growth = sync::lock(&self.growth);
        if state.prepared() {
            return Ok(Notices::default());
        }
        if self.geometry.levels == 0 {
            state.set_place(None, node);
            return Ok(Notices::default());
        }
        self.check_preparer(slot, by)?;
        let branch = self.plan(&growth, node)?;
        let old_root = growth.root.filter(|_| branch.joins.is_none());
        if old_root.is_some() && by == slot {
            return Err(PrepareError::NoActiveSlot(by));
        }
        self.reserve(&mut growth, &branch, old_root)?;
        state.set_place(Some(self.graft(&mut growth, slot, node, &branch, old_root)), node);
        let Some(old_root) = old_root else {
            return Ok(Notices::default());
        };
        Ok(self.raise(&mut growth, old_root, by))
    }

    fn check_preparer(&self, slot: Slot, by: Slot) -> Result<(), PrepareError> {
        let fits = if by == slot {
            self.available.load(Ordering::Relaxed) == 0
        } else {
            self.member(by).is_some_and(|(state, _)| !state.idle())
        };
        if fits { Ok(()) } else { Err(PrepareError::NoActiveSlot(by)) }
    }

    /// The node of the groups of a level, for slots of a node.
    fn node_at(&self, level: u32, node: Option<u32>) -> Option<u32> {
        node.filter(|_| level < self.geometry.crossnode)
    }

    fn plan(&self, growth: &Growth, node: u32) -> Result<Branch, PrepareError> {
        let stranger = growth.root.is_some_and(|root| self.groups.get(root).node != Some(node));
        for (height, level) in (0u32..).zip(&growth.levels) {
            let key = self.node_at(height, Some(node));
            let open = level
                .latest
                .iter()
                .find(|(of, id)| *of == key && self.groups.get(*id).has_room())
                .map(|(_, id)| *id);
            let count = level.count + u32::from(open.is_none());
            let connected = open.is_some_and(|id| self.groups.get(id).above().is_some());
            let top = count == 1 && (!stranger || height >= self.geometry.crossnode);
            if connected || top {
                let fresh = height + u32::from(open.is_none());
                return Ok(Branch { fresh, joins: open });
            }
        }
        Err(PrepareError::NoRoom(node))
    }

    /// Takes all memory that the plan needs.
    fn reserve(
        &self,
        growth: &mut Growth,
        branch: &Branch,
        old_root: Option<GroupId>,
    ) -> Result<(), PrepareError> {
        let between = old_root
            .map_or(0, |root| branch.top_level().saturating_sub(self.groups.get(root).level + 1));
        self.groups.reserve(branch.fresh + between).map_err(|_| PrepareError::NoMemory)?;
        for level in &mut growth.levels {
            level.latest.try_reserve(2).map_err(|_| PrepareError::NoMemory)?;
        }
        Ok(())
    }

    fn make(&self, growth: &mut Growth, group: Group<FANOUT>) -> GroupId {
        let (height, node) = (group.level as usize, group.node);
        let lvl = group.level;
        let id = self.groups.push(group);
        self.trace(|| TraceEvent::GroupSet { group: id.number(), lvl, numa_node: node });
        let level = &mut growth.levels[height];
        level.count += 1;
        match level.latest.iter_mut().find(|(of, _)| *of == node) {
            Some((_, latest)) => *latest = id,
            None => level.latest.push((node, id)),
        }
        id
    }

    /// Makes the new branch and connects it; the slot's place.
    fn graft(
        &self,
        growth: &mut Growth,
        slot: Slot,
        node: u32,
        branch: &Branch,
        old_root: Option<GroupId>,
    ) -> Place {
        let mut stack = Chain::new();
        for level in 0..branch.fresh {
            let top = branch.joins.is_none() && level == branch.top_level();
            // Bit 0 of a new top belongs to the old root.
            let reserved = u8::from(top && old_root.is_some());
            let group = Group::new(level, self.node_at(level, Some(node)), top, reserved);
            stack.push(self.make(growth, group));
        }
        if let Some(joined) = branch.joins {
            stack.push(joined);
        }
        let stack = stack.ids();
        for pair in stack.windows(2).rev() {
            self.connect(pair[0], pair[1]);
        }
        if branch.joins.is_none() {
            growth.root = stack.last().copied();
        }
        let home = self.groups.get(stack[0]);
        let mask = home.occupy();
        home.name_child(mask, slot.0);
        self.trace(|| TraceEvent::ConnectCpuParent {
            cpu: slot.0,
            parent: stack[0].number(),
            lvl: 0,
            numa_node: home.node,
            num_children: home.occupied(),
            groupmask: mask,
        });
        Place { group: stack[0], mask }
    }

    /// Puts `child` into the next free place of `parent`.
    fn connect(&self, child: GroupId, parent: GroupId) {
        let above = self.groups.get(parent);
        let mask = above.occupy();
        above.name_child(mask, child.bits());
        self.publish(child, Place { group: parent, mask });
    }

    fn publish(&self, child: GroupId, place: Place) {
        self.groups.get(child).publish_above(place);
        let above = self.groups.get(place.group);
        self.trace(|| TraceEvent::ConnectChildParent {
            child: child.number(),
            parent: place.group.number(),
            lvl: above.level,
            numa_node: above.node,
            num_children: above.occupied(),
            groupmask: place.mask,
        });
    }

    /// Connects the old root to the new one, and marks it active there.
    fn raise(&self, growth: &mut Growth, old_root: GroupId, by: Slot) -> Notices {
        let Some(top) = growth.root else {
            return Notices::default();
        };
        let old = self.groups.get(old_root);
        let mut stack = Chain::new();
        stack.push(old_root);
        for level in old.level + 1..self.groups.get(top).level {
            let group = Group::new(level, self.node_at(level, old.node), false, 0);
            stack.push(self.make(growth, group));
        }
        let stack = stack.ids();
        let reserved = Place { group: top, mask: 1 };
        let highest = stack[stack.len() - 1];
        self.groups.get(top).name_child(reserved.mask, highest.bits());
        self.publish(highest, reserved);
        for pair in stack.windows(2).rev() {
            self.connect(pair[0], pair[1]);
        }
        let Some(from) = old.above() else {
            return Notices::default();
        };
        self.activate_upwards(self.groups.get(from.group), from);
        let Some((_, place)) = self.member(by) else {
            return Notices::default();
        };
        // All levels: whatever is above the old root is new to its migrator.
        self.notices(place, by, u64::MAX)
    }
}
