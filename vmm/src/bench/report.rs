//! The benchmark's result, and its form in JSON.
//!
//! Owns the schema `siesta.density/1`, which other programs read: see `docs/density.md` before
//! changing a name. Must not measure anything.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::figures::{Figure, Figures};
use super::host::HostFacts;
use super::launch::Mode;
use super::plan::{Plan, Turn};
use super::stats::{greatest, least, median};

/// The schema's name. Its number changes when a name or a unit does; fields may be added.
pub const SCHEMA: &str = "siesta.density/1";

/// Share of the host's CPU time above which others disturb a run enough for it to be marked.
const FOREIGN_LIMIT: f64 = 0.05;
/// Share of the expected ticks below which a run is marked.
const DELIVERED_LIMIT: f64 = 0.99;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The mode.
    pub mode: Mode,
    /// Which of its runs, from 1.
    pub repeat: u32,
    /// Tick guests.
    pub vms: u32,
    /// Busy guests.
    pub busy: u32,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Least and greatest of the runs of a mode, figure by figure.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// Least.
    pub min: Figures,
    /// Greatest.
    pub max: Figures,
}

/// The benchmark's result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// The host.
    pub host: HostFacts,
    /// What was asked for.
    pub plan: Plan,
    /// Rounds of a busy guest alone for each second of CPU time: the median of all measurements.
    pub busy_alone_per_cpu_sec: Figure,
    /// The runs, in the order in which they took place.
    pub runs: Vec<Run>,
    /// Medians by the mode's name.
    pub medians: BTreeMap<&'static str, Figures>,
    /// Spreads by the mode's name.
    pub spread: BTreeMap<&'static str, Spread>,
    /// What makes a run less trustworthy, in sentences.
    pub marks: Vec<String>,
}

impl Report {
    /// Sums up the runs of a plan.
    #[must_use]
    pub fn new(plan: &Plan, host: HostFacts, alone: Figure, runs: Vec<(Turn, Figures)>) -> Report {
        let runs: Vec<Run> = runs
            .into_iter()
            .map(|(Turn { mode, repeat }, figures)| Run {
                mode,
                repeat,
                vms: plan.rates.vms(),
                busy: plan.busy,
                figures,
            })
            .collect();
        let of = |mode: Mode| -> Vec<&Figures> {
            runs.iter().filter(|run| run.mode == mode).map(|run| &run.figures).collect()
        };
        let medians =
            plan.modes.iter().map(|&mode| (mode.name(), Figures::sum_up(&of(mode), median)));
        let spread = plan.modes.iter().map(|&mode| {
            let min = Figures::sum_up(&of(mode), least);
            (mode.name(), Spread { min, max: Figures::sum_up(&of(mode), greatest) })
        });
        Report {
            schema: SCHEMA,
            command: plan.command.clone(),
            host,
            plan: plan.clone(),
            busy_alone_per_cpu_sec: alone,
            medians: medians.collect(),
            spread: spread.collect(),
            marks: runs.iter().flat_map(|run| marks(&name(run), &run.figures)).collect(),
            runs,
        }
    }
}

fn name(run: &Run) -> String {
    format!("run {} of {}", run.repeat, run.mode.name())
}

/// What makes a run of that name less trustworthy.
fn marks(name: &str, figures: &Figures) -> Vec<String> {
    let mut said = disturbances(figures);
    let Figures { ticks, cpu_us_per_tick, .. } = figures;
    let delivered = ticks.delivered.get().zip(ticks.expected.get());
    let share = delivered.map(|(delivered, expected)| delivered / expected);
    if let Some(share) = share.filter(|&share| share < DELIVERED_LIMIT) {
        said.push(format!("only {:.1} % of the expected ticks were delivered", share * 100.0));
    }
    if cpu_us_per_tick.get() == Some(0.0) {
        said.push(
            "the CPU time of a tick is lost in the noise of the busy guests' speed".to_owned(),
        );
    }
    said.into_iter().map(|what| format!("{name}: {what}")).collect()
}

/// What must not happen, or is others' doing, whatever the load.
pub(super) fn disturbances(figures: &Figures) -> Vec<String> {
    let Figures { ticks, foreign_cpu_share, stolen_cpu_share, .. } = figures;
    let percent = |share: f64| share * 100.0;
    let mut said = Vec::new();
    if let Some(share) = foreign_cpu_share.get().filter(|&share| share > FOREIGN_LIMIT) {
        said.push(format!("{:.0} % of the host's CPU time went to others", percent(share)));
    }
    if let Some(share) = stolen_cpu_share.get().filter(|&share| share > FOREIGN_LIMIT) {
        said.push(format!("{:.0} % of the host's CPU time was stolen from it", percent(share)));
    }
    if let Some(early) = ticks.early.get().filter(|&early| early > 0.0) {
        said.push(format!("{early} ticks came before their deadline"));
    }
    said
}

