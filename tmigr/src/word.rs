//! The group word: who is active in a group and who looks after the others.
//!
//! Owns the word's layout and its transitions. Must not know queues, locks or other groups.
//!
//! | bits | field |
//! |---|---|
//! | 0-7 | `active`: mask of the active children |
//! | 8-15 | `migrator`: mask of the migrator, or `0xFF` for none |
//! | 16-31 | `seq`: incremented by every update |
//!
//! Writers: activations and deactivations, by compare-and-exchange of the whole word, without a
//! lock. Readers: everybody. All successful exchanges and all loads are `SeqCst`: the argument in
//! `notify` needs one order over this word and the groups' `next_expiry`.
//!
//! Why `seq`: a deactivation updates group by group, and between two of them an activation of the
//! same branch may overtake it. The late exchange must fail even where `active` and `migrator`
//! have returned to the values that it read, so that it looks at the child again.

use crate::sync::{AtomicU32, Ordering, Tally, fence};

const NO_MIGRATOR: u8 = 0xFF;

/// A value of the group word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word(u32);

/// What a deactivation did to the role of the migrator.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Departure {
    /// The child did not have the role, or is active after all and keeps it.
    Unchanged,
    /// Another active child has it now.
    HandedOver,
    /// The group is idle: the level above must learn of it.
    Vacant,
}

impl Word {
    const IDLE: Word = Word::pack(0, NO_MIGRATOR, 0);

    const fn pack(active: u8, migrator: u8, seq: u16) -> Self {
        Word(active as u32 | (migrator as u32) << 8 | (seq as u32) << 16)
    }

    /// The mask of the active children.
    pub(crate) fn active(self) -> u8 {
        self.0 as u8
    }

    /// The mask of the migrator.
    pub(crate) fn migrator(self) -> Option<u8> {
        let mask = (self.0 >> 8) as u8;
        (mask != NO_MIGRATOR).then_some(mask)
    }

    fn seq(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether the child looks after this group: it is the migrator, or there is none.
    pub(crate) fn falls_to(self, child: u8) -> bool {
        self.migrator().is_none_or(|mask| mask == child)
    }

    /// Whether at most one child is active.
    pub(crate) fn lonely(self) -> bool {
        self.active().count_ones() <= 1
    }

    fn activated(self, child: u8) -> (Word, bool) {
        let migrator = self.migrator().unwrap_or(child);
        let next = Word::pack(self.active() | child, migrator, self.seq().wrapping_add(1));
        (next, self.migrator().is_none())
    }

    fn deactivated(self, child: u8, child_idle: bool) -> (Word, Departure) {
        let seq = self.seq().wrapping_add(1);
        let migrator = self.migrator().unwrap_or(NO_MIGRATOR);
        if !child_idle {
            return (Word::pack(self.active(), migrator, seq), Departure::Unchanged);
        }
        let active = self.active() & !child;
        if self.migrator() != Some(child) {
            return (Word::pack(active, migrator, seq), Departure::Unchanged);
        }
        if active == 0 {
            return (Word::pack(0, NO_MIGRATOR, seq), Departure::Vacant);
        }
        let lowest = active & active.wrapping_neg();
        (Word::pack(active, lowest, seq), Departure::HandedOver)
    }
}

/// The group word as it is shared.
pub(crate) struct AtomicWord(AtomicU32);

impl AtomicWord {
    pub(crate) fn new() -> Self {
        AtomicWord(AtomicU32::new(Word::IDLE.0))
    }

    pub(crate) fn load(&self) -> Word {
        Word(self.0.load(Ordering::SeqCst))
    }

