//! The times at which threads have something to do, in order.
//!
//! Owns the order: by time, then by thread, so that a run can be repeated. Each thread has at most
//! one valid time, which the threads know themselves; what is taken out and does not agree with it
//! is left over from before and passed over by the caller. Must not know what there is to do.
//!
//! Times are sorted roughly into a ring of buckets and exactly when a bucket's turn comes. What
//! lies beyond the ring waits in a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Width of a bucket, as a power of two, in nanoseconds: about 16 us.
const WIDTH: u32 = 14;
/// How many buckets the ring has: about 67 ms.
const BUCKETS: u64 = 4_096;

type Entry = (u64, u32);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// By bucket number modulo [`BUCKETS`].
    ring: Vec<Vec<Entry>>,
    /// The entries of the current bucket and of any before, the first one last.
    current: Vec<Entry>,
    /// The number of the current bucket.
    number: u64,
    /// How many entries the ring has.
    in_ring: usize,
    far: BinaryHeap<Reverse<Entry>>,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            ring: (0..BUCKETS).map(|_| Vec::new()).collect(),
            current: Vec::new(),
            number: 0,
            in_ring: 0,
            far: BinaryHeap::new(),
        }
    }

    /// Adds a time of a thread.
    pub(super) fn push(&mut self, at: u64, thread: u32) {
        let number = at >> WIDTH;
        if number <= self.number {
            let place = self.current.partition_point(|entry| *entry > (at, thread));
            self.current.insert(place, (at, thread));
        } else if number < self.number + BUCKETS {
            self.ring[(number % BUCKETS) as usize].push((at, thread));
            self.in_ring += 1;
        } else {
            self.far.push(Reverse((at, thread)));
        }
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        while self.current.is_empty() {
            self.next_bucket()?;
        }
        self.current.pop()
    }

    /// Goes on to the next bucket; `None`: there is nothing left at all.
    fn next_bucket(&mut self) -> Option<()> {
        self.number = if self.in_ring > 0 {
            self.number + 1
        } else {
            self.far.peek().map(|Reverse((at, _))| at >> WIDTH)?
        };
        while let Some(&Reverse((at, thread))) = self.far.peek() {
            if at >> WIDTH >= self.number + BUCKETS {
                break;
            }
            self.far.pop();
            self.ring[((at >> WIDTH) % BUCKETS) as usize].push((at, thread));
            self.in_ring += 1;
        }
        std::mem::swap(&mut self.current, &mut self.ring[(self.number % BUCKETS) as usize]);
        self.in_ring -= self.current.len();
        self.current.sort_unstable_by(|a, b| b.cmp(a));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn comes_out_in_order_whatever_the_distances() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut queue = Queue::new();
        let mut oracle = BinaryHeap::new();
        let mut now = 0;
        for step in 0..200_000_u32 {
            if rng.random_bool(0.5) {
                let reach = [100, 100_000, 10_000_000, 3_000_000_000][rng.random_range(0..4)];
                let entry = (now + rng.random_range(0..reach), step % 50);
                queue.push(entry.0, entry.1);
                oracle.push(Reverse(entry));
            } else {
                let taken = queue.pop();
                assert_eq!(taken, oracle.pop().map(|Reverse(entry)| entry));
                now = taken.map_or(now, |(at, _)| at);
            }
        }
        while let Some(Reverse(entry)) = oracle.pop() {
            assert_eq!(queue.pop(), Some(entry));
        }
        assert_eq!(queue.pop(), None);
    }
}
