//! Real threads on one hierarchy, with a clock of their own: each owns some slots, and does
//! something for a slot only when the host timer that it armed fires, or when it is told. At the
//! end every timer has fired exactly once.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;

use tmigr::{Expire, Expired, Hierarchy, Next, Notice, Slot};

const THREADS: usize = 4;
const SLOTS: usize = 36;
const ROUNDS: usize = 60_000;

/// The run word: who may touch the slot's timers.
const PARKED: u8 = 0;
const HELD: u8 = 1;
/// Held, and its holder must look at the slot's own timers before it parks.
const POSTED: u8 = 2;

struct Member {
    word: AtomicU8,
    told: AtomicBool,
    /// `(expiry, number)`; only the holder of the word locks it.
    timers: Mutex<Vec<(u64, usize)>>,
}

struct World<const F: usize> {
    tree: Hierarchy<F>,
    clock: AtomicU64,
    members: Vec<Member>,
    fired: Vec<AtomicU8>,
    armed: AtomicUsize,
    fired_count: AtomicUsize,
    served: AtomicUsize,
    foreign: AtomicUsize,
}

impl<const F: usize> World<F> {
    fn new() -> Self {
        let tree = Hierarchy::new(SLOTS as u32, 1).unwrap();
        for slot in 0..SLOTS as u32 {
            let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
            if slot == 0 {
                let _ = tree.available(Slot(0), false).unwrap();
            }
        }
        for slot in 1..SLOTS as u32 {
            let _ = tree.available(Slot(slot), false).unwrap();
        }
        let member = || Member {
            word: AtomicU8::new(HELD),
            told: AtomicBool::new(false),
            timers: Mutex::new(Vec::new()),
        };
        World {
            tree,
            clock: AtomicU64::new(0),
            members: (0..SLOTS).map(|_| member()).collect(),
            fired: (0..THREADS * ROUNDS).map(|_| AtomicU8::new(0)).collect(),
            armed: AtomicUsize::new(0),
            fired_count: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            foreign: AtomicUsize::new(0),
        }
    }

    fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            self.members[notice.slot.0 as usize].told.store(true, SeqCst);
        }
    }

    /// The word's holder fires what is due; the first of the rest.
    fn fire(&self, slot: usize, now: u64) -> Option<u64> {
        let mut timers = self.members[slot].timers.lock().unwrap();
        timers.retain(|&(at, number)| {
            if at <= now {
                self.fired[number].fetch_add(1, SeqCst);
                self.fired_count.fetch_add(1, SeqCst);
            }
            at > now
        });
        timers.iter().map(|&(at, _)| at).min()
    }
}

struct Pass<'a, const F: usize> {
    world: &'a World<F>,
    by: usize,
    borrowed: bool,
}

impl<const F: usize> Expire for Pass<'_, F> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        let foreign = Expired { next: Next::Foreign, stop: false };
        let at = slot.0 as usize;
        if at == self.by {
            return foreign;
        }
        let word = &self.world.members[at].word;
        loop {
            if word.compare_exchange(PARKED, HELD, SeqCst, SeqCst).is_ok() {
                self.borrowed = true;
                self.world.served.fetch_add(1, SeqCst);
                let next = Next::Owned(self.world.fire(at, now));
                return Expired { next, stop: now.is_multiple_of(7) };
            }
            if word.compare_exchange(HELD, POSTED, SeqCst, SeqCst) != Err(PARKED) {
                self.world.foreign.fetch_add(1, SeqCst);
                return foreign;
            }
        }
    }

    fn release(&mut self, slot: Slot) {
        if std::mem::take(&mut self.borrowed) {
            // A post during the borrowed run: the next owner looks.
            let was = self.world.members[slot.0 as usize].word.swap(PARKED, SeqCst);
            if was == POSTED {
                self.world.members[slot.0 as usize].told.store(true, SeqCst);
            }
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.world.tell([notice]);
    }
}

/// What a thread knows of one of its slots.
#[derive(Clone, Default)]
struct Mine {
    idle: bool,
    host: Option<u64>,
}

struct Thread<'a, const F: usize> {
    world: &'a World<F>,
    mine: Vec<Mine>,
    seed: u64,
}

