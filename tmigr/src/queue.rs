//! The queue of a group: the events of its children in the order of their expiry.
//!
//! Owns the order and the cached first expiry. Must not know locks, words or other groups: whether
//! an event is to be ignored is asked of the caller.
//!
//! A child has at most one event, so the queue is an array with a place for each, and a sorted
//! list of places. Equal expiries keep the order of their insertion.

use crate::{NEVER, Slot};

/// A child's event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    /// When it is due, or `NEVER`.
    pub expires: u64,
    /// Whose timers are then to be expired.
    pub slot: Slot,
}

/// The events of the children of one group.
pub(crate) struct Queue<const FANOUT: usize> {
    events: [Event; FANOUT],
    order: [u8; FANOUT],
    len: usize,
    next_expiry: u64,
}

impl<const FANOUT: usize> Queue<FANOUT> {
    pub(crate) fn new() -> Self {
        Queue {
            events: [Event { expires: NEVER, slot: Slot(0) }; FANOUT],
            order: [0; FANOUT],
            len: 0,
            next_expiry: NEVER,
        }
    }

    /// The first expiry as it was last stored: it may be too early, never too late.
    pub(crate) fn next_expiry(&self) -> u64 {
        self.next_expiry
    }

    fn position(&self, child: usize) -> Option<usize> {
        self.order[..self.len].iter().position(|&c| usize::from(c) == child)
    }

    /// Keeps the place of a child's event that has this very expiry, and names the slot anew.
    /// False if there is none.
    pub(crate) fn rename(&mut self, child: usize, event: Event) -> bool {
        let same = self.position(child).is_some() && self.events[child].expires == event.expires;
        if same {
            self.events[child].slot = event.slot;
        }
        same
    }

    /// Takes a child's event out, if it is queued.
    pub(crate) fn remove(&mut self, child: usize) {
        let Some(at) = self.position(child) else {
            return;
        };
        self.drop_at(at);
        if self.len == 0 {
            self.next_expiry = NEVER;
        }
    }

    fn drop_at(&mut self, at: usize) {
        self.order.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }

    /// Queues a child's event, which is not queued, behind those of the same expiry.
    pub(crate) fn insert(&mut self, child: usize, event: Event) {
        let at = self.order[..self.len]
            .partition_point(|&c| self.events[usize::from(c)].expires <= event.expires);
        self.order.copy_within(at..self.len, at + 1);
        self.order[at] = child as u8;
        self.len += 1;
        self.events[child] = event;
        if at == 0 {
            self.next_expiry = event.expires;
        }
    }

    /// The first event of a child that is not `ignored`. Those before it are dropped.
    pub(crate) fn first(&mut self, ignored: impl Fn(usize) -> bool) -> Option<Event> {
        let counts = |&c: &u8| !ignored(usize::from(c));
        let dropped = self.order[..self.len].iter().position(counts).unwrap_or(self.len);
        if dropped > 0 {
            self.order.copy_within(dropped..self.len, 0);
            self.len -= dropped;
        }
        let first = (self.len > 0).then(|| self.events[usize::from(self.order[0])]);
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
        assert!(!queue.rename(0, event(10, 0)), "dropped from the queue");
        assert!(queue.rename(2, event(30, 2)), "still queued");
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
        assert!(queue.rename(0, event(10, 7)));
        assert_eq!(queue.first(none), Some(event(10, 7)));
        assert!(!queue.rename(0, event(11, 7)));
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
