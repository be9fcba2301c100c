//! What is drawn: a pure function of a sample, the rates and what the person chose.
//!
//! Owns the layout. Must not know terminals, sockets or clocks.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::rates::{LevelRates, Rates};
use super::ui::{Sort, Ui};
use super::words::{number, time, uptime};
use crate::control::protocol::VmState;
use crate::control::stats::{HierarchyStats, Stats};

/// Lines above the hierarchy.
const HEAD: u16 = 5;
/// Most lines of the hierarchy: seven levels and the keeper.
const MOST_LEVELS: usize = 8;
/// Most migrators that are named on a level's line.
const MOST_NAMES: usize = 8;

const KEYS: &str = "q quit   s sort   arrows, PgUp, PgDn, Home, End scroll";

/// Draws the whole picture.
pub fn draw(frame: &mut Frame<'_>, stats: &Stats, rates: &Rates, ui: &Ui) {
    let levels = levels(stats, rates);
    let [head, tree, table, foot] = areas(frame.area(), levels.len());
    frame.render_widget(Paragraph::new(header(stats, rates)), head);
    frame.render_widget(Paragraph::new(levels), tree);
    let page = usize::from(table.height.saturating_sub(1));
    let order = ui.sort.order(stats, rates);
    let first = ui.first.min(order.len().saturating_sub(page));
    let shown = &order[first..(first + page).min(order.len())];
    frame.render_widget(vms(stats, rates, ui.sort, shown), table);
    let dim = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(Span::styled(KEYS, dim)), foot);
    let place = match shown.len() {
        0 => "no VMs".to_owned(),
        count => format!("{}-{} of {}", first + 1, first + count, order.len()),
    };
    let place = Paragraph::new(Span::styled(place, dim)).alignment(Alignment::Right);
    if usize::from(foot.width) > KEYS.len() + 20 {
        frame.render_widget(place, foot);
    }
}

/// How many VMs fit on a screen of this size.
#[must_use]
pub fn page(area: Rect, stats: &Stats, rates: &Rates) -> usize {
    let [_, _, table, _] = areas(area, levels(stats, rates).len());
    usize::from(table.height.saturating_sub(1))
}

fn areas(area: Rect, levels: usize) -> [Rect; 4] {
    Layout::vertical([
        Constraint::Max(HEAD),
        Constraint::Max(levels as u16 + 1),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(area)
}

fn header(stats: &Stats, rates: &Rates) -> Vec<Line<'static>> {
    let process = &stats.process;
    let all = &rates.all;
    let cpus: usize = stats.vms.iter().map(|vm| vm.vcpus.len()).sum();
    let percent = |value: Option<f64>| format!("{} %", number(value));
    let share = match process.borrow_share_percent {
        100 => "no limit".to_owned(),
        share => format!("{share} %"),
    };
    let title = format!(
        "siesta {}  process {}  up {}  timers {}  inline {}",
        process.version,
        process.pid,
        uptime(process.uptime_ns),
        stats.timers,
        if process.inline { "on" } else { "off" }
    );
    vec![
        Line::styled(title, Style::new().add_modifier(Modifier::BOLD)),
        Line::raw(format!(
            "VMs {} ({} created, {} ended)  vCPUs {cpus}  CPU {}  saved {} wakeups/s, {} in all",
            stats.vms.len(),
            stats.created,
            stats.ended,
            percent(rates.cpu_percent),
            number(all.inline),
            number(Some(stats.totals.inline as f64)),
        )),
        Line::raw(format!(
            "a second: exits {}  inline {}  by helper {}  handed off {}  kicks {}  stale {}  \
             overdue {}  rescued {}",
            number(all.exits),
            number(all.inline),
            number(all.by_helper),
            number(all.handed_off),
            number(all.kicks),
            number(all.stale_timeouts),
            number(all.overdue),
            number(all.rescued),
        )),
        Line::raw(format!(
            "budget: share {share}  lent {}  relieved/s {}  throttled/s {}  limit {}  slack {}",
            percent(all.lent_percent),
            number(all.relieved),
            number(all.throttled),
            time(Some(process.borrow_limit_ns)),
            time(Some(process.slack_ns)),
        )),
        Line::raw(format!(
            "lateness: p50 {}  p99 {}  max {}  goal {}",
            time(rates.p50_ns),
            time(rates.p99_ns),
            time(rates.max_ns),
            time(Some(process.lateness_goal_ns)),
        )),
    ]
}

/// The hierarchy that all share, level by level from the top; or how many there are.
fn levels(stats: &Stats, rates: &Rates) -> Vec<Line<'static>> {
    match (&stats.hierarchies[..], &rates.hierarchies[..]) {
        ([], _) | (_, []) => vec![Line::raw("no timer hierarchy in this mode")],
        ([hierarchy], [rates]) => tree(hierarchy, rates),
        (several, _) => {
            let awake = several.iter().filter(|tree| is_awake(tree)).count();
            let count = several.len();
            vec![Line::raw(format!("{count} hierarchies, one a VM: {awake} with a migrator"))]
        }
    }
}

