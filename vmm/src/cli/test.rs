//! `siesta test`: boots kernels, each in a VM of its own, and says which passed.
//!
//! Owns the arguments and where results go. Must not know how kernels are run or judged.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::options::{self, GuestOptions, TimerOptions};
use super::{Failure, INTERRUPTED, OK, TESTS_FAILED, values};
use crate::assemble::ApicTimer;
use crate::boot;
use crate::clock;
use crate::signals::Signals;
use crate::suite::judge::Finished;
use crate::suite::{self, End, Plan, SuiteError, Test, junit, plan, tap};

const STATUSES: &str = "\
A kernel passes when it ends itself with a status of success (--success) and, where there is a file of
expected output, has written exactly that. Its status is 0 when it powers off or resets, and
(VALUE << 1) | 1 when it writes VALUE to port 0xf4, not cut to a byte.

Results are printed in the Test Anything Protocol, version 14, in the order of the files.

Exit status:
  0    all kernels passed
  1    some did not
  2    bad input: one line on standard error says what, and what to do
  4    the host could not be probed
  130  interrupted (Ctrl-C)";

/// Arguments of `siesta test`.
#[derive(Args)]
#[command(after_help = STATUSES, allow_negative_numbers = true)]
pub(super) struct TestArguments {
    /// The kernels
    #[arg(required_unless_present = "runner", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// As cargo's runner: one kernel, and words that are added to its command line
    #[arg(long, num_args = 1.., allow_hyphen_values = true, conflicts_with = "files", value_name = "FILE [WORD]")]
    runner: Vec<OsString>,
    /// Longest time for each kernel
    #[arg(long, value_parser = values::time_limit, default_value = "30", value_name = "SECS")]
    timeout: Duration,
    /// A status that counts as success, instead of 0 and 1; may be given several times
    #[arg(long, value_parser = status, value_name = "STATUS")]
    success: Vec<u64>,
    /// Expected output is in DIR/NAME.expect, instead of beside the kernel as FILE.expect
    #[arg(long, value_name = "DIR")]
    expect_dir: Option<PathBuf>,
    /// How many kernels run at the same time [default: one for each CPU of this host]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    jobs: Option<u16>,
    /// Also write the results into this file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Show the serial output of kernels that pass, too, as comments
    #[arg(long)]
    show_output: bool,
    #[command(flatten)]
    guest: GuestOptions,
    /// How guests may arm their APIC timer
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|deadline|oneshot")]
    apic_timer: ApicTimer,
}

/// What counts as success unless something else is asked for: power-off, and the value 0.
const SUCCESS: [u64; 2] = [0, 1];

/// A status with which a kernel can end: 0, or odd.
fn status(text: &str) -> Result<u64, String> {
    const HINT: &str =
        "a kernel's status is 0 (power-off, reset) or (VALUE << 1) | 1, which is odd";
    let status: u64 = text.parse().map_err(|_| HINT)?;
    let possible = status == 0 || (status % 2 == 1 && status >> 1 <= u64::from(u32::MAX));
    if possible { Ok(status) } else { Err(HINT.into()) }
}

pub(super) fn test(device: &Path, arguments: &TestArguments) -> Result<u8, Failure> {
    // Before any thread exists, so that all inherit the mask.
    let signals = Signals::take().map_err(Failure::input)?;
    let (kernels, cmdline) = arguments.kernels()?;
    for kernel in &kernels {
        boot::read_kernel(kernel).map_err(Failure::input)?;
    }
    let tests = arguments.tests(&kernels)?;
    let junit = arguments.junit.as_deref().map(create).transpose()?;
    let (host, facts) = options::open_host(device)?;
    let timer = TimerOptions::apart(arguments.apic_timer);
    timer.tell(&[arguments.guest.timers], &facts);
    let plan = Plan {
        tests,
        jobs: arguments.jobs(),
        time_limit: arguments.timeout,
        success: match &arguments.success[..] {
            [] => SUCCESS.to_vec(),
            asked => asked.to_vec(),
        },
        cpus: arguments.guest.cpus,
        memory: arguments.guest.memory,
        cmdline,
        apic_timer: arguments.apic_timer,
        cpu_features: arguments.guest.cpu_features.clone(),
        policy: timer.policy(arguments.guest.timers, &facts),
    };
    let started = clock::now_ns();
    let mut results = Results::new(&plan.tests, arguments.show_output);
    let ended = suite::run(&host, &facts, &plan, &signals, &mut |index, finished| {
        results.add(index, finished)
    });
    let end = results.close(ended)?;
    if let Some((file, path)) = junit {
        let took = Duration::from_nanos(clock::now_ns().saturating_sub(started));
        junit::write(file, &results.finished, &results.missing(), took)
            .map_err(|error| Failure::input(format!("--junit {}: {error}", path.display())))?;
    }
    Ok(match end {
        End::Interrupted => {
            eprintln!("siesta: interrupted");
            INTERRUPTED
        }
        End::Complete if results.failed() => TESTS_FAILED,
        End::Complete => OK,
    })
}

