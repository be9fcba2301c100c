//! A thread that owns slots. It does something for a slot only when the host timer that it armed
//! fires, or when it is told, and changes them at random.
//!
//! Owns what is known of its slots. Must not know the other threads.

use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;

use tmigr::{PrepareError, Slot, SlotError};

use crate::world::{HELD, NODES, PARKED, POSTED, Pass, World};

/// The most slots of a thread: all threads together want more than there are.
const MOST: usize = 12;

/// What a thread knows of one of its slots.
#[derive(Debug)]
pub struct Mine {
    pub slot: usize,
    pub available: bool,
    pub idle: bool,
    pub host: Option<u64>,
}

impl Mine {
    fn name(&self) -> Slot {
        Slot(self.slot as u32)
    }

    /// Somebody else may run it.
    pub fn sleeps(&self) -> bool {
        self.available && self.idle
    }
}

pub struct Owner<'a, const F: usize> {
    world: &'a World<F>,
    /// The first one stays available: it prepares others, and comes when somebody has to.
    pub mine: Vec<Mine>,
    /// It holds its slots for long and arms so often that a slot has another timer behind the one
    /// that is due. Some races need that, others the contrary.
    busy: bool,
    random: u64,
}

impl<'a, const F: usize> Owner<'a, F> {
    /// The owner of one slot, which is active.
    pub fn new(world: &'a World<F>, slot: Slot, seed: u64, busy: bool) -> Self {
        world.tell(world.tree.available(slot, false).unwrap());
        let first = Mine { slot: slot.0 as usize, available: true, idle: false, host: None };
        // Neighbouring seeds give unlike choices, and none gives 0.
        let random = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut owner = Owner { world, mine: vec![first], busy, random };
        owner.leave(0);
        owner
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % below
    }

    /// Takes the word of a slot; false: somebody has borrowed it.
    fn hold(&self, at: usize) -> bool {
        let mine = &self.mine[at];
        let word = &self.world.members[mine.slot].word;
        !mine.sleeps() || word.compare_exchange(PARKED, HELD, SeqCst, SeqCst).is_ok()
    }

    /// Arms, and parks the word of a slot that sleeps.
    fn leave(&mut self, at: usize) {
        let world = self.world;
        let dawdles = self.busy && self.random(8) == 0;
        let mine = &mut self.mine[at];
        let member = &world.members[mine.slot];
        let rest = if mine.sleeps() { PARKED } else { HELD };
        loop {
            member.told.store(false, SeqCst);
            let own = world.fire(mine.slot, world.now());
            if mine.sleeps() {
                let wakeup = world.tree.new_timer(mine.name(), own).unwrap();
                world.tell(wakeup.notices);
            }
            let mut host = world.tree.responsibility(mine.name());
            if !mine.sleeps() {
                host = host.into_iter().chain(own).min();
            }
            mine.host = host;
            if dawdles {
                // Passes meet a slot that its owner holds.
                std::thread::yield_now();
            }
            if member.word.compare_exchange(HELD, rest, SeqCst, SeqCst).is_ok() {
                return;
            }
            member.word.store(HELD, SeqCst);
        }
    }

    /// The slot's thread runs, if it has reason to; whether it had.
    pub fn look(&mut self, at: usize) -> bool {
        let world = self.world;
        let now = world.now();
        let mine = &self.mine[at];
        let member = &world.members[mine.slot];
        let due = mine.host.is_some_and(|host| host <= now);
        let called = member.told.load(SeqCst) || member.word.load(SeqCst) == POSTED;
        if !(due || called) || !self.hold(at) {
            return due || called;
        }
        let mine = &self.mine[at];
        world.fire(mine.slot, now);
        if world.tree.requires_handle_remote(mine.name(), now) {
            let mut pass = Pass { world, by: mine.slot, borrowed: false };
            let _responsibility = world.tree.handle_remote(mine.name(), now, &mut pass);
        }
        self.leave(at);
        true
    }

    pub fn look_at_all(&mut self) -> bool {
        (0..self.mine.len()).fold(false, |any, at| self.look(at) | any)
    }

    fn activate(&mut self, at: usize) {
        let mine = &mut self.mine[at];
        self.world.tell(self.world.tree.activate(mine.name()).unwrap());
        mine.idle = false;
    }

