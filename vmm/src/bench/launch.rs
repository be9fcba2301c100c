//! What the benchmark needs of whatever runs the guests.
//!
//! Owns the two traits between measuring and running, and what passes through them. Must not know
//! how guests are run, nor what is made of the figures.

use std::error::Error;

use serde::Serialize;

use super::host::HostFacts;
use super::lateness::Lateness;
use super::rates::Rates;
pub use crate::domain::TimerMode as Mode;

/// Why guests could not be started or stopped, in the launcher's words.
pub type LaunchError = Box<dyn Error + Send + Sync>;

/// How the tick guests use their APIC timer (`--tick`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TickMode {
    /// As TSC deadlines where the guests are offered them, else one-shot
    #[default]
    Auto,
    /// A TSC deadline for each tick
    Deadline,
    /// A count for each tick
    Oneshot,
    /// Armed once
    Periodic,
}

impl TickMode {
    /// The name on the command lines, Siesta's and the guests'.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TickMode::Auto => "auto",
            TickMode::Deadline => "deadline",
            TickMode::Oneshot => "oneshot",
            TickMode::Periodic => "periodic",
        }
    }
}

/// A guest that is idle but for a periodic tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickGuest {
    /// The group of its rate, an index into [`RunSpec::rates`].
    pub group: usize,
    /// How long after a common start its first tick is due, in nanoseconds; below one period.
    pub phase_ns: u64,
}

/// The guests of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// Where timers are kept.
    pub mode: Mode,
    /// How many guests tick at which rates.
    pub rates: Rates,
    /// Those guests, in the order in which they are started.
    pub ticking: Vec<TickGuest>,
    /// How they use their timer.
    pub tick: TickMode,
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Of the tick guests, by group.
    pub groups: Vec<GroupSample>,
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

impl Sample {
    /// Ticks that the tick guests have handled.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.sum(|guest| guest.ticks)))
    }
}

/// Totals of the guests of one rate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSample {
    /// Each guest, in an order that stays.
    pub guests: Vec<GuestSample>,
    /// How late they saw their ticks, all together.
    pub lateness: Lateness,
}

impl GroupSample {
    /// The sum over the guests.
    #[must_use]
    pub fn sum(&self, of: fn(&GuestSample) -> u64) -> u64 {
        self.guests.iter().fold(0, |sum, guest| sum.saturating_add(of(guest)))
    }
}

/// Totals of one tick guest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GuestSample {
    /// When reading began and ended, in nanoseconds.
    pub read_ns: (u64, u64),
    /// Ticks handled.
    pub ticks: u64,
    /// Of those, the ones that came before their deadline.
    pub early: u64,
    /// Deadlines of a periodic timer that passed without a tick of their own.
    pub lost: u64,
    /// Ticks a second that its timer is really set for: whole numbers of its cycles.
    pub hz: f64,
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
