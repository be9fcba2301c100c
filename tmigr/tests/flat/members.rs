//! Members that come and go: preparation, availability, the pool, isolation.
//!
//! Owns what the answers to these calls have to be. Must not know timers or passes.

use tmigr::{PrepareError, SlotError};

use crate::pass::Member;
use crate::world::{World, named};

fn works(member: &Member) -> bool {
    member.available && !member.idle
}

fn how(idle: bool) -> &'static str {
    if idle { "idle" } else { "active" }
}

impl<const F: usize> World<F> {
    /// Who prepares a slot, as the replay chooses; somebody is woken for it.
    fn preparer(&mut self, target: usize) -> usize {
        if !self.members.iter().any(works)
            && let Some(sleeper) = self.members.iter().position(|member| member.available)
        {
            self.activate(sleeper);
        }
        self.members.iter().position(works).unwrap_or(target)
    }

    /// What is prepared, if that was not refused; a refusal changes nothing.
    fn prepared<T>(&mut self, call: impl FnOnce(&Self) -> Result<T, PrepareError>) -> Option<T> {
        let before = self.tree.groups();
        let error = match call(self) {
            Ok(done) => {
                self.trace.answer("ok");
                return Some(done);
            }
            Err(error) => error,
        };
        assert_eq!(self.tree.groups(), before, "{error}");
        match error {
            PrepareError::NoRoom(_) => self.trace.answer("error no room"),
            PrepareError::NoActiveSlot(_) => {
                assert!(!self.members.iter().any(|member| member.available), "{error}");
                self.trace.answer("error no active cpu");
            }
            _ => panic!("{error}"),
        }
        None
    }

    pub fn prepare(&mut self, at: usize) {
        let node = at as u32 % self.nodes;
        let by = named(self.preparer(at));
        self.command(format!("prepare {at} {node}"));
        let notices = self.prepared(|world| world.tree.prepare(named(at), node, by));
        if let Some(notices) = notices {
            self.tell(notices);
            self.members[at].prepared = true;
            self.members[at].node = node;
        }
    }

    /// A slot that was given up on the node, else the lowest one that was never prepared.
    pub fn acquire(&mut self, node: u32) {
        if self.members.iter().any(|member| member.given_up && member.node == node) {
            self.trace.remark(format!("one that was given up on node {node} is acquired"));
            let (slot, notices) = self.tree.acquire(node, named(0)).unwrap();
            self.trace.comment(&format!(": {slot}"));
            let member = &mut self.members[slot.0 as usize];
            assert!(member.given_up && member.node == node && notices.is_empty(), "{slot}");
            member.given_up = false;
            return;
        }
        let Some(fresh) = self.members.iter().position(|member| !member.prepared) else {
            let end = named(self.members.len());
            self.trace.remark(format!("no slot is left for node {node}"));
            assert_eq!(self.tree.acquire(node, end).err(), Some(PrepareError::NoSuchSlot(end)));
            return;
        };
        let by = named(self.preparer(fresh));
        self.command(format!("prepare {fresh} {node}"));
        if let Some((slot, notices)) = self.prepared(|world| world.tree.acquire(node, by)) {
            self.trace.comment(", acquired");
            self.tell(notices);
            assert_eq!(slot, named(fresh));
            self.members[fresh].prepared = true;
            self.members[fresh].node = node;
        }
    }

    /// The vCPU ends, and its timers with it.
    pub fn give_up(&mut self, at: usize) {
        if self.members[at].given_up {
            return self.refused(at);
        }
        for expiry in std::mem::take(&mut self.members[at].timers) {
            self.cancel(at, expiry);
        }
        self.command(format!("unavailable {at}"));
        let left = self.tree.give_up(named(at)).unwrap();
        self.members[at].given_up = true;
        self.members[at].back = None;
        self.left(at, left.trigger);
        self.trace.comment(", given up");
        self.tell(left.notices);
        self.triggered(left.trigger);
    }

