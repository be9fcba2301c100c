//! The simulation's result and its form in JSON.
//!
//! Owns the schema `siesta.simulate/1`, which other programs read: see `docs/simulation.md` before
//! changing a name. Must not simulate anything.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::Figures;
use super::plan::Plan;
use crate::costs::Costs;
use crate::domain::TimerMode;

/// The schema's name. Its number changes when a name or a unit does; fields may be added.
pub const SCHEMA: &str = "siesta.simulate/1";

/// Where the costs come from.
#[derive(Clone, Debug, Serialize)]
pub struct CostsUsed {
    /// The file; `None`: built-in defaults, measured nowhere.
    pub file: Option<String>,
    /// The costs.
    #[serde(flatten)]
    pub costs: Costs,
}

/// The simulation's result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// What was asked for.
    pub plan: Plan,
    /// Busy vCPUs.
    pub busy: u32,
    /// The costs.
    pub costs: CostsUsed,
    /// Figures by the mode's name.
    pub modes: BTreeMap<&'static str, Figures>,
    /// What the host of the plan cannot do, in sentences.
    pub marks: Vec<String>,
}

impl Report {
    /// Sums up the figures of a plan's modes.
    #[must_use]
    pub fn new(plan: &Plan, figures: Vec<(TimerMode, Figures)>) -> Report {
        let file = plan.costs_file.as_ref().map(|path| path.display().to_string());
        let mut in_order = figures.clone();
        in_order.sort_by_key(|(mode, _)| plan.modes.iter().position(|of| of == mode));
        Report {
            schema: SCHEMA,
            command: plan.command.clone(),
            plan: plan.clone(),
            busy: plan.busy(),
            costs: CostsUsed { file, costs: plan.costs },
            marks: in_order.iter().flat_map(|(mode, of)| marks(*mode, of)).collect(),
            modes: figures.into_iter().map(|(mode, of)| (mode.name(), of)).collect(),
        }
    }
}

/// Share of the ticks, in percent, that may be merged before it is worth a word.
const MERGED_LIMIT: f64 = 1.0;

fn marks(mode: TimerMode, of: &Figures) -> Vec<String> {
    let mut said = Vec::new();
    match of.overloaded_cpus {
        0 => {}
        1 => said.push("1 CPU is overloaded: ticks take more than 95 % of its time".to_owned()),
        n => said.push(format!("{n} CPUs are overloaded: ticks take more than 95 % of their time")),
    }
    if let Some(windows) = of.migrators.overloaded_windows.get().filter(|windows| *windows > 0.0) {
        said.push(format!(
            "migrators are overloaded: {windows} times one worked more than 95 % of 100 ms"
        ));
    }
    let merged = of.ticks.merged as f64 * 100.0 / of.ticks.expected.max(1) as f64;
    if merged > MERGED_LIMIT {
        said.push(format!("{merged:.1} % of the ticks came so late that they fell into the next"));
    }
    if of.ticks.early > 0 {
        said.push(format!("{} ticks came before their deadline", of.ticks.early));
    }
    said.into_iter().map(|what| format!("{}: {what}", mode.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;

    fn marks_of(change: fn(&mut Figures)) -> Vec<String> {
        let mut figures = Figures::default();
        figures.ticks.expected = 1_000;
        change(&mut figures);
        marks(TimerMode::Migrate, &figures)
    }

    #[test]
    fn a_host_that_keeps_up_has_no_mark() {
        let calm = |of: &mut Figures| {
            of.ticks.merged = 10;
            of.migrators.overloaded_windows = Figure::of(0.0);
        };
        assert_eq!(marks_of(calm), Vec::<String>::new());
    }

    #[test]
    fn each_overload_is_said() {
        let marks = marks_of(|of| {
            of.overloaded_cpus = 1;
            of.migrators.overloaded_windows = Figure::of(3.0);
            of.ticks.merged = 125;
            of.ticks.early = 2;
        });
        let expected = [
            "migrate: 1 CPU is overloaded: ticks take more than 95 % of its time",
            "migrate: migrators are overloaded: 3 times one worked more than 95 % of 100 ms",
            "migrate: 12.5 % of the ticks came so late that they fell into the next",
            "migrate: 2 ticks came before their deadline",
        ];
        assert_eq!(marks, expected);
    }
}
