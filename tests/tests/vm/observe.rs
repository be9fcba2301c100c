//! `siesta stats` and `siesta top`, from outside.

#![allow(clippy::disallowed_methods)] // a fake process has to take its time

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use siesta_tests::pty::OnTerminal;
use siesta_tests::{Ended, command, needs_kvm, siesta};

use crate::control::{Served, serve, until};

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn stats_text(served: &Served) -> String {
    siesta(&["stats", "--socket", text(&served.socket())]).expect(0).stdout
}

fn stats(served: &Served) -> Value {
    let ended = siesta(&["stats", "--socket", text(&served.socket()), "--json"]).expect(0);
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

/// A busy VM beside ten that tick, more than one group of the hierarchy holds.
fn busy_and_ticking(more: &[&str]) -> Served {
    let served = serve(&[&["--borrow-share", "100"], more].concat());
    let _ = served.ctl(&["create", "--image", "busy", "--name", "busy"]).expect(0);
    // Later it may be relieved where others take its CPU away.
    let busy = serde_json::json!({"vm": "busy", "vcpu": 0});
    until("the busy one is not migrator", || *top_migrator(&stats(&served)) == busy);
    let tick = ["create", "--image", "tick", "--cmdline", "hz=100", "--name", "t", "--count", "10"];
    let _ = served.ctl(&tick).expect(0);
    served
}

/// The migrator of the group without a parent.
fn top_migrator(stats: &Value) -> &Value {
    let groups = list(&stats["hierarchies"][0]["groups"]);
    let top = groups.iter().find(|group| group["parent"].is_null());
    &top.expect("a top")["migrator"]
}

#[test]
fn stats_have_every_promised_field_and_name_the_migrators() {
    needs_kvm!();
    let served = busy_and_ticking(&["--timer-slack", "10us"]);
    until("nobody is migrator at the top of two levels", || {
        let now = stats(&served);
        let migrator = top_migrator(&now);
        let named = |vm: &Value| vm["vm"] == migrator["vm"] && migrator["vcpu"] == 0;
        list(&now["levels"]).len() == 2 && list(&now["vms"]).iter().any(named)
    });
    until("nobody is served", || number(&stats(&served)["totals"]["inline"]) > 0);
    let first = stats(&served);
    until("it does not go on", || {
        let (was, now) = (&first["totals"], stats(&served)["totals"].take());
        ["exits", "inline", "served", "lent_ns", "served_ns"]
            .iter()
            .all(|key| number(&now[key]) > number(&was[key]))
    });
    let last = stats(&served);
    assert_eq!(last["schema"], "siesta.stats/1");
    let process = &last["process"];
    assert_eq!(number(&process["pid"]), u64::from(served.process.pid().unsigned_abs()));
    let policy = ["inline", "slack_ns", "borrow_share_percent"].map(|key| process[key].clone());
    assert_eq!(policy, [Value::from(process["inline"] == true), 10_000.into(), 100.into()]);
    assert!(number(&process["borrow_limit_ns"]) > 0 && number(&process["lateness_goal_ns"]) > 0);
    for key in ["uptime_ns", "cpu_ns"] {
        assert!(number(&process[key]) > number(&first["process"][key]), "{key}");
    }
    let vms = list(&last["vms"]);
    let mut slots = BTreeSet::new();
    for vm in vms {
        assert!(number(&vm["uptime_ns"]) > 0 && number(&vm["memory"]) == 64 << 20, "{vm}");
        for vcpu in list(&vm["vcpus"]) {
            assert!(slots.insert(number(&vcpu["slot"])), "two in a slot: {last}");
            assert!(number(&vcpu["cpu_ns"]) > 0, "{vm}");
            let thread = vcpu["thread"].as_str().expect("text");
            assert!(["host", "guest", "kicked", "asleep"].contains(&thread), "{thread}");
        }
    }
    assert_eq!((vms.len(), slots.len()), (11, 11));
    let late = |from: &Value| number(&from["lateness"]["count"]);
    assert_eq!(late(&last), vms.iter().map(late).sum::<u64>());
    assert!(late(&last) > late(&first));
    let lateness = &last["lateness"];
    let [p50, p99, max] = ["p50_ns", "p99_ns", "max_ns"].map(|key| number(&lateness[key]));
    assert!(p50 <= p99 && p99 <= max, "{lateness}");
    let counted = list(&lateness["buckets"]).iter().map(|bucket| number(&bucket[1]));
    assert_eq!(counted.sum::<u64>(), late(&last));
    let hierarchy = &last["hierarchies"][0];
    let levels = list(&hierarchy["levels"]);
    assert!(hierarchy["vm"].is_null() && levels.len() == 2, "{hierarchy}");
    let groups: u64 = levels.iter().map(|level| number(&level["groups"])).sum();
    assert_eq!(groups, list(&hierarchy["groups"]).len() as u64);
    assert!(levels.iter().all(|level| number(&level["walks"]) > 0), "{hierarchy}");
    assert_eq!(list(&last["levels"]), levels, "there is one hierarchy");
    let shown = stats_text(&served);
    for part in
        ["timers migrate", "borrow share 100 %", "level 1: 1 groups", "busy: running", "t-9: "]
    {
        assert!(shown.contains(part), "no '{part}' in {shown}");
    }
    served.quit();
}

#[test]
fn vm_that_used_up_its_cpu_time_is_counted_as_throttled() {
    needs_kvm!();
    let served = serve(&[]);
    let capped = ["create", "--image", "busy", "--name", "capped", "--cpu-cap", "10"];
    let _ = served.ctl(&capped).expect(0);
    let _ = served.ctl(&["create", "--image", "busy", "--name", "free"]).expect(0);
    let throttled = |at: usize| number(&stats(&served)["vms"][at]["vcpus"][0]["throttled"]);
    until("it is not throttled", || throttled(0) > 2);
    assert_eq!(throttled(1), 0, "nobody has capped it");
    served.quit();
}

#[test]
fn keeper_is_named_while_all_vcpus_are_halted() {
    needs_kvm!();
    let served = serve(&[]);
    let tick = ["create", "--image", "tick", "--cmdline", "hz=10", "--name", "t", "--count", "3"];
    let _ = served.ctl(&tick).expect(0);
    until("nobody is keeper", || {
        let now = stats(&served);
        let keeper = &now["hierarchies"][0]["keeper"];
        keeper["vm"].as_str().is_some_and(|vm| vm.starts_with("t-")) && keeper["vcpu"] == 0
    });
    served.quit();
}

#[test]
fn every_mode_and_every_hierarchy_tells_what_it_has() {
    needs_kvm!();
    for mode in ["thread", "kernel"] {
        let served = serve(&["--timers", mode]);
        let _ = served.ctl(&["create", "--image", "tick", "--cmdline", "hz=100"]).expect(0);
        // Its thread may not have begun when it is asked for the first time.
        until("it does not run", || {
            stats(&served)["vms"][0]["vcpus"][0]["cpu_ns"].as_u64().is_some_and(|ns| ns > 0)
        });
        if mode == "thread" {
            until("nothing is counted", || number(&stats(&served)["lateness"]["count"]) > 5);
        }
        let now = stats(&served);
        assert_eq!((list(&now["hierarchies"]).len(), now["timers"].as_str()), (0, Some(mode)));
        assert_eq!(mode == "kernel", number(&now["lateness"]["count"]) == 0, "{mode}");
        assert!(stats_text(&served).contains(&format!("timers {mode}")));
        served.quit();
    }
    let served = serve(&["--share", "vm"]);
    let _ = served.ctl(&["create", "--image", "tick", "--name", "t", "--count", "2"]).expect(0);
    let now = stats(&served);
    let vms = list(&now["hierarchies"]).iter().map(|tree| tree["vm"].as_str());
    assert_eq!(vms.collect::<Vec<_>>(), [Some("t-0"), Some("t-1")]);
    let _ = served.ctl(&["stop", "t-0"]).expect(0);
    assert_eq!(stats(&served)["hierarchies"][0]["vm"], "t-1");
    served.quit();
}

/// Time for which it was paused is not lateness. A host that stands still for as long as the pause would
/// look the same, so one VM of a few has to do.
#[test]
fn pause_is_no_lateness() {
    needs_kvm!();
    const PAUSE: Duration = Duration::from_secs(2);
    let served = serve(&[]);
    let latest = |at: usize| {
        let create =
            ["create", "--image", "tick", "--cmdline", "hz=50", "--name", &format!("t{at}")];
        let _ = served.ctl(&create).expect(0);
        let name = format!("t{at}");
        let counted = || number(&stats(&served)["vms"][at]["lateness"]["count"]);
        until("it does not tick", || counted() > 3);
        let _ = served.ctl(&["pause", &name]).expect(0);
        let before = counted();
        thread::sleep(PAUSE);
        let _ = served.ctl(&["resume", &name]).expect(0);
        until("it does not go on", || counted() > before + 3);
        number(&stats(&served)["vms"][at]["lateness"]["max_ns"])
    };
    assert!((0..4).any(|at| u128::from(latest(at)) < PAUSE.as_nanos()), "all were late");
    served.quit();
}

/// Somebody at a socket who hears one request and does this.
fn fake(
    does: impl FnOnce(UnixStream) + Send + 'static,
) -> (tempfile::TempDir, thread::JoinHandle<()>) {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = UnixListener::bind(folder.path().join("control")).expect("a socket");
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = [0; 64];
        let _ = stream.read(&mut request);
        does(stream);
    });
    (folder, thread)
}

