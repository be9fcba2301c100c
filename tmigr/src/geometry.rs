//! How many levels a hierarchy may have.
//!
//! Owns the arithmetic from slots and nodes to levels. Must not know groups.

use crate::CreateError;

/// The most slots a hierarchy can have.
pub const MAX_SLOTS: u32 = 1 << 20;

/// The most levels any hierarchy can have: groups of two, and as many nodes as there are
/// numbers for.
pub(crate) const MAX_LEVELS: usize = u32::BITS as usize;

/// The fixed measures of a hierarchy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    pub slots: u32,
    pub nodes: u32,
    /// The most levels the tree may grow to; 0: there is no hierarchy.
    pub levels: u32,
    /// Groups below this level have children of one node only.
    pub crossnode: u32,
}

impl Geometry {
    /// The measures for `slots` slots on `nodes` nodes, with groups of `fanout` children.
    pub(crate) fn new(slots: u32, nodes: u32, fanout: u32) -> Result<Self, CreateError> {
        if slots == 0 || slots > MAX_SLOTS {
            return Err(CreateError::Slots { slots });
        }
        if nodes == 0 {
            return Err(CreateError::Nodes);
        }
        if slots == 1 {
            return Ok(Geometry { slots, nodes, levels: 0, crossnode: 0 });
        }
        let crossnode = levels_for(slots.div_ceil(nodes), fanout);
        let levels = crossnode + levels_for(nodes, fanout);
        Ok(Geometry { slots, nodes, levels, crossnode })
    }
}

/// The smallest k with 2^k >= n.
fn log2_ceil(n: u32) -> u32 {
    u32::BITS - n.saturating_sub(1).leading_zeros()
}

fn levels_for(children: u32, fanout: u32) -> u32 {
    log2_ceil(children).div_ceil(fanout.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(slots: u32, nodes: u32) -> (u32, u32) {
        let g = Geometry::new(slots, nodes, 8).unwrap();
        (g.levels, g.crossnode)
    }

    #[test]
    fn levels_follow_slots_and_nodes() {
        assert_eq!(levels(2, 1), (1, 1));
        assert_eq!(levels(8, 1), (1, 1));
        assert_eq!(levels(9, 1), (2, 2));
        assert_eq!(levels(64, 1), (2, 2));
        assert_eq!(levels(65, 1), (3, 3));
        assert_eq!(levels(24, 2), (3, 2));
        assert_eq!(levels(16, 2), (2, 1));
        assert_eq!(levels(9, 9), (2, 0));
    }

    #[test]
    fn one_slot_has_no_hierarchy() {
        assert_eq!(levels(1, 1), (0, 0));
        assert_eq!(levels(1, 100), (0, 0));
    }

    #[test]
    fn more_nodes_than_slots_cross_from_the_bottom() {
        assert_eq!(levels(2, 8), (1, 0));
        assert_eq!(levels(2, u32::MAX), (11, 0));
    }

    #[test]
    fn a_smaller_fanout_needs_more_levels() {
        let g = Geometry::new(8, 1, 2).unwrap();
        assert_eq!((g.levels, g.crossnode), (3, 3));
    }

    #[test]
    fn no_hierarchy_has_more_levels_than_the_most() {
        for nodes in [1, 2, 3, 1000, MAX_SLOTS - 1, MAX_SLOTS, MAX_SLOTS + 1, u32::MAX] {
            let levels = Geometry::new(MAX_SLOTS, nodes, 2).unwrap().levels as usize;
            assert!(levels <= MAX_LEVELS, "{levels} levels for {nodes} nodes");
        }
        assert_eq!(Geometry::new(2, u32::MAX, 2).unwrap().levels as usize, MAX_LEVELS);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert_eq!(Geometry::new(0, 1, 8), Err(CreateError::Slots { slots: 0 }));
        assert_eq!(
            Geometry::new(MAX_SLOTS + 1, 1, 8),
            Err(CreateError::Slots { slots: MAX_SLOTS + 1 })
        );
        assert_eq!(Geometry::new(4, 0, 8), Err(CreateError::Nodes));
    }
}
