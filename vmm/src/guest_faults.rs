//! What a guest does that has no effect, counted, and logged: each model-specific register once, as
//! kernels try the same ones again and again, addresses at a limited rate.
//!
//! Owns the counts, the registers that were logged and the time of the last line in the log. Must not
//! know what the access meant, nor the clock. The guest decides how often this is called, so a call
//! costs some loads and an addition or two.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `counts`, `unlogged` | any vCPU's holder | any thread | relaxed: figures |
//! | `logged` | whoever finds an empty place (compare and exchange) | any vCPU's holder | relaxed: nothing else depends on it |
//! | `next_line` | whoever logs (compare and exchange) | any vCPU's holder | relaxed: a line more or less does no harm |

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Between two lines about one VM, in ns.
const QUIET_NS: u64 = 1_000_000_000;

/// Registers that are logged for a VM, at most. A guest that tries all of them fills no log.
const MOST_LOGGED: usize = 32;

/// One access without an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestFault {
    /// A model-specific register that nobody serves: the guest gets #GP.
    Msr {
        /// Its number.
        index: u32,
        /// A write.
        write: bool,
    },
    /// An address of the chipset's where no device is: a read returns all ones.
    Address {
        /// Guest-physical.
        address: u64,
        /// A write.
        write: bool,
    },
}

impl GuestFault {
    fn kind(self) -> usize {
        match self {
            GuestFault::Msr { .. } => 0,
            GuestFault::Address { .. } => 1,
        }
    }
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = |write| if write { "write to" } else { "read of" };
        match *self {
            GuestFault::Msr { index, write } => {
                write!(f, "{} unknown MSR {index:#x}: #GP", access(write))
            }
            GuestFault::Address { address, write } => {
                write!(f, "{} {address:#x}, where no device is: ignored", access(write))
            }
        }
    }
}

/// The faults of one VM.
#[derive(Debug, Default)]
pub struct GuestFaults {
    counts: [AtomicU64; 2],
    unlogged: AtomicU64,
    next_line: AtomicU64,
    /// Registers that were logged, as [`key`] has them; 0: none yet.
    logged: [AtomicU64; MOST_LOGGED],
}

/// A register and the kind of its access, as a number other than 0.
fn key(index: u32, write: bool) -> u64 {
    1 << 33 | u64::from(write) << 32 | u64::from(index)
}

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Line {
    /// How many accesses to addresses before this one were not logged.
    pub unlogged: u64,
}

impl GuestFaults {
    /// Counts one at `now`, in ns of the monotonic clock. Answers what to log: a register when it is
    /// new, an address at most once a second.
    pub fn note(&self, fault: GuestFault, now: u64) -> Option<Line> {
        self.counts[fault.kind()].fetch_add(1, Ordering::Relaxed);
        if let GuestFault::Msr { index, write } = fault {
            return self.is_new(key(index, write)).then_some(Line { unlogged: 0 });
        }
        let next = self.next_line.load(Ordering::Relaxed);
        let again = now.saturating_add(QUIET_NS);
        let mine = next <= now
            && self
                .next_line
                .compare_exchange(next, again, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !mine {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Line { unlogged: self.unlogged.swap(0, Ordering::Relaxed) })
    }

    fn is_new(&self, key: u64) -> bool {
        for place in &self.logged {
            match place.load(Ordering::Relaxed) {
                0 => {}
                known if known == key => return false,
                _ => continue,
            }
            match place.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(known) if known == key => return false,
                Err(_) => {}
            }
        }
        false
    }

    /// Accesses to registers that nobody serves, so far.
    #[must_use]
    pub fn msrs(&self) -> u64 {
        self.counts[0].load(Ordering::Relaxed)
    }

    /// Accesses to addresses without a device, so far.
    #[must_use]
    pub fn addresses(&self) -> u64 {
        self.counts[1].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSR: GuestFault = GuestFault::Msr { index: 0x1234, write: true };
    const ADDRESS: GuestFault = GuestFault::Address { address: 0xfed0_0000, write: false };

    #[test]
    fn addresses_are_counted_and_one_a_second_is_logged() {
        let faults = GuestFaults::default();
        assert_eq!(faults.note(ADDRESS, 5), Some(Line { unlogged: 0 }));
        for now in [6, 7, QUIET_NS + 4] {
            assert_eq!(faults.note(ADDRESS, now), None);
        }
        assert_eq!(faults.note(ADDRESS, QUIET_NS + 5), Some(Line { unlogged: 3 }));
        assert_eq!((faults.msrs(), faults.addresses()), (0, 5));
    }

    #[test]
    fn registers_are_counted_and_each_is_logged_once() {
        let faults = GuestFaults::default();
        let read = GuestFault::Msr { index: 0x1234, write: false };
        for (fault, logged) in [(MSR, true), (read, true), (MSR, false), (read, false)] {
            assert_eq!(faults.note(fault, 5).is_some(), logged, "{fault}");
        }
        assert_eq!(faults.msrs(), 4);
    }

    #[test]
    fn guest_that_tries_all_registers_fills_no_log() {
        let faults = GuestFaults::default();
        let lines = (0..1000).filter_map(|index| {
            faults.note(GuestFault::Msr { index, write: false }, u64::from(index) * QUIET_NS)
        });
        assert_eq!(lines.count(), MOST_LOGGED);
        assert_eq!(faults.msrs(), 1000);
    }

    #[test]
    fn clock_that_jumps_back_logs_nothing_and_counts() {
        let faults = GuestFaults::default();
        assert!(faults.note(ADDRESS, 2 * QUIET_NS).is_some());
        assert!(faults.note(ADDRESS, 0).is_none());
        assert!(faults.note(ADDRESS, u64::MAX).is_some());
        assert_eq!(faults.addresses(), 3);
    }

    #[test]
    fn messages_name_the_thing() {
        assert_eq!(MSR.to_string(), "write to unknown MSR 0x1234: #GP");
        assert_eq!(ADDRESS.to_string(), "read of 0xfed00000, where no device is: ignored");
    }
}
