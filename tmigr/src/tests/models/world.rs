//! What the models run in: slots with owners, timers and host timers, and a clock.
//!
//! A slot's timers belong to whoever holds its run word, as in the monitor. The run word and the
//! told flag are the checker's. Plain cells hold what one thread touches at a time, by the run
//! word, and what nobody reads before the end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};

use crate::{Expire, Expired, Hierarchy, NEVER, Next, Notice, Slot, never_if_none};

const PARKED: u8 = 0;
const HELD: u8 = 1;
/// Held, and its holder must look at the slot's timers again before it parks.
const POSTED: u8 = 2;

#[derive(Clone, Copy)]
struct Timer {
    at: u64,
    /// When it could fire first: it may have been armed in the past.
    due: u64,
}

pub(super) struct Member {
    word: AtomicU8,
    pub told: AtomicBool,
    timers: RefCell<Vec<Timer>>,
    /// Armed while somebody else held the word.
    inbox: RefCell<Vec<Timer>>,
    /// What the host timer was armed for last.
    pub host: Cell<u64>,
    pub idle: Cell<bool>,
}

/// A hierarchy and who lives in it.
pub(super) struct World {
    pub tree: Hierarchy<2>,
    pub members: Vec<Member>,
    pub clock: Cell<u64>,
    pub armed: Cell<usize>,
    pub fired: Cell<usize>,
    /// A slot was taken out of an idle tree: somebody has to become active.
    pub triggered: Cell<bool>,
}

impl World {
    /// Room for `room` slots, `count` of them prepared, those in `active` active, the rest idle.
    pub(super) fn new(room: u32, count: u32, active: &[u32]) -> Rc<Self> {
        let tree = Hierarchy::new(room, 1).unwrap();
        for slot in 0..count {
            let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
            let _ = tree.available(Slot(slot), slot != 0 && !active.contains(&slot)).unwrap();
        }
        let member = |slot| {
            let idle = !active.contains(&slot);
            Member {
                word: AtomicU8::new(if idle { PARKED } else { HELD }),
                told: AtomicBool::new(false),
                timers: RefCell::default(),
                inbox: RefCell::default(),
                host: Cell::new(NEVER),
                idle: Cell::new(idle),
            }
        };
        let world = World {
            members: (0..room).map(member).collect(),
            clock: Cell::new(0),
            armed: Cell::new(0),
            fired: Cell::new(0),
            triggered: Cell::new(false),
            tree,
        };
        if !active.contains(&0) {
            world.member(0).word.store(HELD, SeqCst);
            world.sleep(0, None);
        }
        Rc::new(world)
    }

    pub(super) fn member(&self, slot: u32) -> &Member {
        &self.members[slot as usize]
    }

