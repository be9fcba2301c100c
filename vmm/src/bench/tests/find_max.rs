//! The search for the largest number of guests, in virtual time.

use super::*;
use crate::bench::find_max::find_max;
use crate::bench::maxima::MaxReport;

/// Above all latenesses of the fake, and below ten times any.
const GOAL_NS: u64 = 200_000;

fn search(
    script: Script,
    plan: &Plan,
    goal_ns: u64,
) -> (Result<MaxReport, BenchError>, String, World) {
    let world = World::new(script);
    let (mut launch, mut instruments, mut progress) = (world.clone(), world.clone(), world.clone());
    let mut out = Vec::new();
    let asked = (plan, goal_ns);
    let result = find_max(&mut launch, &mut instruments, asked, &mut out, &mut progress);
    (result, String::from_utf8(out).expect("the table is text"), world)
}

fn limited(vms: u32) -> Plan {
    Plan { rates: Rates::same(100, vms), secs: 2.0, busy: 0, ..plan() }
}

/// Migrate is late from 5 us on in the fake: ten times that is still within the goal.
fn carries(mode: Mode) -> u32 {
    match mode {
        Mode::Kernel => 37,
        Mode::Thread => 20,
        Mode::Migrate => 70,
    }
}

#[test]
fn each_mode_has_its_maximum_with_its_figures() {
    let script = Script { carries: Some(carries), ..Script::default() };
    let (report, table, world) = search(script, &limited(500), GOAL_NS);
    let report = report.expect("goes well");
    let of = |mode: &str| &report.maxima[mode];
    assert_eq!((of("kernel").vms, of("kernel").fails), (37, Some(38)));
    assert_eq!((of("thread").vms, of("thread").fails), (20, Some(21)));
    assert_eq!((of("migrate").vms, of("migrate").fails), (500, None), "50 us are no failure");
    assert_eq!(of("kernel").why.as_deref(), Some("lateness p99 800 us"));
    let figures = of("thread").figures.as_ref().expect("some passed");
    assert_eq!(figures.lateness_us.p99, Figure::of(160.0));
    assert_eq!(figures.thread_wakeups_per_sec, Figure::of(2_000.0));
    assert_eq!(report.schema, "siesta.density-max/1");
    let line = |mode: &str| table.lines().find(|line| line.starts_with(mode)).expect("is there");
    assert!(line("kernel").contains(" 37 ") && line("kernel").contains("38: lateness p99 800 us"));
    assert!(line("thread").contains(" 0.54 "), "{table}");
    assert!(line("migrate").ends_with("the limit --vms"), "{table}");
    assert!(!world.is_running());
}

#[test]
fn modes_take_turns_trial_by_trial_until_each_has_ended() {
    let script = Script { carries: Some(carries), ..Script::default() };
    let (report, _, world) = search(script, &limited(500), GOAL_NS);
    let trials = report.expect("goes well").trials;
    let order: Vec<_> = trials.iter().map(|trial| (trial.trial, trial.mode, trial.vms)).collect();
    let turn = [Mode::Kernel, Mode::Thread, Mode::Migrate];
    assert_eq!(order[..3], turn.map(|mode| (1, mode, 16)));
    assert_eq!(order[3..6], turn.map(|mode| (2, mode, 32)));
    assert!(order.is_sorted_by_key(|(trial, ..)| *trial), "{order:?}");
    let vms: Vec<_> = world.launched().iter().map(|spec| spec.rates.vms()).collect();
    let told: Vec<_> = order.iter().map(|(.., vms)| *vms).collect();
    assert_eq!(vms, told, "no run is left out of the report");
    let phases = |index: usize| world.launched()[index].ticking.clone();
    assert_eq!(phases(0), phases(1), "of one round");
    assert_ne!(phases(0), phases(3)[..16], "each round has its own");
}

#[test]
fn a_guest_that_stands_still_is_noticed_however_many_tick() {
    let script = Script { stuck_above: Some(100), ..Script::default() };
    let (report, ..) = search(script, &limited(400), GOAL_NS);
    let of = &report.expect("goes well").maxima["kernel"];
    assert_eq!((of.vms, of.fails), (100, Some(102)), "within two percent");
    assert_eq!(of.why.as_deref(), Some("a guest is 200 ticks behind"));
}