fn asked(does: impl FnOnce(UnixStream) + Send + 'static) -> Ended {
    let (folder, thread) = fake(does);
    let socket = folder.path().join("control");
    let ended = siesta(&["stats", "--socket", text(&socket), "--timeout", "0.5"]);
    thread.join().expect("it does not panic");
    ended
}

#[test]
fn bad_input_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let [absent, file] = ["absent", "file"].map(|name| folder.path().join(name));
    std::fs::write(&file, "").expect("a file");
    let stats =
        |path: &Path, more: &[&str]| siesta(&[&["stats", "--socket", text(path)], more].concat());
    stats(&absent, &[]).expect(2).one_line(&["--socket", text(&absent), "siesta serve"]);
    stats(&file, &[]).expect(2).one_line(&["--socket", text(&file), "no socket"]);
    stats(folder.path(), &[]).expect(2).one_line(&["no socket"]);
    stats(&absent, &["--timeout", "0"]).expect(2).one_line(&["--timeout", "0.001"]);
    siesta(&["stats"]).expect(2).one_line(&["--socket"]);
    // A terminal is looked for first.
    let top = ["top", "--socket", text(&absent)];
    siesta(&top).expect(2).one_line(&["siesta top", "terminal", "siesta stats"]);
    siesta(&[&top[..], &["--interval", "0"]].concat()).expect(2).one_line(&["--interval", "0.1"]);
    siesta(&["top"]).expect(2).one_line(&["--socket"]);
}

