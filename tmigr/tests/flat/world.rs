//! The world of the hierarchy under test: its members' threads, their timers, and the clock.
//!
//! Owns the oracle: each member's list of timers, and what the members are armed for. Must not know
//! how the hierarchy looks inside. Every call is recorded before it is made.

use tmigr::{GroupView, Hierarchy, Notice, Slot};

use crate::pass::{Manner, Member, Pass};
use crate::recorded::Recorded;

pub struct World<const F: usize> {
    pub tree: Hierarchy<F>,
    pub nodes: u32,
    pub members: Vec<Member>,
    /// As the hierarchy keeps them: in the order of the last set.
    pub isolated: Vec<usize>,
    pub trace: Recorded,
    now: u64,
    /// After how many calls the clock moves on, and by how much.
    clock: (u8, u64),
    manner: Manner,
    /// How late a timer may be: each failed attempt costs a nanosecond, and what the clock moves on
    /// meanwhile.
    slack: u64,
    /// How far the clock moved on since everybody had time to do what was due.
    moved: u64,
}

pub fn shown(expiry: Option<u64>) -> String {
    expiry.map_or("never".into(), |at| at.to_string())
}

pub fn named(at: usize) -> Slot {
    Slot(at as u32)
}

impl<const F: usize> World<F> {
    pub fn new(slots: u32, nodes: u32) -> Self {
        let tree = Hierarchy::<F>::with_housekeeper(slots, nodes, Slot(0)).unwrap();
        let mut trace = Recorded::default();
        if F != 8 {
            trace.remark(format!("groups of {F}: the replay, with groups of 8, differs"));
        }
        trace.command(format!("topology {slots} {nodes}"));
        trace.answer(format!("levels {} crossnode {}", tree.levels(), tree.crossnode_level()));
        World {
            tree,
            nodes,
            members: vec![Member::default(); slots as usize],
            isolated: Vec::new(),
            trace,
            now: 1000,
            clock: (0, 0),
            manner: Manner::Serve,
            slack: 0,
            moved: 0,
        }
    }

    pub fn trace(&self) -> &Recorded {
        &self.trace
    }

    /// A call is about to be made.
    pub fn command(&mut self, command: String) {
        match &mut self.clock {
            (_, 0) => {}
            (0, by) => {
                let by = std::mem::take(by);
                self.now += by;
                self.moved += by;
                self.trace.remark(format!("the clock moves on to {}", self.now));
            }
            (calls, _) => *calls -= 1,
        }
        self.trace.command(command);
    }

