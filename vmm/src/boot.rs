//! Booting: reads a kernel file, puts it and its boot structures into guest memory, and gives vCPUs
//! the registers with which they start.
//!
//! Owns nothing. Must not know how vCPUs run afterwards, nor the devices, beyond their addresses in
//! the MP table.
//!
//! A kernel is an ELF64 file. With a PVH note it is entered in 32-bit protected mode at the note's
//! address, without one in long mode at the file's entry point, as Linux's 64-bit boot protocol says.
//! All boot structures lie in the first MiB (see [`layout`]).

pub mod elf;
pub mod elf_error;
pub mod layout;
pub mod linux64;
pub mod mptable;
pub mod pvh;
mod registers;
pub mod tables;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::memory::{self, GuestMemory};
use elf::Start;
use elf_error::ElfError;
use layout::{CMDLINE, CMDLINE_MOST, HIGH_MEMORY, START_INFO, ZERO_PAGE};
pub use registers::{StateError, set_entry_state, set_init_state, set_sipi_state};

/// The largest kernel file, in bytes: 1 GiB.
pub const KERNEL_MOST: u64 = 1 << 30;

/// Why a kernel cannot be read or loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// There is no such file.
    #[error("kernel {}: no such file; check the path", path.display())]
    Missing {
        /// The kernel's path.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("kernel {}: cannot be read ({fault}); check its permissions", path.display())]
    Unreadable {
        /// The kernel's path.
        path: PathBuf,
        /// What the host said.
        fault: io::Error,
    },
    /// The path is a directory.
    #[error("kernel {}: is a directory; name the kernel file in it", path.display())]
    Directory {
        /// The kernel's path.
        path: PathBuf,
    },
    /// The path is a device, socket or pipe.
    #[error("kernel {}: is not a regular file; copy the kernel into one", path.display())]
    NotAFile {
        /// The kernel's path.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("kernel {}: is empty; build or copy it again", path.display())]
    Empty {
        /// The kernel's path.
        path: PathBuf,
    },
    /// The file is above [`KERNEL_MOST`].
    #[error("kernel {}: is larger than 1 GiB; strip its debug information", path.display())]
    TooLarge {
        /// The kernel's path.
        path: PathBuf,
    },
    /// The kernel cannot be loaded.
    #[error("kernel {name}: {fault}")]
    Kernel {
        /// The kernel's name.
        name: String,
        /// What is wrong with it.
        fault: ElfError,
    },
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
    /// The command line or the MP table cannot be written.
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
    /// Guest-physical address of what the protocol hands over: `hvm_start_info` (`ebx`) or the zero
    /// page (`rsi`).
    pub boot_info: u64,
}

/// Reads a kernel file as a whole.
///
/// # Errors
/// [`BootError`], one variant for each way in which the path names no usable file: missing,
/// unreadable, a directory, not a regular file, empty, above [`KERNEL_MOST`].
pub fn read_kernel(path: &Path) -> Result<Vec<u8>, BootError> {
    let owned = || path.to_path_buf();
    let fault = |fault: io::Error| match fault.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            BootError::Missing { path: owned() }
        }
        _ => BootError::Unreadable { path: owned(), fault },
    };
    // Before the file is opened: opening a pipe would wait for its other end.
    let facts = std::fs::metadata(path).map_err(fault)?;
    if facts.is_dir() {
        return Err(BootError::Directory { path: owned() });
    }
    if !facts.is_file() {
        return Err(BootError::NotAFile { path: owned() });
    }
    if facts.len() > KERNEL_MOST {
        return Err(BootError::TooLarge { path: owned() });
    }
    let mut bytes = Vec::with_capacity(facts.len() as usize);
    // The file may grow meanwhile.
    let file = File::open(path).map_err(fault)?;
    file.take(KERNEL_MOST + 1).read_to_end(&mut bytes).map_err(fault)?;
    match bytes.len() as u64 {
        0 => Err(BootError::Empty { path: owned() }),
        len if len > KERNEL_MOST => Err(BootError::TooLarge { path: owned() }),
        _ => Ok(bytes),
    }
}

/// Loads `kernel` (an ELF64 file's bytes; `name` is for messages) and writes the command line, the MP
/// table for `cpus` CPUs, the start info and the zero page. `memory` is a new guest's: all zero.
///
/// # Errors
/// [`BootError`] when the kernel is malformed or does not fit, the command line is too long, or there
/// is less than 1 MiB of memory. No bytes make it panic or write outside guest memory.
pub fn load(
    memory: &GuestMemory,
    kernel: &[u8],
    name: &str,
    cmdline: &str,
    cpus: u32,
) -> Result<Entry, BootError> {
    let bytes = memory::low_end(memory);
    if bytes < HIGH_MEMORY {
        return Err(BootError::TooLittleMemory { bytes });
    }
    check_cmdline(cmdline)?;
    let start = elf::load(memory, kernel)
        .map_err(|fault| BootError::Kernel { name: name.to_owned(), fault })?;
    let write = |what| move |source| BootError::Write { what, source };
    let info = |what| move |source| BootError::BootInfo { what, source };
    let cmdline = [cmdline.as_bytes(), &[0]].concat();
    memory.write_slice(&cmdline, GuestAddress(CMDLINE)).map_err(write("the command line"))?;
    mptable::write(memory, cpus).map_err(write("the MP table"))?;
    pvh::write(memory).map_err(info("the PVH start info"))?;
    linux64::write(memory).map_err(info("the zero page"))?;
    Ok(match start {
        Start::Pvh(rip) => Entry { kind: EntryKind::Pvh, rip, boot_info: START_INFO },
        Start::Long(rip) => Entry { kind: EntryKind::Linux64, rip, boot_info: ZERO_PAGE },
    })
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
