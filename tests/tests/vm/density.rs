//! The density benchmark as a program, and what its JSON promises.

use serde_json::Value;
use siesta_tests::{needs_kvm, siesta};

fn bench(arguments: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("density.json");
    let path = path.to_str().expect("a plain name");
    let mut all = vec!["bench", "density", "--json", path];
    all.extend(arguments);
    let ended = siesta(&all).expect(0);
    let text = std::fs::read_to_string(path).expect("the JSON was written");
    (serde_json::from_str(&text).expect("it is JSON"), ended.stdout)
}

fn number(value: &Value, path: &str) -> f64 {
    value
        .pointer(path)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} is missing in {value:#}"))
}

#[test]
fn json_has_every_promised_figure_for_every_mode() {
    needs_kvm!();
    let (json, table) = bench(&["--vms", "4", "--busy", "1", "--secs", "1", "--repeat", "2"]);
    assert_eq!(json["schema"], "siesta.density/1");
    assert!(json["command"].is_string() && json["host"].is_object());
    let runs = json["runs"].as_array().expect("runs");
    let order: Vec<_> = runs.iter().map(|run| run["mode"].as_str().unwrap_or("?")).collect();
    assert_eq!(order, ["kernel", "thread", "migrate", "kernel", "thread", "migrate"]);
    for figures in runs.iter().chain(json["medians"].as_object().expect("medians").values()) {
        for path in [
            "/ticks/delivered",
            "/ticks/expected",
            "/thread_wakeups_per_sec",
            "/involuntary_switches_per_sec",
            "/host_timer_interrupts_per_sec",
            "/cpu_us_per_tick",
            "/lateness_us/p50",
            "/lateness_us/p99",
            "/lateness_us/max",
            "/busy_progress_per_sec",
            "/expiries/inline",
            "/expiries/handed_off",
            "/kicks",
            "/foreign_cpu_share",
        ] {
            assert!(number(figures, path) >= 0.0, "{path}: {figures:#}");
        }
        // How many fall into the interval depends on the machine; that none is lost is the business
        // of the tests that count them to their end.
        assert!(number(figures, "/ticks/delivered") > 0.0, "{figures:#}");
        assert!(number(figures, "/ticks/expected") > 0.0, "{figures:#}");
        assert!(figures.get("host_idle_entries_per_sec").is_some() && figures["levels"].is_array());
    }
    for word in ["kernel", "thread", "migrate", "lateness", "wakeups"] {
        assert!(table.contains(word), "'{word}' is missing:\n{table}");
    }
}

/// 16 vCPUs in several groups, two of them busy: timers of groups without a busy vCPU can only
/// reach one through the levels above. Fails when the hierarchy is bypassed.
#[test]
fn expiries_travel_through_the_levels_of_the_hierarchy() {
    needs_kvm!();
    let (json, _) = bench(&[
        "--vms",
        "14",
        "--busy",
        "2",
        "--secs",
        "2",
        "--repeat",
        "1",
        "--modes",
        "migrate",
        "--borrow-share",
        "100",
        // On a loaded host many are late, and would be left to their own threads.
        "--lateness-goal",
        "10s",
    ]);
    let run = &json["runs"][0];
    let levels = run["levels"].as_array().expect("levels");
    assert!(levels.len() >= 2, "17 slots make more than one level: {run:#}");
    let delivered = number(run, "/ticks/delivered");
    let of_levels = |what: &str| levels.iter().map(|level| number(level, what)).sum::<f64>();
    let expired = of_levels("/expiries");
    // On a machine whose CPUs are taken away a guest finds its own late timer now and then, so less
    // than all; with the hierarchy bypassed there are none.
    assert!(expired >= 0.4 * delivered, "many ticks are expiries of the hierarchy: {run:#}");
    assert!(
        number(&levels[1], "/expiries") > 0.0,
        "some were found above their own group: {run:#}"
    );
    assert!(number(&levels[1], "/walks") > 0.0 && number(&levels[1], "/passes") > 0.0, "{run:#}");
    let served = number(run, "/expiries/inline") + number(run, "/expiries/handed_off");
    assert!(served >= 0.4 * delivered, "{run:#}");
    assert!(
        number(run, "/expiries/inline") >= 0.4 * delivered,
        "served on the busy vCPUs' threads: {run:#}"
    );
}

#[test]
fn same_seed_gives_the_same_phases_and_is_printed() {
    needs_kvm!();
    let (_, table) = bench(&[
        "--vms", "2", "--busy", "0", "--secs", "1", "--repeat", "1", "--modes", "migrate",
        "--seed", "7",
    ]);
    assert!(table.contains("seed 7"), "{table}");
}

