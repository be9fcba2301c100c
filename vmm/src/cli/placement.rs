//! Options that say where on the host a VM is.
//!
//! Owns how they are written. Must not know what the host has.

use clap::Args;

use crate::placement::numbers::Numbers;
use crate::placement::sched::Sched;
use crate::placement::{HugePages, Isolated, NICE, Placement};

/// Where on the host a VM is.
#[derive(Args, Clone, Debug)]
pub(super) struct PlacementOptions {
    /// The vCPUs' threads run on these host CPUs only: 0-1,4. Halted vCPUs are run by other VMs' threads,
    /// too, unless they are isolated
    #[arg(long, value_name = "CPUS")]
    pin: Option<Numbers>,
    /// Scheduling policy of the vCPUs' threads
    #[arg(long, value_name = "other|batch|idle|fifo:PRIO|rr:PRIO")]
    sched: Option<Sched>,
    /// Nice value of the vCPUs' threads, -20 to 19
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(i64::from(*NICE.start())..=i64::from(*NICE.end())))]
    nice: Option<i32>,
    /// Memory comes from these NUMA nodes only
    #[arg(long, value_name = "NODES")]
    numa: Option<Numbers>,
    /// Memory is made of huge pages: of 2M, or of 1G
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "2M")]
    hugepages: Option<HugePages>,
    /// vCPUs that neither serve others nor are served: their numbers, as 0,2-3, or all
    #[arg(long, value_name = "VCPUS|all")]
    isolate: Option<Isolated>,
}

impl PlacementOptions {
    pub(super) fn placement(&self) -> Placement {
        Placement {
            pin: self.pin.clone(),
            sched: self.sched,
            nice: self.nice,
            numa: self.numa.clone(),
            hugepages: self.hugepages,
            isolate: self.isolate.clone().unwrap_or_default(),
        }
    }
}
