//! Booting: reads a kernel file, puts it and its boot structures into guest memory, and gives vCPUs
//! the registers with which they start.
//!
//! Owns nothing. Must not know how vCPUs run afterwards, nor the devices, beyond their addresses in
//! the MP table.
//!
//! Which files are kernels, and how each is entered, is in [`kernel`]. All boot structures lie in the
//! first MiB (see [`layout`]); they are written whatever the entry, so that a guest finds CPUs and
//! interrupt controllers in the way it prefers: MP table or ACPI.

pub mod acpi;
pub mod bzimage;
pub mod elf;
pub mod elf_error;
pub mod file;
pub mod foreign;
pub mod initrd;
pub mod kernel;
pub mod layout;
pub mod mptable;
pub mod multiboot;
pub mod multiboot_info;
pub mod place;
pub mod pvh;
mod registers;
pub mod tables;
pub mod zero_page;

use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::{self, GuestMemory};
use crate::shared_image::{MapError, SharedImage};
use file::{FileError, Kind};
use initrd::InitrdError;
use kernel::{KernelError, Start};
use layout::{CMDLINE, CMDLINE_MOST, HIGH_MEMORY, MULTIBOOT_INFO, START_INFO, ZERO_PAGE};
pub use registers::{StateError, set_entry_state, set_init_state, set_sipi_state};

/// What Linux needs to be told to be seen and to end: messages go to the serial port, a kernel that
/// panics resets its machine at once instead of waiting for ever, and none looks for a PCI bus.
pub const LINUX_CMDLINE: &str = "console=ttyS0 panic=-1 pci=off";

/// Why a guest cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel cannot be loaded.
    #[error("kernel {name}: {fault}")]
    Kernel {
        /// The kernel's name.
        name: String,
        /// What is wrong with it.
        #[source]
        fault: KernelError,
    },
    /// The pages of the kernel's image cannot be mapped.
    #[error(transparent)]
    Shared(#[from] MapError),
    /// The initial RAM disk has no place.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// The command line is above [`CMDLINE_MOST`].
    #[error("the command line has {bytes} bytes; shorten it to {CMDLINE_MOST}")]
    CmdlineTooLong {
        /// Its size, in bytes.
        bytes: usize,
    },
    /// The command line holds a zero, which would end it for the guest.
    #[error("the command line has a zero byte at offset {at}; remove it")]
    CmdlineZero {
        /// Where, in bytes.
        at: usize,
    },
    /// Guest memory ends in the first MiB.
    #[error(
        "the boot structures need 1 MiB of guest memory, there are {bytes} bytes; use --memory 2M or more"
    )]
    TooLittleMemory {
        /// What there is, in bytes.
        bytes: u64,
    },
    /// The command line or a table cannot be written.
    #[error("cannot write {what} into guest memory")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// What the guest memory said.
        #[source]
        source: GuestMemoryError,
    },
    /// The start info or the zero page cannot be written.
    #[error("cannot write {what} into guest memory")]
    BootInfo {
        /// What was to be written.
        what: &'static str,
        /// What linux-loader said.
        #[source]
        source: linux_loader::configurator::Error,
    },
}

/// By which protocol a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Xen's PVH: 32-bit protected mode without paging.
    Pvh,
    /// Multiboot 1: 32-bit protected mode without paging.
    Multiboot,
    /// Linux's 32-bit boot protocol: protected mode without paging.
    Linux32,
    /// Linux's 64-bit boot protocol: long mode.
    Linux64,
}

/// Where and how the BSP starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The protocol.
    pub kind: EntryKind,
    /// Guest-physical address of the first instruction, below 4 GiB.
    pub rip: u64,
    /// Guest-physical address of what the protocol hands over: `hvm_start_info` or multiboot
    /// information (`ebx`), or the zero page (`rsi`).
    pub boot_info: u64,
}

impl From<Start> for Entry {
    fn from(start: Start) -> Self {
        let (kind, boot_info) = match start {
            Start::Pvh(_) => (EntryKind::Pvh, START_INFO),
            Start::Multiboot(_) => (EntryKind::Multiboot, MULTIBOOT_INFO),
            Start::Linux32(_) => (EntryKind::Linux32, ZERO_PAGE),
            Start::Linux64(_) => (EntryKind::Linux64, ZERO_PAGE),
        };
        Entry { kind, rip: start.address(), boot_info }
    }
}

