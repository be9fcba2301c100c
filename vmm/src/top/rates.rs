//! What happens a second: the difference of two samples.
//!
//! Pure. The time is the one that each sample carries. VMs are told apart by their numbers, as their names
//! may be used again. Owns the arithmetic; must not know how it is shown.

use std::collections::HashMap;

use crate::bench::Lateness;
use crate::control::stats::{Counters, LatenessStats, LevelStats, Stats, VcpuStats, VmStats};

/// Counts a second. Unknown (`None`) before there are two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PerSecond {
    /// Exits.
    pub exits: Option<f64>,
    /// Timers that other vCPUs' threads served: wakeups that were saved.
    pub inline: Option<f64>,
    /// Those of `inline` by a thread whose own vCPU was halted.
    pub by_helper: Option<f64>,
    /// Hand-offs to home threads.
    pub handed_off: Option<f64>,
    /// Threads called.
    pub kicks: Option<f64>,
    /// Time-outs for nothing.
    pub stale_timeouts: Option<f64>,
    /// Shares used up.
    pub relieved: Option<f64>,
    /// Threads found overdue.
    pub overdue: Option<f64>,
    /// vCPUs woken by the backstop.
    pub rescued: Option<f64>,
    /// Sleeps of threads whose VMs had used up their CPU time.
    pub throttled: Option<f64>,
    /// Percent of a CPU that threads gave to others' vCPUs.
    pub lent_percent: Option<f64>,
}

/// A VM's row.
#[derive(Clone, Debug, PartialEq)]
pub struct VmRates {
    /// CPU time in percent of a CPU: its own threads' for itself, and what others gave to it.
    pub cpu_percent: Option<f64>,
    /// Timers of its vCPUs a second that others served: as many wakeups of its threads were saved.
    pub saved: Option<f64>,
    /// vCPUs a second that its threads handed to their own.
    pub handed_off: Option<f64>,
    /// Lateness of what was looked after between the samples, in ns.
    pub p50_ns: Option<u64>,
    /// As above.
    pub p99_ns: Option<u64>,
}

/// A level's row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelRates {
    /// Walks a second.
    pub walks: Option<f64>,
    /// Passes a second.
    pub passes: Option<f64>,
    /// Expiries a second.
    pub expiries: Option<f64>,
}

/// What happened between two samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Percent of a CPU that the process took.
    pub cpu_percent: Option<f64>,
    /// All VMs together.
    pub all: PerSecond,
    /// Lateness over all VMs.
    pub p50_ns: Option<u64>,
    /// As above.
    pub p99_ns: Option<u64>,
    /// As above.
    pub max_ns: Option<u64>,
    /// The VMs of the later sample, in its order.
    pub vms: Vec<VmRates>,
    /// The levels of each hierarchy of the later sample, in its order.
    pub hierarchies: Vec<Vec<LevelRates>>,
}

/// What happened between `before` (none: nothing is known) and `after`.
#[must_use]
pub fn between(before: Option<&Stats>, after: &Stats) -> Rates {
    // Another process that took the socket over has its own counters.
    let before = before.filter(|before| before.process.pid == after.process.pid);
    let passed = before.map(|before| after.at_ns.saturating_sub(before.at_ns));
    let passed = passed.filter(|ns| *ns > 0);
    let rate = |count: u64| passed.map(|ns| count as f64 * 1e9 / ns as f64);
    let percent = |ns: u64| passed.map(|passed| ns as f64 * 100.0 / passed as f64);
    let old: HashMap<u32, &VmStats> =
        before.iter().flat_map(|before| &before.vms).map(|vm| (vm.id, vm)).collect();
    let mut sum = Counters::default();
    let mut vms = Vec::new();
    for vm in &after.vms {
        let old = old.get(&vm.id).copied();
        let mut counted = Counters::default();
        let mut cpu_ns = 0_u64;
        for (at, vcpu) in vm.vcpus.iter().enumerate() {
            let old = old.and_then(|vm| vm.vcpus.get(at));
            let more = since(&vcpu.counters, old.map(|old| &old.counters));
            cpu_ns = cpu_ns.saturating_add(taken(vcpu, old, &more));
            counted.add(&more);
        }
        sum.add(&counted);
        let lateness =
            late(&vm.lateness, old.map(|old| &old.lateness)).filter(|_| passed.is_some());
        let quantile = |q| lateness.as_ref().and_then(|lateness| lateness.quantile_ns(q));
        vms.push(VmRates {
            cpu_percent: percent(cpu_ns),
            saved: rate(counted.served),
            handed_off: rate(counted.handed_off),
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
        });
    }
    // A VM that has ended took its part of the histogram along, so that of all VMs is added up anew.
    let mut lateness = Lateness::default();
    for vm in after.vms.iter().filter(|_| passed.is_some()) {
        let part = late(&vm.lateness, old.get(&vm.id).map(|old| &old.lateness));
        let Some(part) = part.filter(|part| part.count() > 0) else { continue };
        part.buckets().for_each(|(upper_ns, count)| lateness.add(upper_ns, count));
        lateness.seen_max(part.max_ns().unwrap_or(0));
    }
    Rates {
        cpu_percent: before
            .and_then(|before| percent(after.process.cpu_ns.saturating_sub(before.process.cpu_ns))),
        all: PerSecond {
            exits: rate(sum.exits),
            inline: rate(sum.inline),
            by_helper: rate(sum.by_helper),
            handed_off: rate(sum.handed_off),
            kicks: rate(sum.kicks),
            stale_timeouts: rate(sum.stale_timeouts),
            relieved: rate(sum.relieved),
            overdue: rate(sum.overdue),
            rescued: rate(sum.rescued),
            throttled: rate(sum.throttled),
            lent_percent: percent(sum.lent_ns),
        },
        p50_ns: lateness.quantile_ns(0.5),
        p99_ns: lateness.quantile_ns(0.99),
        max_ns: lateness.max_ns(),
        vms,
        hierarchies: hierarchies(before, after, rate),
    }
}

