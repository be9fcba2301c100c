//! Replays commands on a hierarchy, from standard input to standard output.
//!
//! ```text
//! cargo run -q -p tmigr --example replay < some.trace
//! ```
//!
//! One answer a command, flushed. A malformed line ends it with status 2.

mod interpreter;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use interpreter::Interpreter;

fn main() -> ExitCode {
    match replay(io::stdin().lock(), io::stdout().lock()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(complaint)) => {
            eprintln!("{complaint}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replay(mut input: impl BufRead, mut output: impl Write) -> io::Result<Option<String>> {
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
