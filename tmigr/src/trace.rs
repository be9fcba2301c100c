//! Trace points, with the names and fields that those of Linux's `timer_migration` have.
//!
//! Owns what an event says. Must not know where events go: whoever makes the hierarchy hands it a
//! [`Trace`]. Without one an event costs a predictable branch, and its fields are not read.
//!
//! Groups are named by their numbers. `None` is Linux's all-ones or `KTIME_MAX` value.

use crate::arena::GroupId;
use crate::group::{Group, Place};
use crate::sync::Tally;
use crate::word::Word;
use crate::{Hierarchy, Slot, some_unless_never};

/// Takes events. Called by whoever works on the hierarchy, mostly with locks held: it must neither
/// call the hierarchy nor block.
pub trait Trace: Send + Sync {
    /// Something happened.
    fn event(&self, event: &TraceEvent);
}

/// What happened. Times are nanoseconds, masks have one bit for each child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields are Linux's, by name and meaning
pub enum TraceEvent {
    /// `tmigr_group_set`: a group was made.
    GroupSet { group: u32, lvl: u32, numa_node: Option<u32> },
    /// `tmigr_connect_child_parent`: a group has a parent.
    ConnectChildParent {
        child: u32,
        parent: u32,
        lvl: u32,
        numa_node: Option<u32>,
        num_children: u8,
        groupmask: u8,
    },
    /// `tmigr_connect_cpu_parent`: a slot has its group.
    ConnectCpuParent {
        cpu: u32,
        parent: u32,
        lvl: u32,
        numa_node: Option<u32>,
        num_children: u8,
        groupmask: u8,
    },
    /// `tmigr_group_set_cpu_active`: a child's bit was set.
    GroupSetCpuActive(GroupState),
    /// `tmigr_group_set_cpu_inactive`: a child's bit was cleared, or not, as it is active again.
    GroupSetCpuInactive(GroupState),
    /// `tmigr_cpu_active`: a slot becomes active.
    CpuActive(SlotTrace),
    /// `tmigr_cpu_idle`: a slot has become idle.
    CpuIdle { slot: SlotTrace, nextevt: Option<u64> },
    /// `tmigr_cpu_new_timer`: an idle slot's first timer changes.
    CpuNewTimer(SlotTrace),
    /// `tmigr_cpu_new_timer_idle`: it has changed.
    CpuNewTimerIdle { slot: SlotTrace, nextevt: Option<u64> },
    /// `tmigr_cpu_online`: a slot is available.
    CpuOnline(SlotTrace),
    /// `tmigr_cpu_offline`: a slot is no longer available.
    CpuOffline(SlotTrace),
    /// `tmigr_handle_remote`: a pass works through a group.
    HandleRemote { group: u32, lvl: u32 },
    /// `tmigr_handle_remote_cpu`: a pass expires a slot's timers.
    HandleRemoteCpu(SlotTrace),
    /// `tmigr_update_events`: a child's event was queued in a group.
    UpdateEvents {
        child: Option<u32>,
        group: u32,
        child_lvl: u32,
        group_lvl: u32,
        nextevt: Option<u64>,
        group_next_expiry: Option<u64>,
        child_evt_expiry: Option<u64>,
        child_evtcpu: u32,
        child_active: u8,
        group_active: u8,
    },
}

/// The fields of a change of a group's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields are Linux's, by name and meaning
pub struct GroupState {
    pub group: u32,
    pub parent: Option<u32>,
    pub lvl: u32,
    pub numa_node: Option<u32>,
    pub childmask: u8,
    pub active: u8,
    pub migrator: Option<u8>,
}

/// The fields that all events of a slot have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the fields are Linux's, by name and meaning
pub struct SlotTrace {
    pub cpu: u32,
    pub parent: u32,
    pub wakeup: Option<u64>,
}

impl TraceEvent {
    /// The name of Linux's trace event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            TraceEvent::GroupSet { .. } => "tmigr_group_set",
            TraceEvent::ConnectChildParent { .. } => "tmigr_connect_child_parent",
            TraceEvent::ConnectCpuParent { .. } => "tmigr_connect_cpu_parent",
            TraceEvent::GroupSetCpuActive(_) => "tmigr_group_set_cpu_active",
            TraceEvent::GroupSetCpuInactive(_) => "tmigr_group_set_cpu_inactive",
            TraceEvent::CpuActive(_) => "tmigr_cpu_active",
            TraceEvent::CpuIdle { .. } => "tmigr_cpu_idle",
            TraceEvent::CpuNewTimer(_) => "tmigr_cpu_new_timer",
            TraceEvent::CpuNewTimerIdle { .. } => "tmigr_cpu_new_timer_idle",
            TraceEvent::CpuOnline(_) => "tmigr_cpu_online",
            TraceEvent::CpuOffline(_) => "tmigr_cpu_offline",
            TraceEvent::HandleRemote { .. } => "tmigr_handle_remote",
            TraceEvent::HandleRemoteCpu(_) => "tmigr_handle_remote_cpu",
            TraceEvent::UpdateEvents { .. } => "tmigr_update_events",
        }
    }
}

/// Work of the hierarchy as a whole.
#[derive(Default)]
pub(crate) struct Totals {
    pub notices: Tally,
}

impl<const FANOUT: usize> Hierarchy<FANOUT> {
    /// From now on events go to `trace`.
    pub fn set_trace(&mut self, trace: Box<dyn Trace>) {
        self.trace = Some(trace);
    }

    #[inline]
    pub(crate) fn trace(&self, event: impl FnOnce() -> TraceEvent) {
        if let Some(trace) = &self.trace {
            emit(trace.as_ref(), event);
        }
    }

    pub(crate) fn slot_trace(&self, slot: Slot, parent: GroupId) -> SlotTrace {
        let wakeup = self.state(slot).and_then(|state| some_unless_never(state.wakeup()));
        SlotTrace { cpu: slot.0, parent: parent.number(), wakeup }
    }
}

pub(crate) fn group_state<const F: usize>(
    group: &Group<F>,
    place: Place,
    word: Word,
) -> GroupState {
    GroupState {
        group: place.group.number(),
        parent: group.above().map(|above| above.group.number()),
        lvl: group.level,
        numa_node: group.node,
        childmask: place.mask,
        active: word.active(),
        migrator: word.migrator(),
    }
}

#[cold]
fn emit(trace: &dyn Trace, event: impl FnOnce() -> TraceEvent) {
    trace.event(&event());
}
