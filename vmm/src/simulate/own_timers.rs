//! The models `thread` and `kernel`: each vCPU keeps its own timer.
//!
//! Owns nothing but a walk over the deadlines of each CPU in their order. Must not know how the
//! modes differ beyond the cost of a tick and the slack.
//!
//! Nothing that a vCPU does reaches another CPU, so each CPU is simulated by itself. Its deadlines
//! repeat every period in the same order: those of one rate are sorted once and walked round and
//! round, and no queue is needed.

use super::cpus::Cpus;
use super::layout::{Layout, Role};
use super::tally::{Outcome, Tally};
use super::watch::Watch;
use super::{Interrupted, Plan};
use crate::domain::TimerMode;

/// The vCPUs of one CPU that have the same rate.
struct Round {
    period_ns: u64,
    /// Phase, and when its handler ran last; by phase.
    members: Vec<(u64, u64)>,
    /// The next member, and the beginning of its period.
    at: usize,
    base: u64,
}

impl Round {
    fn deadline(&self) -> u64 {
        self.base + self.members[self.at].0
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.at == self.members.len() {
            self.at = 0;
            self.base += self.period_ns;
        }
    }
}

/// What a tick costs.
struct Tick {
    /// From the time-out to the handler.
    to_handler_ns: u64,
    total_ns: u64,
    late_ns: u64,
}

/// Runs the model of a mode that is not `migrate`.
pub(super) fn run(
    plan: &Plan,
    layout: &Layout,
    mode: TimerMode,
    watch: &Watch,
) -> Result<Outcome, Interrupted> {
    let costs = &plan.costs;
    let to_handler_ns = costs.timer_interrupt_ns + costs.thread_wakeup_ns;
    let (total_ns, late_ns) = match mode {
        TimerMode::Kernel => (costs.tick_kernel_ns, 0),
        _ => (costs.tick_thread_ns, plan.armed_late_ns()),
    };
    let tick = Tick { to_handler_ns, total_ns: total_ns.max(to_handler_ns), late_ns };
    let mut rounds: Vec<Vec<Round>> = layout.busy_of_cpu.iter().map(|_| Vec::new()).collect();
    for seat in &layout.seats {
        if let Role::Idle { phase_ns, period_ns } = seat.role {
            let rounds = &mut rounds[seat.cpu as usize];
            match rounds.iter_mut().find(|round| round.period_ns == period_ns) {
                Some(round) => round.members.push((phase_ns, 0)),
                None => {
                    let members = vec![(phase_ns, 0)];
                    rounds.push(Round { period_ns, members, at: 0, base: 0 });
                }
            }
        }
    }
    let mut cpus = Cpus::new(&layout.busy_of_cpu, costs.idle_exit_ns, plan.residency_ns);
    let mut tally = Tally::new(plan.end_ns());
    let count = rounds.len();
    for (cpu, rounds) in (0..).zip(&mut rounds) {
        watch.progress(mode, f64::from(cpu) / count as f64)?;
        for round in rounds.iter_mut() {
            round.members.sort_unstable();
        }
        one_cpu(cpu, rounds, &tick, &mut cpus, &mut tally);
    }
    let totals = cpus.totals(tally.end);
    Ok(Outcome { tally, cpus: totals, loads: None })
}

fn one_cpu(cpu: u32, rounds: &mut [Round], tick: &Tick, cpus: &mut Cpus, tally: &mut Tally) {
    let end = tally.end;
    while let Some(round) = rounds.iter_mut().min_by_key(|round| round.deadline()) {
        let deadline = round.deadline();
        if deadline >= end {
            return;
        }
        let handled_before = &mut round.members[round.at].1;
        // Below it, the handler of the tick before has taken this one along.
        if deadline > *handled_before || deadline == 0 {
            let start = cpus.begin(cpu, deadline + tick.late_ns);
            let handled = start + tick.to_handler_ns;
            cpus.work(cpu, start, start + tick.total_ns);
            let _next = tally.tick(deadline, round.period_ns, handled);
            *handled_before = handled;
            tally.wakeups += u64::from(start < end);
            tally.timer_interrupts += u64::from(start < end);
        }
        round.advance();
    }
}
