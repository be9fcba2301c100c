//! Where on the host VMs are: CPUs, scheduling, nodes, huge pages, and vCPUs that stay by themselves.

#![allow(unsafe_code)] // sched_getscheduler, getpriority, and what a child may do
#![allow(clippy::disallowed_methods)] // a test has to know when a process stands still

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use siesta_tests::{PATIENCE, Running, command, image, needs_kvm, siesta};

const MODES: [&str; 3] = ["migrate", "thread", "kernel"];
const HUGE: u64 = 2 << 20;

/// `siesta run` of two vCPUs of which one ticks and one waits to be started, for as long as it takes.
fn ticking(more: &[&str]) -> Command {
    let tick = ["run", "--image", "tick", "--cmdline", "hz=10", "--cpus", "2"];
    command(&[&tick, more].concat())
}

/// The ids of the threads of that name, once there are as many.
fn threads(pid: i32, names: &[&str]) -> Vec<i32> {
    let began = Instant::now();
    loop {
        let found: Vec<_> = names.iter().filter_map(|name| thread(pid, name)).collect();
        if found.len() == names.len() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{pid} has no threads {names:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn thread(pid: i32, name: &str) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks.filter_map(Result::ok).find_map(|task| {
        let called = fs::read_to_string(task.path().join("comm")).ok()?;
        (called.trim_end() == name).then(|| task.file_name().to_str()?.parse().ok())?
    })
}

/// Waits until it is so: a thread has its name before it has its place.
#[track_caller]
fn comes(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn status(tid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

fn nice_of(tid: i32) -> i32 {
    // SAFETY: takes integers only.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, tid as u32) }
}

fn policy_of(tid: i32) -> i32 {
    // SAFETY: takes an integer only.
    unsafe { libc::sched_getscheduler(tid) }
}

/// The process's own CPUs, as the kernel writes them.
fn own_cpus() -> String {
    status(std::process::id() as i32, "Cpus_allowed_list")
}

/// The first CPU of a list.
fn first(list: &str) -> &str {
    list.split([',', '-']).next().expect("a number")
}

#[test]
fn pinned_vcpus_run_on_their_cpus_and_nothing_else_does() {
    needs_kvm!();
    let all = own_cpus();
    let one = first(&all);
    for mode in MODES {
        let running = Running::start(ticking(&["--pin", one, "--nice", "19", "--timers", mode]));
        for tid in threads(running.pid(), &["vm0/0", "vm0/1"]) {
            comes("it is not pinned", || status(tid, "Cpus_allowed_list") == one);
            comes("it is not nice", || nice_of(tid) == 19);
        }
        assert_eq!(status(running.pid(), "Cpus_allowed_list"), all, "the main thread");
        assert_eq!(nice_of(running.pid()), nice_of(0), "the main thread");
        running.signal(libc::SIGTERM);
        let ended = running.wait().expect(130);
        assert!(!ended.stderr.contains("pinned"), "there is no other VM: {ended:#?}");
    }
}

#[test]
fn vcpus_have_their_scheduling_policy() {
    needs_kvm!();
    for (asked, policy) in [("batch", libc::SCHED_BATCH), ("idle", libc::SCHED_IDLE)] {
        let running = Running::start(ticking(&["--sched", asked]));
        for tid in threads(running.pid(), &["vm0/0", "vm0/1"]) {
            comes("it has another policy", || policy_of(tid) == policy);
        }
        assert_eq!(policy_of(running.pid()), policy_of(0), "the main thread");
    }
    for (asked, policy) in [("fifo:1", libc::SCHED_FIFO), ("rr:1", libc::SCHED_RR)] {
        let arguments = ["--cmdline", "hz=100 secs=1", "--sched", asked, "--timeout", "60"];
        let running =
            Running::start(command(&[&["run", "--image", "tick"], &arguments[..]].concat()));
        let mut seen = false;
        let began = Instant::now();
        while !seen && began.elapsed() < PATIENCE {
            match thread(running.pid(), "vm0/0") {
                Some(tid) => seen = policy_of(tid) == policy,
                None if fs::read_to_string(format!("/proc/{}/comm", running.pid())).is_err() => {
                    break;
                }
                None => {}
            }
            if status(running.pid(), "State").starts_with('Z') {
                break;
            }
        }
        let ended = running.wait();
        if ended.stderr.contains("not permitted") {
            eprintln!("skipped: no permission for {asked}");
            continue;
        }
        assert!(seen, "{asked}: {:#?}", ended.expect(0));
    }
}

/// A child without CAP_SYS_NICE and without the limits that stand in for it.
fn without_permission(arguments: &[&str]) -> Command {
    const CAP_SYS_NICE: libc::c_ulong = 23;
    let mut command = command(arguments);
    let child = || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: async-signal-safe system calls on integers and a structure that lives. Who may not
        // drop the capability has none.
        unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0);
            libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const none);
            libc::setrlimit(libc::RLIMIT_NICE, &raw const none);
        }
        Ok(())
    };
    // SAFETY: the closure makes async-signal-safe calls alone.
    unsafe { command.pre_exec(child) };
    command
}

