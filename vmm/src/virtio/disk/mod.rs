//! Disks: files of the host behind the block device.
//!
//! Owns how a disk is asked for ([`DiskConfig`]) and what is wrong with one that cannot be used
//! ([`DiskError`]). What is done to the file is [`mod@file`]'s, when is the [`Worker`]'s. Must not know
//! requests.

pub mod file;
mod worker;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use devices::virtio::block::{Block, Geometry, SECTOR};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::file::DiskFile;
pub use self::worker::Worker;
use super::wiring::{self, Line, Wired};
use super::{Backend, Plug, Running, Socket, VirtioError};
use crate::event_loop::EventLoop;

/// A disk as it is asked for: `PATH[,ro][,direct]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DiskConfig {
    /// A file with the disk's bytes, or a block device.
    pub path: PathBuf,
    /// It is not written, and other VMs may read it too.
    pub read_only: bool,
    /// Its bytes do not go through the host's page cache.
    pub direct: bool,
}

const READ_ONLY: &str = "ro";
const DIRECT: &str = "direct";

impl FromStr for DiskConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut path, mut read_only, mut direct) = (text, false, false);
        while let Some((before, last)) = path.rsplit_once(',') {
            match last {
                READ_ONLY => read_only = true,
                DIRECT => direct = true,
                // A path may have commas.
                _ => break,
            }
            path = before;
        }
        match path {
            "" => Err("a path is missing: PATH[,ro][,direct]".into()),
            path => Ok(DiskConfig { path: path.into(), read_only, direct }),
        }
    }
}

impl TryFrom<String> for DiskConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DiskConfig> for String {
    fn from(disk: DiskConfig) -> String {
        disk.to_string()
    }
}

impl fmt::Display for DiskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        for (set, word) in [(self.read_only, READ_ONLY), (self.direct, DIRECT)] {
            if set {
                write!(f, ",{word}")?;
            }
        }
        Ok(())
    }
}

/// What is wrong with a file that should be a disk.
#[derive(Debug, Error)]
pub enum DiskFault {
    /// There is no such file.
    #[error("no such file; create it, for instance with 'truncate -s 1G'")]
    Missing,
    /// There is no such file, and the path looks like an option.
    #[error("no such file; behind the path may come ',ro' and ',direct'")]
    MissingWithComma,
    /// It may not be opened.
    #[error("{0}; change its mode, or add ',ro' if it is not to be written")]
    Denied(#[source] io::Error),
    /// It may not be opened, not even for reading.
    #[error("cannot be read ({0}); change its mode")]
    Unreadable(#[source] io::Error),
    /// A directory, pipe, socket or character device.
    #[error("neither a regular file nor a block device")]
    NotADisk,
    /// It has no bytes.
    #[error("is empty; make it larger, for instance with 'truncate -s 1G'")]
    Empty,
    /// Its size is not a whole number of blocks.
    #[error(
        "{bytes} bytes are not a multiple of {block}; make it {} bytes with truncate",
        bytes.next_multiple_of(*block)
    )]
    Size {
        /// Its size.
        bytes: u64,
        /// Bytes of a block.
        block: u64,
    },
    /// Somebody else has it.
    #[error("in use by another VM or program; end that, or give both ',ro'")]
    InUse,
    /// Locks do not work there.
    #[error("cannot be locked: {0}")]
    Lock(#[source] io::Error),
    /// The file system has no direct I/O.
    #[error("its file system has no direct I/O; leave ',direct' out")]
    NotDirect,
    /// Anything else.
    #[error("cannot be used: {0}")]
    Other(#[source] io::Error),
}

/// A disk that cannot be used.
#[derive(Debug, Error)]
#[error("--disk {}: {fault}", path.display())]
pub struct DiskError {
    /// Its path.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub fault: DiskFault,
}

/// A disk that was opened.
#[derive(Debug)]
pub struct OpenDisk {
    file: DiskFile,
    geometry: Geometry,
}

/// Opens and locks a disk; the guest can ask for its number in the VM.
///
/// # Errors
/// [`DiskError`], which names the file and says what to do.
pub fn open(config: &DiskConfig, number: usize) -> Result<OpenDisk, DiskError> {
    let failed = |fault| DiskError { path: config.path.clone(), fault };
    let file = DiskFile::open(config).map_err(failed)?;
    let mut id = [0; 20];
    for (to, from) in id.iter_mut().zip(format!("siesta-disk{number}").bytes()) {
        *to = from;
    }
    let geometry =
        Geometry { bytes: file.bytes(), block: file.block(), read_only: config.read_only, id };
    Ok(OpenDisk { file, geometry })
}

impl Plug for OpenDisk {
    fn plug(self: Box<Self>, into: &mut Socket<'_>) -> Result<Box<dyn Backend>, VirtioError> {
        let OpenDisk { file, geometry } = *self;
        let wired = wiring::wire(Block::new(geometry), into)?;
        Ok(Box::new(WiredDisk { wired, file }))
    }
}

/// A disk in its VM.
struct WiredDisk {
    wired: Wired<Block>,
    file: DiskFile,
}

impl Backend for WiredDisk {
    fn start(self: Box<Self>, line: Line, _: &EventLoop) -> Result<Running, VirtioError> {
        let WiredDisk { wired, file } = *self;
        Ok(Running::Disk(Worker::start(wired, file, line).map_err(VirtioError::Thread)?))
    }

    fn irq(&self) -> u8 {
        self.wired.irq
    }
}

/// The path itself looks as if an option was meant.
fn has_comma(path: &Path) -> bool {
    path.to_string_lossy().contains(',')
}

const _: () = assert!(SECTOR == 512);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_what_is_known_at_the_end() {
        let disk =
            |path: &str, read_only, direct| DiskConfig { path: path.into(), read_only, direct };
        for (text, expected) in [
            ("a.img", disk("a.img", false, false)),
            ("a.img,ro", disk("a.img", true, false)),
            ("/b/c.img,direct,ro", disk("/b/c.img", true, true)),
            ("with,comma,ro", disk("with,comma", true, false)),
            ("ro", disk("ro", false, false)),
        ] {
            let read: DiskConfig = text.parse().expect(text);
            assert_eq!(read, expected);
            assert_eq!(read.to_string().parse(), Ok(expected));
        }
        for nothing in ["", ",ro", ",ro,direct"] {
            assert!(nothing.parse::<DiskConfig>().unwrap_err().contains("a path is missing"));
        }
    }
}
