//! What devices know of time.
//!
//! Owns the type of a moment, and how ticks of a fixed rate relate to nanoseconds. Must not know how a
//! moment is read.

/// One moment, on the two clocks that matter to an APIC timer.
///
/// Both are of the same moment. If they are read one after the other, `tsc` should be read first: a
/// deadline in TSC cycles then comes out late by the time between the reads, never early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The host's monotonic clock, in nanoseconds since an arbitrary start.
    pub ns: u64,
    /// The guest's time-stamp counter, in cycles.
    pub tsc: u64,
}

const NS_PER_SECOND: u128 = 1_000_000_000;

/// A clock of a fixed rate that ticked last at nanosecond 0.
///
/// Both directions are computed from there, so no error adds up, and they agree: [`Rate::ns_of`] of a
/// tick is the first nanosecond at which [`Rate::ticks`] has that tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Ticks a second: at least one, and at most 10^9, so that a number of ticks fits its type.
    hz: u32,
}

impl Rate {
    pub(crate) const fn of_hz(hz: u32) -> Self {
        assert!(hz >= 1 && hz <= 1_000_000_000);
        Rate { hz }
    }

    /// Whole ticks in the first `ns` nanoseconds.
    pub(crate) fn ticks(self, ns: u64) -> u64 {
        let ticks = u128::from(ns) * u128::from(self.hz) / NS_PER_SECOND;
        u64::try_from(ticks).expect("at most one tick a nanosecond")
    }

    /// When the tick comes, rounded up to whole nanoseconds; `None` beyond the end of time.
    pub(crate) fn ns_of(self, tick: u64) -> Option<u64> {
        let ns = (u128::from(tick) * NS_PER_SECOND).div_ceil(u128::from(self.hz));
        u64::try_from(ns).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_comes_in_the_nanosecond_that_counts_it() {
        for hz in [1, 3, 32_768, 1_193_182, 3_579_545, 1_000_000_000] {
            let rate = Rate::of_hz(hz);
            for tick in [1, 2, 3, 1000, 65_535, 1 << 31, 10_000_000_007] {
                let ns = rate.ns_of(tick).unwrap();
                assert_eq!(rate.ticks(ns), tick, "{hz} Hz");
                assert_eq!(rate.ticks(ns - 1), tick - 1, "{hz} Hz");
            }
        }
    }

    #[test]
    fn tick_beyond_the_end_of_time_never_comes() {
        let rate = Rate::of_hz(3);
        let last = rate.ticks(u64::MAX);
        assert!(rate.ns_of(last).is_some());
        assert_eq!(rate.ns_of(last + 1), None);
        assert_eq!(rate.ns_of(u64::MAX), None);
    }
}
