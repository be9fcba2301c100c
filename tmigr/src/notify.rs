//! Telling a migrator, which has no tick, that it has something to look after earlier than it
//! knows.
//!
//! Owns responsibilities and notices. Must not change words or queues.
//!
//! # Why no notice is lost
//!
//! Written: N, a group's `next_expiry`; W, the words; K, a slot's `known`. All accesses named here
//! are `SeqCst`, but for stores of a later N, so there is one order of them all. Let an operation
//! of *a* store an earlier `next_expiry` N in a group G, or exchange a word W so that a role passes
//! to another; afterwards, with no lock held, it follows W from G down to a slot *b*, computes the
//! expiry *e* that *b* is responsible for, and reports it if `e < K.fetch_min(e)`. Before every
//! sleep and guest entry *b* asks for `responsibility`: `K = NEVER`, look at W and N (giving r),
//! `K.fetch_min(r)`, and arms its host timer for r.
//!
//! 1. *b is there.* If a's look at W comes before b's last look at W and N, b sees what a stored: a
//!    stored before it looked. If it comes after, a finds b (or whoever has the role by then), and
//!    its `fetch_min` comes after b's `K = NEVER`. If it also comes after b's `fetch_min`, K is r
//!    or an earlier expiry that was reported since: a reports e unless b is armed, or being told,
//!    for something no later. If it comes between, K is NEVER and a reports; b was told needlessly
//!    at worst.
//! 2. *b takes the role* (activation). Its exchange of W comes before or after a's look. Before: a
//!    finds it, case 1. After: b's own look at N, which follows its exchange, comes after a's store.
//! 3. *b goes idle or hands its role on.* Its exchange comes before a's look, then a finds its
//!    successor, or nobody; or after, then b still counts as told. In either case b's walk goes on
//!    after its exchange: if the group became idle it locks the queue, finds the event and carries
//!    it upwards (race 3, `events`); if there is a successor *c*, b is the *a* of case 1, towards c.
//! 4. *Nobody is found* on the way down: some group on the way has no migrator. Then its last
//!    child's deactivation is under way to the group above and hands the role on there, which is a
//!    report of its own (case 3), or a new child's activation, which is case 2. If that deactivation
//!    has passed before a's event was queued, a's own walk goes on upwards with it (race 10, `walk`),
//!    and follows the words down from there, too.
//!
//! A change to a later expiry needs no notice: b wakes needlessly once, and asks again. For the same
//! reason it needs no place in the one order: the release store of a later N stands behind every
//! earlier N in N's own order of modifications (all are stored under the group's lock), and a load
//! that comes after a's store reads a's value or what was stored behind it. So b reads e, or later
//! values that the queue had since: never one from before a's store.

use crate::arena::GroupId;
use crate::group::Place;
use crate::sync::Ordering;
use crate::{Hierarchy, NEVER, Slot, some_unless_never};

/// A slot whose responsibility began, or became earlier than it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Who is to be told: its thread asks for its `responsibility` anew.
    pub slot: Slot,
    /// For when, in nanoseconds.
    pub expires: u64,
}

const INLINE: usize = 3;

/// What an operation has to tell others. Usually nothing, and rarely more than one notice.
#[must_use]
#[derive(Clone, Debug, Default)]
pub struct Notices {
    inline: [Option<Notice>; INLINE],
    /// Races may, seldom, make it more.
    more: Vec<Notice>,
}

impl Notices {
    fn push(&mut self, notice: Notice) {
        match self.inline.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(notice),
            None => self.more.push(notice),
        }
    }

    /// Whether nobody has to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inline[0].is_none()
    }
}

