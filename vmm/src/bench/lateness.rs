//! How late ticks came: a histogram that can be merged and subtracted.
//!
//! Owns the arithmetic on buckets. Must not know how guests report them, nor the frequency of any
//! counter: bounds are in nanoseconds here.

use std::collections::BTreeMap;

/// A histogram of latenesses. A quantile is exact up to the width of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// How many values lie at or below a bound and above the one before, by bound in nanoseconds.
    buckets: BTreeMap<u64, u64>,
    max_ns: u64,
}

impl Lateness {
    /// Adds `count` values of at most `upper_ns`, the upper bound of their bucket.
    pub fn add(&mut self, upper_ns: u64, count: u64) {
        if count > 0 {
            let bucket = self.buckets.entry(upper_ns).or_default();
            *bucket = bucket.saturating_add(count);
        }
    }

    /// Tells the largest value seen, in nanoseconds, where that is known better than by bucket.
    pub fn seen_max(&mut self, max_ns: u64) {
        self.max_ns = self.max_ns.max(max_ns);
    }

    /// Adds the values of another histogram.
    pub fn merge(&mut self, other: &Lateness) {
        for (&upper_ns, &count) in &other.buckets {
            self.add(upper_ns, count);
        }
        self.seen_max(other.max_ns);
    }

    /// The bounds in nanoseconds, in rising order, and how many values lie at or below each and above
    /// the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().map(|(&upper_ns, &count)| (upper_ns, count))
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// What was added since `earlier`, an older state of the same histogram.
    ///
    /// A maximum cannot be subtracted. That of the difference is the bound of its last bucket, or
    /// the maximum of all time where that is lower: exact if it fell into the interval, a bucket's
    /// width too large at worst if not.
    #[must_use]
    pub fn since(&self, earlier: &Lateness) -> Lateness {
        let mut later = Lateness::default();
        for (&upper_ns, &count) in &self.buckets {
            let before = earlier.buckets.get(&upper_ns).copied().unwrap_or(0);
            later.add(upper_ns, count.saturating_sub(before));
        }
        let last = later.buckets.keys().next_back().copied().unwrap_or(0);
        later.max_ns = if self.max_ns == 0 { last } else { last.min(self.max_ns) };
        later
    }

    /// The bound that a share `q` (0 to 1) of the values does not exceed, in nanoseconds; `None` if
    /// there are no values.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        for (&upper_ns, &count) in &self.buckets {
            seen = seen.saturating_add(count);
            if seen >= rank {
                return Some(if self.max_ns == 0 { upper_ns } else { upper_ns.min(self.max_ns) });
            }
        }
        None
    }

    /// The largest value, in nanoseconds; `None` if there are no values.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        let (&last, _) = self.buckets.last_key_value()?;
        Some(if self.max_ns == 0 { last } else { self.max_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(buckets: &[(u64, u64)], max_ns: u64) -> Lateness {
        let mut lateness = Lateness::default();
        for &(upper_ns, count) in buckets {
            lateness.add(upper_ns, count);
        }
        lateness.seen_max(max_ns);
        lateness
    }

    #[test]
    fn quantiles_are_the_bound_of_the_bucket_that_holds_the_rank() {
        let lateness = of(&[(1_000, 50), (2_000, 49), (9_000, 1)], 8_765);
        assert_eq!(lateness.count(), 100);
        assert_eq!(lateness.quantile_ns(0.0), Some(1_000));
        assert_eq!(lateness.quantile_ns(0.5), Some(1_000));
        assert_eq!(lateness.quantile_ns(0.51), Some(2_000));
        assert_eq!(lateness.quantile_ns(0.99), Some(2_000));
        assert_eq!(lateness.quantile_ns(1.0), Some(8_765), "never above the maximum");
        assert_eq!(lateness.max_ns(), Some(8_765));
    }

    #[test]
    fn nothing_has_no_quantile() {
        let lateness = of(&[(1_000, 0)], 0);
        assert_eq!(lateness.quantile_ns(0.5), None);
        assert_eq!(lateness.max_ns(), None);
    }

    #[test]
    fn a_difference_forgets_what_came_before() {
        let before = of(&[(1_000, 10), (50_000, 1)], 49_000);
        let after = of(&[(1_000, 12), (2_000, 3), (50_000, 1)], 49_000);
        let between = after.since(&before);
        assert_eq!(between, of(&[(1_000, 2), (2_000, 3)], 2_000), "the 49 us are of before");
        assert_eq!(between.count(), 5);
    }

    #[test]
    fn a_maximum_within_the_interval_is_exact() {
        let before = of(&[(1_000, 10)], 900);
        let after = of(&[(1_000, 12), (50_000, 1)], 47_123);
        assert_eq!(after.since(&before).max_ns(), Some(47_123));
    }

    #[test]
    fn merged_histograms_are_one() {
        let mut all = of(&[(1_000, 2), (2_000, 1)], 1_900);
        all.merge(&of(&[(1_000, 3), (9_000, 1)], 8_000));
        assert_eq!(all, of(&[(1_000, 5), (2_000, 1), (9_000, 1)], 8_000));
    }

    #[test]
    fn a_guest_that_counts_backwards_does_no_harm() {
        let before = of(&[(1_000, u64::MAX)], 900);
        let mut after = of(&[(1_000, 3)], 900);
        assert_eq!(after.since(&before).count(), 0);
        after.add(1_000, u64::MAX);
        after.add(2_000, u64::MAX);
        assert_eq!(after.count(), u64::MAX);
        assert_eq!(after.quantile_ns(1.0), Some(900));
    }
}
