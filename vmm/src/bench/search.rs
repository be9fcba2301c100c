//! The search for the largest number of guests that a host carries: what to try next.
//!
//! Owns the state of one search, which is fed with verdicts. Pure. Must not know what is tried, nor
//! how it is judged. Verdicts may contradict each other, as hosts are noisy: it always ends.
//!
//! Numbers grow by doubling until one fails, then the gap between the largest that passed and the
//! smallest that failed is halved until it is one step wide, then both ends are tried once more. An
//! end that does not repeat its verdict moves, and the search goes on from there, a few times.

use std::collections::BTreeSet;

/// Tried first, if so many are allowed.
const FIRST: u32 = 16;
/// So many verdicts of an end may be contradicted by its second trial before the search gives up.
const PATIENCE: u32 = 3;
/// Above so many guests the step is this part of the number.
const STEP_PART: u32 = 50;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try so many guests and tell the verdict.
    Try(u32),
    /// That is all.
    Done(Found),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The largest number that passed, and passed again unless the search is not `settled`; 0: not
    /// even one guest.
    pub most: u32,
    /// The smallest larger number that failed; `None`: the limit was reached.
    pub fails: Option<u32>,
    /// Both ends gave the same verdict twice.
    pub settled: bool,
}

/// One search.
#[derive(Clone, Debug)]
pub struct Search {
    limit: u32,
    /// The largest number that passed, below `bad`; 0, which needs no trial, at first.
    good: u32,
    good_again: bool,
    /// The smallest number above `good` that failed.
    bad: Option<u32>,
    bad_again: bool,
    /// What passed, or failed, and was not contradicted since.
    passed: BTreeSet<u32>,
    failed: BTreeSet<u32>,
    contradicted: u32,
}

impl Search {
    /// A search among 1 to `limit` guests.
    #[must_use]
    pub fn new(limit: u32) -> Search {
        Search {
            limit: limit.max(1),
            good: 0,
            good_again: true,
            bad: None,
            bad_again: false,
            passed: BTreeSet::new(),
            failed: BTreeSet::new(),
            contradicted: 0,
        }
    }

    /// What to do next: the same until a verdict is told.
    #[must_use]
    pub fn next(&self) -> Step {
        if self.contradicted > PATIENCE {
            return self.done(false);
        }
        match self.bad {
            None if self.good < self.limit => Step::Try(self.grown()),
            Some(bad) if bad - self.good > step(self.good) => {
                Step::Try(self.good + (bad - self.good) / 2)
            }
            _ if !self.good_again => Step::Try(self.good),
            Some(bad) if !self.bad_again => Step::Try(bad),
            _ => self.done(true),
        }
    }

    /// Tells the verdict on what [`Search::next`] asked to try.
    pub fn tell(&mut self, passes: bool) {
        let Step::Try(tried) = self.next() else { return };
        let (is_good, is_bad) = (tried == self.good, self.bad == Some(tried));
        if passes {
            self.failed.remove(&tried);
            self.passed.insert(tried);
        } else {
            self.passed.remove(&tried);
            self.failed.insert(tried);
        }
        match (is_good, is_bad) {
            (true, _) if passes => self.good_again = true,
            (_, true) if !passes => self.bad_again = true,
            (true, _) | (_, true) => self.contradict(tried, passes),
            _ if passes => (self.good, self.good_again) = (tried, false),
            _ => (self.bad, self.bad_again) = (Some(tried), false),
        }
    }

    fn contradict(&mut self, tried: u32, passes: bool) {
        self.contradicted += 1;
        if !passes {
            let below = self.passed.range(..tried).next_back().copied();
            // Whatever passed above says less than the failure below it.
            self.passed.split_off(&tried);
            (self.good, self.good_again) = (below.unwrap_or(0), below.is_none());
            (self.bad, self.bad_again) = (Some(tried), false);
        } else if self.contradicted <= PATIENCE {
            (self.good, self.good_again) = (tried, false);
            (self.bad, self.bad_again) = (self.failed.range(tried..).next().copied(), false);
        }
        // At the end of the patience what passed twice stands, not what passed once and failed once.
    }

    fn grown(&self) -> u32 {
        self.good.saturating_mul(2).max(FIRST).min(self.limit)
    }

    fn done(&self, settled: bool) -> Step {
        Step::Done(Found { most: self.good, fails: self.bad, settled })
    }
}