#[test]
fn processes_that_do_not_answer_are_told_apart() {
    asked(drop).expect(4).one_line(&["closed the connection"]);
    let noise = |mut stream: UnixStream| {
        let _ = stream.write_all(&[0xf5; 1 << 16]);
    };
    asked(noise).expect(4).one_line(&["no 'siesta serve'"]);
    let other = |mut stream: UnixStream| {
        let _ = stream.write_all(b"{\"hello\":1}\n");
    };
    asked(other).expect(4).one_line(&["language"]);
    let future = |mut stream: UnixStream| {
        let _ = stream.write_all(
            b"{\"stats\":{\"schema\":\"siesta.stats/9\",\"timers\":\"x\",\"at_ns\":1,\"created\":0,\
              \"ended\":0,\"levels\":[],\"vms\":[]}}\n",
        );
    };
    asked(future).expect(4).one_line(&["siesta.stats/9", "siesta.stats/1"]);
    let silent = |mut stream: UnixStream| {
        // Until the other side has given up.
        let _ = stream.read(&mut [0]);
    };
    asked(silent).expect(4).one_line(&["within 0.5 s"]);
}

/// The sequences that leave the second screen and show the cursor.
const LEAVE: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

fn top(socket: &Path, more: &[&str]) -> OnTerminal {
    let arguments = ["top", "--socket", text(socket), "--interval", "0.1"];
    OnTerminal::start(command(&[&arguments, more].concat()), 110, 30)
}

#[track_caller]
fn restored(top: &mut OnTerminal, status: i32) -> Ended {
    let ended = top.wait().expect(status);
    for sequence in LEAVE {
        assert!(ended.stdout.contains(sequence), "no {sequence:?} in {ended:?}");
    }
    assert!(top.is_as_before(), "the terminal's modes are others");
    ended
}

#[test]
fn top_shows_what_runs_and_leaves_the_terminal_as_it_was() {
    needs_kvm!();
    let served = busy_and_ticking(&[]);
    let mut shown = top(&served.socket(), &[]);
    for part in ["siesta", "SAVED/s", "busy", "running", "level", "t-9"] {
        shown.wait_for(part);
    }
    assert!(!shown.is_as_before(), "keys come one by one");
    shown.type_keys("s");
    shown.wait_for("%*");
    // It is drawn anew for its new size, before the next sample or with it.
    shown.forget();
    shown.resize(90, 16);
    shown.wait_for("SAVED/s");
    shown.type_keys("\x1b[6~\x1b[B\x1b[A\x1b[5~");
    shown.type_keys("q");
    let ended = restored(&mut shown, 0);
    assert!(ended.stderr.is_empty(), "{ended:?}");
    for key in ["\x1b", "\x03"] {
        let mut shown = top(&served.socket(), &[]);
        shown.wait_for("SAVED/s");
        shown.type_keys(key);
        restored(&mut shown, 0);
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut shown = top(&served.socket(), &[]);
        shown.wait_for("SAVED/s");
        shown.signal(signal);
        restored(&mut shown, 130);
    }
    let mut shown = top(&served.socket(), &[]);
    shown.wait_for("SAVED/s");
    served.quit();
    restored(&mut shown, 4).one_line(&["closed the connection"]);
}

#[test]
fn top_hears_keys_while_the_process_is_silent_and_gives_up_on_it() {
    let silent = |mut stream: UnixStream| {
        let _ = stream.read(&mut [0]);
    };
    let (folder, thread) = fake(silent);
    let mut shown = top(&folder.path().join("control"), &["--timeout", "100"]);
    shown.wait_for("\x1b[?1049h");
    shown.type_keys("q");
    restored(&mut shown, 0);
    thread.join().expect("it does not panic");
    let (folder, thread) = fake(silent);
    let mut shown = top(&folder.path().join("control"), &["--timeout", "0.2"]);
    restored(&mut shown, 4).one_line(&["within 0.2 s"]);
    thread.join().expect("it does not panic");
    let (folder, thread) = fake(|mut stream| {
        let _ = stream.write_all(b"nonsense\n");
    });
    let mut shown = top(&folder.path().join("control"), &[]);
    restored(&mut shown, 4).one_line(&["siesta: "]);
    thread.join().expect("it does not panic");
}
