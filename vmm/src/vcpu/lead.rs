//! How much earlier than its purpose the host timer of a running thread is armed.
//!
//! From the expiry of a host timer to the look at the clock in the run loop pass the interrupt, the
//! exit and the signal: 10-20 us where exits are dear. KVM's in-kernel APIC arms its timer earlier
//! by what such a delay is ("lapic_timer_advance"), and so does this. A thread that comes too early
//! waits for the rest, so no timer is expired early.
//!
//! Owns the estimate. Pure: time is an argument. Must not know what the timer is for.

/// Never arm earlier than by this, in nanoseconds: a host that is slow now and then shall not make
/// threads wait.
const MOST_NS: u64 = 50_000;

/// A delay beyond this is not what a timer takes: the thread had no CPU.
const OUTLIER_NS: u64 = 2 * MOST_NS;

/// An estimate of the least delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lead {
    ns: u64,
}

impl Lead {
    /// By how many nanoseconds to arm earlier.
    #[must_use]
    pub fn ns(self) -> u64 {
        self.ns
    }

    /// Takes in that a timer's thread was there `late_ns` after the timer's expiry. Falls at once
    /// and rises slowly: most delays are somewhat longer than the estimate, so that next to nothing
    /// is waited for.
    pub fn record(&mut self, late_ns: u64) {
        if late_ns > OUTLIER_NS {
            return;
        }
        let late_ns = late_ns.min(MOST_NS);
        if late_ns <= self.ns {
            self.ns = late_ns;
        } else {
            self.ns += (late_ns - self.ns).div_ceil(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_near_the_least_delay_whatever_the_largest() {
        let mut lead = Lead::default();
        for i in 0..2_000_u64 {
            lead.record(if i % 50 == 0 { 5_000_000 } else { 15_000 + i % 7 * 1_000 });
        }
        assert!((14_000..17_000).contains(&lead.ns()), "{}", lead.ns());
    }

    #[test]
    fn falls_at_once_and_never_exceeds_its_bound() {
        let mut lead = Lead::default();
        for _ in 0..10_000 {
            lead.record(u64::MAX);
        }
        assert_eq!(lead.ns(), 0, "a thread without a CPU says nothing");
        for _ in 0..10_000 {
            lead.record(OUTLIER_NS);
        }
        assert_eq!(lead.ns(), MOST_NS);
        lead.record(300);
        assert_eq!(lead.ns(), 300);
    }
}
