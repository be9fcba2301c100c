//! Who is where: nodes, CPUs, who is busy, who ticks when.
//!
//! Owns the drawing of lots, all from the seed, so that every mode meets the same load. Must not
//! know time or costs.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::plan::Plan;

/// The place of a vCPU and its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// The host CPU on which its thread runs.
    pub cpu: u32,
    /// The NUMA node of that CPU.
    pub node: u32,
    /// What the vCPU does.
    pub role: Role,
}

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It computes without pause, and is the one of this number on its CPU.
    Busy {
        /// Its turn among the busy vCPUs of its CPU.
        turn: u32,
    },
    /// It is halted but for its ticks.
    Idle {
        /// First tick, in nanoseconds; below a period.
        phase_ns: u64,
        /// Time between its ticks, in nanoseconds.
        period_ns: u64,
    },
}

/// All places.
#[derive(Debug)]
pub(super) struct Layout {
    /// By vCPU.
    pub seats: Vec<Seat>,
    /// By CPU, how many busy vCPUs it has.
    pub busy_of_cpu: Vec<u32>,
    /// Ticks whose deadline lies within the simulated time.
    pub expected: u64,
}

impl Layout {
    /// Places the vCPUs of a plan that was checked.
    ///
    /// Nodes have equal shares of CPUs and of vCPUs, in order. Busy vCPUs take the CPUs of their
    /// node in turns. The threads of the others have those without a busy vCPU, if the node has
    /// any, as a scheduler would not wake them elsewhere.
    pub(super) fn new(plan: &Plan) -> Layout {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut busy = vec![false; plan.vcpus as usize];
        let chosen = rand::seq::index::sample(&mut rng, busy.len(), plan.busy() as usize);
        for vcpu in chosen {
            busy[vcpu] = true;
        }
        let mut busy_of_cpu = vec![0; plan.cpus as usize];
        let mut seats = Vec::with_capacity(busy.len());
        let mut expected = 0;
        for node in 0..plan.nodes {
            let [cpus, vcpus] = [plan.cpus, plan.vcpus].map(|all| share(all, node, plan.nodes));
            let mut places = cpus.clone().cycle();
            let mut busy_seats = Vec::new();
            for _ in busy[vcpus.start as usize..vcpus.end as usize].iter().filter(|busy| **busy) {
                let cpu = places.next().unwrap_or(cpus.start);
                let turn = busy_of_cpu[cpu as usize];
                busy_of_cpu[cpu as usize] += 1;
                busy_seats.push(Seat { cpu, node, role: Role::Busy { turn } });
            }
            let mut busy_seats = busy_seats.into_iter();
            let free: Vec<u32> =
                cpus.clone().filter(|cpu| busy_of_cpu[*cpu as usize] == 0).collect();
            let homes = if free.is_empty() { cpus.collect() } else { free };
            let mut homes = homes.iter().copied().cycle();
            for vcpu in vcpus {
                let taken = busy[vcpu as usize].then(|| busy_seats.next()).flatten();
                seats.push(taken.unwrap_or_else(|| {
                    let hz = plan.hz[vcpu as usize % plan.hz.len()];
                    let period_ns = 1_000_000_000 / u64::from(hz);
                    let phase_ns = rng.random_range(0..period_ns);
                    expected += deadlines_before(plan.end_ns(), phase_ns, period_ns);
                    let cpu = homes.next().unwrap_or_default();
                    Seat { cpu, node, role: Role::Idle { phase_ns, period_ns } }
                }));
            }
        }
        Layout { seats, busy_of_cpu, expected }
    }
}

/// The part of `all` that belongs to a node.
fn share(all: u32, node: u32, nodes: u32) -> std::ops::Range<u32> {
    let start = |node| (u64::from(all) * u64::from(node) / u64::from(nodes)) as u32;
    start(node)..start(node + 1)
}

/// How many of the times `first`, `first + period_ns`, ... lie before `end`.
pub(super) fn deadlines_before(end: u64, first: u64, period_ns: u64) -> u64 {
    if first < end { (end - 1 - first) / period_ns + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(vcpus: u32, cpus: u32, nodes: u32, busy_share_percent: f64) -> Plan {
        Plan { vcpus, cpus, nodes, busy_share_percent, secs: 1.0, ..Plan::default() }
    }

    #[test]
    fn deadlines_are_counted_up_to_the_end_but_not_at_it() {
        assert_eq!(deadlines_before(100, 0, 10), 10);
        assert_eq!(deadlines_before(101, 0, 10), 11);
        assert_eq!(deadlines_before(100, 99, 10), 1);
        assert_eq!(deadlines_before(100, 100, 10), 0);
    }

    #[test]
    fn nodes_have_equal_shares_and_their_own_cpus() {
        let layout = Layout::new(&plan(1_000, 8, 2, 0.0));
        assert_eq!(layout.seats.iter().filter(|seat| seat.node == 1).count(), 500);
        assert!(layout.seats.iter().all(|seat| seat.cpu / 4 == seat.node));
        assert!((0..8).all(|cpu| layout.seats.iter().filter(|s| s.cpu == cpu).count() == 125));
        assert_eq!(layout.expected, 100_000);
    }

    #[test]
    fn idle_threads_stay_off_busy_cpus_while_there_are_others() {
        let layout = Layout::new(&plan(1_000, 8, 2, 0.2));
        let busy: u32 = layout.busy_of_cpu.iter().sum();
        assert_eq!(busy, 2);
        for seat in &layout.seats {
            if let Role::Idle { phase_ns, period_ns } = seat.role {
                assert_eq!(layout.busy_of_cpu[seat.cpu as usize], 0);
                assert!(phase_ns < period_ns);
            }
        }
        let full = Layout::new(&plan(1_000, 4, 1, 1.0));
        assert_eq!(full.busy_of_cpu, [3, 3, 2, 2]);
        let mut turns: Vec<u32> = full
            .seats
            .iter()
            .filter_map(|seat| match seat.role {
                Role::Busy { turn } if seat.cpu == 0 => Some(turn),
                _ => None,
            })
            .collect();
        turns.sort_unstable();
        assert_eq!(turns, [0, 1, 2]);
    }

    #[test]
    fn rates_take_turns_and_the_seed_decides_the_rest() {
        let mut of = plan(999, 8, 1, 0.0);
        of.hz = vec![10, 100, 1_000];
        let layout = Layout::new(&of);
        assert_eq!(layout.expected, 333 * 1_110);
        assert_eq!(Layout::new(&of).seats, layout.seats);
        let other = Layout::new(&Plan { seed: 2, ..of });
        assert_ne!(other.seats, layout.seats);
    }
}
