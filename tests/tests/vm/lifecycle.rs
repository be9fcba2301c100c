//! VMs that start, pause, go on and stop while others run.

#![allow(clippy::disallowed_methods)] // a test has to know when a guest stands still

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_images::report::{REPORT_BYTES, Report, report_address};
use siesta_tests::{PATIENCE, guest, needs_kvm};
use vm_memory::{Bytes, GuestAddress};
use vmm::assemble::VmConfig;
use vmm::console::Sink;
use vmm::domain::{Policy, TimerMode};
use vmm::fleet::{Fleet, FleetConfig, Sharing};
use vmm::kvm::Host;
use vmm::probe::Facts;
use vmm::vm::{Outcome, VmShared};

const ALL_MODES: [TimerMode; 3] = [TimerMode::Migrate, TimerMode::Thread, TimerMode::Kernel];

struct Ground {
    host: Host,
    facts: Facts,
}

impl Ground {
    fn new() -> Self {
        let host = vmm::kvm::open().expect("KVM");
        let facts = vmm::probe::run(&host).expect("a probed host");
        Ground { host, facts }
    }

    fn fleet(&self, mode: TimerMode, vms: Vec<(VmConfig, Sink)>, room: u32) -> Fleet {
        let policy = Policy::unmeasured(mode);
        let config = FleetConfig { policy, sharing: Sharing::Host, vms };
        Fleet::launch_with_room(&self.host, &self.facts, config, room).expect("a fleet")
    }

    fn create(&self, fleet: &mut Fleet, (config, sink): (VmConfig, Sink)) -> u32 {
        fleet.create(&self.host, &self.facts, &config, sink, None).expect("a VM")
    }
}

fn with_cpus((config, sink): (VmConfig, Sink), cpus: u32) -> (VmConfig, Sink) {
    (VmConfig { cpus, ..config }, sink)
}

/// `None`: the guest has not begun.
fn report(vm: &VmShared) -> Option<Report> {
    let mut page = [0; REPORT_BYTES];
    vm.memory.read_slice(&mut page, GuestAddress(report_address(0))).expect("it is memory");
    Report::decode(&page)
}

fn report_of(fleet: &Fleet, id: u32) -> Option<Report> {
    report(fleet.vm(id).expect("a VM"))
}

fn ticks(fleet: &Fleet, id: u32) -> u64 {
    report_of(fleet, id).map_or(0, |report| report.ticks)
}

/// Waits for `done`, within the patience of all tests.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The tick guest arms the next point of its grid at each tick: a lost one would stop it for ever, a
/// doubled one would come early.
#[test]
fn no_tick_of_100_000_is_early_lost_or_doubled_while_others_come_go_pause_and_run_wild() {
    needs_kvm!();
    let ground = Ground::new();
    for mode in [TimerMode::Migrate, TimerMode::Thread] {
        let checking = [
            ("hz=5000 secs=20 mode=deadline", 100_000),
            ("hz=500 secs=20 mode=oneshot", 10_000),
            ("hz=250 secs=20 mode=periodic", 5_000),
        ];
        let mut vms: Vec<_> = checking.iter().map(|(line, _)| guest("tick", line)).collect();
        vms.push(guest("busy", ""));
        vms.push(guest("tick", "hz=20000"));
        let mut fleet = ground.fleet(mode, vms, 16);
        let ended = |fleet: &Fleet| fleet.vms()[..checking.len()].iter().all(|vm| vm.has_ended());
        let began = Instant::now();
        let mut rounds = 0;
        while !ended(&fleet) {
            assert!(began.elapsed() < 2 * PATIENCE, "{mode:?}: a tick was lost");
            rounds += 1;
            let others = [
                ground.create(&mut fleet, guest("tick", "hz=1000")),
                ground.create(&mut fleet, with_cpus(guest("ipi", ""), 2)),
                ground.create(&mut fleet, guest("hello", "fault=triple")),
                ground.create(&mut fleet, guest("hello", "fault=cli-hlt")),
                ground.create(&mut fleet, guest("busy", "")),
            ];
            for pause in [0, 1, 4] {
                assert!(
                    fleet.pause(others[pause])
                        || fleet.vm(others[pause]).is_none_or(|vm| vm.has_ended())
                );
            }
            std::thread::sleep(Duration::from_millis(20));
            for paused in [1, 4] {
                let _ = fleet.resume(others[paused]);
            }
            std::thread::sleep(Duration::from_millis(20));
            for other in others {
                fleet.remove(other, || Outcome::Interrupted).expect("it was created");
            }
        }
        assert!(rounds > 10, "{mode:?}: {rounds} rounds");
        for (vm, (line, ticks)) in fleet.vms().iter().zip(&checking) {
            assert!(
                matches!(vm.outcome(), Some(Outcome::PowerOff)),
                "{mode:?}: {line}: {:?}",
                vm.outcome()
            );
            let report = report(vm).expect("it has ended");
            assert_eq!(report.ticks, *ticks, "{mode:?}: {line}");
            // A periodic timer counts the host's clock, which is steered: against the TSC, its grid
            // moves by some microseconds in that time.
            assert!(report.early == 0 || line.contains("periodic"), "{mode:?}: {line}: early");
        }
        fleet.stop(|| Outcome::Interrupted);
    }
}

