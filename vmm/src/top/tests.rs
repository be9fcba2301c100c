//! Two samples in, numbers and a picture out.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::rates::{Rates, between};
use super::ui::{Sort, Ui};
use super::view;
use crate::control::protocol::VmState;
use crate::control::stats::{
    Counters, GroupStats, HierarchyStats, LatenessStats, LevelStats, ProcessStats, SCHEMA, Stats,
    VcpuName, VcpuStats, VmStats,
};

const SECOND: u64 = 1_000_000_000;

fn vcpu(cpu_ms: u64, counters: Counters) -> VcpuStats {
    VcpuStats {
        state: "parked".into(),
        thread: "asleep".into(),
        slot: 1,
        isolated: false,
        cpu_ns: Some(cpu_ms * 1_000_000),
        counters,
    }
}

fn late(buckets: &[(u64, u64)], max_ns: u64) -> LatenessStats {
    let count = buckets.iter().map(|(_, count)| count).sum();
    LatenessStats { count, max_ns: Some(max_ns), buckets: buckets.to_vec(), ..Default::default() }
}

fn vm(id: u32, name: &str, vcpus: Vec<VcpuStats>, lateness: LatenessStats) -> VmStats {
    VmStats {
        id,
        vm: name.into(),
        state: VmState::Running,
        uptime_ns: 5 * SECOND,
        memory: 64 << 20,
        unknown_msrs: 0,
        absent_devices: 0,
        lateness,
        balloon: None,
        vcpus,
    }
}

fn group(id: u32, level: u32, parent: Option<u32>, migrator: Option<&str>) -> GroupStats {
    let migrator = migrator.map(|vm| VcpuName { vm: vm.into(), vcpu: 0 });
    GroupStats { id, level, parent, migrator, children: 8, active: 1, next_ns: None }
}

fn hierarchy(walks: u64, top: Option<&str>) -> HierarchyStats {
    let level = |groups, walks| LevelStats { groups, walks, ..LevelStats::default() };
    HierarchyStats {
        vm: None,
        notices: 0,
        stalls: 0,
        keeper: None,
        levels: vec![level(2, walks), level(1, 0)],
        groups: vec![
            group(0, 0, Some(2), top),
            group(1, 0, Some(2), Some("idle-7")),
            group(2, 1, None, top),
        ],
    }
}

/// A busy VM that serves an idle one, after `seconds`.
fn sample(seconds: u64) -> Stats {
    let served = seconds * 100;
    let busy = Counters {
        exits: seconds * 250,
        inline: served,
        handed_off: seconds * 3,
        lent_ns: seconds * SECOND / 4,
        ..Counters::default()
    };
    let idle = Counters { served, served_ns: seconds * SECOND / 4, ..Counters::default() };
    let mut totals = busy;
    totals.add(&idle);
    Stats {
        schema: SCHEMA.into(),
        at_ns: 1_000 + seconds * SECOND,
        timers: "migrate".into(),
        process: ProcessStats {
            pid: 4321,
            version: "0.1.0".into(),
            uptime_ns: seconds * SECOND,
            cpu_ns: seconds * SECOND * 9 / 10,
            inline: true,
            slack_ns: 0,
            borrow_limit_ns: 100_000,
            borrow_share_percent: 25,
            lateness_goal_ns: 5_000_000,
        },
        created: 3,
        ended: 1,
        totals,
        lateness: LatenessStats::default(),
        vms: vec![
            vm(0, "idle", vec![vcpu(seconds, idle)], late(&[(40_959, served)], 40_000)),
            vm(2, "busy", vec![vcpu(seconds * 900, busy)], LatenessStats::default()),
        ],
        levels: Vec::new(),
        hierarchies: vec![hierarchy(seconds * 50, Some("busy"))],
    }
}

fn picture(width: u16, height: u16, stats: &Stats, rates: &Rates, ui: &Ui) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| view::draw(frame, stats, rates, ui)).expect("it draws");
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

/// The words of the line that begins with `start`.
#[track_caller]
fn words<'a>(lines: &'a [String], start: &str) -> Vec<&'a str> {
    let line = lines.iter().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("no '{start}' in {lines:#?}")).split_whitespace().collect()
}

