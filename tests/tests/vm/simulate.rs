//! The simulation and the costs it starts from as programs: bad input, what the JSON promises, and
//! that a run can be repeated. Only the costs need KVM.

use std::fs;
use std::path::Path;

use serde_json::Value;
use siesta_tests::{needs_kvm, siesta};

#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let ended = siesta(arguments).expect(2);
    ended.one_line(parts);
    assert!(ended.stdout.is_empty(), "{ended:#?}");
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("the JSON was written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

#[test]
fn numbers_that_cannot_be_simulated() {
    for (option, value) in [
        ("--vcpus", "0"),
        ("--vcpus", "1000001"),
        ("--vcpus", "x"),
        ("--hz", "0"),
        ("--hz", "10001"),
        ("--hz", "-1"),
        ("--busy-share", "101"),
        ("--busy-share", "nan"),
        ("--cpus", "0"),
        ("--nodes", "65"),
        ("--secs", "0"),
        ("--secs", "4000"),
        ("--slack", "1"),
        ("--residency", "x"),
        ("--borrow-share", "-1"),
        ("--borrow-limit", "x"),
        ("--seed", "-1"),
    ] {
        refused(&["simulate", option, value], &[option, value]);
    }
    refused(&["simulate", "--cpus", "2", "--nodes", "4"], &["--nodes 4", "--cpus 2"]);
    refused(&["simulate", "--modes", "thread,thread"], &["thread", "twice"]);
    refused(&["simulate", "--modes", "kernal"], &["kernal", "'kernel'"]);
    refused(&["simulat"], &["simulat", "'simulate'"]);
}

#[test]
fn files_that_cannot_be_read_or_written_are_said_before_the_run() {
    // So large that a test would notice it being run first.
    let large = ["simulate", "--vcpus", "1000000", "--secs", "3600"];
    let with = |option, value| [&large[..], &[option, value]].concat();
    refused(&with("--json", "/nonexistent/out.json"), &["--json", "/nonexistent/out.json"]);
    refused(&with("--costs", "/nonexistent/costs.json"), &["--costs", "/nonexistent/costs.json"]);
    let folder = tempfile::tempdir().expect("a folder");
    let costs = folder.path().join("costs.json");
    for (content, part) in [("", "not JSON"), ("{}", "siesta.costs/1")] {
        fs::write(&costs, content).expect("a file");
        refused(&with("--costs", text(&costs)), &["--costs", text(&costs), part]);
    }
    refused(&["bench", "costs"], &["--out"]);
    refused(&["bench", "costs", "--out", "/nonexistent/costs.json"], &["--out", "/nonexistent"]);
}

#[test]
fn json_has_the_promised_figures_and_a_run_can_be_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str| {
        let path = folder.path().join(name);
        let arguments = ["simulate", "--vcpus", "500", "--cpus", "8", "--secs", "1", "--json"];
        let ended = siesta(&[&arguments[..], &[text(&path)]].concat()).expect(0);
        assert!(ended.stderr.is_empty(), "no progress line without a terminal: {ended:#?}");
        (json(&path), ended.stdout)
    };
    let (first, table) = run("first.json");
    assert_eq!(first["schema"], "siesta.simulate/1");
    assert_eq!(first["costs"]["file"], Value::Null);
    assert_eq!(first["plan"]["vcpus"], 500);
    for mode in ["kernel", "thread", "migrate"] {
        for path in [
            "/ticks/expected",
            "/ticks/served",
            "/ticks/merged",
            "/ticks/pending",
            "/thread_wakeups_per_sec",
            "/host_idle_exits_per_sec",
            "/host_timer_interrupts_per_sec",
            "/lateness_us/p50",
            "/lateness_us/p999",
            "/lateness_us/max",
            "/cpu_us_per_tick",
            "/tick_cpus",
            "/busiest_cpu_percent",
            "/overloaded_cpus",
            "/cstate_eligible_percent",
        ] {
            let figure = first["modes"][mode].pointer(path).and_then(Value::as_f64);
            assert!(figure.is_some_and(|figure| figure >= 0.0), "{mode} {path}: {first:#}");
        }
        assert!(table.contains(mode), "{table}");
    }
    assert!(first["modes"]["migrate"]["migrators"]["peak_percent"].is_number());
    assert!(table.contains("built-in defaults"), "{table}");
    assert_eq!(run("second.json").0["modes"], first["modes"]);
}

#[test]
fn costs_are_measured_and_read_back() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("costs.json");
    siesta(&["bench", "costs", "--out", text(&path)]).expect(0);
    let written = json(&path);
    assert_eq!(written["schema"], "siesta.costs/1");
    for cost in ["exit_ns", "thread_wakeup_ns", "tick_inline_ns", "tick_thread_ns", "kick_ns"] {
        assert!(written["costs"][cost].as_u64().is_some_and(|ns| ns > 0), "{cost}: {written:#}");
    }
    let arguments = ["simulate", "--vcpus", "100", "--secs", "1", "--costs", text(&path)];
    let ended = siesta(&arguments).expect(0);
    assert!(ended.stdout.contains(text(&path)), "the report says where they come from: {ended:#?}");
    assert!(!ended.stdout.contains("built-in"), "{ended:#?}");
}