    fn deactivate(&mut self, at: usize) {
        let mine = &mut self.mine[at];
        let first = self.world.fire(mine.slot, self.world.now());
        let wakeup = self.world.tree.deactivate(mine.name(), first).unwrap();
        self.world.tell(wakeup.notices);
        mine.idle = true;
    }

    /// The first slot is active, and stays so until this thread changes it.
    fn call_up_the_first(&mut self) {
        while !self.hold(0) {
            std::thread::yield_now();
        }
        if self.mine[0].idle {
            self.activate(0);
        }
        self.leave(0);
    }

    /// Another slot, if there is one.
    fn acquire(&mut self) {
        self.call_up_the_first();
        let node = self.random(NODES.into()) as u32;
        let idle = self.random(2) == 0;
        let world = self.world;
        let (slot, notices) = match world.tree.acquire(node, self.mine[0].name()) {
            Ok(acquired) => acquired,
            Err(PrepareError::NoSuchSlot(_) | PrepareError::NoRoom(_)) => return,
            Err(error) => panic!("{error}"),
        };
        world.tell(notices);
        world.tell(world.tree.available(slot, idle).unwrap());
        self.mine.push(Mine { slot: slot.0 as usize, available: true, idle, host: None });
        self.leave(self.mine.len() - 1);
    }

    /// The slot's vCPU ends. Its word is held.
    fn give_up(&mut self, at: usize) {
        let world = self.world;
        let mine = &self.mine[at];
        // Before it is given up: afterwards it may be somebody else's at once.
        let timers = std::mem::take(&mut *world.members[mine.slot].timers.lock().unwrap());
        match world.tree.give_up(mine.name()) {
            Ok(left) => {
                self.mine.swap_remove(at);
                world.cancel(timers);
                if left.trigger.is_some() {
                    self.call_up_the_first();
                }
                world.tell(left.notices);
            }
            Err(SlotError::Remote(_)) => {
                *world.members[mine.slot].timers.lock().unwrap() = timers;
                self.leave(at);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The slot leaves the hierarchy, or comes back. Its word is held.
    fn change_availability(&mut self, at: usize) {
        let idle = self.random(2) == 0;
        let world = self.world;
        let mine = &mut self.mine[at];
        if mine.available {
            let left = world.tree.unavailable(mine.name());
            mine.available = false;
            if left.trigger.is_some() {
                self.call_up_the_first();
            }
            world.tell(left.notices);
        } else {
            world.tell(world.tree.available(mine.name(), idle).unwrap());
            mine.available = true;
            mine.idle = idle;
        }
        self.leave(at);
    }

    /// Goes idle or becomes active.
    fn change_activity(&mut self, at: usize) {
        if self.mine[at].idle {
            self.activate(at)
        } else {
            self.deactivate(at)
        }
        self.leave(at);
    }

    fn step(&mut self, number: usize) {
        let at = self.random(self.mine.len() as u64) as usize;
        let what = self.random(64);
        if what < 2 && self.mine.len() < MOST {
            return self.acquire();
        }
        if !self.hold(at) {
            return;
        }
        let (often, long) = if self.busy { (2, 600) } else { (4, 100) };
        if self.random(often) == 0 {
            let expiry = self.world.now() + self.random(long);
            self.world.arm(self.mine[at].slot, expiry, number);
        }
        match what {
            2 if at > 0 => self.give_up(at),
            3..6 if at > 0 => self.change_availability(at),
            _ if !self.mine[at].available => self.leave(at),
            // Mostly idle: an active one goes idle sooner than an idle one comes back.
            6..18 => self.change_activity(at),
            _ if !self.mine[at].idle => self.change_activity(at),
            _ => self.leave(at),
        }
    }

    /// A step for each number, which is a new timer's.
    pub fn run(&mut self, numbers: Range<usize>) {
        for number in numbers {
            let passed = 1 + self.random(3);
            self.world.clock.fetch_add(passed, SeqCst);
            self.step(number);
            self.look_at_all();
        }
    }

    /// All go idle; nothing happens but by host timers and notices, until all timers have fired.
    pub fn drain(&mut self) {
        for at in 0..self.mine.len() {
            if self.mine[at].available && !self.mine[at].idle {
                self.change_activity(at);
            }
        }
        for _ in 0..200_000 {
            self.world.clock.fetch_add(1, SeqCst);
            self.look_at_all();
            if self.world.all_done() {
                return;
            }
        }
    }
}
