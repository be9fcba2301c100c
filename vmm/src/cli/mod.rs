//! The command line of `siesta`.
//!
//! Owns the arguments, the way errors are shown (one line on standard error) and the exit status.
//! Must not know how anything is done. `--help` is the reference; the statuses are those of
//! `docs/specification.md`.

mod bench;
mod costs;
mod ctl;
mod devices;
mod images;
pub(crate) mod options;
mod placement;
mod rates;
mod run;
mod serve;
mod simulate;
mod stats;
mod test;
mod top;
pub(crate) mod values;
mod wrong;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::kvm;

/// Everything went as it should.
pub const OK: u8 = 0;
/// A kernel did not pass its test.
pub const TESTS_FAILED: u8 = 1;
/// The arguments, or what they name, cannot be used.
pub const BAD_INPUT: u8 = 2;
/// A guest crashed or could not be run.
pub const GUEST_FAILED: u8 = 4;
/// Ended by SIGINT or SIGTERM.
pub const INTERRUPTED: u8 = 130;

const STATUSES: &str = "\
Exit status:
  0    the guest powered off or reset itself; the benchmark ended
  odd  the guest wrote VALUE to port 0xf4: (VALUE << 1) | 1, as QEMU does
  2    bad input: one line on standard error says what, and what to do
  4    a guest crashed or could not be run
  6    --timeout came first
  130  interrupted (Ctrl-C)
With --count the first that is not 0, in the order of the VMs. 'siesta test' has its own statuses:
0 all kernels passed, 1 some did not.";

/// Virtual machines whose idle timers cost their host next to nothing
#[derive(Parser)]
#[command(name = "siesta", version, after_help = STATUSES, disable_help_subcommand = true)]
struct Arguments {
    /// Messages on standard error, up to this level: off, error, warn, info, debug, trace
    #[arg(long, global = true, default_value = "warn", value_name = "LEVEL")]
    log_level: LevelFilter,
    /// Where KVM is
    #[arg(long, global = true, default_value = kvm::DEVICE, value_name = "PATH")]
    kvm_device: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start one or more VMs
    Run(Box<run::RunArguments>),
    /// Run VMs that come and go on request
    Serve(serve::ServeArguments),
    /// Ask a running 'siesta serve'
    Ctl(ctl::CtlArguments),
    /// Show everything that a running 'siesta serve' tells, once
    Stats(stats::StatsArguments),
    /// Watch a running 'siesta serve' on the terminal
    Top(top::TopArguments),
    /// Boot kernels one by one or side by side and judge them by their exit status and serial output
    Test(test::TestArguments),
    /// List the kernels that are embedded in this program
    Images,
    /// Measure what idle guests cost this host
    Bench {
        #[command(subcommand)]
        what: BenchCommand,
    },
    /// Compute what idle vCPUs would cost a host larger than this one
    Simulate(simulate::SimulateArguments),
}

#[derive(Subcommand)]
enum BenchCommand {
    /// Many idle guests beside busy ones, in each timer mode, in one run
    Density(bench::DensityArguments),
    /// What exits, wakeups and ticks cost this host, for 'siesta simulate'
    Costs(costs::CostsArguments),
}

/// Runs the command and answers the exit status of the process.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            eprintln!("siesta: {}", wrong::one_line(&error));
            return BAD_INPUT;
        }
        Err(help_or_version) => {
            // A reader that closed the pipe has read enough.
            let _ = help_or_version.print();
            return OK;
        }
    };
    tracing_subscriber::fmt()
        .with_max_level(arguments.log_level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let device = &arguments.kvm_device;
    let outcome = match arguments.command {
        Command::Run(run) => run::run(device, &run),
        Command::Serve(serve) => serve::serve(device, &serve),
        Command::Ctl(ctl) => ctl::ctl(&ctl),
        Command::Stats(stats) => stats::stats(&stats),
        Command::Top(top) => top::top(&top),
        Command::Test(test) => test::test(device, &test),
        Command::Images => images::list(),
        Command::Bench { what: BenchCommand::Density(density) } => bench::density(device, &density),
        Command::Bench { what: BenchCommand::Costs(costs) } => costs::costs(device, &costs),
        Command::Simulate(simulate) => simulate::simulate(&simulate),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("siesta: {}", failure.message);
        failure.status
    })
}

/// Why the command cannot be carried out: one line, and the exit status.
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// Something about the input or the host that its user can mend.
    fn input(error: impl std::fmt::Display) -> Self {
        Failure { message: error.to_string(), status: BAD_INPUT }
    }

    /// A guest that could not be run.
    fn guest(error: impl std::fmt::Display) -> Self {
        Failure { message: error.to_string(), status: GUEST_FAILED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
