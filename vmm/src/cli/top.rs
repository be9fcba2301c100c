//! `siesta top`: watches a running `siesta serve` on the terminal.
//!
//! Owns its arguments. Must not know what is shown.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Failure, INTERRUPTED, OK, values};
use crate::control::client::Client;
use crate::signals::Signals;
use crate::top::{self, Left, TopError};

/// Arguments of `siesta top`.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct TopArguments {
    /// The socket of 'siesta serve'
    #[arg(long, visible_alias = "control", value_name = "SOCKET")]
    socket: PathBuf,
    /// Time between two looks, in seconds
    #[arg(long, default_value = "1", value_parser = interval, value_name = "SECS")]
    interval: Duration,
    /// How long the process may take to answer, in seconds
    #[arg(long, default_value = "10", value_parser = super::stats::patience, value_name = "SECS")]
    timeout: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let wrong = "write a number of seconds from 0.1 to 3600";
    let seconds = values::seconds_up_to(text, 3600.0).map_err(|_| wrong)?;
    if seconds < 0.1 { Err(wrong.into()) } else { Ok(Duration::from_secs_f64(seconds)) }
}

pub(super) fn top(arguments: &TopArguments) -> Result<u8, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::input(
            "'siesta top' needs a terminal for input and output; 'siesta stats' does not",
        ));
    }
    // Before any thread exists, so that all inherit the mask. SIGHUP comes with a terminal that goes.
    let signals = Signals::take_with(&[libc::SIGHUP]).map_err(Failure::input)?;
    let client = Client::connect(&arguments.socket)
        .map_err(|error| Failure::input(format!("--socket {error}")))?
        .patient(arguments.timeout);
    match top::watch(client, arguments.interval, signals) {
        Ok(Left::Quit) => Ok(OK),
        Ok(Left::Interrupted) => Ok(INTERRUPTED),
        Err(error @ TopError::Process(_)) => Err(Failure::guest(error)),
        Err(error @ TopError::Terminal(_)) => Err(Failure::input(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_neither_too_short_nor_too_long() {
        assert_eq!(interval("0.1"), Ok(Duration::from_millis(100)));
        assert_eq!(interval("3600"), Ok(Duration::from_secs(3600)));
        for wrong in ["0", "0.05", "-1", "nan", "3601", "1s", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