/// How close the ends must come: one guest, or two percent.
#[must_use]
pub fn step(good: u32) -> u32 {
    (good / STEP_PART).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a search; answers what was found and what was tried.
    fn search(limit: u32, mut passes: impl FnMut(u32) -> bool) -> (Found, Vec<u32>) {
        let (mut search, mut tried) = (Search::new(limit), Vec::new());
        loop {
            match search.next() {
                Step::Done(found) => return (found, tried),
                Step::Try(number) => {
                    assert!((1..=limit).contains(&number), "{number} of {limit}");
                    assert_eq!(search.next(), Step::Try(number), "asked twice");
                    tried.push(number);
                    assert!(tried.len() < 200, "it does not end: {tried:?}");
                    search.tell(passes(number));
                }
            }
        }
    }

    #[test]
    fn doubles_halves_and_tries_both_ends_again() {
        let (found, tried) = search(1_024, |number| number <= 37);
        assert_eq!(found, Found { most: 37, fails: Some(38), settled: true });
        assert_eq!(tried, [16, 32, 64, 48, 40, 36, 38, 37, 37, 38]);
    }

    #[test]
    fn not_even_one() {
        let (found, tried) = search(1_024, |_| false);
        assert_eq!(found, Found { most: 0, fails: Some(1), settled: true });
        assert_eq!(tried, [16, 8, 4, 2, 1, 1]);
        assert_eq!(search(1, |_| false).0.most, 0);
    }

    #[test]
    fn limit_reached_is_said() {
        let (found, tried) = search(100, |_| true);
        assert_eq!(found, Found { most: 100, fails: None, settled: true });
        assert_eq!(tried, [16, 32, 64, 100, 100]);
        assert_eq!(search(1, |_| true).1, [1, 1]);
    }

    #[test]
    fn failure_that_does_not_repeat_lets_it_grow_again() {
        let mut first = true;
        let (found, _) = search(4_096, |number| {
            let noise = number == 64 && std::mem::take(&mut first);
            !noise && number <= 90
        });
        assert_eq!(found, Found { most: 90, fails: Some(91), settled: true });
    }

    #[test]
    fn pass_that_does_not_repeat_is_none() {
        let mut times = 0;
        let (found, _) = search(4_096, |number| {
            times += u32::from(number == 21);
            number <= 20 || (number == 21 && times == 1)
        });
        assert_eq!(found, Found { most: 20, fails: Some(21), settled: true });
    }

    #[test]
    fn verdicts_that_alternate_end_unsettled() {
        let mut last = std::collections::BTreeMap::new();
        let (found, tried) = search(1_024, |number| {
            let last = last.entry(number).or_insert(number > 30);
            *last = !*last;
            *last
        });
        assert!(!found.settled, "{found:?} {tried:?}");
    }

    proptest! {
        #[test]
        fn monotone_oracle_is_found_to_one_step(limit in 1_u32..5_000, most in 0_u32..6_000) {
            let most = most.min(limit);
            let (found, tried) = search(limit, |number| number <= most);
            prop_assert!(found.settled);
            prop_assert!(tried.len() <= 24, "{tried:?}");
            prop_assert!(found.most <= most && most < found.most + step(found.most), "{found:?}");
            if limit < 100 {
                prop_assert_eq!(found.most, most);
            }
            match found.fails {
                None => prop_assert_eq!(found.most, limit),
                Some(fails) => {
                    prop_assert!(most < fails && fails - found.most <= step(found.most));
                }
            }
            for end in [Some(found.most).filter(|&most| most > 0), found.fails].into_iter().flatten() {
                prop_assert!(tried.iter().filter(|&&number| number == end).count() >= 2);
            }
        }

        #[test]
        fn noisy_oracle_ends_with_a_number_that_passed(
            limit in 1_u32..5_000,
            verdicts in proptest::collection::vec(any::<bool>(), 200),
        ) {
            let (mut passed, mut failed) = (BTreeSet::new(), BTreeSet::new());
            let mut verdicts = verdicts.into_iter();
            let (found, tried) = search(limit, |number| {
                let passes = verdicts.next().unwrap_or(false);
                if passes { passed.insert(number) } else { failed.insert(number) };
                passes
            });
            prop_assert!(tried.len() <= 100, "{} trials", tried.len());
            prop_assert!(found.most == 0 || passed.contains(&found.most));
            prop_assert!(found.fails.is_none_or(|fails| fails > found.most && failed.contains(&fails)));
        }
    }
}
