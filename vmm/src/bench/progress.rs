//! The one line that changes while the benchmark runs.
//!
//! Owns what of it is on the screen. Must not know what it says.

use std::io::{IsTerminal, Write};

/// Who watches the benchmark.
pub trait Progress {
    /// Replaces the line.
    fn show(&mut self, line: &str);

    /// Removes the line.
    fn clear(&mut self);

    /// Whether the user wants to end it (Ctrl-C).
    fn interrupted(&self) -> bool;
}

/// A line on a terminal; silent where the output is none.
pub struct Line<W: Write, F: Fn() -> bool> {
    out: W,
    terminal: bool,
    interrupted: F,
    /// Width of what is on the screen, in characters.
    shown: usize,
}

impl<F: Fn() -> bool> Line<std::io::Stderr, F> {
    /// A line on the standard error output.
    #[must_use]
    pub fn on_stderr(interrupted: F) -> Self {
        let out = std::io::stderr();
        let terminal = out.is_terminal();
        Line { out, terminal, interrupted, shown: 0 }
    }
}

impl<W: Write, F: Fn() -> bool> Progress for Line<W, F> {
    fn show(&mut self, line: &str) {
        if !self.terminal {
            return;
        }
        let width = line.chars().count();
        let blanks = self.shown.saturating_sub(width);
        // A progress line that cannot be written is no reason to stop.
        let _ = write!(self.out, "\r{line}{:blanks$}", "");
        let _ = self.out.flush();
        self.shown = width;
    }

    fn clear(&mut self) {
        if self.shown > 0 {
            let _ = write!(self.out, "\r{:width$}\r", "", width = self.shown);
            let _ = self.out.flush();
            self.shown = 0;
        }
    }

    fn interrupted(&self) -> bool {
        (self.interrupted)()
    }
}

impl<W: Write, F: Fn() -> bool> Drop for Line<W, F> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(terminal: bool) -> String {
        let mut out = Vec::new();
        let mut line = Line { out: &mut out, terminal, interrupted: || false, shown: 0 };
        line.show("run 10");
        line.show("run 9");
        drop(line);
        String::from_utf8(out).expect("is text")
    }

    #[test]
    fn a_shorter_line_covers_the_longer_one_and_the_last_goes() {
        assert_eq!(shown(true), "\rrun 10\rrun 9 \r     \r");
    }

    #[test]
    fn nothing_is_written_where_there_is_no_terminal() {
        assert_eq!(shown(false), "");
    }

    #[test]
    fn an_interruption_is_passed_on() {
        let line = Line { out: Vec::new(), terminal: false, interrupted: || true, shown: 0 };
        assert!(line.interrupted());
    }
}
