//! What a kernel's serial output is expected to be.
//!
//! Owns the expected text and the comparison: line by line, where a carriage return before a line
//! feed is no difference. Must not know where the output comes from.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::console::capture::Captured;

/// The largest file of expected output, in bytes: 1 MiB.
pub const EXPECTED_MOST: usize = 1 << 20;

/// How much of a line a difference shows, in characters.
const SHOWN: usize = 120;

/// Why expected output cannot be read.
#[derive(Debug, Error)]
pub enum ExpectError {
    /// The file cannot be read.
    #[error("expected output {}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is larger than [`EXPECTED_MOST`].
    #[error("expected output {}: is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
}

/// Expected output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected(Vec<u8>);

/// The first line in which expected output and output differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its number, from 1.
    pub line: usize,
    /// What was expected, with its end; `None`: the end of the output.
    pub expected: Option<String>,
    /// What came; `None`: the end of the output.
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |text: &Option<String>| match text {
            Some(text) => format!("{text:?}"),
            None => "the end".to_owned(),
        };
        let (expected, found) = (side(&self.expected), side(&self.found));
        write!(f, "serial output differs in line {}: expected {expected}, got {found}", self.line)
    }
}

impl Expected {
    /// From text.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Expected(plain(text))
    }

    /// From a file; `None` if there is none.
    ///
    /// # Errors
    /// [`ExpectError`].
    pub fn read(path: &Path) -> Result<Option<Self>, ExpectError> {
        let unreadable = |source| ExpectError::Unreadable { path: path.to_path_buf(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut text = Vec::new();
        file.take(EXPECTED_MOST as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() > EXPECTED_MOST {
            return Err(ExpectError::TooLarge(path.to_path_buf()));
        }
        Ok(Some(Expected::new(&text)))
    }

    /// How much of the start of the output has to be kept for the comparison, in bytes: as each line
    /// may end in two bytes, twice what is expected, and a line more to show how it goes on.
    #[must_use]
    pub fn head_most(&self) -> usize {
        2 * self.0.len() + 4 * SHOWN
    }

    /// The first difference, if there is any. `output` was kept with [`Expected::head_most`].
    #[must_use]
    pub fn difference(&self, output: &Captured) -> Option<Difference> {
        let found = plain(&output.head);
        let mut expected = self.0.split_inclusive(|byte| *byte == b'\n');
        let mut found = found.split_inclusive(|byte| *byte == b'\n');
        for line in 1.. {
            match (expected.next(), found.next()) {
                (None, None) => return None,
                (a, b) if a == b => {}
                (a, b) => {
                    return Some(Difference { line, expected: a.map(shown), found: b.map(shown) });
                }
            }
        }
        None
    }
}

/// Without the carriage return of each line's end.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    for &byte in text {
        if byte == b'\n' && plain.last() == Some(&b'\r') {
            plain.pop();
        }
        plain.push(byte);
    }
    plain
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    if text.chars().count() <= SHOWN {
        return text.into_owned();
    }
    text.chars().take(SHOWN).chain(['.', '.', '.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::capture::Capture;

    fn difference(expected: &str, output: &str) -> Option<String> {
        let expected = Expected::new(expected.as_bytes());
        let capture = Capture::new(expected.head_most());
        capture.put(output.as_bytes());
        expected.difference(&capture.take()).map(|difference| difference.to_string())
    }

    #[test]
    fn equal_output_has_no_difference_whatever_its_line_ends() {
        assert_eq!(difference("", ""), None);
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\r\nb\r\n"), None);
        assert_eq!(difference("\n\n\n\n", "\r\n\r\n\r\n\r\n"), None);
        assert_eq!(difference("a\r\n", "a\n"), None);
    }

    #[test]
    fn first_line_that_differs_is_named_with_both_sides() {
        let text = difference("a\nb\nc\n", "a\nx\ny\n").expect("a difference");
        assert!(text.ends_with(r#"line 2: expected "b\n", got "x\n""#), "{text}");
        let text = difference("a\n", "a").expect("a difference");
        assert!(text.ends_with(r#"line 1: expected "a\n", got "a""#), "{text}");
        let text = difference("a\nb\n", "a\n").expect("a difference");
        assert!(text.ends_with(r#"line 2: expected "b\n", got the end"#), "{text}");
        let text = difference("a\n", "a\nmore\n").expect("a difference");
        assert!(text.ends_with(r#"line 2: expected the end, got "more\n""#), "{text}");
        assert!(difference("a\rb\n", "ab\n").is_some(), "a return inside a line is text");
    }

    #[test]
    fn output_without_end_is_cut_and_still_differs() {
        let long = "x".repeat(1 << 16);
        let text = difference("", &long).expect("a difference");
        assert!(text.len() < 300, "{text}");
        assert!(difference(&long, &format!("{long}y")).is_some());
        assert!(difference("a\n", "a\r\nb").is_some());
    }

    #[test]
    fn missing_file_expects_nothing_and_a_large_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kernel.expect");
        assert!(Expected::read(&path).expect("no error").is_none());
        std::fs::write(&path, vec![b'x'; EXPECTED_MOST]).expect("a file");
        assert!(Expected::read(&path).expect("no error").is_some());
        std::fs::write(&path, vec![b'x'; EXPECTED_MOST + 1]).expect("a file");
        assert!(matches!(Expected::read(&path), Err(ExpectError::TooLarge(_))));
        assert!(matches!(Expected::read(folder.path()), Err(ExpectError::Unreadable { .. })));
    }
}
