//! `siesta serve` and `siesta ctl`, from outside.

#![allow(clippy::disallowed_methods)] // a test has to know when a process stands still

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use siesta_tests::{Ended, PATIENCE, Running, command, needs_kvm, siesta};

pub(crate) struct Served {
    folder: tempfile::TempDir,
    pub(crate) process: Running,
}

pub(crate) fn serve(more: &[&str]) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control");
    let socket = socket.to_str().expect("a plain name");
    let process = Running::start(command(&[&["serve", "--control", socket], more].concat()));
    let served = Served { folder, process };
    until("it does not listen", || UnixStream::connect(served.socket()).is_ok());
    served
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Served {
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    pub(crate) fn ctl(&self, arguments: &[&str]) -> Ended {
        let socket = self.socket();
        let socket = socket.to_str().expect("a plain name");
        siesta(&[&["ctl", "--control", socket], arguments].concat())
    }

    fn json(&self, arguments: &[&str], key: &str) -> Value {
        let answer = self.ctl(&[arguments, &["--json"]].concat()).expect(0).stdout;
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer[key].take()
    }

    /// The states of the VMs by their names.
    fn states(&self) -> Vec<(String, String)> {
        let vms = self.json(&["list"], "vms");
        let text = |vm: &Value, key: &str| vm[key].as_str().expect("text").to_owned();
        let vms = vms.as_array().expect("a list");
        vms.iter().map(|vm| (text(vm, "vm"), text(vm, "state"))).collect()
    }

    pub(crate) fn quit(self) {
        let _ = self.ctl(&["quit"]).expect(0);
        let socket = self.socket();
        let ended = self.process.wait().expect(0);
        assert!(ended.stderr.is_empty() && ended.stdout.is_empty(), "{ended:#?}");
        assert!(!socket.exists());
    }
}

fn of(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(vm, state)| ((*vm).to_owned(), (*state).to_owned())).collect()
}

fn exits(served: &Served, vm: usize) -> u64 {
    let stats = served.json(&["stats"], "stats");
    stats["vms"][vm]["vcpus"][0]["exits"].as_u64().expect("a number")
        + stats["vms"][vm]["vcpus"][0]["served_ns"].as_u64().expect("a number")
}

#[test]
fn vms_are_created_paused_resumed_isolated_and_stopped_in_every_mode() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        let served = serve(&["--timers", mode]);
        assert_eq!(served.states(), []);
        let tick = ["create", "--image", "tick", "--cmdline", "hz=100 cpus=2", "--cpus", "2"];
        assert_eq!(served.ctl(&tick).expect(0).stdout, "vm0\n");
        let named = ["create", "--image", "busy", "--name", "b", "--count", "2"];
        assert_eq!(served.ctl(&named).expect(0).stdout, "b-0\nb-1\n");
        let _ = served.ctl(&["pause", "vm0"]).expect(0);
        let [vm0, b0, b1] = [("vm0", "paused"), ("b-0", "running"), ("b-1", "running")];
        assert_eq!(served.states(), of(&[vm0, b0, b1]));
        let still = exits(&served, 0);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(exits(&served, 0), still, "{mode}: it is paused");
        let _ = served.ctl(&["resume", "vm0"]).expect(0);
        if mode != "kernel" {
            until("it does not go on", || exits(&served, 0) > still);
        }
        let _ = served.ctl(&["isolate", "vm0", "--vcpus", "1"]).expect(0);
        let stats = served.json(&["stats"], "stats");
        let isolated = |vcpu: usize| stats["vms"][0]["vcpus"][vcpu]["isolated"].as_bool();
        assert_eq!((isolated(0), isolated(1)), (Some(false), Some(true)));
        let _ = served.ctl(&["isolate", "vm0"]).expect(0);
        let _ = served.ctl(&["stop", "b-0"]).expect(0);
        let states = of(&[("vm0", "running"), ("b-1", "running"), ("b-0", "ended")]);
        assert_eq!(served.states(), states);
        served.quit();
    }
}

/// An isolated vCPU's timer is its own thread's: nobody serves it, and it serves nobody.
#[test]
fn isolated_vcpu_neither_serves_nor_is_served() {
    needs_kvm!();
    let served = serve(&["--borrow-share", "100"]);
    for create in [
        &["create", "--image", "busy", "--name", "busy"][..],
        &["create", "--image", "tick", "--cmdline", "hz=200", "--name", "apart", "--isolated"],
        &["create", "--image", "tick", "--cmdline", "hz=200", "--name", "among"],
    ] {
        let _ = served.ctl(create).expect(0);
    }
    let counter = |vm: usize, key: &str| {
        served.json(&["stats"], "stats")["vms"][vm]["vcpus"][0][key].as_u64().expect("a number")
    };
    until("nobody is served", || counter(2, "served_ns") > 0);
    let own = counter(1, "exits");
    until("it does not tick", || counter(1, "exits") > own + 50);
    assert_eq!(counter(1, "served_ns"), 0, "it never was in the hierarchy");
    let _ = served.ctl(&["isolate", "busy", "--vcpus", "0"]).expect(0);
    std::thread::sleep(Duration::from_millis(50));
    let lent = counter(0, "lent_ns");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(counter(0, "lent_ns"), lent, "an isolated one serves nobody");
    let _ = served.ctl(&["isolate", "busy"]).expect(0);
    let _ = served.ctl(&["isolate", "apart"]).expect(0);
    until("it is not served", || counter(1, "served_ns") > 0);
    until("it does not serve", || counter(0, "lent_ns") > lent);
    served.quit();
}

