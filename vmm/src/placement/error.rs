//! Why a VM cannot be placed as asked, in one line that says what would do.
//!
//! Owns the words. Must not know how it is found out.

use std::io;

use thiserror::Error;

use super::numbers::Numbers;
use super::sched::Sched;

/// Why a VM cannot be placed as asked. Nothing of it runs then.
#[derive(Debug, Error)]
pub enum PlacementError {
    /// A CPU that there is not, or that the process may not use.
    #[error(
        "--pin {cpu}: this process may run on CPUs {allowed}, and CPU {cpu} is not one of them; pin to those"
    )]
    Cpu {
        /// Its number.
        cpu: u32,
        /// The process's CPUs.
        allowed: Numbers,
    },
    /// The kernel refuses, or does not tell, CPUs.
    #[error("--pin {pin}: the host refuses these CPUs: {fault}")]
    Pin {
        /// What was asked for.
        pin: Numbers,
        /// What the kernel said.
        #[source]
        fault: io::Error,
    },
    /// No right to the policy.
    #[error("--sched {sched}: not permitted: {}", sched_remedy(*.sched))]
    SchedDenied {
        /// What was asked for.
        sched: Sched,
    },
    /// The kernel refuses the policy.
    #[error("--sched {sched}: the host refuses it: {fault}")]
    Sched {
        /// What was asked for.
        sched: Sched,
        /// What the kernel said.
        #[source]
        fault: io::Error,
    },
    /// Outside [`super::NICE`].
    #[error("--nice {nice}: between -20 (first) and 19 (last)")]
    NiceRange {
        /// What was asked for.
        nice: i32,
    },
    /// Real-time threads have no use for a nice value.
    #[error("--nice {nice}: has no effect with --sched {sched}; leave one of them out")]
    NiceUseless {
        /// What was asked for.
        nice: i32,
        /// And what with it.
        sched: Sched,
    },
    /// No right to the nice value.
    #[error(
        "--nice {nice}: not permitted: CAP_SYS_NICE is needed, or RLIMIT_NICE (ulimit -e) of {} or more", 20 - .nice
    )]
    NiceDenied {
        /// What was asked for.
        nice: i32,
    },
    /// The kernel refuses the nice value.
    #[error("--nice {nice}: the host refuses it: {fault}")]
    Nice {
        /// What was asked for.
        nice: i32,
        /// What the kernel said.
        #[source]
        fault: io::Error,
    },
    /// A node that there is not, that has no memory, or that the process may not use.
    #[error(
        "--numa {node}: this process may use the memory of nodes {allowed}, and node {node} is not one of \
         them; name those"
    )]
    Node {
        /// Its number.
        node: u32,
        /// The process's nodes that have memory.
        allowed: Numbers,
    },
    /// A vCPU that the VM has not.
    #[error("--isolate {vcpu}: there is no vCPU {vcpu}; the VM has {cpus}, counted from 0")]
    NoVcpu {
        /// Its number.
        vcpu: u32,
        /// How many there are.
        cpus: u32,
    },
}

fn sched_remedy(sched: Sched) -> String {
    match sched.priority() {
        0 => "CAP_SYS_NICE is needed, or RLIMIT_NICE (ulimit -e)".into(),
        priority => {
            format!("CAP_SYS_NICE is needed, or RLIMIT_RTPRIO (ulimit -r) of {priority} or more")
        }
    }
}
