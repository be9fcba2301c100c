//! The model `migrate`: the real hierarchy, in virtual time.
//!
//! Owns the order of events and what each thread does when its time has come: the life of a home
//! thread (`vcpu::home`) and a migrator's duty (`vcpu::duty`), retold for threads that take time
//! but do nothing. Must not know what threads and CPUs have done besides (`world`).
//!
//! A thread works on for at most [`LOOKAHEAD_NS`] before others get to act, so the order in which
//! two threads see the hierarchy is right to within this time. Their own times are exact.

use tmigr::{Hierarchy, Notices, Slot};

use super::duty::Duty;
use super::layout::{Layout, Role, deadlines_before};
use super::tally::Outcome;
use super::watch::Watch;
use super::world::{State, World, slot_of, vcpu_of};
use super::{Plan, SimulateError};
use crate::domain::TimerMode;

/// How far a thread gets ahead of the others, in nanoseconds.
const LOOKAHEAD_NS: u64 = 50_000;
/// How long the own guest runs at least between two turns for others, as in the VMM.
const LEAST_TURN_NS: u64 = 50_000;
/// The longest time for which a thread waits for the next expiry instead of entering its guest.
const MOST_LEAD_NS: u64 = 50_000;
/// Events between two looks at the watch.
const LOOK: u64 = 1 << 14;

/// The slot that belongs to no vCPU: preparing others needs an active one.
const HOUSEKEEPER: Slot = Slot(0);

struct Model<'p> {
    plan: &'p Plan,
    hierarchy: Hierarchy,
    world: World,
    /// How much earlier than its purpose a running thread's host timer is set.
    lead_ns: u64,
    late_ns: u64,
}

/// One thread's stretch of work.
struct Stretch {
    vcpu: u32,
    began: u64,
    /// Where it has got to.
    now: u64,
}

/// Runs the model.
pub(super) fn run(plan: &Plan, layout: &Layout, watch: &Watch) -> Result<Outcome, SimulateError> {
    let mut model = Model {
        plan,
        hierarchy: prepared(plan, layout)?,
        world: World::new(plan, layout),
        lead_ns: if plan.slack_ns == 0 { plan.costs.timer_exit_ns.min(MOST_LEAD_NS) } else { 0 },
        late_ns: plan.armed_late_ns(),
    };
    model.begin(layout);
    let end = plan.end_ns();
    let mut events: u64 = 0;
    while let Some((at, vcpu)) = model.world.next_event().filter(|(at, _)| *at < end) {
        if events.is_multiple_of(LOOK) {
            watch.progress(TimerMode::Migrate, at as f64 / end as f64)?;
        }
        events += 1;
        model.act(vcpu, at);
    }
    for seat in model.world.threads.iter().filter(|thread| thread.busy.is_none()) {
        model.world.tally.pending += deadlines_before(end, seat.deadline, seat.period_ns);
    }
    Ok(model.world.outcome())
}

/// A hierarchy in which all slots are prepared and none takes part.
fn prepared(plan: &Plan, layout: &Layout) -> Result<Hierarchy, SimulateError> {
    let hierarchy = Hierarchy::new(plan.vcpus + 1, plan.nodes).map_err(SimulateError::Hierarchy)?;
    let _nobody_runs_yet =
        hierarchy.prepare(HOUSEKEEPER, 0, HOUSEKEEPER).map_err(SimulateError::Prepare)?;
    let _nobody_runs_yet = hierarchy.available(HOUSEKEEPER, false).map_err(SimulateError::Slot)?;
    for (vcpu, seat) in (0..).zip(&layout.seats) {
        let _nobody_runs_yet = hierarchy
            .prepare(slot_of(vcpu), seat.node, HOUSEKEEPER)
            .map_err(SimulateError::Prepare)?;
        let _nobody_runs_yet =
            hierarchy.available(slot_of(vcpu), false).map_err(SimulateError::Slot)?;
    }
    let _nothing_to_care_for = hierarchy.deactivate(HOUSEKEEPER, None);
    Ok(hierarchy)
}