    /// Marks a child active; the new word, and whether it took the role of the migrator.
    /// `retries` counts attempts that failed.
    #[must_use]
    #[inline]
    pub(crate) fn activate(&self, child: u8, retries: &Tally) -> (Word, bool) {
        let mut now = self.load();
        loop {
            let (next, took) = now.activated(child);
            match self.exchange(now, next) {
                Ok(()) => return (next, took),
                Err(seen) => now = seen,
            }
            retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Marks a child idle, unless `child_idle`, asked anew before every attempt, says that it is
    /// active again.
    #[inline]
    pub(crate) fn deactivate(
        &self,
        child: u8,
        retries: &Tally,
        child_idle: impl Fn() -> bool,
    ) -> (Word, Departure) {
        let mut now = self.load();
        loop {
            let (next, departure) = now.deactivated(child, child_idle());
            match self.exchange(now, next) {
                Ok(()) => return (next, departure),
                Err(seen) => now = seen,
            }
            retries.fetch_add(1, Ordering::Relaxed);
            // Whoever changed the word may have been the child's activation, which changed the
            // child's word first: it must be seen by the next look at the child.
            fence(Ordering::SeqCst);
        }
    }

    fn exchange(&self, from: Word, to: Word) -> Result<(), Word> {
        #[cfg(all(test, not(loom)))]
        crate::tests::steps::before_exchange();
        self.0
            .compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::Acquire)
            .map(|_| ())
            .map_err(Word)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn activate(word: &AtomicWord, child: u8) -> bool {
        word.activate(child, &Tally::new(0)).1
    }

    fn deactivate(word: &AtomicWord, child: u8, child_idle: impl Fn() -> bool) -> Departure {
        word.deactivate(child, &Tally::new(0), child_idle).1
    }

    #[test]
    fn the_first_to_come_is_migrator() {
        let word = AtomicWord::new();
        assert!(activate(&word, 4));
        assert!(!activate(&word, 1));
        assert_eq!(word.load(), Word::pack(5, 4, 2));
    }

    #[test]
    fn the_role_goes_to_the_lowest_active_child() {
        let word = AtomicWord::new();
        for child in [1, 8, 4, 0x80] {
            let _ = activate(&word, child);
        }
        assert_eq!(deactivate(&word, 1, || true), Departure::HandedOver);
        assert_eq!(word.load().migrator(), Some(4));
        assert_eq!(deactivate(&word, 0x80, || true), Departure::Unchanged);
        assert_eq!(deactivate(&word, 4, || true), Departure::HandedOver);
        assert_eq!(deactivate(&word, 8, || true), Departure::Vacant);
        assert_eq!(word.load(), Word::pack(0, NO_MIGRATOR, 8));
    }

    #[test]
    fn a_child_that_is_active_again_keeps_bit_and_role() {
        let word = AtomicWord::new();
        let _ = activate(&word, 2);
        assert_eq!(deactivate(&word, 2, || false), Departure::Unchanged);
        assert_eq!(word.load(), Word::pack(2, 2, 2));
    }

    #[test]
    fn leaving_an_idle_group_is_not_propagated() {
        let word = AtomicWord::new();
        assert_eq!(deactivate(&word, 2, || true), Departure::Unchanged);
        assert_eq!(word.load().migrator(), None);
    }

    #[test]
    fn race_1_a_late_deactivation_looks_at_the_child_again() {
        let word = AtomicWord::new();
        let _ = activate(&word, 1);
        let asked = Cell::new(0);
        let departure = deactivate(&word, 1, || {
            asked.set(asked.get() + 1);
            // The branch comes back between the look at the child and the exchange.
            if asked.get() == 1 {
                let _ = activate(&word, 1);
            }
            asked.get() == 1
        });
        assert_eq!((departure, asked.get()), (Departure::Unchanged, 2));
        assert_eq!(word.load().active(), 1);
    }

    #[test]
    fn seq_wraps_without_touching_the_masks() {
        let (next, took) = Word::pack(3, 1, u16::MAX).activated(4);
        assert_eq!((next, took), (Word::pack(7, 1, 0), false));
    }

    #[test]
    fn all_eight_active_is_not_no_migrator() {
        let word = AtomicWord::new();
        for bit in 0..8 {
            let _ = activate(&word, 1 << bit);
        }
        assert_eq!(word.load().active(), 0xFF);
        assert_eq!(word.load().migrator(), Some(1));
    }
}
