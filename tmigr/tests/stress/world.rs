//! What all threads share: the hierarchy, the clock, each slot's run word, and every timer's fate.
//!
//! Owns the count of what was armed, fired and cancelled. Must not know which thread owns a slot.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};

use tmigr::{Expire, Expired, Hierarchy, Next, Notice, Slot};

pub const SLOTS: usize = 40;
pub const NODES: u32 = 2;

/// The run word: who may touch the slot's timers.
pub const PARKED: u8 = 0;
pub const HELD: u8 = 1;
/// Held, and its holder must look at the slot's own timers before it parks.
pub const POSTED: u8 = 2;

/// What became of a timer.
const UNUSED: u8 = 0;
const ARMED: u8 = 1;
const FIRED: u8 = 2;
const CANCELLED: u8 = 3;

pub struct Member {
    pub word: AtomicU8,
    pub told: AtomicBool,
    /// `(expiry, number)`; only the holder of the word locks it.
    pub timers: Mutex<Vec<(u64, usize)>>,
}

pub struct World<const F: usize> {
    pub tree: Hierarchy<F>,
    pub clock: AtomicU64,
    pub members: Vec<Member>,
    fates: Vec<AtomicU8>,
    armed: AtomicUsize,
    done: AtomicUsize,
    /// How often a slot was served by another, and how often that was refused.
    pub served: AtomicUsize,
    pub foreign: AtomicUsize,
}

impl<const F: usize> World<F> {
    pub fn new(timers: usize) -> Self {
        let member = || Member {
            word: AtomicU8::new(HELD),
            told: AtomicBool::new(false),
            timers: Mutex::new(Vec::new()),
        };
        World {
            tree: Hierarchy::new(SLOTS as u32, NODES).unwrap(),
            clock: AtomicU64::new(1000),
            members: (0..SLOTS).map(|_| member()).collect(),
            fates: (0..timers).map(|_| AtomicU8::new(UNUSED)).collect(),
            armed: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            foreign: AtomicUsize::new(0),
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.load(SeqCst)
    }

    pub fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            self.members[notice.slot.0 as usize].told.store(true, SeqCst);
        }
    }

    fn fate(&self, number: usize, before: u8, after: u8) {
        let was = self.fates[number].swap(after, SeqCst);
        assert_eq!(was, before, "timer {number} became {after}");
    }

    /// The word's holder adds a timer.
    pub fn arm(&self, slot: usize, at: u64, number: usize) {
        self.fate(number, UNUSED, ARMED);
        self.armed.fetch_add(1, SeqCst);
        self.members[slot].timers.lock().unwrap().push((at, number));
    }

    pub fn cancel(&self, timers: Vec<(u64, usize)>) {
        for (_, number) in timers {
            self.fate(number, ARMED, CANCELLED);
            self.done.fetch_add(1, SeqCst);
        }
    }

    /// The word's holder fires what is due; the first of the rest.
    pub fn fire(&self, slot: usize, now: u64) -> Option<u64> {
        assert!(now <= self.now(), "slot {slot} is served for {now}, in the future");
        let mut timers = self.members[slot].timers.lock().unwrap();
        timers.retain(|&(at, number)| {
            if at <= now {
                self.fate(number, ARMED, FIRED);
                self.done.fetch_add(1, SeqCst);
            }
            at > now
        });
        timers.iter().map(|&(at, _)| at).min()
    }

    pub fn all_done(&self) -> bool {
        self.done.load(SeqCst) == self.armed.load(SeqCst)
    }

    /// Every timer was fired or cancelled; how many there were. Their numbers can be used again.
    pub fn settle_accounts(&self) -> usize {
        let mut armed = 0;
        for (number, fate) in self.fates.iter().enumerate() {
            match fate.swap(UNUSED, SeqCst) {
                UNUSED => {}
                FIRED | CANCELLED => armed += 1,
                _ => panic!("timer {number} was lost"),
            }
        }
        assert_eq!(self.armed.swap(0, SeqCst), armed);
        assert_eq!(self.done.swap(0, SeqCst), armed);
        armed
    }
}

pub struct Pass<'a, const F: usize> {
    pub world: &'a World<F>,
    pub by: usize,
    pub borrowed: bool,
}

fn dawdle(now: u64) {
    if now.is_multiple_of(3) {
        std::thread::yield_now();
    }
}

impl<const F: usize> Expire for Pass<'_, F> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        let foreign = Expired { next: Next::Foreign, stop: false };
        let at = slot.0 as usize;
        if at == self.by {
            return foreign;
        }
        // On few processors threads seldom meet in the middle of a pass by themselves.
        dawdle(now);
        let word = &self.world.members[at].word;
        loop {
            if word.compare_exchange(PARKED, HELD, SeqCst, SeqCst).is_ok() {
                self.borrowed = true;
                dawdle(now / 3);
                self.world.served.fetch_add(1, SeqCst);
                let next = Next::Owned(self.world.fire(at, now));
                return Expired { next, stop: now.is_multiple_of(7) };
            }
            if word.compare_exchange(HELD, POSTED, SeqCst, SeqCst) != Err(PARKED) {
                self.world.foreign.fetch_add(1, SeqCst);
                dawdle(now / 3);
                return foreign;
            }
        }
    }

    fn release(&mut self, slot: Slot) {
        if std::mem::take(&mut self.borrowed) {
            let member = &self.world.members[slot.0 as usize];
            // A post during the borrowed run: the next owner looks.
            if member.word.swap(PARKED, SeqCst) == POSTED {
                member.told.store(true, SeqCst);
            }
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.world.tell([notice]);
    }
}