impl Model<'_> {
    /// All idle vCPUs halt at time 0, which costs nothing here; then everybody sleeps or runs its
    /// guest until its responsibility begins.
    fn begin(&mut self, layout: &Layout) {
        let mut keeper = None;
        for (vcpu, seat) in (0..).zip(&layout.seats) {
            if let Role::Idle { phase_ns, .. } = seat.role {
                let wakeup = self.hierarchy.deactivate(slot_of(vcpu), Some(phase_ns));
                let wakeup = wakeup.expect("all slots begin active");
                if wakeup.first.is_some() {
                    keeper = Some(vcpu);
                }
            }
        }
        for (vcpu, seat) in (0..).zip(&layout.seats) {
            if matches!(seat.role, Role::Busy { .. }) || keeper == Some(vcpu) {
                let back = self.hierarchy.responsibility(slot_of(vcpu));
                self.world.arm(vcpu, back.map(|at| at + self.late_ns));
            }
        }
    }

    /// A thread's time has come.
    fn act(&mut self, vcpu: u32, at: u64) {
        let world = &mut self.world;
        let turn = world.turn_of(vcpu, at);
        if turn > at {
            // Another busy vCPU has the CPU.
            world.arm(vcpu, Some(turn));
            return;
        }
        let thread = world.threads[vcpu as usize];
        let began = world.cpus.begin(thread.cpu, at);
        let costs = &self.plan.costs;
        let called = thread.called;
        let mut stretch = Stretch { vcpu, began, now: began };
        match thread.state {
            State::Serving => {}
            State::Guest => {
                stretch.now += if called { costs.kick_ns } else { costs.timer_exit_ns };
                world.tally.timer_interrupts += u64::from(!called);
            }
            State::Parked | State::Waking => {
                let timed = thread.state == State::Parked && !called;
                let interrupt = if timed { costs.timer_interrupt_ns } else { 0 };
                stretch.now += interrupt + costs.thread_wakeup_ns;
                world.tally.timer_interrupts += u64::from(timed);
                world.tally.wakeups += 1;
                if thread.state == State::Parked && !self.is_needed(&stretch) {
                    return;
                }
                let notices = self.hierarchy.activate(slot_of(vcpu));
                self.deliver(notices.expect("a parked vCPU's slot is idle"), stretch.now);
            }
        }
        let thread = &mut self.world.threads[vcpu as usize];
        if thread.state != State::Serving {
            thread.state = State::Serving;
            thread.called = false;
            thread.turn_began = stretch.now;
            thread.pass = None;
        }
        self.work(stretch);
    }

    /// Whether a parked vCPU's thread has anything to do now; if not, it sleeps on.
    fn is_needed(&mut self, stretch: &Stretch) -> bool {
        let back = self.hierarchy.responsibility(slot_of(stretch.vcpu));
        if back.is_some_and(|at| at <= stretch.now) {
            return true;
        }
        self.world.tally.stale += 1;
        self.world.threads[stretch.vcpu as usize].called = false;
        self.world.charge(stretch.vcpu, stretch.began, stretch.now);
        self.world.arm(stretch.vcpu, back.map(|at| at + self.late_ns));
        false
    }

    /// The thread does what there is to do: its own vCPU's tick, then its duty.
    fn work(&mut self, mut stretch: Stretch) {
        let vcpu = stretch.vcpu;
        let slot = slot_of(vcpu);
        let until = stretch.now + LOOKAHEAD_NS;
        self.rejoin(&stretch);
        loop {
            self.own_tick(&mut stretch);
            let thread = &self.world.threads[vcpu as usize];
            let at = thread.pass.unwrap_or(stretch.now);
            if thread.pass.is_none() && !self.hierarchy.requires_handle_remote(slot, at) {
                if self.waits(&mut stretch) {
                    continue;
                }
                break;
            }
            let mut duty = Duty {
                by: vcpu,
                now: stretch.now,
                until,
                exhausted: false,
                plan: self.plan,
                world: &mut self.world,
            };
            let pass = self.hierarchy.handle_remote(slot, at, &mut duty);
            let exhausted = duty.exhausted;
            stretch.now = duty.now;
            let thread = &mut self.world.threads[vcpu as usize];
            let own_due = thread.deadline <= stretch.now;
            let goes_on = pass.stopped && !own_due && !exhausted;
            thread.pass = goes_on.then_some(at);
            let turn_over = thread.busy.is_some()
                && stretch.now - thread.turn_began > self.plan.borrow_limit_ns;
            if exhausted {
                self.relieve(&stretch);
                break;
            }
            if !goes_on && turn_over {
                break;
            }
            if stretch.now >= until {
                self.world.charge(vcpu, stretch.began, stretch.now);
                self.world.arm(vcpu, Some(stretch.now));
                return;
            }
        }
        self.rest(stretch);
    }

    fn own_tick(&mut self, stretch: &mut Stretch) {
        let thread = &mut self.world.threads[stretch.vcpu as usize];
        if thread.deadline > stretch.now {
            return;
        }
        let costs = &self.plan.costs;
        let handled = stretch.now + costs.exit_ns / 2;
        thread.deadline = self.world.tally.tick(thread.deadline, thread.period_ns, handled);
        thread.pass = None;
        stretch.now += costs.tick_inline_ns;
    }

    /// A running thread whose next duty is nearer than a host timer can be aimed waits for it.
    fn waits(&mut self, stretch: &mut Stretch) -> bool {
        if self.world.threads[stretch.vcpu as usize].busy.is_none() {
            return false;
        }
        let near = stretch.now + self.lead_ns;
        let next = self.hierarchy.responsibility(slot_of(stretch.vcpu));
        match next.filter(|at| (stretch.now + 1..=near).contains(at)) {
            Some(at) => {
                stretch.now = at;
                true
            }
            None => false,
        }
    }

    /// The thread goes back to its guest or to sleep.
    fn rest(&mut self, mut stretch: Stretch) {
        let (vcpu, slot) = (stretch.vcpu, slot_of(stretch.vcpu));
        let costs = &self.plan.costs;
        let thread = self.world.threads[vcpu as usize];
        let back = if thread.busy.is_some() {
            stretch.now += costs.timer_set_near_ns;
            self.guest_until(&stretch)
        } else {
            let wakeup = self.hierarchy.deactivate(slot, Some(thread.deadline));
            stretch.now += costs.hierarchy_halt_ns;
            let notices = wakeup.expect("an awake vCPU's slot is active").notices;
            self.deliver(notices, stretch.now);
            self.hierarchy.responsibility(slot).map(|at| at + self.late_ns)
        };
        let thread = &mut self.world.threads[vcpu as usize];
        thread.state = if thread.busy.is_some() { State::Guest } else { State::Parked };
        self.world.charge(vcpu, stretch.began, stretch.now);
        self.world.arm(vcpu, back.map(|at| at.max(stretch.now)));
    }

    /// Until when a busy vCPU's guest runs, as its thread's host timer is set.
    fn guest_until(&self, stretch: &Stretch) -> Option<u64> {
        let (now, least) = (stretch.now, stretch.now + LEAST_TURN_NS);
        let duty = self.hierarchy.responsibility(slot_of(stretch.vcpu)).map(|at| match at > now {
            true => (at + self.late_ns).saturating_sub(self.lead_ns),
            false => (at + self.late_ns).max(least),
        });
        let rejoin = self.world.busy(stretch.vcpu).and_then(|busy| busy.rejoin_at);
        duty.into_iter().chain(rejoin.map(|at| at.max(least))).min()
    }

    /// The share is used up: the slot leaves for a while.
    fn relieve(&mut self, stretch: &Stretch) {
        let now = stretch.now;
        self.world.tally.relieved += 1;
        if let Some(busy) = self.world.busy_mut(stretch.vcpu) {
            busy.rejoin_at = Some(busy.share.leave(now));
        }
        let left = self.hierarchy.unavailable(slot_of(stretch.vcpu));
        self.deliver(left.notices, now);
        if left.trigger.is_some() {
            self.world.summon(now);
        }
    }

    fn rejoin(&mut self, stretch: &Stretch) {
        let now = stretch.now;
        let Some(busy) = self.world.busy_mut(stretch.vcpu) else { return };
        if busy.rejoin_at.is_none_or(|at| at > now) {
            return;
        }
        busy.rejoin_at = None;
        busy.share.rejoin(now);
        // It was prepared at the start, so this cannot fail.
        if let Ok(notices) = self.hierarchy.available(slot_of(stretch.vcpu), false) {
            self.deliver(notices, now);
        }
    }

    fn deliver(&mut self, notices: Notices, now: u64) {
        for notice in notices {
            self.world.call(vcpu_of(notice.slot), now);
        }
    }
}