    pub fn tell(&mut self, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            self.trace.comment(&format!(", tell {} of {}", notice.slot, notice.expires));
            self.members[notice.slot.0 as usize].told = true;
        }
    }

    pub fn arm(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.told = false;
        let mut host = self.tree.responsibility(named(at));
        if !member.available || !member.idle {
            host = host.into_iter().chain(member.first()).min();
        }
        member.host = host;
    }

    pub fn activate(&mut self, at: usize) {
        self.command(format!("activate {at}"));
        let notices = self.tree.activate(named(at)).unwrap();
        self.trace.answer("ok");
        self.members[at].idle = false;
        self.tell(notices);
        self.arm(at);
    }

    fn deactivate(&mut self, at: usize) {
        let next = self.members[at].first();
        self.command(format!("deactivate {at} {}", shown(next)));
        let wakeup = self.tree.deactivate(named(at), next).unwrap();
        self.trace.answer(format!("first {}", shown(wakeup.first)));
        self.members[at].idle = true;
        self.tell(wakeup.notices);
        assert_eq!(self.tree.responsibility(named(at)), wakeup.first);
        self.arm(at);
    }

    /// The forecast may be too early, but not too late, and finds somebody who cares only where
    /// there is somebody.
    fn forecast_and_deactivate(&mut self, at: usize) {
        let next = self.members[at].first();
        self.command(format!("quick_check {at} {}", shown(next)));
        let forecast = self.tree.quick_check(named(at), next).unwrap();
        self.trace.answer(format!("next {}", shown(forecast)));
        self.deactivate(at);
        let first = self.tree.responsibility(named(at)).unwrap_or(u64::MAX);
        assert!(forecast.unwrap_or(u64::MAX) <= first, "{forecast:?} was forecast for {first}");
    }

    fn new_timer(&mut self, at: usize) {
        let next = self.members[at].first();
        self.command(format!("new_timer {at} {}", shown(next)));
        let wakeup = self.tree.new_timer(named(at), next).unwrap();
        self.trace.answer(format!("first {}", shown(wakeup.first)));
        self.tell(wakeup.notices);
        self.arm(at);
    }

    pub fn new_timer_if_idle(&mut self, at: usize) {
        let member = &self.members[at];
        if member.available && member.idle { self.new_timer(at) } else { self.arm(at) }
    }

    pub fn cancel(&mut self, at: usize, expiry: u64) {
        self.command(format!("cancel {at} {expiry}"));
        self.trace.answer("ok");
    }

    /// A slot's thread runs, with a time that it read before: own timers, pass, host timer.
    fn run(&mut self, at: usize, now: u64, whatever: bool) {
        let slot = named(at);
        self.members[at].posted = false;
        let slack = self.slack + self.moved;
        let fired = self.members[at].fire(now, slack);
        let required = self.tree.requires_handle_remote(slot, now);
        if self.members[at].prepared {
            self.command(format!("requires {at} {now}"));
            self.trace.answer(required.to_string());
        }
        if required || whatever {
            self.handle(at, now, fired);
        } else {
            fired.into_iter().for_each(|expiry| self.cancel(at, expiry));
        }
        self.new_timer_if_idle(at);
    }

    fn handle(&mut self, at: usize, now: u64, fired: Vec<u64>) {
        let by = named(at);
        self.command(format!("handle {at} {now}"));
        let mut pass = Pass {
            by,
            members: &mut self.members,
            manner: self.manner,
            slack: &mut self.slack,
            moved: self.moved,
            now,
            fired: fired.into_iter().map(|at| (by, at)).collect(),
            taken: Vec::new(),
            special: false,
            unreleased: None,
        };
        let done = self.tree.handle_remote(by, now, &mut pass);
        assert_eq!(pass.unreleased, None);
        let Pass { fired, special, .. } = pass;
        let fired: String = fired.iter().map(|(slot, at)| format!("{slot}:{at} ")).collect();
        self.trace.answer(format!("expired {fired}wakeup {}", shown(done.wakeup)));
        if special {
            self.trace.differs(&format!("the manner of this pass is {:?}", self.manner));
        }
    }

    /// Everything that is due by `until` happens.
    fn advance(&mut self, until: u64) {
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 100_000, "no end of it at {}", self.now);
            if let Some(at) = self.members.iter().position(|member| member.posted) {
                self.run(at, self.now, false);
            } else if let Some(at) = self.members.iter().position(|member| member.told) {
                self.arm(at);
            } else {
                let due = |(at, member): (usize, &Member)| Some((member.host?, at));
                let next = self.members.iter().enumerate().filter_map(due).min();
                let until = until.max(self.now);
                let Some((time, at)) = next.filter(|(time, _)| *time <= until) else { break };
                self.now = self.now.max(time);
                self.run(at, self.now, false);
            }
            self.check();
        }
        self.now = self.now.max(until);
        let moved = std::mem::take(&mut self.moved);
        if self.manner == Manner::Fail {
            // What failed is still there.
            self.slack += moved;
        }
        self.check_nothing_is_lost();
    }

    /// What must hold when everybody has had time to do what was due.
    fn check_nothing_is_lost(&self) {
        let armed = self.members.iter().filter(|member| member.available);
        let armed = armed.filter_map(|member| member.host).min().unwrap_or(u64::MAX);
        for (at, member) in self.members.iter().enumerate() {
            let Some(first) = member.first() else { continue };
            let lost = first.saturating_add(self.slack) < self.now;
            assert!(!lost, "slot {at} lost its timer for {first} at {}", self.now);
            let cared_for = armed <= first.max(self.now + 1) || !member.available;
            assert!(cared_for, "nobody is armed for the timer of slot {at} for {first}");
        }
    }

    /// What must hold after every step.
    fn check(&self) {
        let groups = self.tree.groups();
        let roots = groups.iter().filter(|group| group.parent.is_none()).count();
        assert!(roots == usize::from(!groups.is_empty()), "{groups:?}");
        for group in &groups {
            assert_eq!(group.mask.count_ones(), 1, "{group:?}");
            match group.migrator {
                None => assert_eq!(group.active, 0, "{group:?}"),
                Some(mask) => assert!(mask.count_ones() == 1 && mask & group.active != 0),
            }
            if let Some(parent) = group.parent {
                let parent: &GroupView = &groups[parent as usize];
                let marked = parent.active & group.mask != 0;
                assert_eq!(marked, group.active != 0, "{group:?} in {parent:?}");
            }
        }
        let bottom = groups.iter().filter(|group| group.level == 0);
        let active: u32 = bottom.map(|group| group.active.count_ones()).sum();
        let expected = self.members.iter().filter(|m| m.available && !m.idle).count();
        assert_eq!(active as usize, expected);
    }

    fn timer(&mut self, at: usize, expiry: u64) {
        self.command(format!("timer {at} {expiry}"));
        self.trace.answer("ok");
        let timers = &mut self.members[at].timers;
        timers.insert(timers.partition_point(|&other| other <= expiry), expiry);
        self.new_timer_if_idle(at);
    }

    fn cancel_last(&mut self, at: usize, tell: bool) {
        if let Some(expiry) = self.members[at].timers.pop() {
            self.cancel(at, expiry);
        }
        if tell {
            self.new_timer_if_idle(at);
        }
    }

    pub fn begin(&mut self, prepared: usize) {
        for at in 0..prepared {
            self.prepare(at);
            if self.members[at].prepared {
                self.available(at, at % 3 == 2);
            }
        }
    }

    pub fn step(&mut self, at: usize, operation: u8, amount: u64, clock: (u8, u64)) {
        let at = at % self.members.len();
        let member = self.members[at].clone();
        let even = amount.is_multiple_of(2);
        self.clock = clock;
        match operation {
            0 => self.acquire(amount as u32 % self.nodes),
            1..=6 if !member.prepared => self.prepare(at),
            _ if !member.prepared => {}
            1 if amount.is_multiple_of(3) => self.give_up(at),
            1..=2 if member.given_up => self.refused(at),
            _ if member.given_up => {}
            1..=2 if member.available => self.unavailable(at),
            1..=4 if !member.available => self.available(at, even),
            3..=7 if member.available && member.idle => self.activate(at),
            3..=6 if member.available => self.deactivate(at),
            7 if member.available => self.forecast_and_deactivate(at),
            8..=11 => self.timer(at, self.now + amount % 300),
            12 => self.cancel_last(at, even),
            13..=15 => self.advance(self.now + amount % 200),
            16 => {
                self.manner = match amount % 5 {
                    1 => Manner::HandOff,
                    2 => Manner::Stop,
                    3 => Manner::Fail,
                    _ => Manner::Serve,
                }
            }
            17 => self.isolate_or_bring_back(at),
            18 => self.isolate(&[at, amount as usize % self.members.len(), at]),
            // A thread looks although nothing is due, perhaps by a time that is past.
            19 => self.run(at, self.now - amount % 500, true),
            20 => self.run(at, self.now, true),
            _ => self.run(at, self.now - amount % 500, false),
        }
        self.check();
        self.advance(self.now);
    }

    pub fn finish(&mut self) {
        self.clock = (0, 0);
        if self.manner == Manner::Fail {
            self.manner = Manner::Serve;
        }
        self.advance(self.now + 1_000_000);
        assert!(self.members.iter().all(|member| member.timers.is_empty()));
    }
}