impl IntoIterator for Notices {
    type Item = Notice;
    type IntoIter = std::iter::Chain<
        std::iter::Flatten<std::array::IntoIter<Option<Notice>, INLINE>>,
        std::vec::IntoIter<Notice>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.inline.into_iter().flatten().chain(self.more)
    }
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// The expiry, in nanoseconds, that the slot's owner has to be ready to work for: of the
    /// groups that an active slot looks after, or the wakeup of an idle one. The owner arms its
    /// one host timer for the minimum of this and its own timers.
    ///
    /// Called by the slot's owner, after every other operation and before it sleeps or lets its
    /// guest run: notices are measured against the last answer.
    #[must_use]
    pub fn responsibility(&self, slot: Slot) -> Option<u64> {
        let (state, place) = self.member(slot)?;
        state.known.store(NEVER, Ordering::SeqCst);
        let first = if state.idle() { state.wakeup() } else { self.duty(place) };
        state.known.fetch_min(first, Ordering::SeqCst);
        some_unless_never(first)
    }

    /// What [`Hierarchy::responsibility`] would answer now, for somebody who watches the slot's owner:
    /// notices are not measured against it. It may be outdated by the time it is looked at.
    #[must_use]
    pub fn peek_responsibility(&self, slot: Slot) -> Option<u64> {
        let (state, place) = self.member(slot)?;
        some_unless_never(if state.idle() { state.wakeup() } else { self.duty(place) })
    }

    /// What notices to the slot are measured against: the last answer of [`Hierarchy::responsibility`], or
    /// what was reported since, in nanoseconds; `None`: every one is reported.
    #[must_use]
    pub fn known(&self, slot: Slot) -> Option<u64> {
        some_unless_never(self.state(slot)?.known.load(Ordering::SeqCst))
    }

    /// The slot's owner does not rely on the last answer any more: every notice is reported.
    pub fn forget_known(&self, slot: Slot) {
        if let Some(state) = self.state(slot) {
            state.known.store(NEVER, Ordering::SeqCst);
        }
    }

    /// What the slot would be responsible for if it became active now, in nanoseconds. It may be outdated by
    /// the time it is looked at.
    #[must_use]
    pub fn prospect(&self, slot: Slot) -> Option<u64> {
        some_unless_never(self.duty(self.state(slot)?.place()?))
    }

    /// Whether some slot in the tree of this one is active, so that it is migrator at the top, and the
    /// wakeups of idle slots are void. It may be outdated by the time it is looked at.
    #[must_use]
    pub fn anybody_active(&self, slot: Slot) -> bool {
        let Some((_, place)) = self.member(slot) else { return false };
        self.path(place).last().is_some_and(|(group, _)| group.word.load().migrator().is_some())
    }

    /// The first expiry of the groups that fall to a branch.
    pub(crate) fn duty(&self, from: Place) -> u64 {
        self.path(from)
            .take_while(|(group, place)| group.word.load().falls_to(place.mask))
            .map(|(group, _)| group.next_expiry())
            .min()
            .unwrap_or(NEVER)
    }

    /// Whom to tell after `by` touched these levels above `from`. No lock is held.
    #[inline] // usually there is nobody, and an empty answer is best made where it is wanted
    pub(crate) fn notices(&self, from: Place, by: Slot, touched: u64) -> Notices {
        if touched == 0 { Notices::default() } else { self.look_down(from, by, touched) }
    }

    #[inline(never)]
    fn look_down(&self, from: Place, by: Slot, touched: u64) -> Notices {
        let mut notices = Notices::default();
        for (group, place) in self.path(from) {
            if touched & (1 << group.level) == 0 {
                continue;
            }
            let Some(notice) = self.migrator_of(place.group).filter(|slot| *slot != by) else {
                continue;
            };
            if let Some(notice) = self.advance(notice) {
                self.totals.notices.fetch_add(1, Ordering::Relaxed);
                notices.push(notice);
            }
        }
        notices
    }

    fn advance(&self, slot: Slot) -> Option<Notice> {
        let state = self.state(slot)?;
        let expires = self.duty(state.place()?);
        let known = state.known.fetch_min(expires, Ordering::SeqCst);
        (expires < known).then_some(Notice { slot, expires })
    }

    /// The slot at the end of the chain of migrators below a group.
    fn migrator_of(&self, top: GroupId) -> Option<Slot> {
        let mut group = self.groups.get(top);
        loop {
            let child = group.child(group.word.load().migrator()?)?;
            if group.level == 0 {
                return Some(Slot(child));
            }
            group = self.groups.get(GroupId::of_bits(child));
        }
    }
}
