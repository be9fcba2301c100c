//! Random operations against a flat oracle: a list of all armed timers. The world has no tick:
//! a slot does something only when the host timer that it armed itself fires, or when it is told.
//! So a timer that fires late, early, twice or never shows a missing wakeup or notice at once.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

use proptest::prelude::*;
use tmigr::{Expire, Expired, GroupView, Hierarchy, Next, Notice, Slot};

/// The first of a slot's timers and its host timer, as it armed it.
#[derive(Clone, Default)]
struct Member {
    prepared: bool,
    available: bool,
    idle: bool,
    timers: Vec<u64>,
    /// What its thread sleeps for.
    host: Option<u64>,
    told: bool,
    /// Somebody wants it to look at its own timers.
    posted: bool,
}

impl Member {
    fn first(&self) -> Option<u64> {
        self.timers.iter().min().copied()
    }
}

/// How a pass treats who is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Serve,
    HandOff,
    Stop,
    /// Nothing is expired, and what is due stays first.
    Fail,
}

struct World<const F: usize> {
    tree: Hierarchy<F>,
    nodes: u32,
    members: Vec<Member>,
    now: u64,
    manner: Manner,
    /// How late a timer may be: each failed attempt costs a nanosecond.
    slack: u64,
}

struct Pass<'a> {
    by: Slot,
    members: &'a mut [Member],
    manner: Manner,
    slack: &'a mut u64,
    now: u64,
    unreleased: Option<Slot>,
}

/// Fires what is due, and checks that it is due now.
fn fire(member: &mut Member, now: u64, slack: u64) {
    member.timers.retain(|&at| {
        assert!(at.saturating_add(slack) >= now, "a timer for {at} is late at {now}");
        at > now
    });
}

impl Expire for Pass<'_> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        assert_eq!(self.unreleased.replace(slot), None);
        assert_eq!(now, self.now);
        let member = &mut self.members[slot.0 as usize];
        assert!(member.available && member.idle, "{slot} is not to be pulled");
        let stop = self.manner == Manner::Stop;
        match self.manner {
            Manner::HandOff if slot != self.by => {
                member.posted = true;
                Expired { next: Next::Foreign, stop }
            }
            Manner::Fail if slot != self.by => {
                *self.slack += 1;
                Expired { next: Next::Owned(member.first()), stop }
            }
            _ => {
                fire(member, now, *self.slack);
                Expired { next: Next::Owned(member.first()), stop }
            }
        }
    }

    fn release(&mut self, slot: Slot) {
        assert_eq!(self.unreleased.take(), Some(slot));
    }

    fn notify(&mut self, notice: Notice) {
        assert_ne!(notice.slot, self.by);
        self.members[notice.slot.0 as usize].told = true;
    }
}

impl<const F: usize> World<F> {
    fn new(slots: u32, nodes: u32) -> Self {
        World {
            tree: Hierarchy::new(slots, nodes).unwrap(),
            nodes,
            members: vec![Member::default(); slots as usize],
            now: 1000,
            manner: Manner::Serve,
            slack: 0,
        }
    }

    fn tell(&mut self, notices: impl IntoIterator<Item = Notice>) {
        for notice in notices {
            self.members[notice.slot.0 as usize].told = true;
        }
    }

    fn arm(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.told = false;
        let mut host = self.tree.responsibility(Slot(at as u32));
        if !member.available || !member.idle {
            host = host.into_iter().chain(member.first()).min();
        }
        member.host = host;
    }

    fn activate(&mut self, at: usize) {
        let notices = self.tree.activate(Slot(at as u32)).unwrap();
        self.members[at].idle = false;
        self.tell(notices);
        self.arm(at);
    }

    fn deactivate(&mut self, at: usize) {
        let next = self.members[at].first();
        let wakeup = self.tree.deactivate(Slot(at as u32), next).unwrap();
        self.members[at].idle = true;
        self.tell(wakeup.notices);
        assert_eq!(self.tree.responsibility(Slot(at as u32)), wakeup.first);
        self.arm(at);
    }

    fn new_timer(&mut self, at: usize) {
        let next = self.members[at].first();
        let wakeup = self.tree.new_timer(Slot(at as u32), next).unwrap();
        self.tell(wakeup.notices);
        self.arm(at);
    }

    fn prepare(&mut self, at: usize) {
        let worker = |member: &Member| member.available && !member.idle;
        if !self.members.iter().any(worker)
            && let Some(sleeper) = self.members.iter().position(|member| member.available)
        {
            self.activate(sleeper);
        }
        let by = self.members.iter().position(worker).unwrap_or(at);
        let node = at as u32 % self.nodes;
        if let Ok(notices) = self.tree.prepare(Slot(at as u32), node, Slot(by as u32)) {
            self.members[at].prepared = true;
            self.tell(notices);
        }
    }

