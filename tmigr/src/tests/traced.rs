//! Trace points and statistics.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{Trace, TraceEvent};

#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<TraceEvent>>>);

impl Trace for Recorder {
    fn event(&self, event: &TraceEvent) {
        self.0.lock().unwrap().push(*event);
    }
}

impl Recorder {
    fn names(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().drain(..).map(|event| event.name()).collect()
    }
}

#[test]
fn every_step_of_an_operation_is_an_event_in_order() {
    let recorder = Recorder::default();
    let mut tree = Hierarchy::<8>::new(9, 1).unwrap();
    tree.set_trace(Box::new(recorder.clone()));
    let _ = tree.prepare(Slot(0), 0, Slot(0)).unwrap();
    assert_eq!(recorder.names(), ["tmigr_group_set", "tmigr_connect_cpu_parent"]);
    let _ = tree.available(Slot(0), false).unwrap();
    assert_eq!(recorder.names(), ["tmigr_group_set_cpu_active", "tmigr_cpu_online"]);
    for slot in 1..9 {
        let _ = tree.prepare(Slot(slot), 0, Slot(0)).unwrap();
        let _ = tree.available(Slot(slot), true).unwrap();
    }
    let grown = recorder.names();
    let count = |name| grown.iter().filter(|&&other| other == name).count();
    assert_eq!(count("tmigr_group_set"), 2);
    assert_eq!(count("tmigr_connect_child_parent"), 2, "{grown:?}");
    let _ = tree.new_timer(Slot(8), Some(5)).unwrap();
    let expected = [
        "tmigr_cpu_new_timer",
        "tmigr_update_events",
        "tmigr_update_events",
        "tmigr_cpu_new_timer_idle",
    ];
    assert_eq!(recorder.names(), expected);
    let _ = tree.handle_remote(Slot(0), 5, &mut Script::default());
    let names = recorder.names();
    assert_eq!(names[..2], ["tmigr_handle_remote", "tmigr_handle_remote"], "{names:?}");
    assert!(names.contains(&"tmigr_handle_remote_cpu"), "{names:?}");
    let _ = tree.deactivate(Slot(0), None).unwrap();
    let names = recorder.names();
    assert_eq!(names[0], "tmigr_group_set_cpu_inactive", "{names:?}");
    assert_eq!(names[names.len() - 1], "tmigr_cpu_idle", "{names:?}");
    let _ = tree.activate(Slot(0)).unwrap();
    assert_eq!(recorder.names()[0], "tmigr_cpu_active");
    let _ = tree.unavailable(Slot(0));
    assert!(recorder.names().contains(&"tmigr_cpu_offline"));
}

#[test]
fn fields_are_those_of_the_moment() {
    let recorder = Recorder::default();
    let mut tree = tree::<8>(2, 2);
    tree.set_trace(Box::new(recorder.clone()));
    let _ = tree.deactivate(Slot(0), Some(30)).unwrap();
    let events: Vec<_> = recorder.0.lock().unwrap().drain(..).collect();
    let TraceEvent::GroupSetCpuInactive(group) = events[0] else { panic!("{events:?}") };
    assert_eq!((group.group, group.childmask, group.active, group.migrator), (0, 1, 2, Some(2)));
    let TraceEvent::CpuIdle { slot, nextevt } = events[2] else { panic!("{events:?}") };
    assert_eq!((slot.cpu, slot.wakeup, nextevt), (0, None, Some(30)));
    let _ = tree.deactivate(Slot(1), None).unwrap();
    let events: Vec<_> = recorder.0.lock().unwrap().drain(..).collect();
    let TraceEvent::CpuIdle { slot, nextevt } = events[2] else { panic!("{events:?}") };
    assert_eq!((slot.cpu, slot.wakeup, nextevt), (1, Some(30), None));
}

#[test]
fn notices_are_counted_and_none_is_sent_that_changes_nothing() {
    let tree = tree::<8>(70, 1);
    assert_eq!(tree.responsibility(Slot(0)), None);
    let sent = |before: u64| tree.statistics().notices - before;
    let _ = tree.new_timer(Slot(69), Some(100)).unwrap();
    assert_eq!(sent(0), 1);
    assert_eq!(tree.responsibility(Slot(0)), Some(100));
    // Later than what the migrator knows, in its own and in other groups: nobody is told.
    for (slot, at) in [(1, 200), (68, 150), (20, 100), (69, 300)] {
        assert!(tree.new_timer(Slot(slot), Some(at)).unwrap().notices.is_empty(), "{slot}");
    }
    assert_eq!(sent(1), 0);
    let told: Vec<_> = tree.new_timer(Slot(2), Some(99)).unwrap().notices.into_iter().collect();
    assert_eq!(told, [Notice { slot: Slot(0), expires: 99 }]);
    // It was told, and has not asked yet.
    assert!(tree.new_timer(Slot(3), Some(99)).unwrap().notices.is_empty());
    assert_eq!(sent(1), 1);
}
