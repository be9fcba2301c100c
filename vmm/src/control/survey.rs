//! Reads what a fleet can tell.
//!
//! Owns how the parts of the process become the fields of [`Stats`](super::stats::Stats). Must not know
//! requests. Nothing here takes a lock that a vCPU's thread waits for, but for a balloon's, which a guest
//! that changes its size needs for a moment: counters are atomics, groups are read word by word, and all
//! of it is done by the process's main thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_epoch as epoch;
use devices::virtio::balloon::{Report, Statistics};
use tmigr::{GroupView, Hierarchy, Slot};

use super::protocol::VmState;
use super::stats::{
    BalloonStats, Counters, GroupStats, HierarchyStats, LatenessStats, LevelStats, ProcessStats,
    VcpuName, VcpuStats, VmStats,
};
use crate::bench::Lateness;
use crate::clock;
use crate::domain::{Domain, Policy};
use crate::fleet::Fleet;
use crate::vcpu::{self, Place, State, Vcpu};
use crate::vm::VmShared;

/// The process, which began to serve at `started` (host monotonic ns).
#[must_use]
pub fn process(policy: &Policy, started: u64, now: u64) -> ProcessStats {
    ProcessStats {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ns: now.saturating_sub(started),
        cpu_ns: clock::process_cpu_ns(),
        inline: policy.inline,
        slack_ns: policy.slack_ns,
        borrow_limit_ns: policy.borrow_limit_ns,
        borrow_share_percent: policy.borrow_share_percent,
        lateness_goal_ns: policy.lateness_goal_ns,
    }
}

/// A VM, which is in this state. `lateness` is added to.
#[must_use]
pub fn vm(
    fleet: &Fleet,
    vm: &VmShared,
    state: VmState,
    lateness: &mut Lateness,
    now: u64,
) -> VmStats {
    let mut own = Lateness::default();
    for vcpu in fleet.vcpus_of(vm) {
        collect(&vcpu.lateness, &mut own);
        collect(&vcpu.lateness, lateness);
    }
    VmStats {
        id: vm.id,
        vm: vm.name.clone(),
        state,
        uptime_ns: now.saturating_sub(vm.built_at),
        memory: vm.memory_bytes(),
        unknown_msrs: vm.faults.msrs(),
        absent_devices: vm.faults.addresses(),
        lateness: figures(&own),
        balloon: fleet.balloon(vm.id).map(|control| balloon(&control.report(now))),
        vcpus: fleet.vcpus_of(vm).map(vcpu_stats).collect(),
    }
}

fn balloon(report: &Report) -> BalloonStats {
    let Report { target, actual, statistics } = *report;
    let Statistics {
        swap_in,
        swap_out,
        major_faults,
        minor_faults,
        free,
        total,
        available,
        caches,
    } = statistics;
    BalloonStats {
        target,
        actual,
        total,
        free,
        available,
        caches,
        swap_in,
        swap_out,
        major_faults,
        minor_faults,
    }
}

fn collect(from: &vcpu::Lateness, to: &mut Lateness) {
    for (upper_ns, count) in from.buckets() {
        to.add(upper_ns, count);
    }
    to.seen_max(from.max_ns());
}

/// A histogram with its figures.
#[must_use]
pub fn figures(lateness: &Lateness) -> LatenessStats {
    LatenessStats {
        count: lateness.count(),
        p50_ns: lateness.quantile_ns(0.5),
        p99_ns: lateness.quantile_ns(0.99),
        max_ns: lateness.max_ns(),
        buckets: lateness.buckets().collect(),
    }
}

fn vcpu_stats(vcpu: &Vcpu) -> VcpuStats {
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let stats = &vcpu.stats;
    let at = vcpu.word.load().state();
    let state = match at {
        State::Home => "home",
        State::Parked => "parked",
        State::Borrowed(_) => "borrowed",
        State::Waking => "waking",
        State::WaitSipi => "wait-sipi",
        State::Paused => "paused",
        State::Stopped => "stopped",
    };
    let thread = match vcpu.thread.place() {
        Place::Host => "host",
        Place::Guest => "guest",
        Place::Kicked => "kicked",
        Place::Asleep => "asleep",
    };
    // The id of a thread that has ended may be another one's by now.
    let cpu_ns = (at != State::Stopped).then(|| clock::cpu_ns_of(vcpu.thread.tid())).flatten();
    VcpuStats {
        state: state.to_owned(),
        thread: thread.to_owned(),
        slot: vcpu.slot.0,
        isolated: vcpu.is_isolated(),
        cpu_ns,
        counters: Counters {
            exits: of(&stats.exits),
            inline: of(&stats.inline),
            by_helper: of(&stats.by_helper),
            served: of(&stats.served),
            handed_off: of(&stats.handed_off),
            kicks: of(&stats.kicks),
            stale_timeouts: of(&stats.stale_timeouts),
            relieved: of(&stats.relieved),
            overdue: of(&stats.overdue),
            rescued: of(&stats.rescued),
            throttled: of(&stats.throttled),
            timer_interrupts: of(&stats.timer_interrupts),
            lent_ns: of(&stats.lent_ns),
            served_ns: of(&stats.served_ns),
        },
    }
}

