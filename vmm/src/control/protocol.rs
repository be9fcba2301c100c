//! What can be asked of a running process, and what it answers.
//!
//! A request is one line of JSON, and so is its answer; answers come in the order of the requests.
//! Owns the words. Must not know sockets or fleets.

use serde::{Deserialize, Serialize};

use super::spec::VmSpec;

/// A request: `{"command": "pause", "vm": "vm3"}`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// The VMs there are, and the last ones that ended.
    List,
    /// Starts VMs, all alike.
    Create(VmSpec),
    /// Stops a VM's vCPUs until it is resumed.
    Pause(Named),
    /// Lets a paused VM go on.
    Resume(Named),
    /// Ends a VM and frees what it had.
    Stop(Named),
    /// Takes vCPUs out of the hierarchy, or lets them in again.
    Isolate(Isolate),
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
    Stats(Stats),
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

/// Counters since the start of what they are of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Timer mode.
    pub timers: String,
    /// Monotonic time of the host, in ns: rates are differences over it.
    pub at_ns: u64,
    /// VMs that were created.
    pub created: u64,
    /// VMs that have ended.
    pub ended: u64,
    /// The VMs there are.
    pub vms: Vec<VmStats>,
    /// Levels of the hierarchies, the lowest first, all hierarchies together.
    pub levels: Vec<LevelStats>,
}

/// Counters of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmStats {
    /// Its name.
    pub vm: String,
    /// What it does.
    pub state: VmState,
    /// Accesses to model-specific registers that nobody serves.
    pub unknown_msrs: u64,
    /// Accesses to addresses of the chipset where no device is.
    pub absent_devices: u64,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuStats>,
}

/// Counters of a vCPU and of its thread (`vcpu::Stats`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VcpuStats {
    /// Where the vCPU is: `home`, `parked`, `borrowed`, `waking`, `wait-sipi`, `paused`, `stopped`.
    pub state: String,
    /// It neither serves nor is served.
    pub isolated: bool,
    /// Exits that its thread handled.
    pub exits: u64,
    /// Timers of others that its thread expired and served.
    pub inline: u64,
    /// Of those, the ones while its own vCPU was halted.
    pub by_helper: u64,
    /// vCPUs that its thread handed to their own threads.
    pub handed_off: u64,
    /// Threads that it called because a responsibility began or became earlier.
    pub kicks: u64,
    /// Times that its thread woke for nothing.
    pub stale_timeouts: u64,
    /// Times that it gave up its role because its share was used up.
    pub relieved: u64,
    /// Looks that found its thread overdue at its duty.
    pub overdue: u64,
    /// Times that it was woken because nobody served it.
    pub rescued: u64,
    /// Time that its thread gave to other vCPUs, in ns.
    pub lent_ns: u64,
    /// Time that other threads gave to it, in ns.
    pub served_ns: u64,
}

/// Counters of a level of the hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelStats {
    /// Walks that reached it.
    pub walks: u64,
    /// Passes that looked for expired timers there.
    pub passes: u64,
    /// Timers that they expired.
    pub expiries: u64,
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
