//! What a running process tells about itself: `siesta.stats/1`, described in `docs/observability.md`.
//!
//! Owns the names of the fields. Numbers are counted since the start of what they are of, times are in
//! nanoseconds. Must not know fleets, nor how they are shown.
//!
//! A field is added with a default, so that programs of different versions understand each other; one
//! that changes its meaning changes [`SCHEMA`].

use serde::{Deserialize, Serialize};

use super::protocol::VmState;
use crate::bench::Lateness;

/// The name of this form.
pub const SCHEMA: &str = "siesta.stats/1";

/// Everything that a process tells.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// [`SCHEMA`].
    #[serde(default)]
    pub schema: String,
    /// Monotonic time of the host: rates are differences over it.
    pub at_ns: u64,
    /// Timer mode.
    pub timers: String,
    /// The process.
    #[serde(default)]
    pub process: ProcessStats,
    /// VMs that were created.
    pub created: u64,
    /// VMs that have ended.
    pub ended: u64,
    /// Sums over the vCPUs there are.
    #[serde(default)]
    pub totals: Counters,
    /// Of all VMs there are; none in mode `kernel`.
    #[serde(default)]
    pub lateness: LatenessStats,
    /// The VMs there are.
    pub vms: Vec<VmStats>,
    /// Levels of the hierarchies, the lowest first, all hierarchies together.
    pub levels: Vec<LevelStats>,
    /// Each hierarchy.
    #[serde(default)]
    pub hierarchies: Vec<HierarchyStats>,
}

/// The process and the rules it works by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// Its id.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Since it began to serve.
    pub uptime_ns: u64,
    /// CPU time of all its threads.
    pub cpu_ns: u64,
    /// Halted vCPUs are entered on the migrator's thread.
    pub inline: bool,
    /// How late a timer may expire so that others are taken along.
    pub slack_ns: u64,
    /// Longest borrowed run.
    pub borrow_limit_ns: u64,
    /// What a thread lends at most while its own guest wants to run; 100: no limit.
    pub borrow_share_percent: u8,
    /// How late a timer is served, beyond the slack, before its migrator is taken to be overloaded.
    pub lateness_goal_ns: u64,
}

/// Counters of a vCPU and of its home thread (`vcpu::Stats`), or sums of such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Exits that the thread handled.
    pub exits: u64,
    /// Timers of others that the thread expired and served: as many wakeups of threads were saved.
    pub inline: u64,
    /// Of those, the ones while its own vCPU was halted.
    pub by_helper: u64,
    /// Timers of the vCPU that others expired and served.
    #[serde(default)]
    pub served: u64,
    /// vCPUs that the thread handed to their own threads.
    pub handed_off: u64,
    /// Threads that it called because a responsibility began or became earlier.
    pub kicks: u64,
    /// Times that the thread woke for nothing.
    pub stale_timeouts: u64,
    /// Times that it gave up its role because its share was used up.
    pub relieved: u64,
    /// Looks that found the thread overdue at its duty.
    pub overdue: u64,
    /// Times that the vCPU was woken because nobody served it.
    pub rescued: u64,
    /// Times that the thread slept because its VM had used up its CPU time.
    #[serde(default)]
    pub throttled: u64,
    /// Interrupts of the vCPU's APIC timer; none in mode `kernel`, where KVM has it.
    #[serde(default)]
    pub timer_interrupts: u64,
    /// Time that the thread gave to other vCPUs.
    pub lent_ns: u64,
    /// Time that other threads gave to the vCPU.
    pub served_ns: u64,
}

/// How late timers of halted vCPUs were looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatenessStats {
    /// How many.
    pub count: u64,
    /// Half of them were at most so late, up to the width of a bucket.
    pub p50_ns: Option<u64>,
    /// 99 of 100 were at most so late, up to the width of a bucket.
    pub p99_ns: Option<u64>,
    /// The latest.
    pub max_ns: Option<u64>,
    /// Upper bound and count of each bucket that is not empty, the lowest first. Bounds are always
    /// the same, so that two histograms can be subtracted.
    pub buckets: Vec<(u64, u64)>,
}

