//! `siesta bench costs`.
//!
//! Owns the arguments. Must not know how anything is measured.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, GUEST_FAILED, INTERRUPTED, OK, bench, options};
use crate::bench::{HostFacts, JsonFile, Line};
use crate::costs::{self, CostsReport, MeasureError, SCHEMA};
use crate::signals::Signals;

/// Arguments of `siesta bench costs`.
#[derive(Args)]
pub(super) struct CostsArguments {
    /// Where the figures go (schema siesta.costs/1, see docs/simulation.md)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn costs(device: &Path, arguments: &CostsArguments) -> Result<u8, Failure> {
    let signals = RefCell::new(Signals::take().map_err(Failure::input)?);
    let unwritable = |error: io::Error| {
        let path = arguments.out.display();
        Failure::input(format!("--out {path}: cannot be written: {error}"))
    };
    let file = JsonFile::open(&arguments.out).map_err(unwritable)?;
    let (host, facts) = options::open_host(device)?;
    let mut progress = Line::on_stderr(|| signals.borrow_mut().came());
    let measured = costs::measure(host, &facts, &mut progress);
    drop(progress);
    let costs = measured
        .map_err(|error| Failure { message: bench::chain(&error), status: status(&error) })?;
    let report = CostsReport {
        schema: SCHEMA,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        host: HostFacts::read(Some(facts.exit_cost_ns)),
        costs,
    };
    print(&report);
    file.finish(&report).map_err(unwritable)?;
    Ok(OK)
}

fn print(report: &CostsReport) {
    let mut out = io::stdout().lock();
    // A reader that closed the pipe has read enough; the file is what counts.
    let _ = writeln!(out, "{}\n", report.host.lines());
    for (name, ns) in report.costs.named() {
        let _ = writeln!(out, "{name:<22}{ns:>9}");
    }
}

fn status(error: &MeasureError) -> u8 {
    match error {
        MeasureError::Interrupted => INTERRUPTED,
        _ => GUEST_FAILED,
    }
}
