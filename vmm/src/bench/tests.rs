//! The whole benchmark in virtual time.

mod find_max;
mod sweep;

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::fake::{SPEED, Script, World};
use super::*;

const SEC: u64 = 1_000_000_000;

fn plan() -> Plan {
    let command = "siesta bench density".to_owned();
    Plan { rates: Rates::same(100, 10), secs: 2.0, repeat: 2, command, ..Plan::default() }
}

fn run(script: Script, plan: &Plan) -> (Result<Report, BenchError>, String, World) {
    let world = World::new(script);
    let (mut launch, mut instruments, mut progress) = (world.clone(), world.clone(), world.clone());
    let mut out = Vec::new();
    let result = density(&mut launch, &mut instruments, plan, &mut out, &mut progress);
    (result, String::from_utf8(out).expect("the table is text"), world)
}

fn result(plan: &Plan) -> (Report, String, World) {
    let (result, table, world) = run(Script::default(), plan);
    (result.expect("all goes well"), table, world)
}

#[test]
fn runs_are_interleaved_after_a_busy_guest_alone() {
    let (report, _, world) = result(&plan());
    let launched = world.launched();
    let modes: Vec<Mode> = launched.iter().map(|spec| spec.mode).collect();
    let turn = [Mode::Kernel, Mode::Thread, Mode::Migrate];
    assert_eq!(modes, [&[Mode::Kernel], &turn[..], &turn[..]].concat());
    assert_eq!((launched[0].rates.vms(), launched[0].busy), (0, 1));
    let complete = |spec: &RunSpec| spec.rates.vms() == 10 && spec.ticking.len() == 10;
    assert!(launched[1..].iter().all(complete));
    let order: Vec<_> = report.runs.iter().map(|run| (run.mode, run.repeat)).collect();
    assert_eq!(order[..4], [(turn[0], 1), (turn[1], 1), (turn[2], 1), (turn[0], 2)]);
    assert!(!world.is_running());
}

#[test]
fn only_the_interval_is_measured() {
    let (report, _, world) = result(&plan());
    for run in &report.runs {
        assert_eq!(run.figures.secs, Figure::of(2.0));
        assert_eq!(run.figures.ticks.delivered, Figure::of(2_000.0));
        assert_eq!(run.figures.ticks.expected, Figure::of(2_000.0));
    }
    assert_eq!(world.now_ns(), plan().length_ns());
}

#[test]
fn figures_are_those_of_the_guests() {
    let (report, ..) = result(&plan());
    assert_eq!(report.busy_alone_per_cpu_sec, Figure::of(SPEED as f64));
    let (kernel, migrate) = (&report.medians["kernel"], &report.medians["migrate"]);
    // The fake adds 1 us for each launch: the kernel's were the 2nd and 5th.
    let us = kernel.cpu_us_per_tick.get().expect("is known");
    assert!((us - 68.5).abs() < 0.01, "{us}");
    let least = report.spread["kernel"].min.cpu_us_per_tick.get().expect("is known");
    assert!((least - 67.0).abs() < 0.01, "{least}");
    assert_eq!(kernel.thread_wakeups_per_sec, Figure::of(1_000.0));
    assert_eq!(kernel.host_idle_entries_per_sec, Figure::of(500.0));
    assert_eq!(migrate.thread_wakeups_per_sec, Figure::of(0.0));
    assert_eq!(migrate.lateness_us.p99, Figure::of(5.0));
    assert_eq!(migrate.busy_progress_per_cpu_sec, Figure::of(SPEED as f64));
    assert_eq!(migrate.expiries.inline, Figure::of(2_000.0));
    assert_eq!(migrate.levels[1].walks, Figure::of(200.0));
    assert_eq!(migrate.pss_kib_per_vm, Figure::of(250.0));
    assert_eq!(migrate.fds_per_vm, Figure::of(4.0));
    assert!(report.marks.is_empty(), "{:?}", report.marks);
}

#[test]
fn without_busy_guests_nothing_is_calibrated() {
    let (report, table, world) = result(&Plan { busy: 0, ..plan() });
    assert_eq!(world.launched().len(), 6);
    assert_eq!(report.busy_alone_per_cpu_sec, Figure::UNKNOWN);
    assert!(report.medians["thread"].cpu_us_per_tick.get().is_some());
    assert!(!table.contains("busy rounds") && !table.contains("alone: "), "{table}");
}

#[test]
fn a_disturbed_run_is_marked() {
    // Launch 0 is the busy guest alone; 5 is the second of mode thread.
    let script = Script { foreign: Some((5, 16)), ..Script::default() };
    let (result, table, _) = run(script, &plan());
    let mark = "run 2 of thread: 8 % of the host's CPU time went to others";
    assert_eq!(result.expect("goes on").marks, [mark]);
    assert!(table.contains(&format!("! {mark}\n")), "{table}");
}