#[test]
fn paused_guest_stands_still_and_its_periodic_timer_gives_one_interrupt_for_the_pause() {
    needs_kvm!();
    let ground = Ground::new();
    for mode in ALL_MODES {
        let mut fleet = ground.fleet(
            mode,
            vec![guest("tick", "hz=200 mode=periodic"), guest("tick", "hz=200 mode=deadline")],
            2,
        );
        let [periodic, deadline] = [0, 1];
        for id in [periodic, deadline] {
            until("it ticks", || ticks(&fleet, id) > 10);
            assert!(fleet.pause(id) && fleet.is_paused(id));
            assert!(fleet.pause(id), "a pause of a paused one changes nothing");
        }
        let before = [periodic, deadline].map(|id| report_of(&fleet, id).expect("it has begun"));
        std::thread::sleep(Duration::from_millis(500));
        for id in [periodic, deadline] {
            assert_eq!(ticks(&fleet, id), before[id as usize].ticks, "{mode:?}");
            assert!(fleet.resume(id) && !fleet.is_paused(id));
        }
        for id in [periodic, deadline] {
            let seen = before[id as usize].ticks;
            until("it goes on", || ticks(&fleet, id) > seen + 10);
        }
        let [after, other] =
            [periodic, deadline].map(|id| report_of(&fleet, id).expect("it has begun"));
        // 100 ticks of the pause but one; the host may have swallowed more.
        let lost = after.lost - before[0].lost;
        assert!(lost >= 98, "{mode:?}: {lost} of 100 ticks of the pause were swallowed");
        if mode != TimerMode::Kernel {
            assert_eq!((after.early, other.early), (0, 0), "{mode:?}");
        }
        fleet.stop(|| Outcome::Interrupted);
    }
}

#[test]
fn paused_vm_can_be_stopped_and_a_waiting_processor_paused() {
    needs_kvm!();
    let ground = Ground::new();
    for mode in ALL_MODES {
        // Three processors wait for a SIPI that never comes.
        let vms = vec![with_cpus(guest("tick", "hz=100 cpus=1"), 4), guest("tick", "hz=100")];
        let mut fleet = ground.fleet(mode, vms, 5);
        until("it ticks", || ticks(&fleet, 0) > 2);
        assert!(fleet.pause(0) && fleet.resume(0) && fleet.pause(0));
        let vm = fleet.remove(0, || Outcome::Interrupted).expect("a VM");
        assert!(matches!(vm.outcome(), Some(Outcome::Interrupted)));
        assert!(fleet.vm(0).is_none() && !fleet.pause(0) && !fleet.resume(0));
        let seen = ticks(&fleet, 1);
        until("the other one ticks", || ticks(&fleet, 1) > seen + 5);
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("a list").count()
}

/// The names of this process's threads but those of KVM, which are the kernel's business.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("a list").flatten();
    // One that ends just now has no name any more.
    let names = tasks.flat_map(|task| fs::read_to_string(task.path().join("comm")));
    names.filter(|name| !name.starts_with("kvm-")).collect()
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("a file");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Room for no more than the vCPUs of one cycle, so that slots that were not given back would be missed
/// at once. The test runs in a process of its own, where nothing else opens descriptors.
/// `LIFECYCLE_CYCLES` (100) and `LIFECYCLE_VMS` (2, which go on running) make it longer.
#[test]
fn vms_that_come_and_go_leave_nothing_behind() {
    needs_kvm!();
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u32>().expect("a number"))
    };
    let (cycles, staying) = (number("LIFECYCLE_CYCLES", 100), number("LIFECYCLE_VMS", 2));
    if std::env::var_os("SIESTA_LIFECYCLE_CHURN").is_none() {
        let own = std::env::current_exe().expect("this program");
        let mut command = std::process::Command::new(own);
        command.env("SIESTA_LIFECYCLE_CHURN", "1");
        command.args([
            "lifecycle::vms_that_come_and_go_leave_nothing_behind",
            "--exact",
            "--nocapture",
        ]);
        let patience = siesta_tests::PATIENCE * cycles.div_ceil(100).max(1);
        let ended = siesta_tests::Running::start(command).wait_for(patience);
        assert_eq!(ended.status, 0, "{ended:#?}");
        return;
    }
    let ground = Ground::new();
    for mode in ALL_MODES {
        let vms = (0..staying).map(|_| guest("tick", "hz=100")).collect();
        let mut fleet = ground.fleet(mode, vms, staying + 4);
        let cycle = |fleet: &mut Fleet| {
            let vms = [guest("tick", "hz=1000"), with_cpus(guest("ipi", ""), 3)];
            let ids = vms.map(|vm| ground.create(fleet, vm));
            until("it ticks", || ticks(fleet, ids[0]) > 0);
            for id in ids {
                let vm = fleet.remove(id, || Outcome::Interrupted).expect("it was created");
                assert_eq!(Arc::strong_count(&vm), 1, "{mode:?}: somebody still has it");
            }
        };
        (0..20).for_each(|_| cycle(&mut fleet));
        let (fds, resident) = (descriptors(), resident_kib());
        (0..cycles).for_each(|_| cycle(&mut fleet));
        // The event loop closes the last console in its own time.
        until("descriptors are left behind", || descriptors() <= fds);
        let grown = resident_kib().saturating_sub(resident);
        println!("{mode:?}: {grown} KiB more after {cycles} cycles");
        assert!(grown < 2048, "{mode:?}: {grown} KiB more after {cycles} cycles");
        // The test's two, the event loop, the backstop, and the two VMs'. A joined one may be listed for a moment.
        until(&format!("threads are left behind: {:?}", threads()), || {
            threads().len() <= 4 + staying as usize
        });
    }
}
