//! What the benchmark needs of whatever runs the guests.
//!
//! Owns the two traits between measuring and running, and what passes through them. Must not know
//! how guests are run, nor what is made of the figures.

use std::error::Error;

use super::host::HostFacts;
use super::lateness::Lateness;
pub use crate::domain::TimerMode as Mode;

/// Why guests could not be started or stopped, in the launcher's words.
pub type LaunchError = Box<dyn Error + Send + Sync>;

/// The guests of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// Where timers are kept.
    pub mode: Mode,
    /// Guests that are idle but for a periodic tick.
    pub tick_vms: u32,
    /// For each tick guest, how long after a common start its first tick is due, in nanoseconds;
    /// below one period.
    pub phases_ns: Vec<u64>,
    /// Ticks a second of each tick guest.
    pub hz: u32,
    /// Guests that compute without pause.
    pub busy: u32,
    /// How late a host timer may be armed (`--timer-slack`), in nanoseconds.
    pub slack_ns: u64,
    /// Share of a busy vCPU's thread that may go to other vCPUs (`--borrow-share`), in percent,
    /// 0 to 100.
    pub borrow_share_percent: u8,
}

/// Starts guests.
pub trait Launch {
    /// Starts the guests of a run and returns when all of them have begun to tick or to compute.
    ///
    /// # Errors
    /// Whatever the launcher says; nothing it had started is left running.
    fn launch(&mut self, spec: &RunSpec) -> Result<Box<dyn Fleet>, LaunchError>;

    /// The facts about this host that belong above the figures.
    fn host_facts(&self) -> HostFacts;
}

/// Guests that run. Dropping a fleet stops it as well as it can.
pub trait Fleet {
    /// What the guests and the VMM have counted so far.
    fn sample(&mut self) -> Sample;

    /// How long each guest took from the start of its creation to its first sign of life, in
    /// nanoseconds; empty if that is not known.
    fn boot_ns(&self) -> Vec<u64>;

    /// Why a guest no longer runs; `None` while all do. Asked a few times a second.
    fn failure(&self) -> Option<String>;

    /// Stops all guests and waits until their threads are gone.
    ///
    /// # Errors
    /// Whatever the launcher says.
    fn stop(self: Box<Self>) -> Result<(), LaunchError>;
}

/// Totals since the start of a fleet. All but the levels come from guests or from relaxed counters,
/// hence nothing relies on their being consistent with each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Ticks that the tick guests have handled.
    pub delivered: u64,
    /// Of those, the ones that came before their deadline.
    pub early: u64,
    /// How late the tick guests saw their ticks, all guests together.
    pub lateness: Lateness,
    /// Work done by the busy guests, all together, in rounds of their loop.
    pub busy_progress: u64,
    /// Thread ids of the busy guests' vCPUs.
    pub busy_threads: Vec<i32>,
    /// Remote expiries after which the halted vCPU was entered on the migrator's own thread.
    pub inline: u64,
    /// Of those, the ones that a helper took over because the migrator's budget was used up.
    pub by_helper: u64,
    /// Remote expiries after which the vCPU's own thread was woken.
    pub handed_off: u64,
    /// Signals sent to make a vCPU leave the guest.
    pub kicks: u64,
    /// By level of the hierarchy, the lowest first; empty where there is none.
    pub levels: Vec<LevelSample>,
}

/// Totals of one level of the hierarchy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelSample {
    /// Walks up the tree (activate, deactivate, new timer) that reached this level.
    pub walks: u64,
    /// Remote passes, those that look for expired timers, over a group of this level.
    pub passes: u64,
    /// Timers that such passes expired.
    pub expiries: u64,
}
