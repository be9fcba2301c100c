//! The threads and CPUs of the model `migrate`, and when each thread has to act.
//!
//! Owns their state and the queue. Must not know the hierarchy, but for the numbers of
//! its slots.

use tmigr::Slot;

use super::Plan;
use super::cpus::Cpus;
use super::layout::{Layout, Role};
use super::queue::Queue;
use super::tally::{Loads, Outcome, Tally};
use crate::vcpu::Share;

/// No time: a thread that nothing is set for, a vCPU without a tick.
pub(super) const NEVER: u64 = u64::MAX;

/// The slot of a vCPU; the first one belongs to none.
pub(super) fn slot_of(vcpu: u32) -> Slot {
    Slot(vcpu + 1)
}

/// The vCPU of a slot, which is not the first.
pub(super) fn vcpu_of(slot: Slot) -> u32 {
    slot.0 - 1
}

/// What a vCPU's home thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It sleeps; the vCPU is halted.
    Parked,
    /// It was told to take its vCPU, and is about to.
    Waking,
    /// It serves its own vCPU or others.
    Serving,
    /// It runs its own, busy guest.
    Guest,
}

/// A home thread and its vCPU. On one cache line: a migrator touches one for each tick.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Thread {
    /// Of the vCPU's next tick.
    pub deadline: u64,
    /// Between its ticks.
    pub period_ns: u64,
    /// When the thread acts next. What the queue has besides is out of date.
    pub armed: u64,
    /// When its present turn for others began.
    pub turn_began: u64,
    /// The time of the pass that was interrupted, so that other threads could act.
    pub pass: Option<u64>,
    pub cpu: u32,
    pub node: u16,
    pub state: State,
    /// It is armed because somebody called it, not by its timer.
    pub called: bool,
    /// Its number among the busy ones.
    pub busy: Option<u32>,
}

/// What only threads of busy vCPUs have.
#[derive(Debug)]
pub(super) struct Busy {
    pub share: Share,
    /// When it comes back into the hierarchy.
    pub rejoin_at: Option<u64>,
    turn: u32,
}

/// All threads and CPUs.
#[derive(Debug)]
pub(super) struct World {
    pub threads: Vec<Thread>,
    busy: Vec<Busy>,
    pub cpus: Cpus,
    queue: Queue,
    loads: Loads,
    pub tally: Tally,
    /// Where the search for a helper starts.
    helper: u32,
}

impl World {
    /// Everybody where the layout says, nothing armed.
    pub(super) fn new(plan: &Plan, layout: &Layout) -> World {
        let mut busy = Vec::new();
        let mut threads = Vec::with_capacity(layout.seats.len());
        for seat in &layout.seats {
            let mut thread = Thread {
                deadline: NEVER,
                period_ns: 0,
                armed: NEVER,
                turn_began: 0,
                pass: None,
                cpu: seat.cpu,
                node: seat.node as u16,
                state: State::Guest,
                called: false,
                busy: None,
            };
            match seat.role {
                Role::Busy { turn } => {
                    thread.busy = Some(busy.len() as u32);
                    let share = Share::new(plan.borrow_share_percent, 0);
                    busy.push(Busy { share, rejoin_at: None, turn });
                }
                Role::Idle { phase_ns, period_ns } => {
                    thread.state = State::Parked;
                    (thread.deadline, thread.period_ns) = (phase_ns, period_ns);
                }
            }
            threads.push(thread);
        }
        let idle_exit_ns = plan.costs.idle_exit_ns;
        World {
            loads: Loads::new(threads.len()),
            threads,
            busy,
            cpus: Cpus::new(&layout.busy_of_cpu, idle_exit_ns, plan.residency_ns),
            queue: Queue::new(),
            tally: Tally::new(plan.end_ns()),
            helper: 0,
        }
    }

    /// The next time at which a thread acts; it is disarmed by this.
    pub(super) fn next_event(&mut self) -> Option<(u64, u32)> {
        loop {
            let (at, vcpu) = self.queue.pop()?;
            let thread = &mut self.threads[vcpu as usize];
            if thread.armed == at {
                thread.armed = NEVER;
                return Some((at, vcpu));
            }
        }
    }

    /// The thread acts at `at`, and not at any time that was set before; `None`: not by itself.
    pub(super) fn arm(&mut self, vcpu: u32, at: Option<u64>) {
        let thread = &mut self.threads[vcpu as usize];
        thread.armed = at.unwrap_or(NEVER);
        if let Some(at) = at {
            self.queue.push(at, vcpu);
        }
    }

    /// Somebody tells the thread, at `now`, to look at its responsibility again.
    pub(super) fn call(&mut self, vcpu: u32, now: u64) {
        self.tally.kicks += 1;
        let thread = &mut self.threads[vcpu as usize];
        // One that works looks at it before it rests.
        let rests = matches!(thread.state, State::Guest | State::Parked);
        if rests && thread.armed > now {
            thread.called = true;
            self.arm(vcpu, Some(now));
        }
    }

    /// Nobody looks after the hierarchy: wakes some parked vCPU's thread.
    pub(super) fn summon(&mut self, now: u64) {
        let count = self.threads.len() as u32;
        let found = (0..count)
            .map(|i| (self.helper + i) % count)
            .find(|vcpu| self.threads[*vcpu as usize].state == State::Parked);
        if let Some(vcpu) = found {
            self.helper = vcpu;
            self.threads[vcpu as usize].state = State::Waking;
            self.arm(vcpu, Some(now));
        }
    }

    /// What a busy vCPU's thread has.
    pub(super) fn busy(&self, vcpu: u32) -> Option<&Busy> {
        let index = self.threads[vcpu as usize].busy?;
        self.busy.get(index as usize)
    }

    /// As [`World::busy`].
    pub(super) fn busy_mut(&mut self, vcpu: u32) -> Option<&mut Busy> {
        let index = self.threads[vcpu as usize].busy?;
        self.busy.get_mut(index as usize)
    }

    /// When the thread can do what comes up at `at`: later, if another busy vCPU has its CPU.
    pub(super) fn turn_of(&self, vcpu: u32, at: u64) -> u64 {
        match self.busy(vcpu) {
            Some(busy) => self.cpus.turn_of(self.threads[vcpu as usize].cpu, busy.turn, at),
            None => at,
        }
    }

    /// The thread has worked from `began`, when its CPU was free, to `now`.
    pub(super) fn charge(&mut self, vcpu: u32, began: u64, now: u64) {
        let cpu = self.threads[vcpu as usize].cpu;
        self.cpus.work(cpu, began, now);
        let parts = self.parts(vcpu as usize);
        self.loads.add(vcpu as usize, began, now - began, parts);
    }

    /// How many share the time of the thread's CPU with it, itself included.
    fn parts(&self, vcpu: usize) -> u32 {
        let thread = &self.threads[vcpu];
        if thread.busy.is_some() { self.cpus.busy(thread.cpu) } else { 1 }
    }

    /// Sums up.
    pub(super) fn outcome(self) -> Outcome {
        let end = self.tally.end;
        let parts: Vec<u32> = (0..self.threads.len()).map(|vcpu| self.parts(vcpu)).collect();
        let loads = self.loads.totals(end, |vcpu| parts[vcpu]);
        Outcome { cpus: self.cpus.totals(end), tally: self.tally, loads: Some(loads) }
    }
}
