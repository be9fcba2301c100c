//! The queue of a group: the events of its children in the order of their expiry.
//!
//! Owns the order and the cached first expiry. Must not know locks, words or other groups: whether
//! an event is to be ignored is asked of the caller.
//!
//! A child has at most one event, so the queue is arrays with a place for each, and a sorted list of
//! places. Equal expiries keep the order of their insertion.

use crate::{NEVER, Slot};

/// A child's event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    /// When it is due, or `NEVER`.
    pub expires: u64,
    /// Whose timers are then to be expired.
    pub slot: Slot,
}

/// The events of the children of one group. What every change looks at comes first: see `Group`.
#[repr(C)]
pub(crate) struct Queue<const FANOUT: usize> {
    /// The queued children, one in each byte, the first lowest; 0 beyond `len`. One word, as
    /// moving a few bytes in memory costs more than all else that is done here.
    order: u64,
    len: u8,
    next_expiry: u64,
    expires: [u64; FANOUT],
    slots: [Slot; FANOUT],
}

impl<const FANOUT: usize> Queue<FANOUT> {
    pub(crate) fn new() -> Self {
        const { assert!(FANOUT <= 8, "the order has eight bytes") };
        Queue {
            expires: [NEVER; FANOUT],
            slots: [Slot(0); FANOUT],
            order: 0,
            len: 0,
            next_expiry: NEVER,
        }
    }

    /// The first expiry as it was last stored: it may be too early, never too late.
    pub(crate) fn next_expiry(&self) -> u64 {
        self.next_expiry
    }

    fn child_at(&self, place: u8) -> usize {
        usize::from((self.order >> (8 * place)) as u8)
    }

    fn expires_at(&self, place: u8) -> u64 {
        self.expires[self.child_at(place)]
    }

    fn position(&self, child: usize) -> Option<u8> {
        (0..self.len).find(|&place| self.child_at(place) == child)
    }

    /// Brings the queue up to date with a child's event; `None`: it is to be ignored.
    #[inline(always)]
    pub(crate) fn put(&mut self, child: usize, event: Option<Event>) {
        if event.is_some_and(|event| self.keep_place(child, event)) {
            return;
        }
        self.remove(child);
        if let Some(event) = event {
            self.insert(child, event);
        }
    }

    /// Gives a child's queued event another name, and another expiry if that leaves its place:
    /// behind the earlier and equal ones. False, and nothing was done, if it is to be queued anew.
    #[inline(always)]
    fn keep_place(&mut self, child: usize, event: Event) -> bool {
        let Some(place) = self.position(child) else {
            return false;
        };
        if self.expires[child] != event.expires {
            let behind = place == 0 || self.expires_at(place - 1) <= event.expires;
            let before = place + 1 == self.len || event.expires < self.expires_at(place + 1);
            if !(behind && before) {
                return false;
            }
            self.expires[child] = event.expires;
            if place == 0 {
                self.next_expiry = event.expires;
            }
        }
        self.slots[child] = event.slot;
        true
    }

    /// Takes a child's event out, if it is queued.
    fn remove(&mut self, child: usize) {
        let Some(at) = self.position(child) else {
            return;
        };
        self.drop_at(at);
        if self.len == 0 {
            self.next_expiry = NEVER;
        }
    }

    fn drop_at(&mut self, place: u8) {
        let at = 8 * place;
        let before = self.order & !(u64::MAX << at);
        self.order = before | ((self.order >> at >> 8) << at);
        self.len -= 1;
    }

    /// Queues a child's event, which is not queued, behind those of the same expiry.
    fn insert(&mut self, child: usize, event: Event) {
        let place =
            (0..self.len).find(|&place| self.expires_at(place) > event.expires).unwrap_or(self.len);
        let at = 8 * place;
        let before = self.order & !(u64::MAX << at);
        self.order = before | (child as u64) << at | ((self.order >> at) << at << 8);
        self.len += 1;
        self.expires[child] = event.expires;
        self.slots[child] = event.slot;
        if place == 0 {
            self.next_expiry = event.expires;
        }
    }

    /// The first event of a child that is not `ignored`. Those before it are dropped.
    pub(crate) fn first(&mut self, ignored: impl Fn(usize) -> bool) -> Option<Event> {
        while self.len > 0 && ignored(self.child_at(0)) {
            self.drop_at(0);
        }
        let first = (self.len > 0).then(|| {
            let child = self.child_at(0);
            Event { expires: self.expires[child], slot: self.slots[child] }
        });
        self.next_expiry = first.map_or(NEVER, |event| event.expires);
        first
    }

