//! Options that say which virtio devices a VM has.
//!
//! Owns how they are written. Must not know how devices work.

use clap::Args;

use crate::virtio::VirtioConfig;

/// The virtio devices of a VM.
#[derive(Args, Clone, Debug)]
pub(super) struct DeviceOptions {
    /// The guest has an entropy device, which hands out the host's random numbers
    #[arg(long)]
    pub rng: bool,
}

impl DeviceOptions {
    pub(super) fn config(&self) -> VirtioConfig {
        VirtioConfig { rng: self.rng }
    }
}
