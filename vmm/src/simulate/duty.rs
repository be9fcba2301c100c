//! A migrator's duty in virtual time: what becomes of the vCPUs that a pass finds due.
//!
//! Owns the decision between serving a tick on this thread and handing it off, as `vcpu::duty` does.
//! Must not know when passes are run.

use tmigr::{Expire, Expired, Next, Notice, Slot};

use super::Plan;
use super::world::{NEVER, State, World, vcpu_of};

/// What a pass does with the timers that it finds due.
pub(super) struct Duty<'m> {
    /// The vCPU whose thread it is.
    pub by: u32,
    /// Where the thread has got to.
    pub now: u64,
    /// The pass is interrupted here, so that others can act.
    pub until: u64,
    /// The thread's share is used up.
    pub exhausted: bool,
    pub plan: &'m Plan,
    pub world: &'m mut World,
}

impl Duty<'_> {
    fn stop(&self) -> bool {
        let own = self.world.threads[self.by as usize].deadline;
        self.exhausted || self.now >= self.until || self.now >= own
    }

    /// Serves a halted vCPU's tick; answers its next deadline.
    fn serve(&mut self, vcpu: u32) -> u64 {
        let costs = &self.plan.costs;
        let handled = self.now + costs.hierarchy_tick_ns + costs.exit_other_thread_ns / 2;
        let by = self.world.threads[self.by as usize];
        let world = &mut *self.world;
        let served = &mut world.threads[vcpu as usize];
        served.deadline = world.tally.tick(served.deadline, served.period_ns, handled);
        self.now += costs.hierarchy_tick_ns + costs.tick_inline_ns;
        world.tally.inline += 1;
        world.tally.by_helper += u64::from(by.busy.is_none());
        world.tally.cross_node += u64::from(by.node != served.node);
        let next = served.deadline;
        if let Some(busy) = world.busy_mut(self.by) {
            self.exhausted |= !busy.share.charge(costs.tick_inline_ns, self.now);
        }
        next
    }
}

impl Expire for Duty<'_> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        let Some(vcpu) = slot.0.checked_sub(1) else {
            return Expired { next: Next::Foreign, stop: false };
        };
        let thread = &mut self.world.threads[vcpu as usize];
        if thread.state != State::Parked {
            return Expired { next: Next::Foreign, stop: self.stop() };
        }
        if thread.deadline > now || thread.deadline == NEVER {
            self.world.tally.early += 1;
            let next = Some(self.world.threads[vcpu as usize].deadline);
            return Expired { next: Next::Owned(next), stop: self.stop() };
        }
        let late = self.now - thread.deadline;
        let too_late = self.plan.late_goal_ns.is_some_and(|goal| late > goal);
        if too_late || self.plan.costs.tick_inline_ns > self.plan.borrow_limit_ns {
            thread.state = State::Waking;
            self.world.tally.handed_off += 1;
            self.world.arm(vcpu, Some(self.now));
            return Expired { next: Next::Owned(None), stop: self.stop() };
        }
        let next = self.serve(vcpu);
        Expired { next: Next::Owned(Some(next)), stop: self.stop() }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, notice: Notice) {
        self.world.call(vcpu_of(notice.slot), self.now);
    }
}