#[test]
fn a_guest_that_fails_ends_it() {
    let script = Script { fail: Some((2, SEC)), ..Script::default() };
    let (result, table, world) = run(script, &plan());
    let error = result.expect_err("a guest failed");
    assert_eq!(error.to_string(), "a guest of run 1 of thread failed: vm 3: triple fault");
    assert!(!error.is_usage());
    assert_eq!(table, "");
    assert!(!world.is_running());
    assert_eq!(world.now_ns(), 2 * 350_000_000 + 25 * SEC / 10 + SEC, "noticed at once");
    assert_eq!(world.shown().1, 1, "the progress line is gone");
}

#[test]
fn a_guest_that_fails_at_the_very_end_is_noticed() {
    let script = Script { fail: Some((6, 2_500_000_000)), ..Script::default() };
    assert!(matches!(run(script, &plan()).0, Err(BenchError::Guest { .. })));
}

#[test]
fn guests_that_cannot_be_started() {
    let script = Script { refuse: Some(3), ..Script::default() };
    let error = run(script, &plan()).0.expect_err("is refused");
    assert_eq!(error.to_string(), "cannot start the guests of run 1 of migrate");
    let source = std::error::Error::source(&error).expect("has a cause");
    assert_eq!(source.to_string(), "no memory left");
}

#[test]
fn a_busy_guest_without_progress_is_no_yardstick() {
    let script = Script { lazy: true, ..Script::default() };
    assert!(matches!(run(script, &plan()).0, Err(BenchError::NoWork)));
}

#[test]
fn the_user_can_end_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = Some(folder.path().join("out.json"));
    let script = Script { interrupt_ns: Some(5 * SEC), ..Script::default() };
    let (result, table, world) = run(script, &Plan { json, ..plan() });
    assert!(matches!(result, Err(BenchError::Interrupted)));
    assert!(world.now_ns() <= 5 * SEC + SEC / 4, "within a step");
    assert!(!world.is_running());
    assert_eq!(table, "");
    assert_eq!(fs::read_dir(folder.path()).expect("is there").count(), 0, "nothing left behind");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_runs() {
    let json = Some(PathBuf::from("/nonexistent/density.json"));
    let (result, _, world) = run(Script::default(), &Plan { json, ..plan() });
    let error = result.expect_err("no such folder");
    assert_eq!(error.to_string(), "cannot write /nonexistent/density.json");
    assert!(error.is_usage());
    assert!(world.launched().is_empty());
    let (result, _, world) = run(Script::default(), &Plan { rates: Rates::same(100, 0), ..plan() });
    assert!(result.expect_err("no guests").is_usage());
    assert!(world.launched().is_empty());
}

#[test]
fn the_progress_line_counts_runs_and_seconds() {
    let (_, _, world) = result(&plan());
    let (shown, clears) = world.shown();
    assert_eq!(clears, 1);
    assert_eq!(shown[0], "a busy guest alone: starting");
    assert_eq!(shown[1], "a busy guest alone: 1 s left");
    assert!(shown.contains(&"2/6: run 1 of thread: 3 s left".to_owned()), "{shown:?}");
    assert!(shown.contains(&"6/6: run 2 of migrate: 1 s left".to_owned()), "{shown:?}");
}

#[test]
fn a_table_that_cannot_be_written_is_an_error_and_leaves_no_report() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan { json: Some(folder.path().join("out.json")), ..plan() };
    let world = World::default();
    let (mut launch, mut instruments, mut progress) = (world.clone(), world.clone(), world);
    let result = density(&mut launch, &mut instruments, &plan, &mut Full, &mut progress);
    assert!(matches!(result, Err(BenchError::Output(_))));
    assert_eq!(fs::read_dir(folder.path()).expect("is there").count(), 0);
}

/// The paths of all values, those of arrays by their first element.
fn paths(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                paths(value, &format!("{at}/{name}"), into);
            }
        }
        Value::Array(elements) if !elements.is_empty() => paths(&elements[0], at, into),
        _ => into.push(at.to_owned()),
    }
}