    /// What was given up is refused until it is acquired.
    pub fn refused(&mut self, at: usize) {
        let slot = named(at);
        self.trace.remark(format!("{slot} is nobody's: it is neither given up nor available"));
        assert_eq!(self.tree.give_up(slot).err(), Some(SlotError::GivenUp(slot)));
        let why = if self.members[at].isolated {
            SlotError::Isolated(slot)
        } else {
            SlotError::GivenUp(slot)
        };
        assert_eq!(self.tree.available(slot, false).err(), Some(why));
    }

    pub fn available(&mut self, at: usize, idle: bool) {
        let slot = named(at);
        if self.members[at].isolated {
            self.trace.remark(format!("{slot} is isolated: it is not available"));
            assert_eq!(self.tree.available(slot, idle).err(), Some(SlotError::Isolated(slot)));
            return;
        }
        self.command(format!("available {at} {}", how(idle)));
        let notices = self.tree.available(slot, idle).unwrap();
        self.trace.answer("ok");
        self.tell(notices);
        self.came(at, idle);
        self.new_timer_if_idle(at);
    }

    fn came(&mut self, at: usize, idle: bool) {
        // Without a hierarchy nobody ever is available.
        self.members[at].available = self.tree.levels() > 0;
        self.members[at].idle = idle;
    }

    pub fn unavailable(&mut self, at: usize) {
        self.command(format!("unavailable {at}"));
        let left = self.tree.unavailable(named(at));
        self.left(at, left.trigger);
        self.tell(left.notices);
        self.triggered(left.trigger);
    }

    fn left(&mut self, at: usize, trigger: Option<u64>) {
        self.trace.answer(if trigger.is_some() { "trigger" } else { "none" });
        self.members[at].available = false;
        self.arm(at);
    }

    /// Somebody comes for the timers of an idle tree.
    fn triggered(&mut self, trigger: Option<u64>) {
        if trigger.is_some() {
            let next = self.members.iter().position(|member| member.available).unwrap();
            self.activate(next);
        }
    }

    pub fn isolate_or_bring_back(&mut self, at: usize) {
        let mut set = self.isolated.clone();
        match set.iter().position(|&other| other == at) {
            Some(found) => drop(set.remove(found)),
            None => set.push(at),
        }
        self.isolate(&set);
    }

    pub fn isolate(&mut self, set: &[usize]) {
        let mut wanted = Vec::new();
        let mut refused = Vec::new();
        for &at in set {
            match at {
                0 => refused.push(SlotError::Housekeeper(named(0))),
                _ if !self.members[at].prepared => refused.push(SlotError::NotPrepared(named(at))),
                _ if wanted.contains(&at) => {}
                _ => wanted.push(at),
            }
        }
        let named_set: Vec<_> = set.iter().copied().map(named).collect();
        self.trace.remark(format!("isolate {set:?}"));
        let back = |slot: tmigr::Slot| self.members[slot.0 as usize].back;
        let done = self.tree.isolate(&named_set, back);
        assert_eq!(done.refused, refused);
        let was = std::mem::replace(&mut self.isolated, wanted.clone());
        let changed: Vec<usize> = was.iter().chain(&wanted).copied().collect();
        for at in was.iter().copied().filter(|at| !wanted.contains(at)) {
            self.members[at].isolated = false;
            if let Some(idle) = self.members[at].back.take() {
                self.trace.command(format!("available {at} {}", how(idle)));
                self.trace.answer("ok");
                self.came(at, idle);
            }
        }
        for at in wanted.iter().copied().filter(|at| !was.contains(at)) {
            self.trace.command(format!("unavailable {at}"));
            let member = &mut self.members[at];
            member.isolated = true;
            member.back = member.available.then_some(member.idle);
            member.available = false;
        }
        self.tell(done.notices);
        // Whoever left last may have left nobody, and a timer to nobody.
        if self.members.iter().any(|member| member.available) {
            self.triggered(done.trigger);
        }
        changed.into_iter().for_each(|at| self.new_timer_if_idle(at));
    }
}