#[test]
fn missing_permission_is_one_line_and_starts_nothing() {
    needs_kvm!();
    for mode in MODES {
        for (option, parts) in [
            (["--sched", "fifo:10"], ["--sched fifo:10", "CAP_SYS_NICE", "RLIMIT_RTPRIO"]),
            (["--nice", "-5"], ["--nice -5", "CAP_SYS_NICE", "RLIMIT_NICE"]),
        ] {
            let hello =
                ["run", "--image", "hello", "--cpus", "3", "--count", "2", "--timers", mode];
            let command = without_permission(&[&hello, &option[..]].concat());
            let ended = Running::start(command).wait().expect(2);
            ended.one_line(&parts);
            assert!(ended.stdout.is_empty(), "a guest has run: {ended:#?}");
        }
    }
}

#[test]
fn refused_vm_leaves_nothing_behind_in_a_running_process() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control");
    let socket = socket.to_str().expect("a plain name");
    let served = Running::start(without_permission(&["serve", "--control", socket]));
    comes("it does not listen", || fs::exists(socket).is_ok_and(|there| there));
    let ctl = |arguments: &[&str]| siesta(&[&["ctl", "--control", socket], arguments].concat());
    comes("it does not answer", || ctl(&["list"]).status == 0);
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", served.pid())).map_or(0, Iterator::count);
    let create = |more: &[&str]| {
        ctl(&[&["create", "--image", "tick", "--cpus", "2", "--count", "2"], more].concat())
    };
    for (more, part) in [
        (&["--sched", "rr:1"][..], "RLIMIT_RTPRIO"),
        (&["--nice", "-1"], "RLIMIT_NICE"),
        (&["--pin", "65535"], "CPU 65535"),
        (&["--numa", "99"], "node 99"),
        (&["--isolate", "2"], "no vCPU 2"),
        (&["--memory", "65M", "--hugepages"], "--memory 66M"),
    ] {
        create(more).expect(2).one_line(&["siesta: ", part]);
    }
    let before = descriptors();
    for _ in 0..10 {
        create(&["--sched", "rr:1"]).expect(2).one_line(&["rr:1"]);
    }
    comes("descriptors are left behind", || descriptors() <= before);
    assert_eq!(thread(served.pid(), "vm0/0"), None);
    let list = ctl(&["list"]).expect(0).stdout;
    assert_eq!(list.lines().count(), 1, "no VM has been: {list}");
    // And it still makes VMs.
    let _ = create(&["--nice", "19", "--name", "good"]).expect(0);
    for tid in threads(served.pid(), &["good-0/0", "good-0/1", "good-1/0", "good-1/1"]) {
        assert_eq!(nice_of(tid), 19, "when the answer comes, it is so");
    }
    let _ = ctl(&["quit"]).expect(0);
    let _ = served.wait().expect(0);
}