    pub(super) fn tell(&self, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            self.member(notice.slot.0).told.swap(true, SeqCst);
        }
    }

    fn timer(&self, at: u64) -> Timer {
        self.armed.set(self.armed.get() + 1);
        Timer { at, due: at.max(self.clock.get()) }
    }

    /// The word's holder fires what is due; the first of the rest.
    fn fire(&self, slot: u32) -> Option<u64> {
        let now = self.clock.get();
        let mut timers = self.member(slot).timers.borrow_mut();
        timers.append(&mut self.member(slot).inbox.borrow_mut());
        timers.retain(|timer| {
            if timer.at <= now {
                self.fired.set(self.fired.get() + 1);
                // What is due again already in one pass waits a nanosecond for the next.
                assert!(now <= timer.due + 1, "slot {slot}: {} fires at {now}", timer.at);
            }
            timer.at > now
        });
        timers.iter().map(|timer| timer.at).min()
    }

    /// Takes the word of a slot; false: somebody has borrowed it, and will look again.
    fn hold(&self, slot: u32) -> bool {
        let member = self.member(slot);
        if !member.idle.get() {
            return true;
        }
        loop {
            if member.word.compare_exchange(PARKED, HELD, SeqCst, SeqCst).is_ok() {
                return true;
            }
            if member.word.compare_exchange(HELD, POSTED, SeqCst, SeqCst) != Err(PARKED) {
                return false;
            }
        }
    }

    /// The owner arms its host timer, as before each sleep and guest entry, and lets go of the
    /// word of an idle slot.
    pub(super) fn leave(&self, slot: u32) {
        let member = self.member(slot);
        loop {
            member.told.swap(false, SeqCst);
            let own = self.fire(slot);
            if member.idle.get() {
                self.tell(self.tree.new_timer(Slot(slot), own).unwrap().notices);
            }
            let mut host = never_if_none(self.tree.responsibility(Slot(slot)));
            if !member.idle.get() {
                host = host.min(never_if_none(own));
            }
            member.host.set(host);
            let rest = if member.idle.get() { PARKED } else { HELD };
            if member.word.compare_exchange(HELD, rest, SeqCst, SeqCst).is_ok() {
                return;
            }
            member.word.store(HELD, SeqCst);
        }
    }

    /// An active slot goes idle, perhaps with a new timer.
    pub(super) fn sleep(&self, slot: u32, at: Option<u64>) {
        let timers = &self.member(slot).timers;
        timers.borrow_mut().extend(at.map(|at| self.timer(at)));
        let first = self.fire(slot);
        let wakeup = self.tree.deactivate(Slot(slot), first).unwrap();
        self.tell(wakeup.notices);
        self.member(slot).idle.set(true);
        self.leave(slot);
    }

    /// An idle slot becomes active; false: somebody has its timers at the moment.
    pub(super) fn wake(&self, slot: u32) -> bool {
        let held = self.hold(slot);
        if held {
            // Somebody who had to make a slot run may have chosen this one before.
            if self.member(slot).idle.get() {
                self.tell(self.tree.activate(Slot(slot)).unwrap());
                self.member(slot).idle.set(false);
            }
            self.leave(slot);
        }
        held
    }

    /// A timer for an idle slot, which stays so.
    pub(super) fn arm(&self, slot: u32, at: u64) {
        let timer = self.timer(at);
        self.member(slot).inbox.borrow_mut().push(timer);
        if self.hold(slot) {
            self.leave(slot);
        }
    }

    /// The slot's thread runs: because of its host timer, or because it was told.
    pub(super) fn look(self: &Rc<Self>, slot: u32) {
        if !self.hold(slot) {
            return;
        }
        self.fire(slot);
        let now = self.clock.get();
        if self.tree.requires_handle_remote(Slot(slot), now) {
            let mut pass = Pass { world: self.clone(), by: slot, borrowed: false };
            let _responsibility = self.tree.handle_remote(Slot(slot), now, &mut pass);
        }
        self.leave(slot);
    }

    /// Slot `by`, which is active and stays so, gives another its place, where it will be idle.
    pub(super) fn grow(&self, slot: u32, by: u32) {
        self.tell(self.tree.prepare(Slot(slot), 0, Slot(by)).unwrap());
        self.tell(self.tree.available(Slot(slot), true).unwrap());
    }

    /// A slot without a timer of its own leaves the hierarchy.
    pub(super) fn quit(&self, slot: u32) {
        if !self.hold(slot) {
            return;
        }
        let left = self.tree.unavailable(Slot(slot));
        self.tell(left.notices);
        if left.trigger.is_some() {
            self.triggered.set(true);
        }
    }
}

struct Pass {
    world: Rc<World>,
    by: u32,
    borrowed: bool,
}

impl Expire for Pass {
    fn expire(&mut self, slot: Slot, _now: u64) -> Expired {
        // Its own slot's timers it looks at when it leaves.
        self.borrowed = slot.0 != self.by && self.world.hold(slot.0);
        let next = match self.borrowed {
            true => Next::Owned(self.world.fire(slot.0)),
            false => Next::Foreign,
        };
        Expired { next, stop: false }
    }

    fn release(&mut self, slot: Slot) {
        if std::mem::take(&mut self.borrowed) {
            let member = self.world.member(slot.0);
            // Posted meanwhile: its owner looks.
            if member.word.swap(PARKED, SeqCst) == POSTED {
                member.told.swap(true, SeqCst);
            }
        }
    }

    fn notify(&mut self, notice: Notice) {
        self.world.tell([notice]);
    }
}
