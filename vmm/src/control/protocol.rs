//! What can be asked of a running process, and what it answers.
//!
//! A request is one line of JSON, and so is its answer; answers come in the order of the requests.
//! Owns the words; those of the counters are in `stats`. Must not know sockets or fleets.

use serde::{Deserialize, Serialize};

use super::spec::VmSpec;
use super::stats::Stats;

/// A request: `{"command": "pause", "vm": "vm3"}`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// The VMs there are, and the last ones that ended.
    List,
    /// Starts VMs, all alike.
    Create(Box<VmSpec>),
    /// Stops a VM's vCPUs until it is resumed.
    Pause(Named),
    /// Lets a paused VM go on.
    Resume(Named),
    /// Ends a VM and frees what it had.
    Stop(Named),
    /// Presses a VM's power button, and ends it if it does not power off in time, or does not look.
    Shutdown(Named),
    /// Takes vCPUs out of the hierarchy, or lets them in again.
    Isolate(Isolate),
    /// Asks a VM for a balloon of another size.
    Balloon(BalloonSize),
    /// Counters of all VMs and of the hierarchies.
    Stats,
    /// Ends all VMs and the process.
    Quit,
}

/// A request for one VM.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name.
    pub vm: String,
}

/// Which vCPUs of a VM neither serve others nor are served.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isolate {
    /// The VM's name.
    pub vm: String,
    /// Numbers of the isolated vCPUs; the others are not.
    pub vcpus: Vec<u32>,
}

/// How much of its memory a VM is asked to give back to the host.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonSize {
    /// The VM's name.
    pub vm: String,
    /// In bytes; less than its memory.
    pub size: u64,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// It is done.
    Done,
    /// Names of VMs that were created.
    Created(Vec<String>),
    /// To [`Request::List`].
    Vms(Vec<VmLine>),
    /// To [`Request::Stats`].
    Stats(Box<Stats>),
    /// What is wrong and what to do, in one line. Nothing was done.
    Error(String),
}

/// What a VM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// It runs.
    Running,
    /// It was paused.
    Paused,
    /// It has ended, and only this line is left of it.
    Ended,
}

/// A VM in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmLine {
    /// Its name.
    pub vm: String,
    /// What it does.
    pub state: VmState,
    /// How many vCPUs it has.
    pub cpus: u32,
    /// Its memory in bytes.
    pub memory: u64,
    /// How it ended; empty while it has not.
    pub outcome: String,
    /// The exit status that `siesta run` would have ended with.
    pub status: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        let pause: Request = serde_json::from_str(r#"{"command":"pause","vm":"a"}"#).expect("it");
        assert_eq!(pause, Request::Pause(Named { vm: "a".into() }));
        let create = r#"{"command":"create","image":"tick","memory":"64M","count":3}"#;
        let Ok(Request::Create(spec)) = serde_json::from_str(create) else {
            panic!("{create}");
        };
        assert_eq!((spec.image.as_deref(), spec.count, spec.memory), (Some("tick"), 3, 64 << 20));
        for request in [Request::List, Request::Create(spec), Request::Stats, Request::Quit] {
            let text = serde_json::to_string(&request).expect("JSON");
            assert_eq!(serde_json::from_str::<Request>(&text).expect("it"), request, "{text}");
        }
    }

    #[test]
    fn what_is_unknown_or_missing_is_refused() {
        for wrong in [
            r#"{"command":"pause"}"#,
            r#"{"command":"pause","vm":"a","now":true}"#,
            r#"{"command":"sleep"}"#,
            r#"{"vm":"a"}"#,
            r#"{"command":"create","image":"tick","memroy":"64M"}"#,
            r#"{"command":"create","image":"tick","memory":"0"}"#,
            "[]",
            "",
        ] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
