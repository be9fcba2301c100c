//! The timer migration hierarchy.
//!
//! Halted vCPUs should not be woken for a timer that a vCPU which is awake anyway can look after.
//! This crate says who that is. It knows slots, expiries and nanoseconds; it knows no vCPU, thread
//! or clock, and never blocks but for a few instructions' worth of lock.
//!
//! ```text
//!            level 1            [ group 2: migrator = group 0 ]
//!                                /                          \
//!            level 0   [ group 0: migrator = slot 1 ]   [ group 1: idle ]
//!                        /     |      \                   /     \
//!            slots      0      1       2                 8       9
//!                     idle  active   active             idle    idle
//! ```
//!
//! A level-0 group holds up to `FANOUT` slots, a group above as many groups. A slot is *active*
//! while its vCPU executes, a group while any child is. The *migrator* of a group is the active
//! child that looks after the timers of the idle ones: here slot 1 does it for slot 0, and, as its
//! group is the migrator above, for slots 8 and 9. An idle slot's first timer is queued in its
//! group; the first of an idle group in its parent. Nobody is active: the last one to go idle is
//! told when to be back, and is the *keeper*.
//!
//! # Roles
//!
//! - The **owner** of a slot, one at a time, makes all calls about it. [`Hierarchy::deactivate`]
//!   and [`Hierarchy::quick_check`] need an active slot, [`Hierarchy::activate`] and
//!   [`Hierarchy::new_timer`] an idle one. Before it sleeps or runs its guest it asks for the
//!   slot's [`Hierarchy::responsibility`] and arms one host timer.
//! - The **migrator**'s owner runs passes: [`Hierarchy::requires_handle_remote`], then
//!   [`Hierarchy::handle_remote`], with an [`Expire`] that expires others' timers.
//! - **Whoever changes something** carries the [`Notice`]s that come back to the slots named.
//! - **Whoever prepares** a slot ([`Hierarchy::prepare`]) is active in the tree throughout.
//! - A slot that is not available takes part in nothing, and gets back what it gives.
//! - Slots are numbered by the caller ([`Hierarchy::prepare`]) or handed out and given up again
//!   ([`Hierarchy::acquire`], [`Hierarchy::give_up`]). Isolated ones ([`Hierarchy::isolate`]) cannot be
//!   available.
//!
//! # Locks
//!
//! Outermost: the mutex of isolation, then, never together, the growth mutex and the availability
//! mutex; the pool's mutex alone. Then the lock of one
//! slot, a group, its parent: bottom-up, never more than these three. The group word needs no lock.
//! Callbacks run with no lock held, except [`Expire::release`] (the slot's lock), [`Trace::event`] (any)
//! and what [`Hierarchy::isolate`] asks (the mutex of isolation). Groups are never
//! freed. Whoever has a lock may be stopped, or have no CPU: how long slots' owners wait for one is the
//! caller's to say ([`Hierarchy::set_patience`]).
//!
//! # Races
//!
//! | # | race | refused by | argued in | models |
//! |---|---|---|---|---|
//! | 1 | a late deactivation meets a newer activation | `seq` | `walk` | `walks::race_1_*` |
//! | 2 | a walk meets the publishing of a new parent | parent before mask | `walk` | `walks::race_2_*` |
//! | 3 | the last one goes idle while a first event is queued | words read under the locks | `events` | `walks::race_3_*` |
//! | 4 | a slot arms while its timers are expired | own next expiry under the slot's lock | `remote` | `passes::race_4_*` |
//! | 5 | growth meets growth, activation, deactivation | links published last, preparer active | `growth` | `walks::race_5_*` |
//! | 6 | a notice meets its receiver arming, or entering the guest | `known` and one order | `notify` | `notices::race_6_*` |
//! | 7 | a slot or its group becomes active while a pass takes its timers | `idle` and words read under the locks | `remote` | `passes::race_7_*` |
//! | 8 | a role is handed over while a first event is queued | one order of words and expiries | `notify` | `notices::race_8_*` |
//! | 9 | the last active one, or the keeper, leaves | it goes idle like any other; `trigger` | `availability` | `notices::race_9_*` |
//! | 10 | an event is queued after the last one has passed | a second look at the word | `walk` | `walks::race_10_*` |
//!
//! The unit tests bear the same numbers. The models try every order within bounds: `tests/models`,
//! run by `.ci/loom`.
//!
//! # Limits
//!
//! [`MAX_SLOTS`] slots. Groups are never freed. Times are nanoseconds; the last two values of the
//! clock's range (584 years) mean "no timer" and "not before the end".
#![forbid(unsafe_code)]

mod arena;
mod availability;
mod error;
mod events;
mod geometry;
mod group;
mod growth;
mod hierarchy;
mod isolation;
mod notify;
mod pool;
mod queue;
mod remote;
mod slot;
mod sync;
mod trace;
mod walk;
mod word;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
#[path = "tests/models/mod.rs"]
mod models;

pub use availability::Unavailable;
pub use error::{Activity, SlotError};
pub use geometry::MAX_SLOTS;
pub use growth::PrepareError;
pub use hierarchy::{CreateError, GroupView, Hierarchy, LevelCounters, Statistics};
pub use isolation::Isolated;
pub use notify::{Notice, Notices};
pub use remote::{Expire, Expired, Next, Pass};
pub use slot::Slot;
pub use sync::Patience;
pub use trace::{GroupState, SlotTrace, Trace, TraceEvent};
pub use walk::Wakeup;

/// No timer, inside.
const NEVER: u64 = u64::MAX;

fn some_unless_never(expires: u64) -> Option<u64> {
    (expires != NEVER).then_some(expires)
}

fn never_if_none(expires: Option<u64>) -> u64 {
    expires.unwrap_or(NEVER)
}
