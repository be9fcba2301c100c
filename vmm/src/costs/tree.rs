//! What the hierarchy's operations cost.
//!
//! Owns a hierarchy of some thousand slots of which one is active. Must not know clocks: whoever
//! calls takes the time.

use tmigr::{CreateError, Expire, Expired, Hierarchy, Next, Notice, Slot};

const SLOTS: u32 = 4_096;
/// The slot that serves the others.
const MIGRATOR: Slot = Slot(0);
/// A slot that wakes and halts.
const SLEEPER: Slot = Slot(SLOTS / 2);
const PERIOD_NS: u64 = 10_000_000;

/// The hierarchy, and where its time has got to.
pub(super) struct Tree {
    hierarchy: Hierarchy,
    now: u64,
}

struct Requeue {
    now: u64,
    expired: u64,
}

impl Expire for Requeue {
    fn expire(&mut self, _slot: Slot, _now: u64) -> Expired {
        self.expired += 1;
        Expired { next: Next::Owned(Some(self.now + PERIOD_NS)), stop: false }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, _notice: Notice) {}
}

impl Tree {
    /// All slots but one are halted, with ticks spread over a period.
    pub(super) fn new() -> Result<Tree, CreateError> {
        let hierarchy = Hierarchy::new(SLOTS, 1)?;
        for slot in (0..SLOTS).map(Slot) {
            // The first is active throughout and there is a place for each, so none is refused.
            let _nobody = hierarchy.prepare(slot, 0, MIGRATOR);
            let _nobody = hierarchy.available(slot, false);
        }
        for slot in 1..SLOTS {
            let phase = PERIOD_NS * u64::from(slot) / u64::from(SLOTS);
            let _migrator_looks_anyway = hierarchy.deactivate(Slot(slot), Some(phase));
        }
        Ok(Tree { hierarchy, now: 0 })
    }

    /// Lets `ns` nanoseconds pass; answers how many ticks were expired.
    pub(super) fn pass(&mut self, ns: u64) -> u64 {
        self.now += ns;
        let mut requeue = Requeue { now: self.now, expired: 0 };
        let _active_anyway = self.hierarchy.handle_remote(MIGRATOR, self.now, &mut requeue);
        requeue.expired
    }

    /// A slot wakes and halts again.
    pub(super) fn wake_and_halt(&mut self) {
        let _nobody = self.hierarchy.activate(SLEEPER);
        let _nobody = self.hierarchy.deactivate(SLEEPER, Some(self.now + PERIOD_NS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tick_is_expired_once_a_period() {
        let mut tree = Tree::new().unwrap();
        let expired: u64 = (0..200).map(|_| tree.pass(PERIOD_NS / 100)).sum();
        assert!((8_000..=8_190).contains(&expired), "{expired}");
        tree.wake_and_halt();
        assert!(tree.hierarchy.is_idle(SLEEPER));
    }
}
