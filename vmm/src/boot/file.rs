//! Reading the files a guest is booted from, as a whole.
//!
//! Owns the list of ways in which a path names no usable file. Must not know what the files contain.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest kernel or initial RAM disk, in bytes: 1 GiB.
pub const FILE_MOST: u64 = 1 << 30;

/// Which file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel.
    Kernel,
    /// The initial RAM disk, or module.
    Initrd,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Kernel => "kernel",
            Kind::Initrd => "initrd",
        })
    }
}

/// What is wrong with a path.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no such file.
    #[error("no such file; check the path")]
    Missing,
    /// The file cannot be read.
    #[error("cannot be read ({0}); check its permissions")]
    Unreadable(#[source] io::Error),
    /// The path is a directory.
    #[error("is a directory; name a file in it")]
    Directory,
    /// The path is a device, socket or pipe.
    #[error("is not a regular file; copy it into one")]
    NotAFile,
    /// The file has no bytes.
    #[error("is empty; build or copy it again")]
    Empty,
    /// The file is above [`FILE_MOST`].
    #[error("is larger than 1 GiB; strip its debug information, or make it smaller")]
    TooLarge,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {}: {fault}", path.display())]
pub struct FileError {
    /// Which file.
    pub kind: Kind,
    /// Its path.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// Reads a file as a whole.
///
/// # Errors
/// [`FileError`], one [`Fault`] for each way in which the path names no usable file.
pub fn read(kind: Kind, path: &Path) -> Result<Vec<u8>, FileError> {
    read_all(path).map_err(|fault| FileError { kind, path: path.to_path_buf(), fault })
}

fn read_all(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |fault: io::Error| match fault.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Fault::Missing,
        _ => Fault::Unreadable(fault),
    };
    // Before the file is opened: opening a pipe would wait for its other end.
    let facts = std::fs::metadata(path).map_err(fault)?;
    if facts.is_dir() {
        return Err(Fault::Directory);
    }
    if !facts.is_file() {
        return Err(Fault::NotAFile);
    }
    if facts.len() > FILE_MOST {
        return Err(Fault::TooLarge);
    }
    let mut bytes = Vec::with_capacity(facts.len() as usize);
    // The file may grow meanwhile.
    let file = File::open(path).map_err(fault)?;
    file.take(FILE_MOST + 1).read_to_end(&mut bytes).map_err(fault)?;
    match bytes.len() as u64 {
        0 => Err(Fault::Empty),
        len if len > FILE_MOST => Err(Fault::TooLarge),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn file_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        std::fs::write(&path, b"bytes").unwrap();
        assert_eq!(read(Kind::Kernel, &path).unwrap(), b"bytes");
    }

    #[test]
    fn each_unusable_path_has_its_own_message() {
        let folder = tempfile::tempdir().unwrap();
        let says = |name: &str, part: &str| {
            let path = folder.path().join(name);
            for (kind, word) in [(Kind::Kernel, "kernel "), (Kind::Initrd, "initrd ")] {
                let text = read(kind, &path).unwrap_err().to_string();
                assert!(text.contains(part) && text.contains(path.to_str().unwrap()), "{text}");
                assert!(text.starts_with(word) && !text.contains('\n'), "{text}");
            }
        };
        says("missing", "no such file");
        says("", "is a directory");
        File::create(folder.path().join("empty")).unwrap();
        says("empty", "is empty");
        says("empty/below", "no such file");
        let large = File::create(folder.path().join("large")).unwrap();
        large.set_len(FILE_MOST + 1).unwrap();
        says("large", "larger than 1 GiB");
        let _socket = UnixListener::bind(folder.path().join("socket")).unwrap();
        says("socket", "not a regular file");
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        says("loop", "cannot be read");
    }
}
