//! The virtio devices of a VM: which there are, where they are, and what of the host is behind them.
//!
//! Owns the list of devices and the order in which a VM gets them: opened before anything of the VM
//! exists, so that what is wrong with a file is said first; wired when memory and bus are there
//! ([`wiring`]); started when the VM is ([`Backend`]). Must not know how registers and requests work,
//! which is `devices::virtio`'s.
//!
//! A back-end never works on a vCPU's thread: the event loop carries those that cannot block
//! ([`on_loop`]), a disk has a thread of its own ([`disk::Worker`]).

pub mod balloon;
pub mod disk;
pub mod entropy;
pub mod net;
pub mod on_loop;
pub mod terminal;
mod unix;
pub mod vsock;
pub mod wiring;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use devices::bus::{BusBuilder, BusError};
use devices::virtio::rng::Rng;
use kvm_ioctls::VmFd;
use thiserror::Error;

use self::balloon::BalloonPlug;
use self::disk::{DiskConfig, DiskError, Worker};
use self::entropy::HostEntropy;
use self::net::NetConfig;
use self::on_loop::{HostSide, OnLoop};
use self::terminal::TerminalConfig;
use self::vsock::VsockConfig;
use self::wiring::{Line, Wired};
use crate::boot::layout::{MOST_VIRTIO, VirtioWindow, virtio_window};
use crate::descriptors;
use crate::event_loop::{CarriedId, EventLoop, EventLoopError};
use crate::memory::GuestMemory;

/// The virtio devices of a VM, as they are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtioConfig {
    /// There is an entropy device.
    pub rng: bool,
    /// The disks, in the order in which the guest finds them.
    pub disks: Vec<DiskConfig>,
    /// The network devices, in the order in which the guest finds them.
    pub nets: Vec<NetConfig>,
    /// The socket device.
    pub vsock: Option<VsockConfig>,
    /// Where the console device's bytes go, if there is one.
    pub console: Option<TerminalConfig>,
    /// The size that the balloon begins with, in bytes, if there is one.
    pub balloon: Option<u64>,
}

impl VirtioConfig {
    /// The devices of VM `index` of several that are alike: what cannot be shared has a name of its own,
    /// with `.INDEX` behind.
    ///
    /// # Errors
    /// One line: something that has no name.
    pub fn numbered(&self, index: u32) -> Result<Self, String> {
        let nets = self.nets.iter().map(|net| net.numbered(index)).collect::<Result<_, _>>()?;
        Ok(VirtioConfig {
            rng: self.rng,
            disks: self.disks.clone(),
            nets,
            vsock: self.vsock.as_ref().map(|vsock| vsock.numbered(index)),
            console: self.console.as_ref().map(|console| console.numbered(index)),
            balloon: self.balloon,
        })
    }
}

/// The name with `.INDEX` behind.
fn numbered_path(path: &Path, index: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{index}"));
    name.into()
}

