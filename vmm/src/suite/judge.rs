//! Whether a kernel has passed, and why not.
//!
//! Owns the rules. Pure: it is given how the VM ended and what the guest wrote. Must not know how
//! reports look.

use std::time::Duration;

use super::plan::Test;
use crate::console::capture::Captured;
use crate::vm::Outcome;

/// Why a kernel has not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It ended with a status that is no success.
    Status,
    /// Its serial output is not what was expected.
    Output,
    /// It did not end in time.
    TimedOut,
    /// A vCPU could not go on.
    Crashed,
    /// The file is no kernel, or does not fit the VM.
    NotLoaded,
    /// The host could not run it.
    Host,
    /// It was still running, or not started, when the whole was interrupted.
    Interrupted,
}

impl Reason {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Status => "status",
            Reason::Output => "output",
            Reason::TimedOut => "timeout",
            Reason::Crashed => "crash",
            Reason::NotLoaded => "not-loaded",
            Reason::Host => "host",
            Reason::Interrupted => "interrupted",
        }
    }
}

/// Why, in a word and in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The word.
    pub reason: Reason,
    /// The line.
    pub message: String,
}

/// What is known about a test that has ended.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Its name.
    pub name: String,
    /// `None`: passed.
    pub failure: Option<Failure>,
    /// How long it ran.
    pub took: Duration,
    /// Of a crash: registers and last exits; of a time-out: where the vCPUs were. Titles and texts.
    pub details: Vec<(&'static str, String)>,
    /// What it wrote.
    pub serial: Captured,
}

/// The exit status of a guest that ended itself: 0, or odd. Unlike a process's it is not cut to eight
/// bits, so that no value counts as success by accident.
fn status(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::PowerOff | Outcome::Reset => Some(0),
        Outcome::Exit(value) => Some((u64::from(*value) << 1) | 1),
        _ => None,
    }
}

/// Decides. The output matters only of a kernel that ended as it should.
#[must_use]
pub fn judge(
    test: &Test,
    success: &[u64],
    outcome: &Outcome,
    serial: &Captured,
) -> Option<Failure> {
    let failure = |reason, message| Some(Failure { reason, message });
    let reason = match outcome {
        Outcome::Crashed(_) | Outcome::Panicked => Reason::Crashed,
        Outcome::HostError(_) => Reason::Host,
        Outcome::TimedOut => Reason::TimedOut,
        Outcome::Interrupted | Outcome::Quit => Reason::Interrupted,
        Outcome::PowerOff | Outcome::Reset | Outcome::Exit(_) => Reason::Status,
    };
    let Some(status) = status(outcome) else { return failure(reason, outcome.to_string()) };
    if !success.contains(&status) {
        let wanted: Vec<_> = success.iter().map(ToString::to_string).collect();
        let wanted = wanted.join(" or ");
        return failure(reason, format!("{outcome}: status {status}, expected {wanted}"));
    }
    let difference = test.expected.as_ref()?.difference(serial)?;
    let lost = match serial.lost {
        0 => String::new(),
        lost => format!(" ({lost} bytes were written too fast and are lost)"),
    };
    failure(Reason::Output, format!("{difference}{lost}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::capture::Capture;
    use crate::suite::expect::Expected;

    fn reason(success: &[u64], outcome: Outcome, expected: Option<&str>) -> Option<Reason> {
        let expected = expected.map(|text| Expected::new(text.as_bytes()));
        let test = Test { name: "test".into(), kernel: "test.elf".into(), expected };
        let capture = Capture::new(1000);
        capture.put(b"hello\n");
        judge(&test, success, &outcome, &capture.take()).map(|failure| failure.reason)
    }

    #[test]
    fn status_decides_and_is_not_cut_to_a_byte() {
        assert_eq!(reason(&[0, 1], Outcome::Reset, None), None);
        assert_eq!(reason(&[0, 1], Outcome::Exit(0), None), None);
        assert_eq!(reason(&[33], Outcome::Exit(16), None), None);
        assert_eq!(reason(&[33], Outcome::Reset, None), Some(Reason::Status));
        assert_eq!(reason(&[0, 1], Outcome::Exit(128), None), Some(Reason::Status));
        assert_eq!(reason(&[0, 1], Outcome::Exit(1 << 31), None), Some(Reason::Status));
        assert_eq!(reason(&[0, 1], Outcome::TimedOut, None), Some(Reason::TimedOut));
        assert_eq!(reason(&[0, 1], Outcome::Interrupted, None), Some(Reason::Interrupted));
    }

    #[test]
    fn output_decides_only_after_the_status() {
        assert_eq!(reason(&[0], Outcome::Reset, Some("hello\n")), None);
        assert_eq!(reason(&[0], Outcome::Reset, Some("bye\n")), Some(Reason::Output));
        assert_eq!(reason(&[0], Outcome::Exit(1), Some("bye\n")), Some(Reason::Status));
        assert_eq!(reason(&[0], Outcome::TimedOut, Some("hello\n")), Some(Reason::TimedOut));
    }
}