#[test]
fn configuration_starts_vms_and_its_errors_name_file_and_line() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("hosts.toml");
    let path = config.to_str().expect("a plain name");
    let text = "[[vm]]\nimage = 'tick'\ncmdline = 'hz=10'\ncount = 3\nmemory = '16M'\n\n\
                [[vm]]\nname = 'once'\nimage = 'hello'\n";
    fs::write(&config, text).expect("a file");
    let served = serve(&["--config", path]);
    until("the short one has not ended", || {
        served.states().contains(&("once".into(), "ended".into()))
    });
    let running = served.states().iter().filter(|(_, state)| state == "running").count();
    assert_eq!(running, 3);
    served.quit();
    fs::write(&config, "[[vm]]\nimage = 'tick'\ncpus = 3\nisolate = [0, 2]\n").expect("a file");
    let served = serve(&["--config", path]);
    let stats = served.json(&["stats"], "stats");
    let isolated = [0, 1, 2].map(|vcpu: usize| &stats["vms"][0]["vcpus"][vcpu]["isolated"]);
    assert_eq!(isolated, [true, false, true]);
    served.quit();
    for (text, part) in [
        ("[[vm]]\nimage = 'tock'\n", "did you mean 'tick'"),
        ("[[vm]]\nimage = 'tick'\ncpu = 1\n", "line 3"),
        ("[[vm]]\nimage = 'tick'\nname = 'a'\n[[vm]]\nimage = 'tick'\nname = 'a'\n", "'a'"),
        ("[[vm]]\nimage = 'tick'\ncpus = 2\ncount = 8\n", "--max-vcpus"),
        ("[[vm]]\nimage = 'tick'\nmemory = '900000G'\n", "[[vm]] 0"),
        ("[[vm]]\nimage = 'tick'\npin = 65535\n", "[[vm]] 0: --pin 65535"),
        ("[[vm]]\nimage = 'tick'\nnice = 20\n", "--nice 20"),
        ("[[vm]]\nimage = 'tick'\nnuma = [0, 99]\n", "--numa 99"),
        ("[[vm]]\nimage = 'tick'\nisolate = [1]\n", "no vCPU 1"),
        ("[[vm]]\nimage = 'tick'\nhugepages = true\nmemory = '3M'\n", "--memory 4M"),
    ] {
        fs::write(&config, text).expect("a file");
        let control = folder.path().join("control");
        let control = control.to_str().expect("a plain name");
        let arguments = ["serve", "--control", control, "--config", path, "--max-vcpus", "10"];
        siesta(&arguments).expect(2).one_line(&["siesta: ", part]);
        assert!(!Path::new(control).exists(), "{text}");
    }
}

#[test]
fn wrong_requests_are_answered_in_one_line_and_stop_nothing() {
    needs_kvm!();
    let served = serve(&["--max-vcpus", "4"]);
    let _ = served.ctl(&["create", "--image", "tick", "--name", "a"]).expect(0);
    for (arguments, part) in [
        (&["pause", "b"][..], "no VM 'b'"),
        (&["stop", ""], "no VM ''"),
        (&["create", "--image", "tick", "--name", "a"], "'a' already"),
        (&["create", "--image", "tick", "--count", "9"], "--max-vcpus"),
        (&["create", "--image", "tick", "--name", "vm3"], "vm3"),
        (&["create", "--image", "tock"], "did you mean 'tick'"),
        (&["create", "--kernel", "/no/such/kernel"], "/no/such/kernel"),
        (&["create", "--image", "tick", "--serial", "/no/such/file"], "/no/such/file"),
        (&["isolate", "a", "--vcpus", "1"], "no vCPU 1"),
    ] {
        served.ctl(arguments).expect(2).one_line(&["siesta: ", part]);
    }
    // The socket of a client that says nothing, of one that says what is no request, and of one that
    // does not stop.
    let silent = UnixStream::connect(served.socket()).expect("it listens");
    let mut talker = UnixStream::connect(served.socket()).expect("it listens");
    let wrong = b"\n[]\n{\"command\":\"list\",\"x\":\n\xff\xfe\n{\"command\":\"fly\"}\n";
    talker.write_all(wrong).expect("it listens");
    let mut answers = BufReader::new(talker.try_clone().expect("a descriptor"));
    for _ in 0..5 {
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        assert!(answer.starts_with("{\"error\":"), "{answer}");
    }
    // Whether it is cut off in the middle depends on when it is read.
    let _ = talker.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(served.states(), of(&[("a", "running")]));
    drop(silent);
    served.quit();
}

#[test]
fn socket_must_be_free_and_somebody_must_listen() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = folder.path().join("taken");
    fs::write(&taken, "").expect("a file");
    let taken = taken.to_str().expect("a plain name");
    siesta(&["serve", "--control", taken]).expect(2).one_line(&[taken, "remove it"]);
    assert!(Path::new(taken).exists(), "it is somebody else's");
    let absent = folder.path().join("absent");
    let absent = absent.to_str().expect("a plain name");
    siesta(&["ctl", "--control", absent, "list"]).expect(2).one_line(&[absent, "siesta serve"]);
    siesta(&["ctl", "list"]).expect(2).one_line(&["--control"]);
}
