//! How late the timers of a halted vCPU were looked after, as its host sees it.
//!
//! Owns one histogram for each vCPU: fixed buckets, no lock, no memory taken. From the moment for
//! which the timer of a parked vCPU was set, to the moment at which a thread took the vCPU to look at
//! it; the way into the guest comes on top. Must not know clocks, nor who looks.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | all | the holder of the run word | reports | relaxed: each bucket is a figure of its own; from holder to holder the run word orders them |

use std::sync::atomic::{AtomicU64, Ordering};

/// The lowest buckets are this wide, in nanoseconds, as a power of two.
const UNIT_BITS: u32 = 9;
/// An octave has this many buckets, as a power of two: a bound is at most an eighth too high.
const SUB_BITS: u32 = 3;
const SUBS: usize = 1 << SUB_BITS;
/// How many buckets there are. The last one has no end: it begins at 126 ms.
const BUCKETS: usize = 16 * SUBS;
/// Stands for the end of the last bucket; the largest number that every reader of JSON takes.
const NO_END_NS: u64 = (1 << 53) - 1;

/// The histogram of a vCPU.
pub struct Lateness {
    buckets: [AtomicU64; BUCKETS],
    max_ns: AtomicU64,
    /// The timer that was counted last, so that it is not counted again by the next who takes the
    /// vCPU.
    counted: AtomicU64,
}

impl Default for Lateness {
    fn default() -> Self {
        Lateness {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            max_ns: AtomicU64::new(0),
            counted: AtomicU64::new(u64::MAX),
        }
    }
}

impl Lateness {
    /// The vCPU was parked with a timer for `expiry` (none: nothing to look after) and is taken at
    /// `now`, both in host monotonic ns. A timer that is not due, or was counted before, is not.
    ///
    /// To be called by the holder of the run word alone.
    pub fn taken(&self, expiry: Option<u64>, now: u64) {
        let Some(expiry) = expiry.filter(|at| *at <= now) else { return };
        if self.counted.load(Ordering::Relaxed) == expiry {
            return;
        }
        self.counted.store(expiry, Ordering::Relaxed);
        let late = now - expiry;
        let bucket = &self.buckets[index(late)];
        // One writer at a time, so that nothing is lost between the two.
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if late > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.store(late, Ordering::Relaxed);
        }
    }

    /// The largest lateness so far, in nanoseconds.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns.load(Ordering::Relaxed)
    }

    /// The buckets that are not empty: upper bound in nanoseconds, and how many timers. Bounds are the
    /// same for all vCPUs, so that histograms can be added and subtracted.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        counts.enumerate().filter(|(_, count)| *count > 0).map(|(at, count)| (upper(at), count))
    }
}

/// The bucket of a lateness in nanoseconds. The first `SUBS` buckets are linear; then each octave has
/// `SUBS`.
fn index(late: u64) -> usize {
    let units = late >> UNIT_BITS;
    if units < SUBS as u64 {
        return units as usize;
    }
    let octave = units.ilog2() - SUB_BITS;
    let sub = (units >> octave) as usize - SUBS;
    (SUBS + octave as usize * SUBS + sub).min(BUCKETS - 1)
}

/// The largest lateness in a bucket, in nanoseconds.
fn upper(index: usize) -> u64 {
    if index >= BUCKETS - 1 {
        return NO_END_NS;
    }
    let next = index as u64 + 1;
    let subs = SUBS as u64;
    let units = if next <= subs { next } else { (subs + next % subs) << (next / subs - 1) };
    (units << UNIT_BITS) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lateness: &Lateness) -> Vec<(u64, u64)> {
        lateness.buckets().collect()
    }

    #[test]
    fn every_value_lies_in_the_bucket_with_the_next_bound() {
        for exponent in 0..40 {
            for value in [1_u64 << exponent, (1 << exponent) - 1, (1 << exponent) * 3 / 2] {
                let at = index(value);
                assert!(value <= upper(at), "{value} above {}", upper(at));
                assert!(at == 0 || value > upper(at - 1), "{value} belongs below");
            }
        }
        assert_eq!((index(u64::MAX), upper(index(u64::MAX))), (BUCKETS - 1, NO_END_NS));
    }

    #[test]
    fn bounds_rise_and_are_an_eighth_too_high_at_most() {
        for at in 1..BUCKETS - 1 {
            assert!(upper(at) > upper(at - 1), "{at}");
            if at >= SUBS {
                let (least, most) = (upper(at - 1) + 1, upper(at) + 1);
                assert!((most - least) * 8 <= least, "{least}..{most}");
            }
        }
        assert!((100_000_000..200_000_000).contains(&upper(BUCKETS - 2)), "the last one's begin");
    }

    #[test]
    fn timer_is_counted_once_and_only_when_it_is_due() {
        let lateness = Lateness::default();
        lateness.taken(None, 1_000);
        lateness.taken(Some(5_000), 4_999);
        assert_eq!(found(&lateness), []);
        lateness.taken(Some(5_000), 5_100);
        lateness.taken(Some(5_000), 9_000_000);
        assert_eq!((found(&lateness), lateness.max_ns()), (vec![(511, 1)], 100));
        lateness.taken(Some(10_000_000), 10_700_000);
        lateness.taken(Some(20_000_000), 20_000_200);
        assert_eq!(found(&lateness), [(511, 2), (720_895, 1)]);
        assert_eq!(lateness.max_ns(), 700_000);
    }

    #[test]
    fn hours_are_kept_in_the_last_bucket_and_as_the_maximum() {
        let lateness = Lateness::default();
        lateness.taken(Some(1), 4_000_000_000_000);
        assert_eq!(found(&lateness), [(NO_END_NS, 1)]);
        assert_eq!(lateness.max_ns(), 3_999_999_999_999);
    }
}