/// Each rate has figures of its own, whatever mode the guests' timers are in; the numbers of guests
/// come from `--hz` alone. Fails when a guest is told the wrong rate: 20 Hz and 400 Hz are far apart.
#[test]
fn rates_of_a_mix_are_told_apart_in_every_mode_of_the_guests_timer() {
    needs_kvm!();
    for tick in ["auto", "oneshot", "periodic"] {
        let (json, table) = bench(&[
            "--hz",
            "20:2,400:2",
            "--tick",
            tick,
            "--busy",
            "0",
            "--secs",
            "0.5",
            "--repeat",
            "1",
        ]);
        assert_eq!((&json["plan"]["vms"], &json["plan"]["hz"]), (&4.into(), &210.into()));
        assert_eq!(json["plan"]["tick"], tick);
        for run in json["runs"].as_array().expect("runs") {
            let secs = number(run, "/secs");
            for (group, hz) in [(0, 20.0), (1, 400.0)] {
                let path = |of: &str| format!("/groups/{group}/{of}");
                assert_eq!(number(run, &path("hz")), hz);
                let expected = number(run, &path("ticks/expected"));
                assert!((expected / (2.0 * hz * secs) - 1.0).abs() < 0.01, "{tick}: {run:#}");
                assert!(number(run, &path("ticks/delivered")) > 0.0, "{tick}: {run:#}");
                assert!(number(run, &path("lateness_us/p99")) > 0.0, "{tick}: {run:#}");
            }
            let fast = number(run, "/groups/1/ticks/delivered");
            assert!(fast > number(run, "/groups/0/ticks/delivered"), "{tick}: {run:#}");
            assert!(number(run, "/ticks/behind") >= 0.0 && number(run, "/ticks/lost") >= 0.0);
        }
        assert!(table.contains("20 Hz delivered") && table.contains("400 Hz p99, us"), "{table}");
        assert_eq!(table.contains("ticks lost"), tick == "periodic", "{table}");
    }
}

/// With a goal that no machine misses the limit is reached; with one that none meets, not even one
/// guest fits.
#[test]
fn maximum_is_the_limit_for_a_lax_goal_and_none_for_a_strict_one() {
    needs_kvm!();
    let search = |goal: &str, vms: &str| {
        let modes = ["--modes", "thread,migrate", "--secs", "0.3", "--busy", "0", "--hz", "50"];
        let arguments = ["--find-max", "--lateness-goal", goal, "--vms", vms];
        bench(&[&arguments[..], &modes[..]].concat())
    };
    let (json, table) = search("1ns", "3");
    assert_eq!(json["schema"], "siesta.density-max/1");
    for mode in ["thread", "migrate"] {
        let of = &json["maxima"][mode];
        assert_eq!((&of["vms"], &of["fails"]), (&0.into(), &1.into()), "{json:#}");
        assert!(of["why"].as_str().expect("a reason").contains("lateness p99"), "{json:#}");
    }
    assert!(table.contains("not even one"), "{table}");
    // A machine that stops for long may leave ticks undelivered even so, but not every time.
    let reached = (0..5).any(|_| {
        let (json, _) = search("100s", "3");
        ["thread", "migrate"].iter().all(|mode| json["maxima"][mode]["vms"] == 3)
    });
    assert!(reached, "three idle guests and a goal of 100 s");
}

#[test]
fn sweep_has_a_report_and_a_line_for_each_share() {
    needs_kvm!();
    let (json, table) = bench(&[
        "--sweep-borrow-share",
        "0,100",
        "--vms",
        "4",
        "--secs",
        "0.5",
        "--repeat",
        "1",
        "--modes",
        "kernel,migrate",
        "--lateness-goal",
        "10s",
    ]);
    assert_eq!(json["schema"], "siesta.density-sweep/1");
    assert_eq!(json["borrow_shares_percent"], serde_json::json!([0, 100]));
    for (share, of) in [0, 100].into_iter().zip(json["shares"].as_array().expect("shares")) {
        assert_eq!(of["plan"]["borrow_share_percent"], share);
        assert_eq!(of["runs"].as_array().map(Vec::len), Some(2));
        assert!(number(&of["medians"]["migrate"], "/ticks/delivered") > 0.0, "{of:#}");
    }
    // Without a share the busy guest's thread leaves the ticks to others.
    let by_the_busy_one = |share: usize| {
        let expiries = &json["shares"][share]["medians"]["migrate"]["expiries"];
        number(expiries, "/inline") - number(expiries, "/by_helper")
    };
    assert!(by_the_busy_one(0) < by_the_busy_one(1), "{json:#}");
    let lines =
        |share: &str| table.lines().filter(|line| line.trim_start().starts_with(share)).count();
    assert_eq!((lines("0  "), lines("100  ")), (1, 1), "{table}");
}