impl LatenessStats {
    /// The histogram.
    #[must_use]
    pub fn histogram(&self) -> Lateness {
        let mut lateness = Lateness::default();
        for &(upper_ns, count) in &self.buckets {
            lateness.add(upper_ns, count);
        }
        lateness.seen_max(self.max_ns.unwrap_or(0));
        lateness
    }
}

/// A VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmStats {
    /// Its number, which no other VM of the process ever has.
    #[serde(default)]
    pub id: u32,
    /// Its name.
    pub vm: String,
    /// What it does.
    pub state: VmState,
    /// Since it was built.
    #[serde(default)]
    pub uptime_ns: u64,
    /// Its memory in bytes.
    #[serde(default)]
    pub memory: u64,
    /// Accesses to model-specific registers that nobody serves.
    pub unknown_msrs: u64,
    /// Accesses to addresses of the chipset where no device is.
    pub absent_devices: u64,
    /// Of all its vCPUs; none in mode `kernel`.
    #[serde(default)]
    pub lateness: LatenessStats,
    /// Its balloon, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonStats>,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuStats>,
}

/// A balloon, and what the guest tells of its memory; in bytes unless it says otherwise. What the guest
/// does not tell is missing. It is what was known when it was asked for: by asking, newer is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStats {
    /// The size that was asked for.
    pub target: u64,
    /// The size that the guest tells.
    pub actual: u64,
    /// All of its memory, less the balloon.
    #[serde(default)]
    pub total: Option<u64>,
    /// Not used for anything.
    #[serde(default)]
    pub free: Option<u64>,
    /// What it could have without swapping.
    #[serde(default)]
    pub available: Option<u64>,
    /// Caches of files.
    #[serde(default)]
    pub caches: Option<u64>,
    /// Swapped in.
    #[serde(default)]
    pub swap_in: Option<u64>,
    /// Swapped out.
    #[serde(default)]
    pub swap_out: Option<u64>,
    /// Page faults that needed the disk, a number.
    #[serde(default)]
    pub major_faults: Option<u64>,
    /// Other page faults, a number.
    #[serde(default)]
    pub minor_faults: Option<u64>,
}

/// A vCPU and its thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuStats {
    /// Where the vCPU is: `home`, `parked`, `borrowed`, `waking`, `wait-sipi`, `paused`, `stopped`.
    pub state: String,
    /// Where its thread is: `host`, `guest` (some vCPU's), `kicked`, `asleep`.
    #[serde(default)]
    pub thread: String,
    /// Its slot in the hierarchy.
    #[serde(default)]
    pub slot: u32,
    /// It neither serves nor is served.
    pub isolated: bool,
    /// CPU time of its thread, that for other vCPUs included; none before the thread began and once it
    /// has ended.
    #[serde(default)]
    pub cpu_ns: Option<u64>,
    /// Its counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Counters of a level, all hierarchies together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelStats {
    /// How many groups it has.
    #[serde(default)]
    pub groups: u64,
    /// Walks of an expiry up the tree that reached it.
    pub walks: u64,
    /// How often the lock of a group was taken.
    #[serde(default)]
    pub locks: u64,
    /// Passes that looked for expired timers there.
    pub passes: u64,
    /// Timers that they expired.
    pub expiries: u64,
    /// Exchanges of a group's word that had to be tried again.
    #[serde(default)]
    pub retries: u64,
}

/// A hierarchy. Its parts are read one after the other, while it changes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HierarchyStats {
    /// The VM whose it is; none: that of all.
    pub vm: Option<String>,
    /// Threads that had to be told of a responsibility.
    pub notices: u64,
    /// Times that it did not answer, so that each thread looked after its own vCPU's timers.
    #[serde(default)]
    pub stalls: u64,
    /// While all vCPUs are halted: the one whose thread comes back for their timers.
    pub keeper: Option<VcpuName>,
    /// Its levels, the lowest first.
    pub levels: Vec<LevelStats>,
    /// Its groups, in the order of their numbers.
    pub groups: Vec<GroupStats>,
}