/// Why a VM does not get its virtio devices.
#[derive(Debug, Error)]
pub enum VirtioError {
    /// More than there are windows and interrupt lines.
    #[error("{asked} virtio devices: a VM has room for {MOST_VIRTIO}; leave some out")]
    TooMany {
        /// How many were asked for.
        asked: usize,
    },
    /// Out of descriptors.
    #[error("cannot set up a virtio device: {0}{hint}", hint = descriptors::hint(.0.raw_os_error()))]
    Descriptors(#[source] io::Error),
    /// KVM does not catch the driver's notifications.
    #[error("cannot have KVM signal a virtio queue: {0}")]
    Notify(#[source] kvm_ioctls::Error),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The event loop.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// A disk's thread could not be started.
    #[error("cannot start a disk's thread: {0} (limits: ulimit -u, cgroup pids.max){hint}", hint = descriptors::hint(.0.raw_os_error()))]
    Thread(#[source] io::Error),
    /// A disk's file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is behind a network device.
    #[error("--net {cable}: {what}")]
    Net {
        /// What was asked for.
        cable: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The socket of the socket device.
    #[error("--vsock path={}: {what}", .path.display())]
    Vsock {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The file or socket of the console device.
    #[error("--virtio-console {}: {what}", .path.display())]
    Console {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Huge pages cannot be given back in small pieces.
    #[error(
        "--balloon: memory of huge pages cannot be given back; leave out --balloon or --hugepages"
    )]
    BalloonOfHugePages,
    /// A balloon that leaves the guest nothing.
    #[error("--balloon: {target} bytes of a memory of {memory}; ask for less")]
    BalloonTooLarge {
        /// What was asked for, in bytes.
        target: u64,
        /// The VM's memory, in bytes.
        memory: u64,
    },
}

/// A device that was opened and belongs to no VM yet.
pub trait Plug: Send {
    /// Puts it into a VM.
    ///
    /// # Errors
    /// [`VirtioError`]: descriptors, KVM or the bus.
    fn plug(self: Box<Self>, into: &mut Socket<'_>) -> Result<Box<dyn Backend>, VirtioError>;
}

/// Where a device goes.
pub struct Socket<'a> {
    /// The VM.
    pub vm: &'a VmFd,
    /// Its memory.
    pub memory: &'a GuestMemory,
    /// Its bus, which [`wiring::wire`] takes and puts back.
    pub bus: BusBuilder,
    /// Address and interrupt line.
    pub window: VirtioWindow,
}

/// The host's end of a device of a VM that was not started.
pub trait Backend: Send {
    /// Begins to serve the device. `line`: how it interrupts.
    ///
    /// # Errors
    /// [`VirtioError`]: the event loop is gone, or there is no thread.
    fn start(self: Box<Self>, line: Line, event_loop: &EventLoop) -> Result<Running, VirtioError>;

    /// The device's interrupt line.
    fn irq(&self) -> u8;
}

/// The host's end of a device at work.
pub enum Running {
    /// Carried by the event loop.
    OnLoop(CarriedId),
    /// A disk's own thread.
    Disk(Worker),
    /// A balloon, carried by the event loop.
    Balloon {
        /// The device.
        device: CarriedId,
        /// Asks it for another size.
        control: balloon::Control,
    },
    /// A console device, carried by the event loop.
    Console {
        /// The device.
        device: CarriedId,
        /// What carries its bytes on.
        console: CarriedId,
    },
}

impl Running {
    /// Ends the service. No disk is touched afterwards; devices of the event loop are let go of when
    /// that comes to it.
    pub fn stop(self, event_loop: &EventLoop) {
        match self {
            Running::OnLoop(id) => event_loop.remove(id),
            Running::Disk(worker) => drop(worker),
            Running::Balloon { device, .. } => event_loop.remove(device),
            Running::Console { device, console } => {
                event_loop.remove(device);
                event_loop.remove(console);
            }
        }
    }

    /// The balloon, if this is one.
    #[must_use]
    pub fn balloon(&self) -> Option<&balloon::Control> {
        match self {
            Running::Balloon { control, .. } => Some(control),
            _ => None,
        }
    }
}

/// Opens what the devices need of the host, in the order in which the guest finds them.
///
/// # Errors
/// [`VirtioError`]: too many, or one that cannot be opened.
pub fn open(config: &VirtioConfig) -> Result<Vec<Box<dyn Plug>>, VirtioError> {
    let VirtioConfig { rng, disks, nets, vsock, console, balloon } = config;
    let single = [*rng, vsock.is_some(), console.is_some(), balloon.is_some()];
    let asked = disks.len() + nets.len() + single.map(usize::from).iter().sum::<usize>();
    if asked > MOST_VIRTIO {
        return Err(VirtioError::TooMany { asked });
    }
    let mut devices: Vec<Box<dyn Plug>> = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        devices.push(Box::new(disk::open(disk, number)?));
    }
    for net in nets {
        devices.push(Box::new(OnLoop(net.open()?)));
    }
    if let Some(console) = console {
        devices.push(Box::new(console.open()?));
    }
    if let Some(vsock) = vsock {
        devices.push(Box::new(OnLoop(vsock.open()?)));
    }
    if let Some(target) = *balloon {
        devices.push(Box::new(BalloonPlug { target }));
    }
    if *rng {
        devices.push(Box::new(OnLoop(Rng::new(HostEntropy))));
    }
    Ok(devices)
}

/// Puts the devices into a VM, each into the window of its number. Answers the bus and the devices'
/// back-ends.
///
/// # Errors
/// [`VirtioError`]: descriptors, KVM or the bus.
pub fn plug(
    devices: Vec<Box<dyn Plug>>,
    vm: &VmFd,
    memory: &GuestMemory,
    mut bus: BusBuilder,
) -> Result<(BusBuilder, Vec<Box<dyn Backend>>), VirtioError> {
    let asked = devices.len();
    let mut backends = Vec::new();
    for (index, device) in devices.into_iter().enumerate() {
        let window = virtio_window(index).ok_or(VirtioError::TooMany { asked })?;
        let mut socket = Socket { vm, memory, bus, window };
        backends.push(device.plug(&mut socket)?);
        bus = socket.bus;
    }
    Ok((bus, backends))
}

impl<D: HostSide + 'static> Plug for OnLoop<D> {
    fn plug(self: Box<Self>, into: &mut Socket<'_>) -> Result<Box<dyn Backend>, VirtioError> {
        Ok(Box::new(wiring::wire(self.0, into)?))
    }
}

impl<D: HostSide + 'static> Backend for Wired<D> {
    fn start(self: Box<Self>, line: Line, event_loop: &EventLoop) -> Result<Running, VirtioError> {
        let carried = on_loop::Carried::new(*self, line);
        Ok(Running::OnLoop(event_loop.carry(Box::new(carried))?))
    }

    fn irq(&self) -> u8 {
        self.irq
    }
}
