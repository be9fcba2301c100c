//! What the steps of looking after a halted vCPU's timer cost on a host, in nanoseconds.
//!
//! Owns the constants, their defaults and their file (schema `siesta.costs/1`, written by
//! `siesta bench costs`, read by `siesta simulate`; see `docs/simulation.md`). Must not know how
//! they are used. `measure` and `guests` find them out.

mod guests;
mod measure;
mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bench::HostFacts;

pub use measure::{MeasureError, measure};

/// The schema's name. Its number changes when a name or a unit does; fields may be added.
pub const SCHEMA: &str = "siesta.costs/1";

/// No step of this kind takes longer, in nanoseconds: a second.
pub const LARGEST_NS: u64 = 1_000_000_000;

/// Costs in nanoseconds, each 0 to [`LARGEST_NS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// A `KVM_RUN` that ends with an exit to user space, there and back.
    pub exit_ns: u64,
    /// The same, when another thread ran the vCPU last.
    pub exit_other_thread_ns: u64,
    /// From a futex wake to the woken thread's first instruction, on a CPU that is not idle.
    pub thread_wakeup_ns: u64,
    /// What the same takes longer where the CPU of the woken thread was idle.
    pub idle_exit_ns: u64,
    /// What a sleep's time-out takes longer than a futex wake on an idle CPU: the host's timer
    /// interrupt.
    pub timer_interrupt_ns: u64,
    /// `timer_settime` for a time so near that the hardware is programmed.
    pub timer_set_near_ns: u64,
    /// `timer_settime` behind a nearer one.
    pub timer_set_far_ns: u64,
    /// From the expiry of a thread's host timer until it has left its guest.
    pub timer_exit_ns: u64,
    /// From the signal of another thread until a thread has left its guest.
    pub kick_ns: u64,
    /// CPU time of a halted vCPU's tick that is served on another vCPU's thread.
    pub tick_inline_ns: u64,
    /// CPU time of a tick in mode `thread`: time-out, wakeup, exits and sleep.
    pub tick_thread_ns: u64,
    /// CPU time of a tick in mode `kernel`, likewise.
    pub tick_kernel_ns: u64,
    /// The hierarchy's part in a remote expiry: taking it and queueing the next.
    pub hierarchy_tick_ns: u64,
    /// The hierarchy's part in a vCPU's waking and halting.
    pub hierarchy_halt_ns: u64,
}

impl Default for Costs {
    /// A host with hardware virtualisation whose exits take 2 us.
    fn default() -> Self {
        Costs {
            exit_ns: 2_000,
            exit_other_thread_ns: 2_300,
            thread_wakeup_ns: 2_000,
            idle_exit_ns: 4_000,
            timer_interrupt_ns: 1_500,
            timer_set_near_ns: 900,
            timer_set_far_ns: 500,
            timer_exit_ns: 4_000,
            kick_ns: 5_000,
            tick_inline_ns: 8_000,
            tick_thread_ns: 14_000,
            tick_kernel_ns: 8_000,
            hierarchy_tick_ns: 400,
            hierarchy_halt_ns: 300,
        }
    }
}

impl Costs {
    /// Names and values, in the order of the file.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("exit_ns", self.exit_ns),
            ("exit_other_thread_ns", self.exit_other_thread_ns),
            ("thread_wakeup_ns", self.thread_wakeup_ns),
            ("idle_exit_ns", self.idle_exit_ns),
            ("timer_interrupt_ns", self.timer_interrupt_ns),
            ("timer_set_near_ns", self.timer_set_near_ns),
            ("timer_set_far_ns", self.timer_set_far_ns),
            ("timer_exit_ns", self.timer_exit_ns),
            ("kick_ns", self.kick_ns),
            ("tick_inline_ns", self.tick_inline_ns),
            ("tick_thread_ns", self.tick_thread_ns),
            ("tick_kernel_ns", self.tick_kernel_ns),
            ("hierarchy_tick_ns", self.hierarchy_tick_ns),
            ("hierarchy_halt_ns", self.hierarchy_halt_ns),
        ]
    }

    /// Reads a file that `siesta bench costs` wrote.
    ///
    /// # Errors
    /// It cannot be read, has another schema, lacks a cost, or one is out of range.
    pub fn read(path: &Path) -> Result<Costs, CostsError> {
        let whole = fs::metadata(path).and_then(|meta| match meta.is_dir() {
            true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            false => fs::read_to_string(path),
        });
        let text = whole.map_err(|source| CostsError::Read { path: path.to_owned(), source })?;
        Costs::parse(&text).map_err(|what| CostsError::Content { path: path.to_owned(), what })
    }

    fn parse(text: &str) -> Result<Costs, String> {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let schema = json.get("schema").and_then(serde_json::Value::as_str).unwrap_or("none");
        if schema != SCHEMA {
            return Err(format!("its schema is {schema}, not {SCHEMA}"));
        }
        let costs = json.get("costs").cloned().unwrap_or_default();
        let costs: Costs = serde_json::from_value(costs).map_err(|error| error.to_string())?;
        match costs.named().into_iter().find(|(_, ns)| *ns > LARGEST_NS) {
            Some((name, ns)) => Err(format!("{name} is {ns}, more than {LARGEST_NS}")),
            None => Ok(costs),
        }
    }
}

/// Why a file of costs cannot be used.
#[derive(Debug, Error)]
pub enum CostsError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no such file.
    #[error("{}: not a file of 'siesta bench costs': {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// The content of the file.
#[derive(Clone, Debug, Serialize)]
pub struct CostsReport {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The command line.
    pub command: String,
    /// The host.
    pub host: HostFacts,
    /// The costs.
    pub costs: Costs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(costs: &str) -> String {
        format!("{{\"schema\": \"{SCHEMA}\", \"costs\": {costs}}}")
    }

    #[test]
    fn what_is_written_is_read() {
        let costs = Costs { exit_ns: 7_123, ..Costs::default() };
        let text = serde_json::to_string(&costs).unwrap();
        assert_eq!(Costs::parse(&file(&text)), Ok(costs));
        for (name, ns) in costs.named() {
            assert!(text.contains(&format!("\"{name}\":{ns}")), "{name}: {text}");
        }
    }

    #[test]
    fn wrong_files_are_refused_with_a_reason() {
        let all = serde_json::to_string(&Costs::default()).unwrap();
        let cases = [
            ("".to_owned(), "not JSON"),
            ("[]".to_owned(), "schema is none"),
            (file(&all).replace("costs/1", "costs/2"), "siesta.costs/2"),
            (file("{}"), "exit_ns"),
            (file(&all.replace("\"kick_ns\":5000", "\"kick_ns\":-1")), "-1"),
            (file(&all.replace("\"kick_ns\":5000", "\"kick_ns\":1000000001")), "kick_ns"),
        ];
        for (text, part) in cases {
            let why = Costs::parse(&text).unwrap_err();
            assert!(why.contains(part), "'{part}': {why}");
            assert_eq!(why.lines().count(), 1, "{why}");
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        for path in ["/nonexistent/costs.json", "/"] {
            let error = Costs::read(Path::new(path)).unwrap_err();
            assert!(error.to_string().starts_with(path), "{error}");
        }
    }
}
