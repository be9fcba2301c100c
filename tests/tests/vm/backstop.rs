//! A migrator that does not come: its thread is stopped.

#![allow(clippy::disallowed_methods)] // a test has to know when a guest stands still

use std::fs;
use std::time::{Duration, Instant};

use siesta_tests::tracer::{StoppedThread, code_of, thread_of};
use siesta_tests::{PATIENCE, Running, command, figures, needs_kvm, siesta};

const TICKING: usize = 8;
/// A guest that has not ticked for so long, 300 of its periods, stands still.
const STANDS: Duration = Duration::from_secs(3);
/// In so many instructions a migrator that is looked at one by one serves somebody.
const INSTRUCTIONS: u64 = 2_000_000;
/// In so many atomic instructions it has served several, left the hierarchy or come back to it.
const ATOMICS: u64 = 160;

struct Served {
    folder: tempfile::TempDir,
    process: Running,
}

impl Served {
    fn start(goal: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("control");
        let socket = socket.to_str().expect("a plain name");
        let mut serve = command(&["serve", "--control", socket, "--borrow-share", "100"]);
        serve.args(["--lateness-goal", goal]);
        let process = Running::start(serve);
        let served = Served { folder, process };
        served.until("it does not listen", || served.ctl(&["list"]).0 == 0);
        served
    }

    fn ctl(&self, arguments: &[&str]) -> (i32, String) {
        let socket = self.folder.path().join("control");
        let socket = socket.to_str().expect("a plain name");
        let ended = siesta(&[&["ctl", "--control", socket], arguments].concat());
        (ended.status, ended.stdout)
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "{what}: {}", self.ctl(&["stats"]).1);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn tick(&self, name: &str, secs: u32) {
        let serial = self.folder.path().join(name);
        let serial = serial.to_str().expect("a plain name");
        let cmdline = format!("hz=100 secs={secs}");
        let create = ["create", "--image", "tick", "--cmdline", &cmdline, "--name", name];
        let count = TICKING.to_string();
        let more = ["--count", &count, "--serial", serial];
        assert_eq!(self.ctl(&[&create[..], &more].concat()).0, 0);
    }

    /// Guests that tick until they are ended.
    fn tick_for_ever(&self, count: usize) {
        let count = count.to_string();
        let create = ["create", "--image", "tick", "--cmdline", "hz=100", "--name", "t"];
        assert_eq!(self.ctl(&[&create[..], &["--count", &count]].concat()).0, 0);
    }

    /// The ticks of all guests but the busy one so far; `None`: it is held by another's thread.
    fn ticks(&self) -> Vec<(String, Option<u64>)> {
        let vms = self.vms();
        let of = |vm: &serde_json::Value| {
            let vcpu = &vm["vcpus"][0];
            let ticks = vcpu["timer_interrupts"].as_u64().filter(|_| vcpu["state"] != "borrowed");
            (vm["vm"].as_str().expect("a name").to_string(), ticks)
        };
        vms.iter().map(of).filter(|(name, _)| name != "busy").collect()
    }