fn is_awake(hierarchy: &HierarchyStats) -> bool {
    hierarchy.groups.iter().any(|group| group.migrator.is_some())
}

fn tree(hierarchy: &HierarchyStats, rates: &[LevelRates]) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (at, level) in hierarchy.levels.iter().enumerate().rev() {
        let rate = |of: fn(&LevelRates) -> Option<f64>| number(rates.get(at).and_then(of));
        lines.push(Line::raw(format!(
            "level {at}: {:>5} groups  walks/s {:>5}  passes/s {:>5}  expiries/s {:>5}  {}",
            level.groups,
            rate(|level| level.walks),
            rate(|level| level.passes),
            rate(|level| level.expiries),
            migrators(hierarchy, at as u32),
        )));
    }
    lines.truncate(MOST_LEVELS - 1);
    if let Some(keeper) = &hierarchy.keeper {
        lines.push(Line::raw(format!("all are halted; keeper: {keeper}")));
    }
    lines
}

/// Who is migrator of the groups of a level, in the order of the groups.
#[must_use]
pub fn migrators(hierarchy: &HierarchyStats, level: u32) -> String {
    let groups = hierarchy.groups.iter().filter(|group| group.level == level);
    let names: Vec<_> = groups.filter_map(|group| group.migrator.as_ref()).collect();
    if names.is_empty() {
        return "no migrator".to_owned();
    }
    let shown: Vec<_> = names.iter().take(MOST_NAMES).map(ToString::to_string).collect();
    let more = names.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("migrator{} {}{more}", if names.len() == 1 { "" } else { "s" }, shown.join(" "))
}

const COLUMNS: [(&str, Sort); 6] = [
    ("VM", Sort::Vm),
    ("CPU %", Sort::Cpu),
    ("SAVED/s", Sort::Saved),
    ("HANDED/s", Sort::HandedOff),
    ("LATE p50", Sort::P50),
    ("LATE p99", Sort::P99),
];

fn vms<'a>(stats: &'a Stats, rates: &'a Rates, sort: Sort, shown: &[usize]) -> Table<'a> {
    let name = |(name, column): (&str, Sort)| {
        if column == sort { format!("{name}*") } else { name.to_owned() }
    };
    let [vm, cpu, saved, handed, p50, p99] = COLUMNS.map(name);
    let right = |text: String| Line::raw(text).alignment(Alignment::Right);
    let header = Row::new([
        Line::raw(vm),
        Line::raw("STATE"),
        right("VCPUS".to_owned()),
        right(cpu),
        right(saved),
        right(handed),
        right(p50),
        right(p99),
    ])
    .style(Style::new().add_modifier(Modifier::REVERSED));
    let row = |at: &usize| {
        let (vm, rates) = (&stats.vms[*at], rates.vms.get(*at));
        let state = match vm.state {
            VmState::Running => "running",
            VmState::Paused => "paused",
            VmState::Ended => "ended",
        };
        let figure =
            |of: fn(&super::rates::VmRates) -> Option<f64>| right(number(rates.and_then(of)));
        let late = |of: fn(&super::rates::VmRates) -> Option<u64>| right(time(rates.and_then(of)));
        Row::new([
            Line::raw(vm.vm.as_str()),
            Line::raw(state),
            right(vm.vcpus.len().to_string()),
            figure(|vm| vm.cpu_percent),
            figure(|vm| vm.saved),
            figure(|vm| vm.handed_off),
            late(|vm| vm.p50_ns),
            late(|vm| vm.p99_ns),
        ])
    };
    let widths = [
        Constraint::Max(32),
        Constraint::Length(7),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    Table::new(shown.iter().map(row), widths).header(header).column_spacing(1)
}