/// The hierarchies of a fleet.
#[must_use]
pub fn hierarchies(fleet: &Fleet) -> Vec<HierarchyStats> {
    let shared = fleet.is_shared();
    let of = |(domain, vms): (&Domain, &[Arc<VmShared>])| {
        let slots: Vec<Slot> = vms.iter().flat_map(|vm| vm.slots.iter().copied()).collect();
        let guard = epoch::pin();
        let name = |slot: Slot| {
            let vcpu = domain.vcpu(slot, &guard)?;
            Some(VcpuName { vm: vcpu.vm.name.clone(), vcpu: vcpu.index })
        };
        let mut stats = hierarchy(domain.hierarchy()?, &slots, name);
        stats.stalls = domain.stalls();
        stats.vm = vms.first().filter(|_| !shared).map(|vm| vm.name.clone());
        Some(stats)
    };
    fleet.domains_with_vms().filter_map(of).collect()
}

/// A hierarchy with vCPUs in `slots`, called as `name` says.
fn hierarchy<const FANOUT: usize>(
    tree: &Hierarchy<FANOUT>,
    slots: &[Slot],
    name: impl Fn(Slot) -> Option<VcpuName>,
) -> HierarchyStats {
    let groups = tree.groups();
    let seats: HashMap<(u32, u8), Slot> =
        slots.iter().filter_map(|slot| Some((tree.place(*slot)?, *slot))).collect();
    let migrators = migrators(&groups, &seats);
    let counters = tree.statistics();
    let mut levels = Vec::new();
    for (level, counters) in (0..).zip(counters.levels) {
        let groups = groups.iter().filter(|group| group.level == level).count();
        // Above it are levels that the tree has not grown to.
        if groups == 0 {
            break;
        }
        levels.push(LevelStats {
            groups: groups as u64,
            walks: counters.walks,
            locks: counters.locks,
            passes: counters.passes,
            expiries: counters.expiries,
            retries: counters.retries,
        });
    }
    let group = |group: &GroupView| GroupStats {
        id: group.id,
        level: group.level,
        parent: group.parent,
        children: group.children,
        active: group.active.count_ones() as u8,
        migrator: migrators.get(&group.id).copied().and_then(&name),
        next_ns: group.next,
    };
    HierarchyStats {
        vm: None,
        notices: counters.notices,
        stalls: 0,
        keeper: keeper(tree, slots).and_then(&name),
        levels,
        groups: groups.iter().map(group).collect(),
    }
}

/// The slot that is migrator of each group, by the group's number: that of the child that the group's
/// word names, and of the child's, down to the bottom.
fn migrators(groups: &[GroupView], seats: &HashMap<(u32, u8), Slot>) -> HashMap<u32, Slot> {
    let mut children = HashMap::new();
    let mut by_level: BTreeMap<u32, Vec<&GroupView>> = BTreeMap::new();
    for group in groups {
        by_level.entry(group.level).or_default().push(group);
        if let Some(parent) = group.parent {
            children.insert((parent, group.mask), group.id);
        }
    }
    let mut found = HashMap::new();
    for group in by_level.into_values().flatten() {
        let Some(mask) = group.migrator else { continue };
        let child = (group.id, mask);
        let slot = match group.level {
            0 => seats.get(&child).copied(),
            _ => children.get(&child).and_then(|child| found.get(child).copied()),
        };
        if let Some(slot) = slot {
            found.insert(group.id, slot);
        }
    }
    found
}

/// While nobody is active: the slot with the first wakeup.
fn keeper<const FANOUT: usize>(tree: &Hierarchy<FANOUT>, slots: &[Slot]) -> Option<Slot> {
    let idle = |slot: &&Slot| tree.is_idle(**slot) && tree.is_available(**slot);
    let mut idle = slots.iter().filter(idle).peekable();
    if tree.anybody_active(**idle.peek()?) {
        return None;
    }
    let back = |slot: &Slot| tree.peek_responsibility(*slot).map(|at| (at, slot.0));
    idle.filter_map(back).min().map(|(_, slot)| Slot(slot))
}

