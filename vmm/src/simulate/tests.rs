//! Whole models on small hosts.

use super::layout::{Layout, Role, deadlines_before};
use super::tally::Outcome;
use super::watch::Watch;
use super::*;
use crate::bench::Figure;
use crate::costs::Costs;

struct Silent;

impl Progress for Silent {
    fn show(&mut self, _line: &str) {}

    fn clear(&mut self) {}

    fn interrupted(&self) -> bool {
        false
    }
}

/// A small host that has time to spare.
fn small() -> Plan {
    Plan { vcpus: 200, cpus: 8, nodes: 2, busy_share_percent: 2.0, secs: 2.0, ..Plan::default() }
}

fn outcome(plan: &Plan, mode: TimerMode) -> (Outcome, Layout) {
    assert_eq!(plan.check(), Ok(()));
    let layout = Layout::new(plan);
    let outcome = one_mode(plan, &layout, mode, &Watch::default()).unwrap();
    (outcome, layout)
}

fn figures(plan: &Plan, mode: TimerMode) -> Figures {
    let (outcome, layout) = outcome(plan, mode);
    Figures::of(&outcome, plan.cpus, layout.expected)
}

#[track_caller]
fn assert_conserved(plan: &Plan) {
    for mode in [TimerMode::Kernel, TimerMode::Thread, TimerMode::Migrate] {
        let (outcome, layout) = outcome(plan, mode);
        let tally = &outcome.tally;
        let of_phases: u64 = layout
            .seats
            .iter()
            .map(|seat| match seat.role {
                Role::Idle { phase_ns, period_ns } => {
                    deadlines_before(plan.end_ns(), phase_ns, period_ns)
                }
                Role::Busy { .. } => 0,
            })
            .sum();
        assert_eq!(layout.expected, of_phases);
        let all = tally.served + tally.merged + tally.pending;
        assert_eq!(all, of_phases, "{mode:?}: each tick once: {tally:?}");
        assert_eq!(tally.early, 0, "{mode:?}: never early");
    }
}

#[test]
fn every_tick_is_expired_once_and_never_early() {
    assert_conserved(&small());
    assert_conserved(&Plan { hz: vec![7, 100, 1_000], ..small() });
    assert_conserved(&Plan { slack_ns: 1_000_000, ..small() });
    assert_conserved(&Plan { busy_share_percent: 0.0, ..small() });
    assert_conserved(&Plan { busy_share_percent: 60.0, ..small() });
    assert_conserved(&Plan { vcpus: 1, busy_share_percent: 0.0, ..small() });
    assert_conserved(&Plan { busy_share_percent: 100.0, ..small() });
}

#[test]
fn every_tick_is_expired_once_on_an_overloaded_host_too() {
    let plan = Plan { cpus: 1, nodes: 1, hz: vec![1_000], vcpus: 400, ..small() };
    assert_conserved(&plan);
    assert_conserved(&Plan { busy_share_percent: 0.0, ..plan });
}

#[test]
fn nothing_is_lost_or_late_on_a_host_with_time_to_spare() {
    for mode in [TimerMode::Kernel, TimerMode::Thread, TimerMode::Migrate] {
        let (outcome, layout) = outcome(&small(), mode);
        let tally = &outcome.tally;
        assert_eq!(tally.merged, 0, "{mode:?}");
        assert!(tally.pending <= 4, "{mode:?}: only what was due at the very end: {tally:?}");
        assert!(layout.expected > 39_000);
        assert!(tally.lateness_ns(0.99).is_some_and(|ns| ns < 200_000), "{mode:?}: {tally:?}");
    }
}

#[test]
fn same_seed_same_result_and_another_seed_another() {
    let json = |seed| {
        let plan = Plan { seed, ..small() };
        let report = simulate(&plan, &mut Vec::new(), &mut Silent).unwrap();
        serde_json::to_string(&report.modes).unwrap()
    };
    assert_eq!(json(1), json(1));
    assert_ne!(json(1), json(2));
}

#[test]
fn busy_vcpus_save_wakeups_and_the_more_the_fewer() {
    let wakeups = |busy_share_percent, mode| {
        let plan = Plan { busy_share_percent, ..small() };
        figures(&plan, mode).thread_wakeups_per_sec.get().unwrap()
    };
    let per_vcpu = wakeups(0.0, TimerMode::Thread);
    assert!((19_900.0..20_100.0).contains(&per_vcpu), "one for each tick: {per_vcpu}");
    let nobody = wakeups(0.0, TimerMode::Migrate);
    let one = wakeups(0.5, TimerMode::Migrate);
    let four = wakeups(2.0, TimerMode::Migrate);
    assert!(nobody < 0.95 * per_vcpu, "a keeper takes along what is due: {nobody}");
    assert!(one < 0.95 * nobody && four <= one, "{nobody} {one} {four}");
    assert!(four < 0.01 * per_vcpu, "running vCPUs do it all: {four}");
}

#[test]
fn slack_saves_wakeups_of_the_keeper() {
    let wakeups = |slack_ns| {
        let plan = Plan { busy_share_percent: 0.0, slack_ns, ..small() };
        figures(&plan, TimerMode::Migrate).thread_wakeups_per_sec.get().unwrap()
    };
    let (without, with) = (wakeups(0), wakeups(2_000_000));
    assert!(with < without / 5.0, "{with} {without}");
    assert!(with <= 1_000.0 + 1.0, "at most one for each half of the slack: {with}");
}

