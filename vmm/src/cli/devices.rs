//! Options that say which virtio devices a VM has.
//!
//! Owns how they are written. Must not know how devices work.

use clap::Args;

use super::values;
use crate::virtio::VirtioConfig;
use crate::virtio::disk::DiskConfig;
use crate::virtio::net::NetConfig;
use crate::virtio::terminal::TerminalConfig;
use crate::virtio::vsock::VsockConfig;

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
    /// A network device whose frames go to a tap interface, which has to exist, or as messages to a unix
    /// socket (SOCK_SEQPACKET or SOCK_DGRAM), or to an inherited one. Several: eth0, eth1, ... in this order;
    /// with --count NAME.0, NAME.1, ...
    #[arg(long = "net", value_name = "tap=NAME|socket=PATH|fd=N[,mac=ADDRESS]")]
    pub nets: Vec<NetConfig>,
    /// Sockets between guest and host (AF_VSOCK): programs of the host's connect to PATH and write 'CONNECT
    /// port'; port N of the host is whoever listens at PATH_N. With --count N+0, N+1, ... and PATH.0, PATH.1, ...
    #[arg(long, value_name = "cid=N,path=PATH")]
    pub vsock: Option<VsockConfig>,
    /// A console device (hvc0), to standard output, a file, or whoever connects to a unix socket; with --count
    /// into FILE.0, FILE.1, ...
    #[arg(long, value_name = "stdio|FILE|unix:SOCKET", num_args = 0..=1, default_missing_value = "stdio")]
    pub virtio_console: Option<TerminalConfig>,
    /// A balloon, by which the guest can be asked for memory ('siesta ctl balloon'), with the size that it
    /// begins with
    #[arg(long, value_name = "SIZE", num_args = 0..=1, default_missing_value = "0", value_parser = values::balloon_size)]
    pub balloon: Option<u64>,
}

impl DeviceOptions {
    pub(super) fn config(&self) -> VirtioConfig {
        VirtioConfig {
            rng: self.rng,
            disks: self.disks.clone(),
            nets: self.nets.clone(),
            vsock: self.vsock.clone(),
            console: self.virtio_console.clone(),
            balloon: self.balloon,
        }
    }
}