#[test]
fn what_the_host_cannot_start_is_the_end() {
    let script = Script { refuse_above: Some(25), ..Script::default() };
    let (report, table, _) = search(script, &limited(400), GOAL_NS);
    let of = &report.expect("goes well").maxima["thread"];
    assert_eq!((of.vms, of.fails), (25, Some(26)));
    assert_eq!(of.why.as_deref(), Some("cannot be started: no memory left"));
    assert!(table.contains("26: cannot be started: no memory left"), "{table}");
}

#[test]
fn not_even_one_guest_that_can_be_started_is_an_error() {
    let script = Script { refuse_above: Some(0), ..Script::default() };
    let (result, table, _) = search(script, &limited(400), GOAL_NS);
    let error = result.expect_err("no guest at all");
    assert_eq!(error.to_string(), "cannot start the guests of trial 5 of kernel, 1 guests");
    assert_eq!(table, "");
}

#[test]
fn not_even_one_in_time_is_a_result() {
    let (report, table, _) = search(Script::default(), &limited(400), 1_000);
    let report = report.expect("goes well");
    assert_eq!(report.maxima["migrate"].vms, 0);
    assert!(report.maxima["migrate"].figures.is_none());
    assert!(table.contains("not even one; 1: lateness p99 5 us"), "{table}");
}

#[test]
fn a_mix_keeps_its_proportions() {
    let groups = vec![Group { hz: 400, vms: 100 }, Group { hz: 100, vms: 300 }];
    let plan = Plan { rates: Rates::mix(groups), modes: vec![Mode::Thread], ..limited(1) };
    let script = Script { carries: Some(carries), ..Script::default() };
    let (report, _, world) = search(script, &plan, GOAL_NS);
    assert_eq!(report.expect("goes well").maxima["thread"].vms, 20);
    let of = world.launched().iter().map(|spec| spec.rates.groups().to_vec()).collect::<Vec<_>>();
    assert_eq!((of[0][0].vms, of[0][1].vms), (4, 12));
}

#[test]
fn disturbed_trials_of_a_mode_are_one_mark() {
    let script = Script { foreign: Some((4, 20)), ..Script::default() };
    let (report, table, _) = search(script, &limited(30), GOAL_NS);
    let marks = report.expect("goes well").marks;
    let mark = "thread: 1 of 3 trials were disturbed, as number 2 with 30 guests: 10 % of the \
                host's CPU time went to others";
    assert_eq!(marks, [mark]);
    assert!(table.contains(&format!("! {mark}\n")), "{table}");
}

#[test]
fn a_failure_or_the_user_ends_it() {
    let script = Script { fail: Some((2, SEC)), ..Script::default() };
    let (result, table, world) = search(script, &limited(400), GOAL_NS);
    assert!(matches!(result, Err(BenchError::Guest { .. })));
    assert_eq!((table.as_str(), world.is_running()), ("", false));
    let script = Script { interrupt_ns: Some(4 * SEC), ..Script::default() };
    let (result, ..) = search(script, &limited(400), GOAL_NS);
    assert!(matches!(result, Err(BenchError::Interrupted)));
}

#[test]
fn a_goal_of_nothing_is_refused() {
    let (result, _, world) = search(Script::default(), &limited(400), 0);
    assert!(result.expect_err("no goal").is_usage());
    assert!(world.launched().is_empty());
}

#[test]
fn its_json_has_the_promised_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.json");
    let plan = Plan { json: Some(path.clone()), modes: vec![Mode::Thread], ..limited(8) };
    search(Script::default(), &plan, GOAL_NS).0.expect("goes well");
    let text = fs::read_to_string(&path).expect("was written");
    let json: Value = serde_json::from_str(&text).expect("is JSON");
    assert_eq!(json["schema"], "siesta.density-max/1");
    assert_eq!(json["lateness_goal_us"], 200);
    assert_eq!(json["plan"]["vms"], 8);
    let thread = &json["maxima"]["thread"];
    assert_eq!((&thread["vms"], &thread["fails"]), (&8.into(), &Value::Null));
    assert_eq!(thread["settled"], true);
    assert_eq!(thread["figures"]["lateness_us"]["p99"], 160);
    let trial = &json["trials"][1];
    assert_eq!((&trial["mode"], &trial["trial"]), (&"thread".into(), &2.into()));
    assert_eq!((&trial["vms"], &trial["passes"]), (&8.into(), &true.into()));
    assert!(trial["figures"]["ticks"]["delivered"].is_number());
}