#[test]
fn one_overloaded_cpu_is_reported() {
    let plan = Plan { cpus: 1, nodes: 1, hz: vec![1_000], busy_share_percent: 0.0, ..small() };
    let report = simulate(&plan, &mut Vec::new(), &mut Silent).unwrap();
    for mode in ["kernel", "thread", "migrate"] {
        let of = &report.modes[mode];
        assert_eq!(of.overloaded_cpus, 1, "{mode}: {of:?}");
        assert!(of.busiest_cpu_percent.get().unwrap() > 95.0);
        let mark = format!("{mode}: 1 CPU is overloaded");
        assert!(report.marks.iter().any(|said| said.contains(&mark)), "{:?}", report.marks);
    }
    let migrators = &report.modes["migrate"].migrators;
    assert!(migrators.peak_percent.get().unwrap() > 95.0, "{migrators:?}");
    assert!(report.marks.iter().any(|said| said.contains("migrators are overloaded")));
    let calm = simulate(&small(), &mut Vec::new(), &mut Silent).unwrap();
    assert_eq!(calm.marks, Vec::<String>::new());
}

#[test]
fn one_thread_that_serves_all_is_found_overloaded_though_cpus_are_idle() {
    let plan = Plan { vcpus: 3_000, cpus: 64, busy_share_percent: 0.0, ..small() };
    let of = figures(&plan, TimerMode::Migrate);
    assert_eq!(of.ticks.early, 0);
    assert!(of.migrators.overloaded_windows.get().unwrap() > 0.0, "{of:?}");
    assert!(of.busiest_cpu_percent.get().unwrap() <= 100.0);
    assert_eq!(figures(&plan, TimerMode::Thread).overloaded_cpus, 0);
}

#[test]
fn idle_cpus_may_sleep_deeply_when_others_have_their_timers() {
    let eligible = |mode| figures(&small(), mode).cstate_eligible_percent.get().unwrap();
    let (thread, migrate) = (eligible(TimerMode::Thread), eligible(TimerMode::Migrate));
    assert!(migrate > 49.0, "4 of 8 CPUs have nothing to do: {migrate}");
    assert!(thread < migrate, "{thread}");
}

#[test]
fn a_share_that_is_used_up_takes_the_slot_out_and_a_helper_comes() {
    let plan = Plan { vcpus: 600, cpus: 8, busy_share_percent: 0.17, ..small() };
    let of = figures(&plan, TimerMode::Migrate);
    assert!(of.migrators.relieved.get().unwrap() > 0.0, "{of:?}");
    assert!(of.expiries.by_helper.get().unwrap() > 0.0);
    let left = of.left_to_busy_percent.get().unwrap();
    assert!(left > 70.0, "the busy guest keeps its part: {left}");
    let unlimited = figures(&Plan { borrow_share_percent: 100, ..plan }, TimerMode::Migrate);
    assert_eq!(unlimited.migrators.relieved, Figure::of(0.0));
    assert!(unlimited.left_to_busy_percent.get().unwrap() < left);
}

#[test]
fn a_service_that_does_not_fit_is_handed_off() {
    let costs = Costs { tick_inline_ns: 200_000, ..Costs::default() };
    let plan = Plan { vcpus: 20, costs, borrow_limit_ns: 100_000, ..small() };
    let of = figures(&Plan { busy_share_percent: 5.0, ..plan }, TimerMode::Migrate);
    assert_eq!(of.expiries.inline.get(), Some(0.0));
    assert!(of.expiries.handed_off.get().unwrap() > 0.9 * of.ticks.served as f64, "{of:?}");
}

#[test]
fn ticks_that_are_too_late_go_to_their_own_threads_and_are_no_longer_lost() {
    let plan = Plan { vcpus: 3_000, cpus: 64, busy_share_percent: 0.0, ..small() };
    let without = figures(&plan, TimerMode::Migrate);
    let goal = Plan { late_goal_ns: Some(500_000), ..plan };
    let with = figures(&goal, TimerMode::Migrate);
    assert!(without.ticks.merged > 100_000, "one thread cannot do it: {without:?}");
    assert!(with.expiries.handed_off.get() > Some(0.0) && with.ticks.merged < 1_000, "{with:?}");
    assert_conserved(&goal);
}

#[test]
fn busy_vcpus_that_share_a_cpu_make_the_timers_of_others_wait_for_their_turn() {
    let late = |busy_share_percent| {
        let plan = Plan { cpus: 2, nodes: 1, vcpus: 100, busy_share_percent, ..small() };
        figures(&plan, TimerMode::Migrate).lateness_us.p99.get().unwrap()
    };
    let (alone, shared) = (late(2.0), late(10.0));
    assert!(alone < 500.0 && shared > 3_000.0, "{alone} {shared}");
}

#[test]
fn without_a_busy_vcpu_there_is_nothing_to_be_left_to_it() {
    let plan = Plan { busy_share_percent: 0.0, ..small() };
    assert_eq!(figures(&plan, TimerMode::Thread).left_to_busy_percent, Figure::UNKNOWN);
    assert_eq!(figures(&plan, TimerMode::Thread).migrators, MigratorFigures::default());
}

#[test]
fn an_interruption_ends_all_models() {
    let watch = Watch::default();
    watch.stop();
    let plan = small();
    let layout = Layout::new(&plan);
    for mode in [TimerMode::Kernel, TimerMode::Migrate] {
        let outcome = one_mode(&plan, &layout, mode, &watch);
        assert!(matches!(outcome, Err(SimulateError::Interrupted(_))), "{mode:?}");
    }
}