/// A group of a hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStats {
    /// Its number.
    pub id: u32,
    /// Its level, 0 at the bottom.
    pub level: u32,
    /// Its parent's number; none: it is the top.
    pub parent: Option<u32>,
    /// How many children it has: vCPUs at the bottom, groups above, and the slot that is nobody's.
    pub children: u8,
    /// How many of them are active.
    pub active: u8,
    /// The vCPU that is its migrator; none while nobody below is active.
    pub migrator: Option<VcpuName>,
    /// The first expiry in it, in host monotonic ns: it may be too early, never too late.
    pub next_ns: Option<u64>,
}

/// Which vCPU is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VcpuName {
    /// Its VM's name.
    pub vm: String,
    /// Its number in the VM.
    pub vcpu: u32,
}

impl std::fmt::Display for VcpuName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.vm, self.vcpu)
    }
}

impl Counters {
    /// Adds those of another vCPU.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            exits,
            inline,
            by_helper,
            served,
            handed_off,
            kicks,
            stale_timeouts,
            relieved,
            overdue,
            rescued,
            throttled,
            timer_interrupts,
            lent_ns,
            served_ns,
        } = *other;
        for (sum, more) in [
            (&mut self.exits, exits),
            (&mut self.inline, inline),
            (&mut self.by_helper, by_helper),
            (&mut self.served, served),
            (&mut self.handed_off, handed_off),
            (&mut self.kicks, kicks),
            (&mut self.stale_timeouts, stale_timeouts),
            (&mut self.relieved, relieved),
            (&mut self.overdue, overdue),
            (&mut self.rescued, rescued),
            (&mut self.throttled, throttled),
            (&mut self.timer_interrupts, timer_interrupts),
            (&mut self.lent_ns, lent_ns),
            (&mut self.served_ns, served_ns),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_process_says_is_understood() {
        let text = r#"{"timers":"migrate","at_ns":7,"created":2,"ended":1,"levels":
            [{"walks":1,"passes":2,"expiries":3}],"vms":[{"vm":"a","state":"running",
            "unknown_msrs":0,"absent_devices":0,"vcpus":[{"state":"parked","isolated":false,
            "exits":5,"inline":1,"by_helper":0,"handed_off":0,"kicks":0,"stale_timeouts":0,
            "relieved":0,"overdue":0,"rescued":0,"lent_ns":8,"served_ns":9}]}]}"#;
        let stats: Stats = serde_json::from_str(text).expect("it is understood");
        assert_eq!((stats.schema.as_str(), stats.vms[0].vcpus[0].counters.exits), ("", 5));
        assert_eq!(stats.vms[0].vcpus[0].counters.served_ns, 9);
    }

    #[test]
    fn counters_lie_beside_the_state_and_come_back() {
        let counters = Counters { exits: 3, served_ns: 4, ..Counters::default() };
        let vcpu = VcpuStats {
            state: "home".into(),
            thread: "guest".into(),
            slot: 1,
            isolated: false,
            cpu_ns: None,
            counters,
        };
        let value = serde_json::to_value(&vcpu).expect("JSON");
        assert_eq!((value["exits"].as_u64(), value["served_ns"].as_u64()), (Some(3), Some(4)));
        let back: VcpuStats = serde_json::from_value(value).expect("it");
        assert_eq!(back.counters, counters);
    }

    #[test]
    fn sums_add_every_counter_and_do_not_overflow() {
        let one = Counters {
            exits: 1,
            inline: 2,
            by_helper: 3,
            served: 4,
            handed_off: 5,
            kicks: 6,
            stale_timeouts: 7,
            relieved: 8,
            overdue: 9,
            rescued: 10,
            throttled: 13,
            timer_interrupts: 14,
            lent_ns: 11,
            served_ns: u64::MAX,
        };
        let mut sum = one;
        sum.add(&one);
        let value = serde_json::to_value(sum).expect("JSON");
        let half = serde_json::to_value(one).expect("JSON");
        for (name, was) in half.as_object().expect("fields") {
            let twice = was.as_u64().expect("a number").saturating_mul(2);
            assert_eq!(value[name].as_u64(), Some(twice), "{name}");
        }
    }
}
