//! The host's CPUs as servers.
//!
//! Owns when each of them is taken, what it has worked, and how it was idle in between. Must not
//! know what the work is for.
//!
//! A CPU without busy vCPUs is idle between pieces of work, and leaving idle costs time. One with
//! several busy vCPUs lets them run in turns of [`TURN_NS`]; the work of a woken thread displaces
//! whoever runs, but a busy vCPU's own thread does nothing outside its turn.

/// How long one of several busy vCPUs runs before the next on its CPU, in nanoseconds.
pub(super) const TURN_NS: u64 = 3_000_000;

/// Share of the time from which on a CPU or a thread counts as overloaded.
pub(super) const OVERLOADED: f64 = 0.95;

#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    free_at: u64,
    worked_ns: u64,
    /// Busy vCPUs.
    busy: u32,
}

/// All CPUs.
#[derive(Debug)]
pub(super) struct Cpus {
    cpus: Vec<Cpu>,
    idle_exit_ns: u64,
    residency_ns: u64,
    idle_exits: u64,
    eligible_ns: u64,
}

/// What the CPUs did until the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CpuTotals {
    /// Times that one left idle.
    pub idle_exits: u64,
    /// Time in idle periods of at least the residency, of all CPUs together.
    pub eligible_ns: u64,
    /// Work, not counting that of busy guests, of all CPUs together.
    pub worked_ns: u64,
    /// Work of the CPUs that have busy guests.
    pub taken_from_busy_ns: u64,
    /// CPUs that have busy guests.
    pub with_busy: u32,
    /// Work of the CPU that has most.
    pub busiest_ns: u64,
    /// CPUs that worked for more than [`OVERLOADED`] of the time.
    pub overloaded: u32,
}

impl Cpus {
    /// CPUs that are idle from time 0 on, or run their busy vCPUs.
    pub(super) fn new(busy_of_cpu: &[u32], idle_exit_ns: u64, residency_ns: u64) -> Cpus {
        let cpus = busy_of_cpu.iter().map(|&busy| Cpu { busy, ..Cpu::default() }).collect();
        Cpus { cpus, idle_exit_ns, residency_ns, idle_exits: 0, eligible_ns: 0 }
    }

    /// When work that comes at `at` can begin: the CPU is free then and has left idle.
    pub(super) fn begin(&mut self, cpu: u32, at: u64) -> u64 {
        let of = &mut self.cpus[cpu as usize];
        if of.busy > 0 || at <= of.free_at {
            return at.max(of.free_at);
        }
        let gap = at - of.free_at;
        self.idle_exits += 1;
        if gap >= self.residency_ns {
            self.eligible_ns += gap;
        }
        of.worked_ns += self.idle_exit_ns;
        of.free_at = at + self.idle_exit_ns;
        of.free_at
    }

    /// The CPU works from `start`, an answer of [`Cpus::begin`], to `end`.
    pub(super) fn work(&mut self, cpu: u32, start: u64, end: u64) {
        let of = &mut self.cpus[cpu as usize];
        of.worked_ns += end - start;
        of.free_at = end;
    }

    /// When the thread of a CPU's busy vCPU can do what comes up at `at`.
    pub(super) fn turn_of(&self, cpu: u32, turn: u32, at: u64) -> u64 {
        let of = &self.cpus[cpu as usize];
        let at = at.max(of.free_at);
        if of.busy <= 1 {
            return at;
        }
        let number = at / TURN_NS;
        let ahead = (u64::from(turn) + u64::from(of.busy) - number % u64::from(of.busy))
            % u64::from(of.busy);
        if ahead == 0 { at } else { (number + ahead) * TURN_NS }
    }

    /// How many busy vCPUs the CPU has.
    pub(super) fn busy(&self, cpu: u32) -> u32 {
        self.cpus[cpu as usize].busy
    }

    /// Sums up at `end`; work beyond it does not count.
    pub(super) fn totals(&self, end: u64) -> CpuTotals {
        let mut totals = CpuTotals {
            idle_exits: self.idle_exits,
            eligible_ns: self.eligible_ns,
            ..CpuTotals::default()
        };
        for cpu in &self.cpus {
            let worked = cpu.worked_ns.saturating_sub(cpu.free_at.saturating_sub(end));
            totals.worked_ns += worked;
            totals.busiest_ns = totals.busiest_ns.max(worked);
            totals.overloaded += u32::from(worked as f64 > OVERLOADED * end as f64);
            if cpu.busy > 0 {
                totals.with_busy += 1;
                totals.taken_from_busy_ns += worked;
            } else if end.saturating_sub(cpu.free_at) >= self.residency_ns {
                totals.eligible_ns += end - cpu.free_at;
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_queues_and_leaving_idle_takes_time() {
        let mut cpus = Cpus::new(&[0], 10, 100);
        assert_eq!(cpus.begin(0, 1_000), 1_010);
        cpus.work(0, 1_010, 1_050);
        assert_eq!(cpus.begin(0, 1_020), 1_050, "behind the first");
        cpus.work(0, 1_050, 1_090);
        assert_eq!(cpus.begin(0, 1_100), 1_110);
        cpus.work(0, 1_110, 1_120);
        let totals = cpus.totals(1_500);
        assert_eq!(totals.idle_exits, 2);
        assert_eq!(totals.worked_ns, 10 + 40 + 40 + 10 + 10);
        assert_eq!(totals.eligible_ns, 1_000 + 380, "the 10 ns in between are too short");
    }

    #[test]
    fn a_cpu_with_a_busy_guest_is_never_idle() {
        let mut cpus = Cpus::new(&[1, 0], 10, 100);
        assert_eq!(cpus.begin(0, 500), 500);
        cpus.work(0, 500, 700);
        let totals = cpus.totals(1_000);
        assert_eq!((totals.idle_exits, totals.eligible_ns), (0, 1_000));
        assert_eq!((totals.with_busy, totals.taken_from_busy_ns), (1, 200));
    }

    #[test]
    fn work_beyond_the_end_does_not_count() {
        let mut cpus = Cpus::new(&[0, 0], 0, 100);
        cpus.work(0, 0, 5_000);
        let totals = cpus.totals(1_000);
        assert_eq!((totals.worked_ns, totals.busiest_ns, totals.overloaded), (1_000, 1_000, 1));
    }

    #[test]
    fn busy_threads_of_a_cpu_act_in_their_turns() {
        let cpus = Cpus::new(&[3], 0, 0);
        assert_eq!(cpus.turn_of(0, 0, 5), 5);
        assert_eq!(cpus.turn_of(0, 1, 5), TURN_NS);
        assert_eq!(cpus.turn_of(0, 2, 5), 2 * TURN_NS);
        assert_eq!(cpus.turn_of(0, 0, TURN_NS), 3 * TURN_NS);
        assert_eq!(cpus.turn_of(0, 2, 2 * TURN_NS + 7), 2 * TURN_NS + 7);
    }
}