    /// The guests that do not tick although nobody holds them. `borrowed`: they may be held by the
    /// stopped thread.
    fn standing(&self) -> Vec<String> {
        let began = Instant::now();
        let before = self.ticks();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.ticks();
            let pairs = before.iter().zip(&now);
            let still = pairs.filter(|(a, b)| a.1.is_some() && a.1 == b.1);
            let still: Vec<_> = still.map(|(a, _)| a.0.clone()).collect();
            if still.is_empty() || began.elapsed() > STANDS {
                return still;
            }
        }
    }

    fn vms(&self) -> Vec<serde_json::Value> {
        let (_, answer) = self.ctl(&["stats", "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer["stats"]["vms"].as_array().expect("VMs").clone()
    }

    fn counter(&self, vm: usize, key: &str) -> u64 {
        self.vms()[vm]["vcpus"][0][key].as_u64().expect("a number")
    }

    /// Stops a thread where it holds nothing that others need: in the guest of its own vCPU. In host
    /// code it may hold a lock, and a vCPU that it has borrowed nobody else could enter.
    fn stop_in_its_own_guest(&self, tid: i32) -> StoppedThread {
        let began = Instant::now();
        loop {
            let stopped = StoppedThread::stop(tid).expect("a child can be traced");
            if stopped.system_call() == Some(libc::SYS_ioctl) && !self.somebody_stays_borrowed() {
                return stopped;
            }
            drop(stopped);
            assert!(began.elapsed() < PATIENCE, "it is never in its own guest");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Others may borrow a vCPU for a moment.
    fn somebody_stays_borrowed(&self) -> bool {
        let borrowed = || {
            let vms = self.vms();
            let state = |vm: &serde_json::Value| vm["vcpus"][0]["state"].clone();
            vms.iter()
                .filter(|vm| state(vm) == "borrowed")
                .map(|vm| vm["vm"].to_string())
                .collect::<Vec<_>>()
        };
        let mut held = borrowed();
        for _ in 0..20 {
            if held.is_empty() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
            let now = borrowed();
            held.retain(|vm| now.contains(vm));
        }
        true
    }

    /// Whether vCPU 0 of that VM is migrator of anything.
    fn migrates(&self, name: &str) -> bool {
        let (_, answer) = self.ctl(&["stats", "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let groups = answer["stats"]["hierarchies"][0]["groups"].as_array().expect("groups");
        groups.iter().any(|group| group["migrator"]["vm"] == name)
    }

    /// While nobody is active: the VM whose thread is to come back.
    fn keeper(&self) -> Option<String> {
        let (_, answer) = self.ctl(&["stats", "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer["stats"]["hierarchies"][0]["keeper"]["vm"].as_str().map(str::to_owned)
    }

    /// All ticking guests have ended by themselves, each with all its ticks.
    fn all_ticked(&self, name: &str, secs: u32) {
        let ended = format!("{name}-");
        self.until("ticks are missing", || {
            let list = self.ctl(&["list"]).1;
            list.lines().filter(|line| line.starts_with(&ended) && line.contains("ended")).count()
                == TICKING
        });
        for index in 0..TICKING {
            let serial = self.folder.path().join(format!("{name}.{index}"));
            let text = fs::read_to_string(serial).expect("its output");
            // One more where the last came later than the next was due.
            assert!(figures(&text, "ticks")[0] >= f64::from(100 * secs), "{text}");
            assert_eq!(figures(&text, "early"), [0.0], "{text}");
        }
    }
}

/// The busy guest's thread is the migrator of all others. Stopped, it serves nobody, and nobody else
/// is called by the hierarchy.
#[test]
fn timers_of_a_stopped_migrator_are_served_by_others_and_it_comes_back() {
    needs_kvm!();
    // On a loaded host many are late by less, and would be left to their own threads.
    let served = Served::start("5ms");
    assert_eq!(served.ctl(&["create", "--image", "busy", "--name", "busy"]).0, 0);
    served.tick("first", 5);
    served.until("the busy one serves nobody", || served.counter(0, "inline") > 3);
    let tid = thread_of(served.process.pid(), "busy/0").expect("its thread");
    let stopped = served.stop_in_its_own_guest(tid);
    // On a loaded host another may have been given the duties just before.
    let migrator = served.migrates("busy");
    let inline = served.counter(0, "inline");
    served.all_ticked("first", 5);
    assert_eq!(served.counter(0, "inline"), inline, "it was stopped");
    assert!(!migrator || served.counter(0, "overdue") > 0);
    drop(stopped);
    // They tick for longer than anybody waits: a host that starves it again keeps it away for a while.
    served.tick("second", 3600);
    served.until("it does not come back", || served.counter(0, "inline") > inline + 3);
    assert_eq!(served.ctl(&["quit"]).0, 0);
    let _ = served.process.wait().expect(0);
}

/// Whatever the migrator has done last: others see what it does by its atomic instructions, so it is
/// stopped behind one after the other.
#[test]
fn timers_are_served_wherever_the_migrator_was_stopped() {
    needs_kvm!();
    let stops = std::env::var("STOPS").ok().and_then(|stops| stops.parse().ok()).unwrap_or(12_u64);
    let mut standing = Vec::new();
    for guests in [1, TICKING] {
        // Looked at instruction by instruction it is late, and would be left alone.
        let served = Served::start("50ms");
        assert_eq!(served.ctl(&["create", "--image", "busy", "--name", "busy"]).0, 0);
        served.tick_for_ever(guests);
        let pid = served.process.pid();
        let code = code_of(pid).expect("a program has code");
        let tid = thread_of(pid, "busy/0").expect("its thread");
        for stop in 0..stops {
            let inline = served.counter(0, "inline");
            served.until("the busy one serves nobody", || served.counter(0, "inline") > inline);
            let stopped = StoppedThread::stop(tid).expect("a child can be traced");
            let mut at = 0;
            for _ in 0..=stop * ATOMICS / stops {
                at = stopped.to_next_atomic(&code, INSTRUCTIONS).expect("it goes on");
            }
            let still = served.standing();
            if !still.is_empty() {
                standing
                    .push(format!("{:#x}, stop {stop}: {still:?} of {guests}", at - code.start));
                println!("{}", standing.last().expect("one"));
            }
        }
        let stats = served.ctl(&["stats", "--json"]).1;
        let stats: serde_json::Value = serde_json::from_str(&stats).expect("JSON");
        let stalls = &stats["stats"]["hierarchies"][0]["stalls"];
        println!("{guests}: {stops} stops, {stalls} of them with a lock that others wanted");
        assert_eq!(served.ctl(&["quit"]).0, 0);
        let _ = served.process.wait().expect(0);
    }
    assert!(standing.is_empty(), "{standing:#?}");
}

/// Nobody is busy: the thread that is to come back for all of them is stopped, in its sleep or at work.
/// Others run its vCPU, too, unless it has that itself.
#[test]
fn timers_of_others_are_served_when_the_keeper_is_stopped() {
    needs_kvm!();
    let served = Served::start("50ms");
    served.tick_for_ever(TICKING);
    let (mut asleep, mut left) = (0, 0);
    for _ in 0..8 {
        let mut keeper = String::new();
        served.until("there is no keeper", || {
            keeper = served.keeper().unwrap_or_default();
            !keeper.is_empty()
        });
        let tid = thread_of(served.process.pid(), &format!("{keeper}/0")).expect("its thread");
        let stopped = StoppedThread::stop(tid).expect("a child can be traced");
        let sleeps = stopped.system_call() == Some(libc::SYS_futex);
        let mut standing = served.standing();
        asleep += u32::from(sleeps);
        left += u32::from(sleeps && standing.contains(&keeper));
        standing.retain(|name| *name != keeper);
        assert!(
            standing.is_empty(),
            "{standing:?} wait for {keeper}: {}",
            served.ctl(&["stats"]).1
        );
        drop(stopped);
        served.until("it does not come back", || served.standing().is_empty());
    }
    // It may have been called for another reason just then.
    assert!(left * 2 <= asleep, "{left} of {asleep} keepers that slept were left alone");
    assert_eq!(served.ctl(&["quit"]).0, 0);
    let _ = served.process.wait().expect(0);
}
