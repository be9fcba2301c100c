//! The simulation's result for people: figures as rows, modes as columns.
//!
//! Owns the rows. Must not compute figures.

use std::io::{self, Write};

use super::figures::Figures;
use super::report::Report;
use crate::bench::{Figure, short};

/// A label of at most 24 characters, and the figure.
type Row = (&'static str, fn(&Figures) -> Figure);

const ROWS: [Row; 27] = [
    ("ticks expected", |of| count(of.ticks.expected)),
    ("ticks served", |of| count(of.ticks.served)),
    ("- merged, too late", |of| count(of.ticks.merged)),
    ("- pending at the end", |of| count(of.ticks.pending)),
    ("thread wakeups/s", |of| of.thread_wakeups_per_sec),
    ("- with nothing to do", |of| of.stale_wakeups_per_sec),
    ("host idle exits/s", |of| of.host_idle_exits_per_sec),
    ("host timer interrupts/s", |of| of.host_timer_interrupts_per_sec),
    ("kicks/s", |of| of.kicks_per_sec),
    ("lateness p50, us", |of| of.lateness_us.p50),
    ("lateness p99, us", |of| of.lateness_us.p99),
    ("lateness p99.9, us", |of| of.lateness_us.p999),
    ("lateness max, us", |of| of.lateness_us.max),
    ("CPU time/tick, us", |of| of.cpu_us_per_tick),
    ("CPUs used by ticks", |of| of.tick_cpus),
    ("busiest CPU, %", |of| of.busiest_cpu_percent),
    ("CPUs overloaded", |of| count(u64::from(of.overloaded_cpus))),
    ("C-state-eligible time, %", |of| of.cstate_eligible_percent),
    ("left to busy vCPUs, %", |of| of.left_to_busy_percent),
    ("threads that migrate", |of| of.migrators.threads),
    ("- the busiest, %", |of| of.migrators.busiest_percent),
    ("- worst 100 ms, %", |of| of.migrators.peak_percent),
    ("- share used up", |of| of.migrators.relieved),
    ("expired inline", |of| of.expiries.inline),
    ("- by a helper", |of| of.expiries.by_helper),
    ("- on another node", |of| of.expiries.cross_node),
    ("expired, handed off", |of| of.expiries.handed_off),
];

const LEGEND: &str = "\
Counts are of the whole time, all vCPUs together. Nothing was measured: see docs/simulation.md
for what the model leaves out. Busy vCPUs' own work is no cost of the ticks.
";

fn count(count: u64) -> Figure {
    Figure::of(count as f64)
}

/// Writes what was simulated, table, marks and legend.
///
/// # Errors
/// Those of `out`.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let plan = &report.plan;
    if !report.command.is_empty() {
        writeln!(out, "$ {}", report.command)?;
    }
    let rates: Vec<String> = plan.hz.iter().map(u32::to_string).collect();
    writeln!(
        out,
        "{} vCPUs, {} of them busy, the others at {} Hz; --cpus {}, --nodes {}; {} s; seed {}",
        plan.vcpus,
        report.busy,
        rates.join(", "),
        plan.cpus,
        plan.nodes,
        plan.secs,
        plan.seed
    )?;
    writeln!(
        out,
        "--slack {} us, --borrow-share {} %, --borrow-limit {} us, {}--residency {} us",
        plan.slack_ns as f64 / 1e3,
        plan.borrow_share_percent,
        plan.borrow_limit_ns as f64 / 1e3,
        plan.late_goal_ns
            .map_or(String::new(), |ns| format!("--late-goal {} us, ", ns as f64 / 1e3)),
        plan.residency_ns as f64 / 1e3
    )?;
    match &report.costs.file {
        Some(file) => writeln!(out, "costs: {file}")?,
        None => writeln!(out, "costs: built-in defaults, measured on no host (--costs FILE)")?,
    }
    let named: Vec<String> = plan
        .costs
        .named()
        .iter()
        .map(|(name, ns)| format!("{} {}", name.trim_end_matches("_ns"), *ns as f64 / 1e3))
        .collect();
    for part in named.chunks(5) {
        writeln!(out, "       {} us", part.join(", "))?;
    }
    writeln!(out)?;
    rows(report, out)?;
    for mark in &report.marks {
        writeln!(out, "! {mark}")?;
    }
    if !report.marks.is_empty() {
        writeln!(out)?;
    }
    write!(out, "{LEGEND}")
}

fn rows(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut line = |label: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:>8}")).collect();
        writeln!(out, "{label:<24}{cells}")
    };
    let modes = &report.plan.modes;
    line("", modes.iter().map(|mode| mode.name().to_owned()).collect())?;
    for (label, of) in ROWS {
        let cells = modes.iter().map(|mode| report.modes.get(mode.name()));
        line(label, cells.map(|of_mode| short(of_mode.map_or(Figure::UNKNOWN, of))).collect())?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit() {
        for (label, _) in ROWS {
            assert!(label.len() <= 24, "{label}");
        }
    }
}
