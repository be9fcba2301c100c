//! How many threads compute, whether one of them may leave its duty to somebody else, and how long a
//! duty takes.
//!
//! Owns two counts of a domain's threads and an average. Must not know who the threads are, nor what
//! the host does besides.
//!
//! | variable | writers | readers | ordering |
//! |---|---|---|---|
//! | `busy`, `away` | each home thread, for itself | any thread that used up its share | relaxed: what is decided by them is a matter of cost, and decided anew within milliseconds |
//! | `pass_ns` | whoever has done its duty; one of two at the same time may be lost | any thread that arms a timer | relaxed, as above |

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

/// The counts.
#[derive(Debug)]
pub struct Load {
    /// CPUs that the process may use.
    cpus: u32,
    /// Threads whose own guests want to run without a break.
    busy: AtomicU32,
    /// Those of them that have left the hierarchy for a while.
    away: AtomicU32,
    /// Average time in which all that were due at the same time were served.
    pass_ns: AtomicU64,
}

impl Default for Load {
    fn default() -> Self {
        let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u32);
        Load::new(cpus)
    }
}

impl Load {
    /// For threads that share so many CPUs.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        Load { cpus, busy: AtomicU32::new(0), away: AtomicU32::new(0), pass_ns: AtomicU64::new(0) }
    }

    /// One thread more, or less, is busy.
    pub fn busy(&self, is: bool) {
        count(&self.busy, is);
    }

    /// One busy thread more, or less, is out of the hierarchy.
    pub fn away(&self, is: bool) {
        count(&self.away, is);
    }

    /// Everybody who was due has been served, which took `ns` nanoseconds.
    pub fn served(&self, ns: u64) {
        let average = self.pass_ns.load(Ordering::Relaxed);
        self.pass_ns.store(average - average / 16 + ns / 16, Ordering::Relaxed);
    }

    /// How long that takes on average, in nanoseconds.
    #[must_use]
    pub fn pass_ns(&self) -> u64 {
        self.pass_ns.load(Ordering::Relaxed)
    }

    /// Whether a busy thread that leaves its duty leaves it to somebody who is better placed: another
    /// busy one that has not left yet, or one that has a CPU to itself. Otherwise a thread would be
    /// woken to do the same work on the same CPU.
    #[must_use]
    pub fn can_relieve(&self) -> bool {
        let busy = self.busy.load(Ordering::Relaxed);
        let away = self.away.load(Ordering::Relaxed);
        busy.saturating_sub(away) > 1 || busy < self.cpus
    }
}

fn count(counter: &AtomicU32, up: bool) {
    if up {
        counter.fetch_add(1, Ordering::Relaxed);
    } else {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_busy_thread_stays_where_no_cpu_is_left() {
        let load = Load::new(2);
        load.busy(true);
        assert!(load.can_relieve(), "the other CPU is idle");
        load.busy(true);
        assert!(load.can_relieve(), "the other thread takes its turn");
        load.away(true);
        assert!(!load.can_relieve(), "it is away already");
        load.away(false);
        load.busy(false);
        assert!(load.can_relieve());
        let alone = Load::new(1);
        alone.busy(true);
        assert!(!alone.can_relieve());
    }
}
