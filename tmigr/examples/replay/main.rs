//! Replays commands on a hierarchy, from standard input to standard output.
//!
//! ```text
//! cargo run -q -p tmigr --example replay < some.trace
//! ```
//!
//! One answer a command, flushed. A malformed line ends it with status 2.

mod interpreter;
mod stream;

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    stream::serve(io::stdin().lock(), io::stdout().lock(), io::stderr().lock()).into()
}
