//! Options that say which virtio devices a VM has.
//!
//! Owns how they are written. Must not know how devices work.

use clap::Args;

use crate::virtio::VirtioConfig;
use crate::virtio::disk::DiskConfig;

/// The virtio devices of a VM.
#[derive(Args, Clone, Debug)]
pub(super) struct DeviceOptions {
    /// The guest has an entropy device, which hands out the host's random numbers
    #[arg(long)]
    pub rng: bool,
    /// A disk: a file or block device with its bytes; ro: not to be written; direct: past the host's page
    /// cache. Several: vda, vdb, ... in this order
    #[arg(long = "disk", value_name = "PATH[,ro][,direct]")]
    pub disks: Vec<DiskConfig>,
}

impl DeviceOptions {
    pub(super) fn config(&self) -> VirtioConfig {
        VirtioConfig { rng: self.rng, disks: self.disks.clone() }
    }
}
