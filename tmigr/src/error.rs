//! Why a call about a slot was refused. Nothing has changed then.
//!
//! Owns the words. Must not know the operations.

use std::fmt;

use thiserror::Error;

use crate::Slot;

/// What a slot is, and what a call needs it to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activity {
    /// Its vCPU executes.
    Active,
    /// Its vCPU is halted.
    Idle,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::Active => "active",
            Activity::Idle => "idle",
        }
        .fmt(f)
    }
}

/// Why a call about a slot was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SlotError {
    /// The hierarchy has no such slot.
    #[error("there is no slot {0}")]
    NoSuchSlot(Slot),
    /// The slot was not prepared.
    #[error("slot {0} is not prepared")]
    NotPrepared(Slot),
    /// The call is not for a slot in this state.
    #[error("slot {slot} is {found}, the call needs an {needed} one")]
    WrongState {
        /// The slot.
        slot: Slot,
        /// What it is.
        found: Activity,
        /// What it would have to be.
        needed: Activity,
    },
    /// The slot is isolated: it cannot be made available.
    #[error("slot {0} is isolated")]
    Isolated(Slot),
    /// The slot was given up and not handed out again.
    #[error("slot {0} was given up")]
    GivenUp(Slot),
    /// Another slot's pass is expiring this slot's timers: it cannot be given up before that ends.
    #[error("slot {0} is being served by another")]
    Remote(Slot),
    /// A lock of the hierarchy was not to be had ([`crate::Hierarchy::set_patience`]).
    #[error("a lock of the hierarchy is not given back")]
    Stuck,
    /// The housekeeper keeps the hierarchy alive and cannot be isolated.
    #[error("slot {0} is the housekeeper and cannot be isolated")]
    Housekeeper(Slot),
}
