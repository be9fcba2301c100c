//! Results as JUnit XML.
//!
//! Owns the mapping: a failed kernel is a failure, one that could not be run an error, one that was
//! not run skipped. Must not know where it is written.

use std::io;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::judge::{Finished, Reason};

/// The name of the suite.
const NAME: &str = "siesta";

/// Writes the report. `skipped` are the names of tests that were not run.
///
/// # Errors
/// The writer's.
pub fn write(
    out: impl io::Write,
    tests: &[Finished],
    skipped: &[&str],
    took: Duration,
) -> Result<(), SerializeError> {
    let mut suite = TestSuite::new(NAME);
    suite.set_time(took);
    suite.add_test_cases(tests.iter().map(case));
    suite.add_test_cases(skipped.iter().map(|name| {
        let mut case = TestCase::new(*name, TestCaseStatus::skipped());
        case.set_classname(NAME);
        case
    }));
    let mut report = Report::new(NAME);
    report.set_time(took);
    report.add_test_suite(suite);
    report.serialize(out)
}

fn case(test: &Finished) -> TestCase {
    let status = match &test.failure {
        None => TestCaseStatus::success(),
        Some(failure) => {
            let kind = match failure.reason {
                Reason::NotLoaded | Reason::Host | Reason::Interrupted => NonSuccessKind::Error,
                _ => NonSuccessKind::Failure,
            };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(failure.reason.name()).set_message(&failure.message);
            let details: Vec<_> =
                test.details.iter().map(|(title, text)| format!("{title}:\n{text}")).collect();
            if !details.is_empty() {
                status.set_description(details.join("\n"));
            }
            status
        }
    };
    let mut case = TestCase::new(test.name.as_str(), status);
    case.set_classname(NAME).set_time(test.took);
    let left_out = test.serial.total - test.serial.tail.len() as u64;
    let serial = String::from_utf8_lossy(&test.serial.tail);
    case.set_system_out(match left_out {
        0 => serial.into_owned(),
        n => format!("[{n} bytes before this are left out]\n{serial}"),
    });
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::capture::Captured;
    use crate::suite::judge::Failure;

    fn test(name: &str, failure: Option<Reason>) -> Finished {
        let failure = failure.map(|reason| Failure { reason, message: "a <line> & more".into() });
        Finished {
            name: name.into(),
            failure,
            took: Duration::from_millis(1500),
            details: vec![("registers", "rip 0".into())],
            serial: Captured {
                tail: b"tail <b>\x1b[2J\xff\x07\n".to_vec(),
                total: 1000,
                ..Captured::default()
            },
        }
    }

    #[test]
    fn counts_texts_and_output_are_there_and_well_formed() {
        let tests = [
            test("good", None),
            test("bad", Some(Reason::Crashed)),
            test("sick", Some(Reason::Host)),
        ];
        let mut out = Vec::new();
        write(&mut out, &tests, &["late"], Duration::from_secs(3)).expect("memory");
        let text = String::from_utf8(out).expect("text");
        for part in [
            r#"tests="4" failures="1" errors="1""#,
            r#"disabled="1""#,
            r#"name="bad" classname="siesta" time="1.500""#,
            r#"<failure message="a &lt;line&gt; &amp; more" type="crash">"#,
            r#"<error message="a &lt;line&gt; &amp; more" type="host">"#,
            "<skipped/>",
            "registers:\nrip 0",
            "bytes before this are left out]\ntail &lt;b&gt;",
        ] {
            assert!(text.contains(part), "'{part}' is missing in {text}");
        }
        assert!(!text.contains(['\x1b', '\x07']), "{text}");
    }
}