    fn available(&mut self, at: usize, idle: bool) {
        let notices = self.tree.available(Slot(at as u32), idle).unwrap();
        self.tell(notices);
        // Without a hierarchy nobody ever is.
        self.members[at].available = self.tree.levels() > 0;
        self.members[at].idle = idle;
        if self.members[at].available && idle { self.new_timer(at) } else { self.arm(at) }
    }

    fn unavailable(&mut self, at: usize) {
        let left = self.tree.unavailable(Slot(at as u32));
        self.members[at].available = false;
        self.tell(left.notices);
        self.arm(at);
        if left.trigger.is_some() {
            let next = self.members.iter().position(|member| member.available).unwrap();
            self.activate(next);
        }
    }

    /// A slot's thread runs: own timers, pass, host timer.
    fn run(&mut self, at: usize) {
        let slot = Slot(at as u32);
        let own = std::mem::take(&mut self.members[at].posted);
        fire(&mut self.members[at], self.now, self.slack);
        if !self.members[at].available {
            return self.arm(at);
        }
        if self.tree.requires_handle_remote(slot, self.now) {
            let mut pass = Pass {
                by: slot,
                members: &mut self.members,
                manner: self.manner,
                slack: &mut self.slack,
                now: self.now,
                unreleased: None,
            };
            let _responsibility = self.tree.handle_remote(slot, self.now, &mut pass);
            assert_eq!(pass.unreleased, None);
        }
        if self.members[at].idle || own { self.new_timer_if_idle(at) } else { self.arm(at) }
    }

    fn new_timer_if_idle(&mut self, at: usize) {
        if self.members[at].idle { self.new_timer(at) } else { self.arm(at) }
    }

    /// Everything that is due by `until` happens.
    fn advance(&mut self, until: u64) {
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 100_000, "no end of it at {}", self.now);
            if let Some(at) = self.members.iter().position(|member| member.posted) {
                self.run(at);
            } else if let Some(at) = self.members.iter().position(|member| member.told) {
                self.arm(at);
            } else {
                let due = |(at, member): (usize, &Member)| Some((member.host?, at));
                let next = self.members.iter().enumerate().filter_map(due).min();
                let Some((time, at)) = next.filter(|(time, _)| *time <= until) else { break };
                self.now = self.now.max(time);
                self.run(at);
            }
            self.check();
        }
        self.now = until;
        for (at, member) in self.members.iter().enumerate() {
            let first = member.first();
            let lost = first.is_some_and(|first| first.saturating_add(self.slack) < until);
            assert!(!lost, "slot {at} lost its timer for {first:?} at {until}");
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

    fn step(&mut self, at: usize, operation: u8, amount: u64) {
        let at = at % self.members.len();
        let member = self.members[at].clone();
        match operation {
            0..=5 if !member.prepared => self.prepare(at),
            _ if !member.prepared => {}
            0..=1 if member.available => self.unavailable(at),
            0..=3 if !member.available => self.available(at, amount.is_multiple_of(2)),
            2..=5 if member.available && member.idle => self.activate(at),
            2..=5 if member.available => self.deactivate(at),
            6..=9 => {
                self.members[at].timers.push(self.now + amount % 300);
                if member.available { self.new_timer_if_idle(at) } else { self.arm(at) }
            }
            10 => {
                self.members[at].timers.pop();
                if amount.is_multiple_of(2) && member.available {
                    self.new_timer_if_idle(at);
                }
            }
            11..=13 => self.advance(self.now + amount % 200),
            14 => {
                self.manner = match amount % 5 {
                    0 => Manner::HandOff,
                    1 => Manner::Stop,
                    2 => Manner::Fail,
                    _ => Manner::Serve,
                }
            }
            // A thread looks although nothing is due.
            _ => self.run(at),
        }
        self.check();
        self.advance(self.now);
    }

    fn finish(&mut self) {
        if self.manner == Manner::Fail {
            self.manner = Manner::Serve;
        }
        self.advance(self.now + 1_000_000);
        assert!(self.members.iter().all(|member| member.timers.is_empty()));
    }
}

fn operations() -> impl Strategy<Value = Vec<(usize, u8, u64)>> {
    proptest::collection::vec((0usize..80, 0u8..16, 0u64..10_000), 1..300)
}

fn play<const F: usize>(slots: u32, nodes: u32, prepared: u32, steps: Vec<(usize, u8, u64)>) {
    let mut world = World::<F>::new(slots, nodes);
    for at in 0..prepared.min(slots) as usize {
        world.prepare(at);
        if world.members[at].prepared {
            world.available(at, at % 3 == 2);
        }
    }
    for (at, operation, amount) in steps {
        world.step(at, operation, amount);
    }
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_timer_is_lost_early_late_or_fired_twice(
        slots in 1u32..=80, nodes in 1u32..4, prepared in 0u32..=80, steps in operations()
    ) {
        play::<8>(slots, nodes, prepared, steps);
    }

    #[test]
    fn nor_in_a_tall_tree(
        slots in 1u32..=40, nodes in 1u32..4, prepared in 0u32..=40, steps in operations()
    ) {
        play::<2>(slots, nodes, prepared, steps);
    }
}
