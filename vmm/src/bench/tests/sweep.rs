//! The sweep over shares, in virtual time.

use super::*;
use crate::bench::sweep::{SweepReport, sweep};

fn run(plan: &Plan, shares: &[u8]) -> (Result<SweepReport, BenchError>, String, World) {
    let world = World::default();
    let (mut launch, mut instruments, mut progress) = (world.clone(), world.clone(), world.clone());
    let mut out = Vec::new();
    let asked = (plan, shares);
    let result = sweep(&mut launch, &mut instruments, asked, &mut out, &mut progress);
    (result, String::from_utf8(out).expect("the table is text"), world)
}

#[test]
fn shares_and_modes_take_turns() {
    let plan = Plan { modes: vec![Mode::Kernel, Mode::Migrate], ..plan() };
    let (report, table, world) = run(&plan, &[0, 100]);
    let launched = world.launched();
    // The first is the busy guest alone.
    let order: Vec<_> =
        launched[1..].iter().map(|spec| (spec.borrow_share_percent, spec.mode)).collect();
    let once = [(0, Mode::Kernel), (0, Mode::Migrate), (100, Mode::Kernel), (100, Mode::Migrate)];
    assert_eq!(order, [once, once].concat());
    let report = report.expect("goes well");
    assert_eq!(report.shares.len(), 2);
    assert!(report.shares.iter().all(|of| of.runs.len() == 4));
    assert_eq!(report.shares[1].plan.borrow_share_percent, 100);
    assert!(table.is_ascii());
    assert!(table.lines().skip(1).all(|line| line.len() <= 100), "{table}");
    let lines: Vec<_> =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let line = lines.iter().find(|words| words.first() == Some(&"100")).expect("its line");
    assert_eq!(line[1..5], ["1000", "8.00M", "80.0", "1.07"], "{table}");
    assert_eq!(line[5..8], ["0", "8.00M", "5.00"], "{table}");
    assert!(world.shown().0.iter().any(|line| line.starts_with("8/8: 100 %: run 2 of migrate: ")));
}

#[test]
fn each_share_is_a_report_of_its_own_in_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.json");
    run(&Plan { json: Some(path.clone()), ..plan() }, &[25, 50]).0.expect("goes well");
    let text = fs::read_to_string(&path).expect("was written");
    let json: Value = serde_json::from_str(&text).expect("is JSON");
    assert_eq!(json["schema"], "siesta.density-sweep/1");
    assert_eq!(json["borrow_shares_percent"], serde_json::json!([25, 50]));
    assert_eq!(json["shares"][1]["schema"], "siesta.density/1");
    assert_eq!(json["shares"][1]["plan"]["borrow_share_percent"], 50);
    assert!(json["shares"][0]["medians"]["migrate"]["process_cpus"].is_number());
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    let idle = Plan { busy: 0, ..plan() };
    let kernel = Plan { modes: vec![Mode::Kernel], ..plan() };
    let cases: [(&Plan, &[u8], PlanError); 5] = [
        (&plan(), &[], PlanError::NoShares),
        (&plan(), &[25, 101], PlanError::BorrowShare),
        (&plan(), &[25, 5, 25], PlanError::ShareTwice(25)),
        (&idle, &[25], PlanError::NobodysShare),
        (&kernel, &[25], PlanError::ShareOfNoMode),
    ];
    for (plan, shares, why) in cases {
        let (result, table, world) = run(plan, shares);
        match result {
            Err(BenchError::Plan(error)) => assert_eq!(error, why),
            other => panic!("{why}: {other:?}"),
        }
        assert!(table.is_empty() && world.launched().is_empty());
    }
}