    /// Takes out the first event that counts, if it is due.
    pub(crate) fn take_expired(
        &mut self,
        now: u64,
        ignored: impl Fn(usize) -> bool,
    ) -> Option<Event> {
        let due = self.first(&ignored).filter(|event| event.expires <= now)?;
        self.drop_at(0);
        self.first(ignored);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(expires: u64, slot: u32) -> Event {
        Event { expires, slot: Slot(slot) }
    }

    fn none(_: usize) -> bool {
        false
    }

    fn the_first(child: usize) -> bool {
        child == 0
    }

    fn filled(expiries: &[u64]) -> Queue<8> {
        let mut queue = Queue::new();
        for (child, &expires) in expiries.iter().enumerate() {
            queue.insert(child, event(expires, child as u32));
        }
        queue
    }

    #[test]
    fn equal_expiries_keep_the_order_of_insertion() {
        let mut queue = filled(&[30, 10, 20, 10, 30, 10]);
        let mut taken = Vec::new();
        while let Some(event) = queue.take_expired(100, none) {
            taken.push(event.slot.0);
        }
        assert_eq!(taken, [1, 3, 5, 2, 0, 4]);
        assert_eq!(queue.next_expiry(), NEVER);
    }

    #[test]
    fn ignored_events_before_the_first_are_dropped_and_those_behind_stay() {
        let mut queue = filled(&[10, 20, 30]);
        assert_eq!(queue.first(|child| child != 1), Some(event(20, 1)));
        assert_eq!(queue.next_expiry(), 20);
        assert!(!queue.keep_place(0, event(10, 0)), "dropped from the queue");
        assert!(queue.keep_place(2, event(30, 2)), "still queued");
    }

    #[test]
    fn only_a_removal_that_empties_touches_the_stored_expiry() {
        let mut queue = filled(&[10, 20]);
        queue.remove(0);
        assert_eq!(queue.next_expiry(), 10);
        queue.remove(0);
        assert_eq!(queue.next_expiry(), 10);
        queue.remove(1);
        assert_eq!(queue.next_expiry(), NEVER);
    }

    #[test]
    fn an_insertion_counts_ignored_ones_before_it() {
        let mut queue = filled(&[10]);
        queue.insert(1, event(20, 1));
        assert_eq!(queue.next_expiry(), 10);
        assert_eq!(queue.first(the_first), Some(event(20, 1)));
    }

    #[test]
    fn an_event_keeps_its_place_with_another_name() {
        let mut queue = filled(&[10, 10]);
        assert!(queue.keep_place(0, event(10, 7)));
        assert_eq!(queue.first(none), Some(event(10, 7)));
        assert!(!queue.keep_place(0, event(11, 7)));
    }

    #[test]
    fn keeping_a_place_does_what_queueing_anew_does() {
        let expiries = [10, 20, 20, 30];
        for child in 0..4 {
            for expires in 5..35 {
                let mut kept = filled(&expiries);
                let mut anew = filled(&expiries);
                if expires == expiries[child] || !kept.keep_place(child, event(expires, 9)) {
                    continue;
                }
                anew.remove(child);
                anew.insert(child, event(expires, 9));
                assert_eq!((kept.order, kept.next_expiry), (anew.order, anew.next_expiry));
                assert_eq!((kept.expires, kept.slots), (anew.expires, anew.slots));
            }
        }
    }

    #[test]
    fn nothing_is_taken_before_it_is_due_but_the_front_is_cleaned() {
        let mut queue = filled(&[10, 20]);
        assert_eq!(queue.take_expired(19, the_first), None);
        assert_eq!(queue.next_expiry(), 20);
        assert_eq!(queue.take_expired(20, the_first), Some(event(20, 1)));
    }

    #[test]
    fn a_full_queue_takes_every_child() {
        let mut queue = filled(&[8, 7, 6, 5, 4, 3, 2, 1]);
        for slot in (0..8).rev() {
            assert_eq!(queue.take_expired(8, none).map(|e| e.slot.0), Some(slot));
        }
        assert_eq!(queue.take_expired(NEVER, none), None);
    }
}
