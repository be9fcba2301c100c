//! The benchmark's result for people: figures as rows, modes as columns, 100 columns at most.
//!
//! Owns the rows and the form of numbers. Must not compute figures.

use std::io::{self, Write};

use super::figures::{Figure, Figures, GroupFigures, LevelFigures};
use super::host::HostFacts;
use super::launch::{Mode, TickMode};
use super::plan::Plan;
use super::report::Report;

/// A label of at most 20 characters, and the figure.
type Row = (&'static str, fn(&Figures) -> Figure);

const ROWS: [Row; 23] = [
    ("ticks delivered", |of| of.ticks.delivered),
    ("ticks expected", |of| of.ticks.expected),
    ("thread wakeups/s", |of| of.thread_wakeups_per_sec),
    ("invol. switches/s", |of| of.involuntary_switches_per_sec),
    ("host idle entries/s", |of| of.host_idle_entries_per_sec),
    ("host timer interr./s", |of| of.host_timer_interrupts_per_sec),
    ("CPU time/tick, us", |of| of.cpu_us_per_tick),
    ("CPUs used", |of| of.process_cpus),
    ("lateness p50, us", |of| of.lateness_us.p50),
    ("lateness p99, us", |of| of.lateness_us.p99),
    ("lateness max, us", |of| of.lateness_us.max),
    ("busy rounds/s", |of| of.busy_progress_per_sec),
    ("busy rounds/CPU-s", |of| of.busy_progress_per_cpu_sec),
    ("expired inline", |of| of.expiries.inline),
    ("- by a helper", |of| of.expiries.by_helper),
    ("expired, handed off", |of| of.expiries.handed_off),
    ("kicks sent", |of| of.kicks),
    ("PSS/VM, KiB", |of| of.pss_kib_per_vm),
    ("fds/VM", |of| of.fds_per_vm),
    ("threads/VM", |of| of.threads_per_vm),
    ("boot, ms", |of| of.boot_ms),
    ("CPU of others, %", |of| percent(of.foreign_cpu_share)),
    ("CPU stolen, %", |of| percent(of.stolen_cpu_share)),
];

/// The end of a label, and the figure of one level.
type LevelRow = (&'static str, fn(&LevelFigures) -> Figure);

const LEVEL_ROWS: [LevelRow; 3] =
    [("walks", |of| of.walks), ("passes", |of| of.passes), ("expiries", |of| of.expiries)];

/// The end of a label of at most 20 characters, and the figure of one rate.
type GroupRow = (&'static str, fn(&GroupFigures) -> Figure);

const GROUP_ROWS: [GroupRow; 3] = [
    ("delivered", |of| of.ticks.delivered),
    ("expected", |of| of.ticks.expected),
    ("p99, us", |of| of.lateness_us.p99),
];

const LEGEND: &str = "\
Median of the runs (least..greatest). Counts are of one interval, all guests together.
CPU time/tick leaves out the busy guests' work, at the speed of a busy guest alone.
Lateness is what the guests saw, from the tick's deadline to its handler.
thr/k, mig/k: thread and migrate as multiples of kernel.
";

/// Writes what every table begins with: the command, if it is known, and the host.
pub(super) fn opening(command: &str, host: &HostFacts, out: &mut dyn Write) -> io::Result<()> {
    if !command.is_empty() {
        writeln!(out, "$ {command}")?;
    }
    writeln!(out, "{}", host.lines())
}

/// Writes facts, table, marks and legend.
///
/// # Errors
/// Those of `out`.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let plan = &report.plan;
    opening(&report.command, &report.host, out)?;
    writeln!(
        out,
        "{}; {} s, {} times; seed {}; --timer-slack {} us, --borrow-share {} %",
        guests(plan),
        plan.secs,
        plan.repeat,
        plan.seed,
        plan.slack_ns as f64 / 1e3,
        plan.borrow_share_percent,
    )?;
    if report.busy_alone_per_cpu_sec != Figure::UNKNOWN {
        writeln!(out, "a busy guest alone: {} rounds/CPU-s", short(report.busy_alone_per_cpu_sec))?;
    }
    writeln!(out)?;
    for line in lay_out(&cells(report), plan.modes.len()) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    for mark in &report.marks {
        writeln!(out, "! {mark}")?;
    }
    if !report.marks.is_empty() {
        writeln!(out)?;
    }
    write!(out, "{LEGEND}")
}

/// Which guests a plan has.
pub(super) fn guests(plan: &Plan) -> String {
    let tick = match plan.tick {
        TickMode::Auto => String::new(),
        tick => format!(", {}", tick.name()),
    };
    let rates = plan.rates.text();
    format!("{} idle guests at {rates} Hz{tick}, {} busy", plan.rates.vms(), plan.busy)
}

/// All cells: a label, a median and a spread for each mode, and the ratios.
fn cells(report: &Report) -> Vec<Vec<String>> {
    let modes = &report.plan.modes;
    let ratios = ratio_modes(modes);
    let mut header = vec![String::new()];
    for mode in modes {
        header.extend([mode.name().to_owned(), String::new()]);
    }
    header.extend(ratios.iter().map(|mode| format!("{:.3}/k", mode.name())));
    let mut table = vec![header];
    let mut row = |label: String, of: &dyn Fn(&Figures) -> Figure| {
        let median = |mode: &Mode| report.medians.get(mode.name()).map_or(Figure::UNKNOWN, of);
        let mut cells = vec![label];
        for mode in modes {
            let spread = report.spread.get(mode.name());
            let ends = spread.map(|spread| (short(of(&spread.min)), short(of(&spread.max))));
            let ends = ends.filter(|(min, max)| min != max);
            let spread = ends.map(|(min, max)| format!("({min}..{max})")).unwrap_or_default();
            cells.extend([short(median(mode)), spread]);
        }
        cells.extend(ratios.iter().map(|mode| ratio(median(mode), median(&Mode::Kernel))));
        table.push(cells);
    };
    let busy = report.plan.busy > 0;
    for (label, of) in ROWS.into_iter().filter(|(label, _)| busy || !label.starts_with("busy")) {
        row(label.to_owned(), &of);
    }
    if report.plan.tick == TickMode::Periodic {
        row("ticks lost".to_owned(), &|of| of.ticks.lost);
    }
    let rates = report.plan.rates.groups();
    for (group, rate) in rates.iter().enumerate().filter(|_| rates.len() > 1) {
        for (label, of) in GROUP_ROWS {
            let of = |figures: &Figures| figures.groups.get(group).map_or(Figure::UNKNOWN, of);
            row(format!("{} Hz {label}", rate.hz), &of);
        }
    }
    let depth = report.medians.values().map(|of| of.levels.len()).max().unwrap_or(0);
    for level in 0..depth {
        for (label, of) in LEVEL_ROWS {
            let of = |figures: &Figures| figures.levels.get(level).map_or(Figure::UNKNOWN, of);
            row(format!("level {level} {label}"), &of);
        }
    }
    table
}

/// The modes to be compared with `kernel`, if that is there, in the plan's order.
fn ratio_modes(modes: &[Mode]) -> Vec<Mode> {
    let others = modes.iter().copied().filter(|&mode| mode != Mode::Kernel);
    if modes.contains(&Mode::Kernel) { others.collect() } else { Vec::new() }
}

/// Lines of equal columns: labels and spreads to the left, numbers to the right.
fn lay_out(table: &[Vec<String>], modes: usize) -> Vec<String> {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let spread = column > 0 && column % 2 == 0 && column <= 2 * modes;
            if column > 0 && width > 0 {
                line.push_str(if spread || column > 2 * modes { " " } else { "  " });
            }
            if column == 0 || spread {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&format!("{cell:>width$}"));
            }
        }
        line.trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

fn percent(share: Figure) -> Figure {
    Figure::maybe(share.get().map(|share| share * 100.0))
}

fn ratio(figure: Figure, kernel: Figure) -> String {
    let known = figure.get().zip(kernel.get()).filter(|&(_, kernel)| kernel != 0.0);
    short(Figure::maybe(known.map(|(figure, kernel)| figure / kernel)))
}

/// A number in at most five characters, one more for a sign; `-` if it is unknown.
pub(crate) fn short(figure: Figure) -> String {
    let Some(value) = figure.get() else {
        return "-".to_owned();
    };
    let size = value.abs();
    for (limit, digits) in [(0.005, 0), (9.995, 2), (99.95, 1), (9_999.5, 0)] {
        if size < limit {
            let text = format!("{value:.digits$}");
            return if text == "-0" { "0".to_owned() } else { text };
        }
    }
    for (unit, name) in [(1e3, 'k'), (1e6, 'M'), (1e9, 'G'), (1e12, 'T')] {
        for (limit, digits) in [(9.995, 2), (99.95, 1), (999.5, 0)] {
            if size / unit < limit {
                return format!("{:.digits$}{name}", value / unit);
            }
        }
    }
    format!("{value:.0e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_at_most_five_characters() {
        let cases = [
            (0.0, "0"),
            (0.001, "0"),
            (-0.001, "0"),
            (0.0149, "0.01"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (99.96, "100"),
            (6_402.4, "6402"),
            (9_999.6, "10.0k"),
            (12_345.0, "12.3k"),
            (999_499.0, "999k"),
            (999_600.0, "1.00M"),
            (1.234e9, "1.23G"),
            (-84.25, "-84.2"),
            (1e300, "1e300"),
        ];
        for (value, text) in cases {
            assert_eq!(short(Figure::of(value)), text, "{value}");
            assert!(text.trim_start_matches('-').len() <= 5, "{text}");
        }
        assert_eq!(short(Figure::UNKNOWN), "-");
    }

    #[test]
    fn a_ratio_to_nothing_is_unknown() {
        assert_eq!(ratio(Figure::of(3.0), Figure::of(4.0)), "0.75");
        assert_eq!(ratio(Figure::of(0.0), Figure::of(4.0)), "0");
        assert_eq!(ratio(Figure::of(3.0), Figure::of(0.0)), "-");
        assert_eq!(ratio(Figure::UNKNOWN, Figure::of(4.0)), "-");
    }

    #[test]
    fn only_kernel_is_compared_with() {
        use Mode::{Kernel, Migrate, Thread};
        assert_eq!(ratio_modes(&[Migrate, Kernel, Thread]), [Migrate, Thread]);
        assert_eq!(ratio_modes(&[Kernel]), []);
        assert_eq!(ratio_modes(&[Migrate, Thread]), []);
    }

    #[test]
    fn the_widest_table_has_100_columns() {
        let mut row = vec!["x".repeat(20)];
        for _ in 0..3 {
            row.extend(["12.3k".to_owned(), "(12.3k..12.3k)".to_owned()]);
        }
        row.extend(["12.3k".to_owned(), "12.3k".to_owned()]);
        let mut header = vec![String::new(); 9];
        header[5] = "migrate".to_owned();
        let lines = lay_out(&[header, row], 3);
        assert_eq!(lines[1].len(), 100, "{}", lines[1]);
    }

    #[test]
    fn labels_fit() {
        for (label, _) in ROWS {
            assert!(label.len() <= 20, "{label}");
        }
    }
}