/// What is booted.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    /// The kernel file's bytes.
    pub kernel: &'a [u8],
    /// Its name, for messages.
    pub name: &'a str,
    /// The command line, without a terminating zero.
    pub cmdline: &'a str,
    /// The initial RAM disk (to multiboot kernels: the module).
    pub initrd: Option<&'a [u8]>,
    /// The images of the kernel and the RAM disk whose pages are mapped instead of copied.
    pub shared: Shared<'a>,
    /// How many virtio devices the ACPI tables tell of.
    pub virtio: usize,
}

/// Images that other VMs may be booted from, too, with the same bytes as the files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shared<'a> {
    /// The kernel file's.
    pub kernel: Option<&'a SharedImage>,
    /// The initial RAM disk's.
    pub initrd: Option<&'a SharedImage>,
}

/// Reads a kernel file as a whole.
///
/// # Errors
/// [`BootError::File`], saying in which way the path names no usable file.
pub fn read_kernel(path: &Path) -> Result<Vec<u8>, BootError> {
    Ok(file::read(Kind::Kernel, path)?)
}

/// Reads an initial RAM disk as a whole.
///
/// # Errors
/// As [`read_kernel`].
pub fn read_initrd(path: &Path) -> Result<Vec<u8>, BootError> {
    Ok(file::read(Kind::Initrd, path)?)
}

/// The command line of a kernel for which none is given: [`LINUX_CMDLINE`] for Linux, else nothing.
#[must_use]
pub fn usual_cmdline(kernel: &[u8]) -> &'static str {
    if kernel::is_linux(kernel) { LINUX_CMDLINE } else { "" }
}

/// Loads the kernel and the initial RAM disk, and writes the command line, the MP and ACPI tables for
/// `cpus` CPUs, and what the kernel's protocol hands
/// over. `memory` is a new guest's: all zero, and, where images are shared, of ordinary pages.
///
/// # Errors
/// [`BootError`] when the kernel is malformed or does not fit, the RAM disk does not fit, the command
/// line is too long, or there is less than 1 MiB of memory. No bytes make it panic or write outside
/// guest memory.
pub fn load(memory: &GuestMemory, payload: &Payload<'_>, cpus: u32) -> Result<Entry, BootError> {
    let bytes = memory::low_end(memory);
    if bytes < HIGH_MEMORY {
        return Err(BootError::TooLittleMemory { bytes });
    }
    check_cmdline(payload.cmdline)?;
    let wrong = |fault| BootError::Kernel { name: payload.name.to_owned(), fault };
    let loaded = kernel::load(memory, payload.kernel).map_err(wrong)?;
    if let Some(setup) = &loaded.setup {
        setup.check_cmdline(payload.cmdline.len()).map_err(|fault| wrong(fault.into()))?;
    }
    if let Some(image) = payload.shared.kernel {
        for piece in &loaded.copied {
            image.overlay(memory, *piece)?;
        }
    }
    let write = |what| move |source| BootError::Write { what, source };
    let info = |what| move |source| BootError::BootInfo { what, source };
    let initrd = match payload.initrd {
        Some(bytes) => {
            let (used, most) = (&loaded.used, loaded.initrd_most);
            Some(initrd::load(memory, used, most, bytes, payload.shared.initrd)?)
        }
        None => None,
    };
    let cmdline = [payload.cmdline.as_bytes(), &[0]].concat();
    memory.write_slice(&cmdline, GuestAddress(CMDLINE)).map_err(write("the command line"))?;
    mptable::write(memory, cpus).map_err(write("the MP table"))?;
    acpi::write(memory, cpus, payload.virtio).map_err(write("the ACPI tables"))?;
    let (initrd, setup) = (initrd.as_ref(), loaded.setup.as_ref());
    match Entry::from(loaded.start).kind {
        EntryKind::Pvh => pvh::write(memory, initrd).map_err(info("the PVH start info"))?,
        EntryKind::Multiboot => {
            multiboot_info::write(memory, initrd).map_err(write("the multiboot information"))?
        }
        EntryKind::Linux32 | EntryKind::Linux64 => {
            zero_page::write(memory, setup, initrd).map_err(info("the zero page"))?;
        }
    }
    Ok(loaded.start.into())
}

fn check_cmdline(cmdline: &str) -> Result<(), BootError> {
    if cmdline.len() > CMDLINE_MOST {
        return Err(BootError::CmdlineTooLong { bytes: cmdline.len() });
    }
    match cmdline.bytes().position(|b| b == 0) {
        Some(at) => Err(BootError::CmdlineZero { at }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "boot/load_tests.rs"]
mod tests;
