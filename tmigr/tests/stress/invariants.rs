//! What must hold while all threads stand still.
//!
//! Owns the checks. Must not change anything but by letting owners do what they have been told to.

use std::sync::atomic::Ordering::SeqCst;

use tmigr::{GroupView, Slot};

use crate::owner::{Mine, Owner};
use crate::world::{HELD, PARKED, SLOTS, World};

/// Everybody does what is due, with a clock that stands still, and then everything is checked.
pub fn settle<const F: usize>(world: &World<F>, owners: &mut [Owner<'_, F>]) {
    let mut rounds = 0;
    while owners.iter_mut().fold(false, |any, owner| owner.look_at_all() | any) {
        rounds += 1;
        assert!(rounds < 10_000, "no end of it at {}", world.now());
    }
    let members: Vec<&Mine> = owners.iter().flat_map(|owner| &owner.mine).collect();
    let groups = world.tree.groups();
    check_groups(&groups);
    check_slots(world, &members);
    check_timers(world, &members);
    let bits = groups.iter().filter(|group| group.level == 0);
    let bits: u32 = bits.map(|group| group.active.count_ones()).sum();
    let active = members.iter().filter(|member| member.available && !member.idle).count();
    assert_eq!(bits as usize, active, "{groups:?}");
}

fn check_groups(groups: &[GroupView]) {
    let roots = groups.iter().filter(|group| group.parent.is_none()).count();
    assert_eq!(roots, 1, "{groups:?}");
    for group in groups {
        assert_eq!(group.mask.count_ones(), 1, "{group:?}");
        match group.migrator {
            None => assert_eq!(group.active, 0, "{group:?}"),
            Some(mask) => {
                assert!(mask.count_ones() == 1 && mask & group.active != 0, "{group:?}");
            }
        }
        let children = groups.iter().filter(|child| child.parent == Some(group.id));
        if group.level > 0 {
            let masks = children.clone().fold(0, |masks, child| {
                assert_eq!(masks & child.mask, 0, "{child:?} in {group:?}");
                masks | child.mask
            });
            assert_eq!(masks.count_ones(), u32::from(group.children), "{group:?}");
            assert_eq!(group.active & !masks, 0, "{group:?}");
        }
        for child in children {
            assert_eq!(child.level + 1, group.level, "{child:?} in {group:?}");
            let of_the_node = group.node.is_none() || group.node == child.node;
            assert!(of_the_node, "{child:?} in {group:?}");
            let marked = group.active & child.mask != 0;
            assert_eq!(marked, child.active != 0, "{child:?} in {group:?}");
        }
    }
}

fn check_slots<const F: usize>(world: &World<F>, members: &[&Mine]) {
    for slot in 0..SLOTS {
        let mut owners = members.iter().filter(|member| member.slot == slot);
        let Some(member) = owners.next() else {
            assert!(!world.tree.is_available(Slot(slot as u32)), "{slot} is nobody's");
            continue;
        };
        assert!(owners.next().is_none(), "slot {slot} was handed out twice");
        assert_eq!(world.tree.is_available(Slot(slot as u32)), member.available, "{slot}");
        let idle = world.tree.is_idle(Slot(slot as u32));
        assert!(!member.available || idle == member.idle, "{slot}");
        let word = if member.sleeps() { PARKED } else { HELD };
        assert_eq!(world.members[slot].word.load(SeqCst), word, "{slot}");
    }
}

fn check_timers<const F: usize>(world: &World<F>, members: &[&Mine]) {
    let now = world.now();
    let available = members.iter().filter(|member| member.available);
    let armed = available.filter_map(|member| member.host).min().unwrap_or(u64::MAX);
    for member in members {
        let timers = world.members[member.slot].timers.lock().unwrap();
        let Some(first) = timers.iter().map(|(at, _)| *at).min() else { continue };
        assert!(
            first > now,
            "{member:?} did not fire its timer for {first} at {now}\n{:?}",
            world.tree.groups(),
        );
        let armed = if member.available { armed } else { member.host.unwrap_or(u64::MAX) };
        assert!(armed <= first, "nobody is armed for slot {}: {armed} > {first}", member.slot);
    }
}
