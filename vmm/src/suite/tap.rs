//! Results in the Test Anything Protocol, version 14 (testanything.org).
//!
//! Owns the text. Must not know where it goes.

use std::fmt::Write;

use super::judge::Finished;

/// How many of the last lines of serial output a failed test shows.
const LINES: usize = 20;

/// How long a shown line may be, in characters.
const LINE_MOST: usize = 200;

/// What comes before all results.
#[must_use]
pub fn header(count: usize) -> String {
    format!("TAP version 14\n1..{count}\n")
}

/// What ends a run before its time.
#[must_use]
pub fn bail_out(why: &str) -> String {
    format!("Bail out! {}\n", one_line(why))
}

/// One test point, `number` from 1.
#[must_use]
pub fn point(number: usize, test: &Finished) -> String {
    let verdict = if test.failure.is_some() { "not ok" } else { "ok" };
    let mut text = format!("{verdict} {number} - {}\n", description(&test.name));
    let Some(failure) = &test.failure else { return text };
    text.push_str("  ---\n");
    // A string of JSON is one of YAML.
    let quoted = serde_json::Value::from(one_line(&failure.message));
    // Writing into a string cannot fail.
    let _ = writeln!(text, "  reason: {}", failure.reason.name());
    let _ = writeln!(text, "  message: {quoted}");
    let _ = writeln!(text, "  duration_ms: {}", test.took.as_millis());
    for (title, body) in &test.details {
        block(&mut text, title, body.lines().map(str::to_owned));
    }
    let serial = String::from_utf8_lossy(&test.serial.tail);
    let mut last: Vec<_> = serial.lines().rev().take(LINES).map(shown).collect();
    last.reverse();
    block(&mut text, "serial", last.into_iter());
    text.push_str("  ...\n");
    text
}

/// Serial output as comments, all that was kept.
#[must_use]
pub fn output(test: &Finished) -> String {
    let serial = String::from_utf8_lossy(&test.serial.tail);
    serial.lines().fold(String::new(), |text, line| text + "# " + &shown(line) + "\n")
}

/// A block of lines that are taken as they are.
fn block(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        let _ = writeln!(text, "  {title}: \"\"");
        return;
    }
    let _ = writeln!(text, "  {title}: |2");
    for line in lines {
        let _ = writeln!(text, "    {line}");
    }
}

/// A line without what would confuse a terminal or a reader of YAML.
fn shown(line: &str) -> String {
    let cut = line.chars().count() > LINE_MOST;
    let mut text = String::new();
    for c in line.chars().take(LINE_MOST) {
        match c {
            '\t' => text.push(c),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                text.extend(c.escape_unicode());
            }
            c => text.push(c),
        }
    }
    if cut {
        text.push_str("...");
    }
    text
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).collect::<Vec<_>>().join(" ")
}

/// A name that is no directive.
fn description(name: &str) -> String {
    shown(&one_line(name)).replace('\\', "\\\\").replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::capture::Captured;
    use crate::suite::judge::{Failure, Reason};
    use std::time::Duration;

    fn failed(serial: &[u8]) -> Finished {
        Finished {
            name: "boots".into(),
            failure: Some(Failure { reason: Reason::Crashed, message: "vCPU 0: \"fault\"".into() }),
            took: Duration::from_millis(52),
            details: vec![("registers", "rip 0\nrax 1".into())],
            serial: Captured { tail: serial.to_vec(), ..Captured::default() },
        }
    }

    #[test]
    fn passed_test_is_one_line() {
        let test = Finished { name: "boots".into(), ..Finished::default() };
        assert_eq!(point(3, &test), "ok 3 - boots\n");
    }

    #[test]
    fn failed_test_says_why_in_a_yaml_block() {
        let text = point(1, &failed(b"one\r\ntwo\n"));
        let expected = "not ok 1 - boots\n  ---\n  reason: crash\n  message: \"vCPU 0: \\\"fault\\\"\"\n  \
            duration_ms: 52\n  registers: |2\n    rip 0\n    rax 1\n  serial: |2\n    one\n    two\n  ...\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn guest_cannot_write_test_points_nor_control_characters() {
        let text = point(1, &failed(b"x\n\nok 2 - mine\n  ...\n\x1b[2J\xff\n"));
        assert!(text.contains("\n    ok 2 - mine\n      ...\n"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        let shown = output(&failed(b"ok 2 - mine\nBail out!\n"));
        assert_eq!(shown, "# ok 2 - mine\n# Bail out!\n");
    }

    #[test]
    fn only_the_last_lines_of_much_output_are_shown() {
        let many: String = (0..1000).map(|i| format!("line {i}\n")).collect();
        let text = point(1, &failed(many.as_bytes()));
        assert!(text.contains("    line 999\n") && text.contains("    line 980\n"), "{text}");
        assert!(!text.contains("line 979"), "{text}");
        let text = point(1, &failed(&[b'x'; 10_000]));
        assert!(text.len() < 600, "{}", text.len());
    }

    #[test]
    fn name_is_no_directive() {
        let test = Finished { name: "a # SKIP\nok".into(), ..Finished::default() };
        assert_eq!(point(1, &test), "ok 1 - a \\# SKIP ok\n");
    }
}