#[test]
fn rates_are_differences_over_the_time_between_the_samples() {
    let rates = between(Some(&sample(4)), &sample(6));
    assert_eq!(rates.cpu_percent, Some(90.0));
    assert_eq!((rates.all.exits, rates.all.inline), (Some(250.0), Some(100.0)));
    assert_eq!((rates.all.handed_off, rates.all.lent_percent), (Some(3.0), Some(25.0)));
    let [idle, busy] = &rates.vms[..] else { panic!("{rates:?}") };
    assert_eq!((idle.saved, busy.saved), (Some(100.0), Some(0.0)));
    let cpu = |percent: Option<f64>| (percent.expect("known") * 10.0).round();
    assert_eq!(cpu(idle.cpu_percent), 251.0, "what it was given counts");
    assert_eq!(cpu(busy.cpu_percent), 650.0, "what it lent does not");
    assert_eq!((idle.p50_ns, idle.p99_ns), (Some(40_000), Some(40_000)));
    assert_eq!((busy.p50_ns, rates.max_ns), (None, Some(40_000)));
    assert_eq!(rates.hierarchies[0][0].walks, Some(50.0));
}

#[test]
fn nothing_is_known_from_one_sample_or_at_the_same_time() {
    for before in [None, Some(sample(3))] {
        let rates = between(before.as_ref(), &sample(3));
        assert_eq!((rates.all.exits, rates.cpu_percent, rates.p99_ns), (None, None, None));
        assert!(rates.vms.iter().all(|vm| vm.cpu_percent.is_none() && vm.p50_ns.is_none()));
    }
}

#[test]
fn lateness_is_that_between_the_samples() {
    let (mut before, mut after) = (sample(1), sample(2));
    before.vms[0].lateness = late(&[(1_023, 1_000), (8_191, 5)], 8_000);
    after.vms[0].lateness = late(&[(1_023, 1_000), (2_047, 98), (8_191, 7)], 8_000);
    let rates = between(Some(&before), &after);
    assert_eq!((rates.p50_ns, rates.p99_ns, rates.max_ns), (Some(2_047), Some(8_000), Some(8_000)));
}

#[test]
fn vms_that_come_and_go_are_told_apart_by_their_numbers() {
    let (before, mut after) = (sample(4), sample(5));
    let fresh = Counters { exits: 7, served: 20, ..Counters::default() };
    // Another one of the same name in the place of the one that went.
    after.vms[0] = vm(3, "idle", vec![vcpu(10, fresh)], late(&[(1_023, 20)], 1_000));
    let rates = between(Some(&before), &after);
    assert_eq!((rates.vms[0].saved, rates.all.exits), (Some(20.0), Some(257.0)));
    assert_eq!(rates.vms[0].p50_ns, Some(1_000));
}

#[test]
fn counters_of_another_process_or_that_go_back_do_no_harm() {
    let (mut before, after) = (sample(9), sample(5));
    before.at_ns = 3;
    let rates = between(Some(&before), &after);
    assert_eq!((rates.all.exits, rates.vms[0].saved), (Some(0.0), Some(0.0)));
    before.process.pid = 1;
    assert_eq!(between(Some(&before), &after).all.exits, None);
    let mut wild = sample(5);
    wild.at_ns = u64::MAX;
    for vm in &mut wild.vms {
        vm.vcpus[0].cpu_ns = Some(u64::MAX);
        vm.vcpus[0].counters.served_ns = u64::MAX;
        vm.lateness = late(&[(u64::MAX, 1 << 62), (7, 1 << 62)], u64::MAX);
    }
    let rates = between(Some(&after), &wild);
    let _ = picture(80, 24, &wild, &rates, &Ui::default());
}

#[test]
fn picture_has_process_rates_budget_lateness_migrators_and_vms() {
    let (before, after) = (sample(4), sample(6));
    let rates = between(Some(&before), &after);
    let lines = picture(120, 20, &after, &rates, &Ui::default());
    let title = "siesta 0.1.0  process 4321  up 6 s  timers migrate  inline on";
    assert_eq!(lines[0], title);
    for part in [
        "VMs 2 (3 created, 1 ended)  vCPUs 2  CPU 90.0 %  saved 100 wakeups/s, 600 in all",
        "a second: exits 250  inline 100  by helper 0  handed off 3.00",
        "budget: share 25 %  lent 25.0 %  relieved/s 0  throttled/s 0  limit 100 us  slack 0 ns",
        "lateness: p50 40.0 us  p99 40.0 us  max 40.0 us  goal 5.00 ms",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "no '{part}' in {lines:#?}");
    }
    assert!(
        lines[5].starts_with("level 1:") && lines[5].ends_with("migrator busy/0"),
        "{lines:#?}"
    );
    assert!(lines[6].ends_with("migrators busy/0 idle-7/0"), "{lines:#?}");
    assert_eq!(words(&lines, "level 0:")[2..6], ["2", "groups", "walks/s", "50.0"]);
    let header = words(&lines, "VM*");
    assert_eq!(header[..5], ["VM*", "STATE", "VCPUS", "CPU", "%"]);
    let idle = words(&lines, "idle ");
    assert_eq!(idle, ["idle", "running", "1", "25.1", "100", "0", "40.0", "us", "40.0", "us"]);
    let busy = words(&lines, "busy ");
    assert_eq!(busy, ["busy", "running", "1", "65.0", "0", "3.00", "-", "-"]);
    assert!(lines[19].starts_with("q quit") && lines[19].ends_with("1-2 of 2"), "{lines:#?}");
}