impl<const F: usize> Thread<'_, F> {
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// Takes the word of an idle slot; false: somebody has borrowed it.
    fn hold(&self, slot: usize) -> bool {
        let word = &self.world.members[slot].word;
        !self.mine[slot].idle || word.compare_exchange(PARKED, HELD, SeqCst, SeqCst).is_ok()
    }

    /// Arms, and parks the word of an idle slot.
    fn leave(&mut self, slot: usize) {
        let world = self.world;
        let idle = self.mine[slot].idle;
        loop {
            world.members[slot].told.store(false, SeqCst);
            let now = world.clock.load(SeqCst);
            let own = world.fire(slot, now);
            if idle {
                let wakeup = world.tree.new_timer(Slot(slot as u32), own).unwrap();
                world.tell(wakeup.notices);
            }
            let mut host = world.tree.responsibility(Slot(slot as u32));
            if !idle {
                host = host.into_iter().chain(own).min();
            }
            self.mine[slot].host = host;
            let word = &world.members[slot].word;
            let rest = if idle { PARKED } else { HELD };
            if word.compare_exchange(HELD, rest, SeqCst, SeqCst).is_ok() {
                return;
            }
            word.store(HELD, SeqCst);
        }
    }

    /// The slot's thread runs, if it has reason to.
    fn look(&mut self, slot: usize) {
        let world = self.world;
        let now = world.clock.load(SeqCst);
        let due = self.mine[slot].host.is_some_and(|at| at <= now);
        let told = world.members[slot].told.load(SeqCst);
        let posted = world.members[slot].word.load(SeqCst) == POSTED;
        if !(due || told || posted) || !self.hold(slot) {
            return;
        }
        world.fire(slot, now);
        if world.tree.requires_handle_remote(Slot(slot as u32), now) {
            let mut pass = Pass { world, by: slot, borrowed: false };
            let _responsibility = world.tree.handle_remote(Slot(slot as u32), now, &mut pass);
        }
        self.leave(slot);
    }

    /// Goes idle or becomes active, perhaps with a new timer of that number.
    fn change(&mut self, slot: usize, number: Option<usize>) {
        let world = self.world;
        if !self.hold(slot) {
            return;
        }
        let now = world.clock.load(SeqCst);
        let name = Slot(slot as u32);
        let at = now + self.random() % 100;
        if let Some(number) = number.filter(|_| self.seed.is_multiple_of(2)) {
            world.members[slot].timers.lock().unwrap().push((at, number));
            world.armed.fetch_add(1, SeqCst);
        }
        if self.mine[slot].idle {
            world.tell(world.tree.activate(name).unwrap());
            self.mine[slot].idle = false;
        } else {
            let first = world.fire(slot, now);
            let wakeup = world.tree.deactivate(name, first).unwrap();
            world.tell(wakeup.notices);
            self.mine[slot].idle = true;
        }
        self.leave(slot);
    }

    /// Leaves the hierarchy for a moment, or comes back where it was.
    fn flap(&mut self, slot: usize) {
        let world = self.world;
        if self.mine[slot].idle {
            return;
        }
        let left = world.tree.unavailable(Slot(slot as u32));
        world.tell(left.notices);
        // At once: the trigger's timer has nobody until then.
        world.tell(world.tree.available(Slot(slot as u32), false).unwrap());
        self.leave(slot);
    }

    fn run(&mut self, own: &[usize], numbers: std::ops::Range<usize>) {
        for number in numbers {
            self.world.clock.fetch_add(1 + self.random() % 3, SeqCst);
            let pick = self.random() as usize % own.len();
            match self.random() % 16 {
                0 => self.flap(own[pick]),
                // Mostly idle: an active one goes idle sooner than an idle one comes back.
                1..4 => self.change(own[pick], Some(number)),
                _ if !self.mine[own[pick]].idle => self.change(own[pick], Some(number)),
                _ => {}
            }
            for &slot in own {
                self.look(slot);
            }
        }
    }

    /// All go idle; nothing happens but by host timers and notices, until all have fired.
    fn drain(&mut self, own: &[usize], end: u64) {
        for &slot in own {
            if !self.mine[slot].idle {
                self.change(slot, None);
            }
        }
        let world = self.world;
        for _ in 0..2_000_000 {
            let now = world.clock.fetch_add(1, SeqCst);
            for &slot in own {
                self.look(slot);
            }
            if world.fired_count.load(SeqCst) == world.armed.load(SeqCst) && now > end {
                return;
            }
        }
    }
}

fn stress<const F: usize>(seed: u64) {
    let world = World::<F>::new();
    let all = std::sync::Barrier::new(THREADS);
    thread::scope(|scope| {
        for index in 0..THREADS {
            let (world, all) = (&world, &all);
            scope.spawn(move || {
                // Neighbours in a group belong to different threads.
                let own: Vec<usize> = (index..SLOTS).step_by(THREADS).collect();
                let seed = seed * 1_000_003 + index as u64 + 1;
                let mut thread = Thread { world, mine: vec![Mine::default(); SLOTS], seed };
                for &slot in &own {
                    thread.leave(slot);
                }
                all.wait();
                thread.run(&own, index * ROUNDS..(index + 1) * ROUNDS);
                all.wait();
                let end = world.clock.load(SeqCst) + 2_000;
                thread.drain(&own, end);
            });
        }
    });
    let armed = world.armed.load(SeqCst);
    assert_eq!(world.fired_count.load(SeqCst), armed, "lost, with seed {seed}");
    assert!(world.fired.iter().all(|fired| fired.load(SeqCst) <= 1), "twice, with seed {seed}");
    let (served, foreign) = (world.served.load(SeqCst), world.foreign.load(SeqCst));
    println!("{armed} armed, {served} slots served by others, {foreign} refused");
    assert!(armed > ROUNDS / 4 && served > 100, "hardly any work");
    for group in world.tree.groups() {
        assert_eq!((group.active, group.migrator), (0, None), "seed {seed}");
    }
}

#[test]
fn every_timer_fires_once_with_groups_of_eight() {
    (1..10).for_each(stress::<8>);
}

#[test]
fn every_timer_fires_once_in_a_tall_tree() {
    (1..10).for_each(stress::<2>);
}
