//! Wrong arguments in one line.
//!
//! clap's own messages are several lines; this keeps what was wrong, the closest valid one, and
//! where to look. Owns nothing.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong, in one line.
pub(super) fn one_line(error: &Error) -> String {
    let name = |kind| text(error, kind);
    let mut line =
        match (error.kind(), name(ContextKind::InvalidArg), name(ContextKind::InvalidValue)) {
            (ErrorKind::InvalidValue, Some(argument), Some(value)) if value.is_empty() => {
                format!("{argument} needs a value")
            }
            (ErrorKind::InvalidValue, Some(argument), Some(value)) => {
                format!("'{value}' is not a value of {argument}")
            }
            (ErrorKind::ValueValidation, Some(argument), Some(value)) => {
                let why =
                    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                format!("'{value}' is not a value of {argument}: {why}")
            }
            (ErrorKind::UnknownArgument, Some(argument), _) => format!("unknown option {argument}"),
            (ErrorKind::MissingRequiredArgument, Some(argument), _) => {
                format!("{argument} is needed")
            }
            (ErrorKind::ArgumentConflict, Some(argument), _) => {
                let other = name(ContextKind::PriorArg).unwrap_or_else(|| "another option".into());
                format!("{argument} and {other} exclude each other")
            }
            (ErrorKind::InvalidSubcommand, _, _) => {
                let command = name(ContextKind::InvalidSubcommand).unwrap_or_default();
                format!("unknown command '{command}'")
            }
            (
                ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                _,
                _,
            ) => "a command is needed: run, serve, ctl, test, images, bench or simulate".into(),
            _ => first_line(error),
        };
    let closest =
        [ContextKind::SuggestedValue, ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand];
    if let Some(closest) = closest.into_iter().find_map(name) {
        line.push_str(&format!("; did you mean '{closest}'?"));
    } else if let Some(valid) = name(ContextKind::ValidValue) {
        line.push_str(&format!("; it is one of {valid}"));
    } else {
        line.push_str("; see 'siesta --help'");
    }
    line
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(one) => Some(one.clone()),
        ContextValue::Strings(many) if many.is_empty() => None,
        ContextValue::Strings(many) => Some(many.join(", ")),
        _ => None,
    }
}

fn first_line(error: &Error) -> String {
    let all = error.to_string();
    let line = all.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
