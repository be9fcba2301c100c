//! A replay: commands in, answers and complaints out.
//!
//! Owns the order of output and the status at the end. Must not know the commands.

use std::io::{self, BufRead, Write};

use super::interpreter::Interpreter;

/// Everything was answered.
const DONE: u8 = 0;
/// The input or the output failed.
const BROKEN: u8 = 1;
/// A line was malformed; nothing after it was run.
const MALFORMED: u8 = 2;

/// Answers commands until they end, or one is malformed; the status that the process ends with.
pub fn serve(input: impl BufRead, output: impl Write, mut complaints: impl Write) -> u8 {
    match answer_all(input, output) {
        Ok(None) => DONE,
        Ok(Some(complaint)) => {
            let _nowhere_to_say_so = writeln!(complaints, "{complaint}");
            MALFORMED
        }
        Err(error) => {
            let _nowhere_to_say_so = writeln!(complaints, "error: {error}");
            BROKEN
        }
    }
}

fn answer_all(mut input: impl BufRead, mut output: impl Write) -> io::Result<Option<String>> {
    let mut interpreter = Interpreter::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        match interpreter.line(&line) {
            Ok(answer) => {
                output.write_all(answer.as_bytes())?;
                output.flush()?;
            }
            Err(error) => return Ok(Some(error.to_string())),
        }
    }
}