#[test]
fn keeper_is_named_and_other_modes_have_no_hierarchy() {
    let mut stats = sample(2);
    stats.hierarchies[0] = hierarchy(3, None);
    stats.hierarchies[0].groups[1].migrator = None;
    stats.hierarchies[0].keeper = Some(VcpuName { vm: "idle".into(), vcpu: 3 });
    let lines = picture(120, 20, &stats, &between(None, &stats), &Ui::default());
    assert!(lines.contains(&"all are halted; keeper: idle/3".to_owned()), "{lines:#?}");
    assert!(lines[5].ends_with("no migrator"), "{lines:#?}");
    stats.hierarchies = vec![hierarchy(1, Some("a")), hierarchy(1, Some("b"))];
    let lines = picture(120, 20, &stats, &between(None, &stats), &Ui::default());
    assert_eq!(lines[5], "2 hierarchies, one a VM: 2 with a migrator");
    stats.hierarchies.clear();
    let lines = picture(120, 20, &stats, &between(None, &stats), &Ui::default());
    assert_eq!(lines[5], "no timer hierarchy in this mode");
}

/// So many VMs, of which the later ones take more CPU time.
fn many(count: u32, seconds: u64) -> Stats {
    let mut stats = sample(seconds);
    stats.vms = (0..count)
        .map(|id| {
            let vcpu = vcpu(u64::from(id) * seconds, Counters::default());
            vm(id, &format!("vm{id}"), vec![vcpu], LatenessStats::default())
        })
        .collect();
    stats
}

#[test]
fn list_is_scrolled_and_ordered() {
    let (before, after) = (many(50, 1), many(50, 2));
    let rates = between(Some(&before), &after);
    let show = |ui: &Ui| picture(100, 20, &after, &rates, ui);
    let names = |lines: &[String]| -> Vec<String> {
        let names = lines.iter().filter(|line| line.starts_with("vm"));
        names.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let all = names(&show(&Ui::default()));
    let area = ratatui::layout::Rect::new(0, 0, 100, 20);
    let page = view::page(area, &after, &rates);
    assert_eq!((all.len(), all[0].as_str()), (page, "vm0"));
    assert!(page >= 8, "{page}");
    let ui = Ui { first: 7, ..Ui::default() };
    assert_eq!(names(&show(&ui))[0], "vm7");
    let ui = Ui { first: 1_000, ..Ui::default() };
    let end = show(&ui);
    assert_eq!(names(&end).last().map(String::as_str), Some("vm49"));
    assert_eq!(names(&end).len(), page, "the last page is full");
    assert!(end.iter().any(|line| line.ends_with(&format!("{}-50 of 50", 51 - page))), "{end:#?}");
    let ui = Ui { sort: Sort::Cpu, ..Ui::default() };
    let by_cpu = show(&ui);
    assert_eq!(names(&by_cpu)[..3], ["vm49", "vm48", "vm47"]);
    assert!(by_cpu.iter().any(|line| line.contains("CPU %*")), "{by_cpu:#?}");
}

#[test]
fn screen_of_any_size_is_drawn() {
    let (before, after) = (many(30, 1), many(30, 2));
    let rates = between(Some(&before), &after);
    for (width, height) in [(1, 1), (10, 3), (20, 8), (40, 11), (80, 24), (300, 100)] {
        let lines = picture(width, height, &after, &rates, &Ui { first: 5, ..Ui::default() });
        assert_eq!(lines.len(), usize::from(height));
    }
    let small = picture(80, 12, &after, &rates, &Ui::default());
    assert!(words(&small, "vm0")[0] == "vm0", "VMs are seen on a small screen: {small:#?}");
    let nothing = many(0, 2);
    let lines = picture(100, 20, &nothing, &between(None, &nothing), &Ui::default());
    assert!(lines.iter().any(|line| line.ends_with("no VMs")), "{lines:#?}");
}