fn hierarchies(
    before: Option<&Stats>,
    after: &Stats,
    rate: impl Fn(u64) -> Option<f64>,
) -> Vec<Vec<LevelRates>> {
    let none = LevelStats::default();
    let of = |hierarchy: &crate::control::stats::HierarchyStats| {
        let old = before
            .and_then(|before| before.hierarchies.iter().find(|old| old.vm == hierarchy.vm))
            .map_or(&[][..], |old| &old.levels[..]);
        let level = |(at, level): (usize, &LevelStats)| {
            let old = old.get(at).unwrap_or(&none);
            LevelRates {
                walks: rate(level.walks.saturating_sub(old.walks)),
                passes: rate(level.passes.saturating_sub(old.passes)),
                expiries: rate(level.expiries.saturating_sub(old.expiries)),
            }
        };
        hierarchy.levels.iter().enumerate().map(level).collect()
    };
    after.hierarchies.iter().map(of).collect()
}

/// What a vCPU cost: its own thread's CPU time, less what it lent, and what others gave to it. What is
/// lent is measured by the clock and may be more than the CPU time that it took.
fn taken(vcpu: &VcpuStats, old: Option<&VcpuStats>, more: &Counters) -> u64 {
    let before = old.and_then(|old| old.cpu_ns).unwrap_or(0);
    let own = vcpu.cpu_ns.unwrap_or(before).saturating_sub(before);
    own.saturating_sub(more.lent_ns).saturating_add(more.served_ns)
}

fn late(after: &LatenessStats, before: Option<&LatenessStats>) -> Option<Lateness> {
    let before = before.map(LatenessStats::histogram).unwrap_or_default();
    Some(after.histogram().since(&before)).filter(|lateness| lateness.count() > 0)
}

/// What was added to `before`. Counters do not go back; where they seem to, nothing was added.
fn since(after: &Counters, before: Option<&Counters>) -> Counters {
    let before = before.copied().unwrap_or_default();
    Counters {
        exits: after.exits.saturating_sub(before.exits),
        inline: after.inline.saturating_sub(before.inline),
        by_helper: after.by_helper.saturating_sub(before.by_helper),
        served: after.served.saturating_sub(before.served),
        handed_off: after.handed_off.saturating_sub(before.handed_off),
        kicks: after.kicks.saturating_sub(before.kicks),
        stale_timeouts: after.stale_timeouts.saturating_sub(before.stale_timeouts),
        relieved: after.relieved.saturating_sub(before.relieved),
        overdue: after.overdue.saturating_sub(before.overdue),
        rescued: after.rescued.saturating_sub(before.rescued),
        throttled: after.throttled.saturating_sub(before.throttled),
        timer_interrupts: after.timer_interrupts.saturating_sub(before.timer_interrupts),
        lent_ns: after.lent_ns.saturating_sub(before.lent_ns),
        served_ns: after.served_ns.saturating_sub(before.served_ns),
    }
}
