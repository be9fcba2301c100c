//! What a run did, in the language of the replay example, so that a failure can be replayed.
//!
//! Owns the text of the trace, and the comparison with what the replay answers. Must not know what
//! the commands do. What the language cannot say stands in comments; where that makes the replay
//! do something else, the comparison ends.

use std::fmt;

use proptest::test_runner::TestCaseError;

use crate::interpreter::Interpreter;

/// A line of the trace.
struct Line {
    /// Empty: the line is a comment only.
    command: String,
    answer: Option<String>,
    comment: String,
}

/// The trace of a run.
#[derive(Default)]
pub struct Recorded {
    lines: Vec<Line>,
    /// How many lines the replay answers as the run did.
    same: Option<usize>,
}

impl Recorded {
    /// A call that is about to be made.
    pub fn command(&mut self, command: String) {
        self.lines.push(Line { command, answer: None, comment: String::new() });
    }

    /// What the last call answered, in the replay's words.
    pub fn answer(&mut self, answer: impl Into<String>) {
        if let Some(line) = self.lines.iter_mut().rfind(|line| !line.command.is_empty()) {
            line.answer = Some(answer.into());
        }
    }

    /// Something about the last call that the replay does not print.
    pub fn comment(&mut self, comment: &str) {
        if let Some(line) = self.lines.last_mut() {
            line.comment.push_str(comment);
        }
    }

    /// Something between two calls that the replay cannot do.
    pub fn remark(&mut self, comment: String) {
        self.lines.push(Line { command: String::new(), answer: None, comment });
    }

    /// The last call was made in a way that the replay cannot make it.
    pub fn differs(&mut self, how: &str) {
        self.same.get_or_insert(self.lines.len().saturating_sub(1));
        self.remark(format!("{how}: the replay goes on differently"));
    }

    /// Whether the replay answers what the run was answered.
    pub fn compare_with_replay(&self) -> Result<(), TestCaseError> {
        let mut replay = Interpreter::new();
        for line in &self.lines[..self.same.unwrap_or(self.lines.len())] {
            let Line { command, answer, .. } = line;
            let replayed = replay.line(command.as_bytes()).map_err(|error| error.to_string());
            let matches = match (&replayed, answer) {
                (Ok(replayed), Some(answer)) => replayed.trim_end() == answer,
                (Ok(_), None) => true,
                (Err(_), _) => false,
            };
            if !matches {
                let why = format!("{command}: the replay answers {replayed:?}\n{self}");
                return Err(TestCaseError::fail(why));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# save from here on, and: cargo run -q -p tmigr --example replay < FILE")?;
        for Line { command, answer, comment } in &self.lines {
            if command.is_empty() {
                writeln!(f, "# {comment}")?;
                continue;
            }
            let answer = answer.as_deref().unwrap_or("?");
            writeln!(f, "{command:<28} # {answer}{comment}")?;
        }
        writeln!(f, "# the end of the trace")
    }
}