#[test]
fn bad_placement_is_one_line_and_status_2() {
    needs_kvm!();
    for (arguments, parts) in [
        (&["--pin", "65535"][..], &["--pin 65535", "may run on CPUs"][..]),
        (&["--pin", ""], &["--pin"]),
        (&["--pin", "3-1"], &["--pin", "ranges"]),
        (&["--pin", "70000"], &["--pin", "65535"]),
        (&["--numa", "99"], &["--numa 99", "nodes 0"]),
        (&["--numa", "x"], &["--numa"]),
        (&["--sched", "fifo"], &["--sched", "fifo:PRIO"]),
        (&["--sched", "fifo:100"], &["--sched", "1 to 99"]),
        (&["--sched", "fifo:1", "--nice", "1"], &["--nice 1", "no effect", "leave one"]),
        (&["--nice", "20"], &["--nice"]),
        (&["--nice", "-21"], &["--nice"]),
        (&["--hugepages=4M"], &["--hugepages", "2M or 1G"]),
        (&["--hugepages", "--memory", "65M"], &["--hugepages 2M", "--memory 66M"]),
        (&["--hugepages=1G", "--memory", "64M"], &["--hugepages 1G", "--memory 1024M"]),
        (&["--isolate", "2", "--cpus", "2"], &["--isolate 2", "has 2", "from 0"]),
        (&["--isolate", "some"], &["--isolate"]),
    ] {
        let ended = siesta(&[&["run", "--image", "hello"], arguments].concat()).expect(2);
        ended.one_line(parts);
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
}

#[test]
fn memory_is_bound_to_its_node() {
    needs_kvm!();
    let running = Running::start(ticking(&["--numa", "0", "--memory", "48M"]));
    let _ = threads(running.pid(), &["vm0/0"]);
    let maps = format!("/proc/{}/numa_maps", running.pid());
    if fs::read_to_string(&maps).is_err() {
        return eprintln!("skipped: a kernel without NUMA");
    }
    // The boot structures alone are some pages; all are of node 0, as it is the only one here.
    comes("it is not bound", || {
        let maps = fs::read_to_string(&maps).unwrap_or_default();
        maps.lines().any(|line| line.contains(" bind:0 ") && line.contains(" anon="))
    });
}

/// The host's pool of huge pages, restored at the end.
struct Pool {
    before: String,
}

impl Pool {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    /// `None`: it may not be changed, or the host has not as many.
    fn enlarge(by: u64) -> Option<Self> {
        let before = fs::read_to_string(Self::FILE).ok()?;
        let wanted = before.trim().parse::<u64>().ok()? + by;
        fs::write(Self::FILE, wanted.to_string()).ok()?;
        let pool = Pool { before };
        let now = fs::read_to_string(Self::FILE).ok()?;
        (now.trim().parse() == Ok(wanted)).then_some(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = fs::write(Self::FILE, &self.before);
    }
}

/// Pages of 2 MiB that are there for a VM.
fn free_pages() -> Option<u64> {
    let count = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    Some(count("free_hugepages")? - count("resv_hugepages")?)
}

#[test]
fn memory_is_made_of_huge_pages_if_the_pool_has_as_many() {
    needs_kvm!();
    let Some(free) = free_pages() else {
        return eprintln!("skipped: no huge pages of 2 MiB here");
    };
    let memory = format!("{}M", ((free + 8) * HUGE) >> 20);
    let hello = |more: &[&str]| siesta(&[&["run", "--image", "hello"], more].concat());
    let ended = hello(&["--hugepages", "--memory", &memory]).expect(2);
    ended.one_line(&[&format!("{} pages are needed, {free} are free", free + 8), Pool::FILE]);
    let Some(_pool) = Pool::enlarge(64) else {
        return eprintln!("skipped: no permission, or no room, for a larger pool");
    };
    for mode in MODES {
        let arguments = ["--hugepages", "--numa", "0", "--memory", "32M", "--timers", mode];
        assert_eq!(hello(&arguments).expect(0).stdout, hello(&[]).stdout);
    }
    let running = Running::start(ticking(&["--hugepages=2M", "--memory", "32M"]));
    let _ = threads(running.pid(), &["vm0/0"]);
    // All are taken before the guest runs.
    assert_eq!(free_pages(), Some(free + 64 - 16));
    running.signal(libc::SIGTERM);
    let _ = running.wait().expect(130);
    assert_eq!(free_pages(), Some(free + 64));
}

#[test]
fn isolated_vcpus_run_in_every_mode() {
    needs_kvm!();
    for mode in MODES {
        for isolate in ["all", "0", "1-2"] {
            let more = ["--cpus", "3", "--isolate", isolate, "--timers", mode];
            let ended = image("ipi", "cpus=3 rounds=50", &more).expect(0);
            assert!(!ended.stdout.is_empty(), "{ended:#?}");
        }
    }
}

/// A pinned VM whose halted vCPUs others may run says so, once, and what would keep it.
#[test]
fn pinned_vm_beside_others_says_that_it_may_leave_its_cpus() {
    needs_kvm!();
    let all = own_cpus();
    let pin = ["--pin", first(&all)];
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control");
    let socket = socket.to_str().expect("a plain name");
    for (serve, isolate, warnings) in [
        (&[][..], &[][..], 1),
        (&[], &["--isolate", "all"], 0),
        (&["--share", "vm"], &[], 0),
        (&["--timers", "thread"], &[], 0),
    ] {
        let served = Running::start(command(&[&["serve", "--control", socket], serve].concat()));
        let ctl = |arguments: &[&str]| siesta(&[&["ctl", "--control", socket], arguments].concat());
        comes("it does not answer", || ctl(&["list"]).status == 0);
        let tick = ["create", "--image", "tick", "--count", "2"];
        let _ = ctl(&[&tick, &pin[..], isolate].concat()).expect(0);
        let _ = ctl(&["quit"]).expect(0);
        let said = served.wait().expect(0).stderr;
        assert_eq!(said.matches("isolate it").count(), warnings, "{serve:?} {isolate:?}: {said}");
    }
}