#[test]
fn json_has_the_promised_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.json");
    let modes = vec![Mode::Migrate];
    result(&Plan { json: Some(path.clone()), modes, ..plan() });
    let text = fs::read_to_string(&path).expect("was written");
    let json: Value = serde_json::from_str(&text).expect("is JSON");
    assert_eq!(json["schema"], "siesta.density/1");
    assert_eq!(json["runs"][1]["mode"], "migrate");
    assert_eq!(json["runs"][1]["repeat"], 2);
    assert_eq!(json["runs"][1]["ticks"]["delivered"], 2_000);
    let mut top: Vec<_> = json.as_object().expect("is an object").keys().collect();
    top.sort();
    let expected = [
        "busy_alone_per_cpu_sec",
        "command",
        "host",
        "marks",
        "medians",
        "plan",
        "runs",
        "schema",
        "spread",
    ];
    assert_eq!(top, expected);
    let mut figures = Vec::new();
    paths(&json["medians"]["migrate"], "", &mut figures);
    figures.sort();
    assert_eq!(figures.join(" "), FIGURES);
    let mut run = Vec::new();
    paths(&json["runs"][0], "", &mut run);
    run.retain(|path| !["/mode", "/repeat", "/vms", "/busy"].contains(&path.as_str()));
    run.sort();
    assert_eq!(run, figures, "a run has the figures of the medians");
}

/// Interface: a name may be added, none may go.
const FIGURES: &str = "/boot_ms /busy_progress_per_cpu_sec /busy_progress_per_sec \
    /cpu_us_per_tick /expiries/by_helper /expiries/handed_off /expiries/inline /fds_per_vm \
    /foreign_cpu_share /groups/hz /groups/lateness_us/max /groups/lateness_us/p50 \
    /groups/lateness_us/p99 /groups/ticks/behind /groups/ticks/delivered /groups/ticks/early \
    /groups/ticks/expected /groups/ticks/lost /host_idle_entries_per_sec /host_timer_interrupts_per_sec \
    /involuntary_switches_per_sec /kicks /lateness_us/max /lateness_us/p50 /lateness_us/p99 \
    /levels/expiries /levels/passes /levels/walks /process_cpus /pss_kib_per_vm /secs \
    /stolen_cpu_share /thread_wakeups_per_sec /threads_per_vm /ticks/behind \
    /ticks/delivered /ticks/early /ticks/expected /ticks/lost";

#[test]
fn the_table() {
    let (_, table, _) = result(&plan());
    assert!(table.is_ascii());
    assert!(table.lines().all(|line| line.len() <= 100), "{table}");
    assert_eq!(table, include_str!("table.txt"), "{table}");
}

/// Threads of this process that sleep and wake up 100 times a second, as idle guests would make
/// them.
struct Sleepers;

struct Asleep {
    stop: Arc<AtomicBool>,
    ticks: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Launch for Sleepers {
    fn launch(&mut self, spec: &RunSpec) -> Result<Box<dyn Fleet>, LaunchError> {
        let (stop, ticks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let sleeper = |_| {
            let (stop, ticks) = (Arc::clone(&stop), Arc::clone(&ticks));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                    ticks.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..spec.rates.vms()).map(sleeper).collect();
        Ok(Box::new(Asleep { stop, ticks, threads }))
    }

    fn host_facts(&self) -> HostFacts {
        HostFacts::read(None)
    }
}

impl Fleet for Asleep {
    fn sample(&mut self) -> Sample {
        let guest = GuestSample { ticks: self.ticks.load(Ordering::Relaxed), ..<_>::default() };
        let group = GroupSample { guests: vec![guest], ..GroupSample::default() };
        Sample { groups: vec![group], ..Sample::default() }
    }

    fn boot_ns(&self) -> Vec<u64> {
        Vec::new()
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn stop(self: Box<Self>) -> Result<(), LaunchError> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join()).map_err(|_| "panicked".into())
    }
}

#[test]
fn wakeups_of_real_threads_are_counted() {
    let modes = vec![Mode::Thread];
    let rates = Rates::same(100, 8);
    let plan = Plan { rates, busy: 0, secs: 0.5, repeat: 1, modes, ..Plan::default() };
    let mut progress = World::default();
    let mut out = Vec::new();
    let result = density(&mut Sleepers, &mut ThisHost::open(), &plan, &mut out, &mut progress);
    let figures = result.expect("goes well").runs.remove(0).figures;
    let known = |figure: Figure| figure.get().expect("is known");
    let delivered = known(figures.ticks.delivered);
    assert!(delivered > 50.0, "{figures:?}");
    let rate = delivered / known(figures.secs);
    // Other tests of this process may add wake-ups, none can take any away.
    assert!(known(figures.thread_wakeups_per_sec) > 0.9 * rate, "{figures:?}");
    assert!(known(figures.cpu_us_per_tick) > 0.0, "{figures:?}");
    assert!(known(figures.threads_per_vm) > 0.0, "{figures:?}");
    assert!((0.5..5.0).contains(&known(figures.secs)), "{figures:?}");
}