/// The file of the JSON report, known to be writable before the first run.
///
/// A regular file is replaced at once, at the end, by one of its folder; until then it keeps what
/// it had. What is not a regular file (a pipe, a terminal) is written directly.
#[derive(Debug)]
pub struct JsonFile {
    out: File,
    /// The file being written and the one it will replace. Removed on drop.
    rename: Option<(PathBuf, PathBuf)>,
}

impl JsonFile {
    /// Opens the file.
    ///
    /// # Errors
    /// The file or one beside it cannot be written.
    pub fn open(path: &Path) -> io::Result<JsonFile> {
        let exists = match fs::metadata(path) {
            Ok(meta) => Some(meta.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if exists == Some(false) {
            return Ok(JsonFile { out: OpenOptions::new().write(true).open(path)?, rename: None });
        }
        let mut target = path.to_owned();
        if exists == Some(true) {
            // Nothing is written yet; the open tells whether it would be allowed.
            drop(OpenOptions::new().write(true).open(path)?);
            target = fs::canonicalize(path)?;
        }
        let Some(name) = target.file_name() else {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename));
        };
        let mut beside = std::ffi::OsString::from(".");
        beside.push(name);
        beside.push(format!(".{}", std::process::id()));
        let beside = target.with_file_name(beside);
        let out = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        Ok(JsonFile { out, rename: Some((beside, target)) })
    }

    /// Writes the report and puts the file in its place.
    ///
    /// # Errors
    /// The disk is full, or the like; nothing is left behind then.
    pub fn finish(mut self, report: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(report)?;
        text.push('\n');
        self.out.write_all(text.as_bytes())?;
        self.out.flush()?;
        if let Some((from, to)) = &self.rename {
            fs::rename(from, to)?;
            self.rename = None;
        }
        Ok(())
    }
}

impl Drop for JsonFile {
    fn drop(&mut self) {
        if let Some((unfinished, _)) = &self.rename {
            // If even that fails, nothing better can be done.
            let _ = fs::remove_file(unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::Ticks;

    fn run(change: fn(&mut Figures)) -> Run {
        let ticks = Ticks {
            delivered: Figure::of(1_000.0),
            expected: Figure::of(1_000.0),
            early: Figure::of(0.0),
            ..Ticks::default()
        };
        let mut figures = Figures { ticks, foreign_cpu_share: Figure::of(0.05), ..<_>::default() };
        change(&mut figures);
        Run { mode: Mode::Thread, repeat: 2, vms: 10, busy: 1, figures }
    }

    #[test]
    fn a_quiet_run_has_no_mark() {
        assert_eq!(marks("a run", &run(|_| {}).figures), Vec::<String>::new());
    }

    #[test]
    fn a_run_is_marked_for_each_reason() {
        let run = run(|of| {
            of.foreign_cpu_share = Figure::of(0.0712);
            of.stolen_cpu_share = Figure::of(0.3);
            of.ticks.delivered = Figure::of(931.0);
            of.ticks.early = Figure::of(3.0);
            of.cpu_us_per_tick = Figure::of(0.0);
        });
        let expected = [
            "run 2 of thread: 7 % of the host's CPU time went to others",
            "run 2 of thread: 30 % of the host's CPU time was stolen from it",
            "run 2 of thread: 3 ticks came before their deadline",
            "run 2 of thread: only 93.1 % of the expected ticks were delivered",
            "run 2 of thread: the CPU time of a tick is lost in the noise of the busy guests' speed",
        ];
        assert_eq!(marks(&name(&run), &run.figures), expected);
    }

    fn empty() -> Report {
        Report::new(&Plan::default(), HostFacts::default(), Figure::UNKNOWN, Vec::new())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("is a folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn an_unfinished_report_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.json");
        drop(JsonFile::open(&path).expect("is writable"));
        assert_eq!(names(folder.path()), Vec::<String>::new());
        fs::write(&path, "old").expect("is writable");
        let json = JsonFile::open(&path).expect("is writable");
        assert_eq!(fs::read_to_string(&path).expect("is there"), "old", "kept until the end");
        drop(json);
        assert_eq!(names(folder.path()), ["out.json"]);
        assert_eq!(fs::read_to_string(&path).expect("is there"), "old");
    }

    #[test]
    fn a_finished_report_replaces_the_old_one_even_through_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.json");
        let link = folder.path().join("link.json");
        fs::write(&path, "a very old and long report").expect("is writable");
        std::os::unix::fs::symlink(&path, &link).expect("can link");
        let json = JsonFile::open(&link).expect("is writable");
        json.finish(&empty()).expect("can be written");
        let text = fs::read_to_string(&path).expect("is there");
        let json: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
        assert_eq!(json["schema"], "siesta.density/1");
        assert!(text.ends_with("}\n"));
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn what_is_no_file_is_written_directly() {
        let json = JsonFile::open(Path::new("/dev/null")).expect("is writable");
        json.finish(&empty()).expect("can be written");
        assert!(!fs::metadata("/dev/null").expect("is there").is_file());
    }

    #[test]
    fn unwritable_places_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(JsonFile::open(&folder.path().join("no/such/folder")).is_err());
        assert!(JsonFile::open(folder.path()).is_err(), "a folder");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
