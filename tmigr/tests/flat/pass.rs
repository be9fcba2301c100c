//! A member's timers, and how a remote pass treats them.
//!
//! Owns the check that a timer is not overdue when it fires. Must not know when passes are run.

use tmigr::{Expire, Expired, Next, Notice, Slot};

/// What a slot's owner knows of it.
#[derive(Clone, Default)]
pub struct Member {
    pub prepared: bool,
    pub node: u32,
    pub available: bool,
    pub idle: bool,
    pub isolated: bool,
    pub given_up: bool,
    /// It was available when it was isolated, and whether it was idle.
    pub back: Option<bool>,
    /// Its timers, sorted.
    pub timers: Vec<u64>,
    /// What its thread sleeps for.
    pub host: Option<u64>,
    pub told: bool,
    /// Somebody wants it to look at its own timers.
    pub posted: bool,
}

impl Member {
    pub fn first(&self) -> Option<u64> {
        self.timers.first().copied()
    }

    /// Takes what is due, and checks that it is not overdue.
    pub fn fire(&mut self, now: u64, slack: u64) -> Vec<u64> {
        let fired: Vec<u64> =
            self.timers.drain(..self.timers.partition_point(|&at| at <= now)).collect();
        for at in &fired {
            assert!(at.saturating_add(slack) >= now, "a timer for {at} is late at {now}");
        }
        fired
    }
}

/// How a pass treats who is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    Serve,
    HandOff,
    Stop,
    /// Nothing is expired, and what is due stays first.
    Fail,
}

pub struct Pass<'a> {
    pub by: Slot,
    pub members: &'a mut [Member],
    pub manner: Manner,
    pub slack: &'a mut u64,
    pub moved: u64,
    pub now: u64,
    pub fired: Vec<(Slot, u64)>,
    /// Whose turn it was: once each, or the pass might never end.
    pub taken: Vec<Slot>,
    /// Somebody was not served as the replay would.
    pub special: bool,
    pub unreleased: Option<Slot>,
}

impl Expire for Pass<'_> {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        assert_eq!(self.unreleased.replace(slot), None);
        assert_eq!(now, self.now);
        assert!(!self.taken.contains(&slot), "{slot} is taken again by the same pass");
        self.taken.push(slot);
        let member = &mut self.members[slot.0 as usize];
        assert!(member.available && member.idle, "{slot} is not to be pulled");
        let stop = self.manner == Manner::Stop;
        let special = slot != self.by && matches!(self.manner, Manner::HandOff | Manner::Fail);
        self.special |= stop || special;
        match self.manner {
            Manner::HandOff if special => {
                member.posted = true;
                Expired { next: Next::Foreign, stop }
            }
            Manner::Fail if special => {
                *self.slack += 1;
                Expired { next: Next::Owned(member.first()), stop }
            }
            _ => {
                let fired = member.fire(now, *self.slack + self.moved);
                self.fired.extend(fired.into_iter().map(|at| (slot, at)));
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