/// The levels of all hierarchies, summed up.
#[must_use]
pub fn levels(hierarchies: &[HierarchyStats]) -> Vec<LevelStats> {
    let mut sums: Vec<LevelStats> = Vec::new();
    for hierarchy in hierarchies {
        if sums.len() < hierarchy.levels.len() {
            sums.resize(hierarchy.levels.len(), LevelStats::default());
        }
        for (sum, level) in sums.iter_mut().zip(&hierarchy.levels) {
            sum.groups += level.groups;
            sum.walks += level.walks;
            sum.locks += level.locks;
            sum.passes += level.passes;
            sum.expiries += level.expiries;
            sum.retries += level.retries;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of three levels over 9 vCPUs, all idle without a timer.
    fn tree() -> Hierarchy<2> {
        let tree = Hierarchy::<2>::new(9, 1).expect("it is small");
        let first = Slot(0);
        let _ = tree.prepare(first, 0, first).expect("a place");
        let _ = tree.available(first, false).expect("it is prepared");
        for slot in (1..9).map(Slot) {
            let _ = tree.prepare(slot, 0, first).expect("a place");
            let _ = tree.available(slot, true).expect("it is prepared");
        }
        let _ = tree.deactivate(first, None).expect("it is active");
        tree
    }

    fn slots() -> Vec<Slot> {
        (0..9).map(Slot).collect()
    }

    fn name(slot: Slot) -> Option<VcpuName> {
        Some(VcpuName { vm: format!("vm{}", slot.0 / 3), vcpu: slot.0 % 3 })
    }

    /// The names of the migrators at each level, as often as they are.
    fn at_levels(stats: &HierarchyStats) -> Vec<Vec<String>> {
        let mut levels = vec![Vec::new(); stats.levels.len()];
        for group in &stats.groups {
            levels[group.level as usize].extend(group.migrator.as_ref().map(ToString::to_string));
        }
        levels.iter_mut().for_each(|names| names.sort());
        levels
    }

    #[test]
    fn migrator_is_named_at_every_level_up_to_the_top() {
        let tree = tree();
        let idle = hierarchy(&tree, &slots(), name);
        assert!(at_levels(&idle).iter().all(Vec::is_empty), "{idle:?}");
        let _ = tree.activate(Slot(4)).expect("it is idle");
        let one = hierarchy(&tree, &slots(), name);
        assert!(one.levels.len() >= 3, "{one:?}");
        assert!(at_levels(&one).iter().all(|names| *names == ["vm1/1"]), "{one:?}");
        let _ = tree.activate(Slot(8)).expect("it is idle");
        let two = hierarchy(&tree, &slots(), name);
        let names = at_levels(&two);
        assert_eq!(names[0], ["vm1/1", "vm2/2"], "each in its own group");
        assert_eq!(names.last().expect("a top"), &["vm1/1"], "the first one stays");
        let _ = tree.deactivate(Slot(4), None).expect("it is active");
        let other = hierarchy(&tree, &slots(), name);
        assert_eq!(at_levels(&other).last().expect("a top"), &["vm2/2"]);
        assert_eq!(other.keeper, None);
    }

    #[test]
    fn keeper_is_named_while_all_are_idle() {
        let tree = tree();
        assert_eq!(hierarchy(&tree, &slots(), name).keeper, None, "there is no timer");
        let _ = tree.activate(Slot(7)).expect("it is idle");
        let _ = tree.deactivate(Slot(7), Some(500)).expect("it is active");
        let idle = hierarchy(&tree, &slots(), name);
        assert_eq!(idle.keeper, name(Slot(7)));
        assert_eq!(idle.groups.iter().filter(|group| group.next_ns == Some(500)).count(), {
            idle.levels.len()
        });
    }

    #[test]
    fn migrator_that_is_nobodys_vcpu_has_no_name() {
        let tree = tree();
        let _ = tree.activate(Slot(0)).expect("it is idle");
        let stats = hierarchy(&tree, &slots()[1..], name);
        assert!(at_levels(&stats).iter().all(Vec::is_empty), "{stats:?}");
    }

    #[test]
    fn levels_of_several_hierarchies_are_summed_up() {
        let level = |groups, walks| LevelStats { groups, walks, ..LevelStats::default() };
        let of = |levels| HierarchyStats { levels, ..HierarchyStats::default() };
        let sums = levels(&[of(vec![level(1, 5)]), of(vec![level(2, 7), level(1, 3)])]);
        assert_eq!(sums, [level(3, 12), level(1, 3)]);
        assert_eq!(levels(&[]), []);
    }
}