fn create(path: &Path) -> Result<(File, &Path), Failure> {
    let refused =
        |error| Failure::input(format!("--junit {}: cannot be written: {error}", path.display()));
    Ok((File::create(path).map_err(refused)?, path))
}

impl TestArguments {
    /// The kernels, and their command line.
    fn kernels(&self) -> Result<(Vec<PathBuf>, String), Failure> {
        let cmdline = self.guest.cmdline.clone().unwrap_or_default();
        let Some((kernel, words)) = self.runner.split_first() else {
            return Ok((self.files.clone(), cmdline));
        };
        let mut all = if cmdline.is_empty() { vec![] } else { vec![cmdline.as_str()] };
        for word in words {
            let word = word.to_str().ok_or_else(|| {
                Failure::input(format!("--runner: {} is no text", word.display()))
            })?;
            all.push(word);
        }
        Ok((vec![kernel.into()], all.join(" ")))
    }

    fn tests(&self, kernels: &[PathBuf]) -> Result<Vec<Test>, Failure> {
        let directory = self.expect_dir.as_deref();
        if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
            let name = directory.display();
            return Err(Failure::input(format!("--expect-dir {name}: is no directory")));
        }
        plan::tests(kernels, directory).map_err(Failure::input)
    }

    fn jobs(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.jobs.map_or_else(cpus, usize::from)
    }
}

/// What has come so far, and what was printed of it.
struct Results<'a> {
    tests: &'a [Test],
    show_output: bool,
    numbers: Vec<usize>,
    finished: Vec<Finished>,
}

impl<'a> Results<'a> {
    fn new(tests: &'a [Test], show_output: bool) -> Self {
        Results { tests, show_output, numbers: Vec::new(), finished: Vec::new() }
    }

    fn add(&mut self, index: usize, finished: Finished) -> io::Result<()> {
        // Bad input is noticed at the first VM, and says nothing on standard output.
        let mut text =
            if self.finished.is_empty() { tap::header(self.tests.len()) } else { String::new() };
        text += &tap::point(index + 1, &finished);
        if self.show_output {
            text += &tap::output(&finished);
        }
        self.numbers.push(index);
        self.finished.push(finished);
        print(&text)
    }

    /// Says why no more results come, if it is not because all are there.
    fn close(&self, ended: Result<End, SuiteError>) -> Result<End, Failure> {
        let cut = match &ended {
            Ok(End::Complete) => None,
            Ok(End::Interrupted) => Some("interrupted".to_owned()),
            Err(SuiteError::Launch(error)) => Some(error.to_string()),
            Err(SuiteError::Report(_)) => None,
        };
        if let Some(why) = cut.filter(|_| !self.finished.is_empty()) {
            // Whoever reads no more has no use for it.
            let _ = print(&tap::bail_out(&why));
        }
        ended.map_err(Failure::input)
    }

    fn failed(&self) -> bool {
        self.finished.iter().any(|finished| finished.failure.is_some())
    }

    /// The names of tests without a result.
    fn missing(&self) -> Vec<&str> {
        let absent = |(index, _): &(usize, &Test)| !self.numbers.contains(index);
        self.tests.iter().enumerate().filter(absent).map(|(_, test)| test.name.as_str()).collect()
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_no_kernel_can_end_with_are_refused() {
        assert_eq!(status("0"), Ok(0));
        assert_eq!(status("33"), Ok(33));
        assert_eq!(status("8589934591"), Ok((u64::from(u32::MAX) << 1) | 1));
        for wrong in ["2", "8589934593", "-1", "x", ""] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }
}
