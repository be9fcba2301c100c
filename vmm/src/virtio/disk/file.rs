//! One disk's file.
//!
//! Owns the descriptor, its lock, and how each operation reaches the file. Must not know who asks.
//!
//! The lock is the kernel's for open file descriptions (`F_OFD_SETLK`), of the whole file: exclusive
//! for a disk that can be written, shared for one that cannot. It ends with the descriptor, whatever
//! way the process ends, and is what other VMMs look at, too.

#![allow(unsafe_code)] // fcntl, fallocate, statx

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use devices::virtio::block::{Disk, SECTOR};

use super::{DiskConfig, DiskFault, has_comma};

/// Bytes that are written at a time where the file cannot be told to be zero.
const ZEROS: usize = 128 << 10;
/// What is always enough for direct I/O: the size of a page.
const PAGE: u64 = 4096;

/// A disk's file, opened and locked.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    bytes: u64,
    block: u32,
}

impl DiskFile {
    /// Opens and locks the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(config: &DiskConfig) -> Result<Self, DiskFault> {
        // Before the file is opened: opening a pipe would wait for its other end.
        let facts = std::fs::metadata(&config.path).map_err(|e| fault(e, &config.path, true))?;
        let kind = facts.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskFault::NotADisk);
        }
        let flags = libc::O_CLOEXEC | if config.direct { libc::O_DIRECT } else { 0 };
        let mut file = OpenOptions::new()
            .read(true)
            .write(!config.read_only)
            .custom_flags(flags)
            .open(&config.path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL) if config.direct => DiskFault::NotDirect,
                _ => fault(error, &config.path, config.read_only),
            })?;
        lock(&file, config.read_only)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(DiskFault::Other)?;
        let block = if config.direct { direct_block(&file)? } else { SECTOR };
        if bytes == 0 {
            return Err(DiskFault::Empty);
        }
        if !bytes.is_multiple_of(block) {
            return Err(DiskFault::Size { bytes, block });
        }
        Ok(DiskFile { file, bytes, block: block as u32 })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The smallest piece that can be read or written, in bytes.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    fn fallocate(&self, mode: i32, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (signed(offset)?, signed(len)?);
        // SAFETY: the descriptor is open; no memory is involved.
        match unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn fault(error: io::Error, path: &Path, read_only: bool) -> DiskFault {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if has_comma(path) => {
            DiskFault::MissingWithComma
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => DiskFault::Missing,
        io::ErrorKind::PermissionDenied if read_only => DiskFault::Unreadable(error),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DiskFault::Denied(error)
        }
        _ => DiskFault::Other(error),
    }
}

fn lock(file: &File, shared: bool) -> Result<(), DiskFault> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    let whole = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        // To the end, wherever that will be.
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and `whole` is read during the call alone.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &whole) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Err(DiskFault::InUse),
        _ => Err(DiskFault::Lock(error)),
    }
}

/// The alignment of direct I/O, of offsets and of memory, in bytes; a page, where the kernel does not
/// tell (Linux before 6.1).
fn direct_block(file: &File) -> Result<u64, DiskFault> {
    // SAFETY: all-zero bytes are a valid `statx`, which is plain data.
    let mut facts: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, the empty path means it, and `facts` is valid for writes.
    let rc = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &mut facts,
        )
    };
    if rc != 0 || facts.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(PAGE);
    }
    let block = u64::from(facts.stx_dio_offset_align.max(SECTOR as u32));
    match facts.stx_dio_offset_align {
        0 => Err(DiskFault::NotDirect),
        // The buffer is aligned to a page.
        _ if block <= PAGE && u64::from(facts.stx_dio_mem_align) <= PAGE => Ok(block),
        _ => Err(DiskFault::NotDirect),
    }
}

/// The file system, or the device, does not know how.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

impl Disk for DiskFile {
    fn read_at(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.fallocate(punch, offset, len) {
            // It was a hint.
            Err(error) if is_unknown(&error) => Ok(()),
            other => other,
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let zero = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.fallocate(if unmap { punch } else { zero }, offset, len) {
            Err(error) if is_unknown(&error) => {}
            other => return other,
        }
        let mut buffer = AlignedBuffer::new(ZEROS);
        let zeros = buffer.bytes();
        let mut at = 0;
        while at < len {
            let count = usize::try_from(len - at).unwrap_or(ZEROS).min(ZEROS);
            self.write_at(offset + at, &zeros[..count])?;
            at += count as u64;
        }
        Ok(())
    }
}

/// Zeroed bytes that begin at a page, as direct I/O wants them.
pub(super) struct AlignedBuffer {
    bytes: Vec<u8>,
    from: usize,
    len: usize,
}

impl AlignedBuffer {
    pub(super) fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE as usize];
        // At most a page less one byte, which is what there is more.
        let from = bytes.as_ptr().align_offset(PAGE as usize).min(PAGE as usize);
        AlignedBuffer { bytes, from, len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.len]
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
