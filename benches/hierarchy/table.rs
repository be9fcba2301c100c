//! The table of what was measured and what was to be reached.
//!
//! Owns medians, spreads and verdicts. Must not know what is measured.

use std::fmt;

/// Values of one quantity, in the order in which they were measured.
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn new(values: Vec<f64>) -> Self {
        Samples(values)
    }

    /// Each of these values over the one of `base` that was measured beside it.
    pub fn ratio(these: &Samples, base: &Samples) -> Self {
        Samples(these.0.iter().zip(&base.0).map(|(this, base)| this / base).collect())
    }

    fn quantile(&self, of_all: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1) as f64;
        sorted.get((last * of_all).round() as usize).copied().unwrap_or(f64::NAN)
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

struct Row {
    figure: String,
    goal: String,
    measured: String,
    reached: Option<bool>,
}

/// The rows so far.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, figure: &str, samples: &Samples, unit: &str, goal: Option<(String, bool)>) {
        let (low, high) = (samples.quantile(0.1), samples.quantile(0.9));
        let digits = if unit == "x" || unit == "s" { 2 } else { 1 };
        let median = samples.median();
        let measured = if samples.0.len() > 1 {
            format!("{median:.digits$} {unit} ({low:.digits$}..{high:.digits$})")
        } else {
            format!("{median:.digits$} {unit}")
        };
        let (goal, reached) = goal.map_or((String::new(), None), |(goal, met)| (goal, Some(met)));
        self.0.push(Row { figure: figure.to_owned(), goal, measured, reached });
    }

    /// A figure whose median is to be at most `goal`.
    pub fn at_most(&mut self, figure: &str, samples: &Samples, goal: f64, unit: &str) {
        let met = samples.median() <= goal;
        let digits = if goal.fract() == 0.0 { 0 } else { 2 };
        self.row(figure, samples, unit, Some((format!("<= {goal:.digits$} {unit}"), met)));
    }

    /// A figure whose median is to be at least `goal`.
    pub fn at_least(&mut self, figure: &str, samples: &Samples, goal: f64, unit: &str) {
        let met = samples.median() >= goal;
        self.row(figure, samples, unit, Some((format!(">= {goal} {unit}"), met)));
    }

    /// A figure without a goal.
    pub fn shown(&mut self, figure: &str, samples: &Samples, unit: &str) {
        self.row(figure, samples, unit, None);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Medians, in brackets what lies between the tenth and the ninetieth percent.\n"
        )?;
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; 4]| {
            let [figure, goal, measured, reached] = cells;
            writeln!(f, "| {figure:52} | {goal:11} | {measured:26} | {reached:7} |")
        };
        line(f, ["figure", "goal", "measured", "reached"])?;
        line(f, ["---", "---", "---", "---"])?;
        for row in &self.0 {
            let reached = row.reached.map_or("", |met| if met { "yes" } else { "no" });
            line(f, [&row.figure, &row.goal, &row.measured, reached])?;
        }
        Ok(())
    }
}
