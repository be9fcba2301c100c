//! Images that several VMs of this process are booted from: their pages are the host's once, not once
//! for each VM, until a guest writes to them.
//!
//! Owns the images in use, each as one sealed memory file (memfd_create(2)), and how pages of it become
//! guest memory. Must not know what is in an image, nor where it goes in a guest.
//!
//! | variable | lock | writers | readers |
//! |---|---|---|---|
//! | `IN_USE` | its mutex, held while an image is looked for or made | whoever builds a VM | the same |

#![allow(unsafe_code)] // memfd_create, fcntl, mmap

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend};

use crate::memory::{GuestMemory, PAGE};

/// Less than this is copied, in bytes: mappings cost, too.
pub const LEAST: u64 = 64 << 10;

/// Those that some VM was booted from that is still there.
static IN_USE: Mutex<Vec<Weak<SharedImage>>> = Mutex::new(Vec::new());

/// An image in a file of the process's own that nobody can change any more.
pub struct SharedImage {
    /// The whole file, readable.
    mapping: MmapRegion<()>,
    file: FileOffset,
}

/// Part of an image that goes into guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest-physical address.
    pub guest: u64,
    /// Where it begins in the image, in bytes.
    pub offset: u64,
    /// Its size, in bytes.
    pub size: u64,
}

/// The host does not map pages of an image.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot map {bytes} bytes of the image at {guest:#x}: {fault} (limit: sysctl vm.max_map_count)"
)]
pub struct MapError {
    guest: u64,
    bytes: u64,
    #[source]
    fault: io::Error,
}

impl fmt::Debug for SharedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedImage({} bytes)", self.bytes().len())
    }
}

impl AsRef<[u8]> for SharedImage {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// The image of these bytes: the one that a VM has already, or a new one. `None`: they are too few to
/// be worth it, or the host has no memory file for them, and they have to be copied.
#[must_use]
pub fn of(bytes: &[u8]) -> Option<Arc<SharedImage>> {
    if (bytes.len() as u64) < LEAST {
        return None;
    }
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.retain(|image| image.strong_count() > 0);
    if let Some(same) = in_use.iter().filter_map(Weak::upgrade).find(|i| i.bytes() == bytes) {
        return Some(same);
    }
    match SharedImage::new(bytes) {
        Ok(image) => {
            let image = Arc::new(image);
            in_use.push(Arc::downgrade(&image));
            Some(image)
        }
        Err(error) => {
            tracing::debug!(%error, "no memory file for an image; it is copied");
            None
        }
    }
}

impl SharedImage {
    fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut file = memory_file()?;
        file.write_all(bytes)?;
        let seals =
            libc::F_SEAL_SEAL | libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        // SAFETY: takes integers only.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let file = FileOffset::new(file, 0);
        let mapping = MmapRegionBuilder::new(bytes.len())
            .with_mmap_prot(libc::PROT_READ)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(file.clone())
            .build()
            .map_err(io::Error::other)?;
        Ok(SharedImage { mapping, file })
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is that long and lives as long as `self`; the seals keep the file from
        // being changed or cut by anybody.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr(), self.mapping.size()) }
    }

    /// Makes the whole pages of `piece` the image's own, copied when the guest or Siesta writes to
    /// them. What the guest had there is dropped. Answers the guest-physical range; it is empty where
    /// the image's pages do not come to lie on the guest's, or there are fewer than [`LEAST`] bytes of
    /// them.
    ///
    /// The memory must be of ordinary pages, and no vCPU may run.
    ///
    /// # Errors
    /// The host does not map them. What the guest has there then is undefined.
    pub fn overlay(
        &self,
        memory: &GuestMemory,
        piece: Piece,
    ) -> Result<std::ops::Range<u64>, MapError> {
        let Piece { guest, offset, size } = piece;
        let nothing = guest..guest;
        let inside = offset.checked_add(size).is_some_and(|end| end <= self.bytes().len() as u64);
        let (Some(start), Some(end)) =
            (guest.checked_next_multiple_of(PAGE), guest.checked_add(size))
        else {
            return Ok(nothing);
        };
        let end = end & !(PAGE - 1);
        if !inside || (guest ^ offset) % PAGE != 0 || end < start.saturating_add(LEAST) {
            return Ok(nothing);
        }
        let bytes = end - start;
        let Ok(place) = memory.get_slice(GuestAddress(start), bytes as usize) else {
            return Ok(nothing);
        };
        let from = offset + (start - guest);
        // SAFETY: the slice is part of a mapping of this process that is the guest's and nothing
        // else's, so no Rust reference points into it, and whose owner unmaps the whole range in the
        // end whatever lies in it. The file has these bytes.
        let mapped = unsafe {
            libc::mmap(
                place.ptr_guard_mut().as_ptr().cast(),
                bytes as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                self.file.file().as_raw_fd(),
                from as libc::off_t,
            )
        };
        match mapped {
            libc::MAP_FAILED => {
                Err(MapError { guest: start, bytes, fault: io::Error::last_os_error() })
            }
            _ => Ok(start..end),
        }
    }
}

/// An empty file without a name.
fn memory_file() -> io::Result<File> {
    let create = |flags: libc::c_uint| {
        // SAFETY: the name ends with a zero; the kernel makes a new descriptor.
        let fd = unsafe { libc::memfd_create(c"siesta-image".as_ptr(), libc::MFD_CLOEXEC | flags) };
        match fd {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: it is new, and nobody else's.
            fd => Ok(unsafe { File::from_raw_fd(fd) }),
        }
    };
    match create(libc::MFD_NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(libc::MFD_ALLOW_SEALING),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use vm_memory::Bytes;

    const MIB: u64 = 1 << 20;

    /// Bytes that differ from one page to the next, and from those of other seeds.
    fn bytes(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at >> 12) as u8 ^ at as u8 ^ seed).collect()
    }

    fn read(memory: &GuestMemory, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, GuestAddress(at)).expect("it is memory");
        bytes
    }

    #[test]
    fn same_bytes_are_one_image_while_somebody_has_it() {
        let (one, other) = (bytes(1, 100_000), bytes(2, 100_000));
        let image = of(&one).expect("a memory file");
        assert!(Arc::ptr_eq(&image, &of(&one.clone()).expect("the same")));
        assert!(!Arc::ptr_eq(&image, &of(&other).expect("another")));
        assert_eq!(image.bytes(), one);
        let gone = Arc::downgrade(&image);
        drop(image);
        assert!(gone.upgrade().is_none(), "nobody else keeps it");
        assert!(of(&one[..LEAST as usize - 1]).is_none(), "it is too small");
    }

    #[test]
    fn nobody_can_change_an_image() {
        let image = of(&bytes(3, 100_000)).expect("a memory file");
        let mut file = image.file.file();
        assert!(file.write(b"x").is_err() && file.set_len(1).is_err());
    }

    #[test]
    fn guest_has_the_bytes_and_keeps_what_it_writes_to_itself() {
        let content = bytes(4, 300_000);
        let image = of(&content).expect("a memory file");
        let [one, two] = [(), ()].map(|()| memory::create(4 * MIB).expect("memory"));
        let piece = Piece { guest: MIB, offset: 0, size: 300_000 };
        for memory in [&one, &two] {
            memory.write_slice(&[0xee; 64], GuestAddress(MIB - 32)).expect("it is memory");
            let mapped = image.overlay(memory, piece).expect("it can be mapped");
            assert_eq!(mapped, MIB..MIB + (300_000 & !4095));
            assert_eq!(read(memory, MIB, 299_008), content[..299_008]);
            assert_eq!(read(memory, MIB - 32, 32), [0xee; 32], "what is before it stays");
            assert_eq!(read(memory, mapped.end, 8), [0; 8], "what is behind it stays");
        }
        one.write_slice(b"mine", GuestAddress(MIB + 5000)).expect("it can be written");
        assert_eq!(read(&one, MIB + 5000, 4), b"mine");
        assert_eq!(read(&two, MIB + 5000, 4), content[5000..5004]);
        assert_eq!(image.bytes(), content);
    }

    #[test]
    fn pages_that_do_not_come_to_lie_on_the_guests_are_left_to_be_copied() {
        let image = of(&bytes(5, 300_000)).expect("a memory file");
        let memory = memory::create(2 * MIB).expect("memory");
        for (guest, offset, size) in [
            (MIB, 1, 200_000),             // shifted
            (MIB, 0, LEAST - 1),           // too small
            (MIB + 1, 1, LEAST),           // too few whole pages
            (MIB, 0, 300_001),             // beyond the file
            (MIB, u64::MAX, 200_000),      // far beyond it
            (2 * MIB - 4096, 0, 200_000),  // beyond memory
            (u64::MAX - 4095, 0, 200_000), // beyond all
            (1 << 40, 0, 200_000),         // no memory
        ] {
            let mapped = image.overlay(&memory, Piece { guest, offset, size }).expect("no error");
            assert!(mapped.is_empty(), "{guest:#x} {offset} {size}: {mapped:?}");
        }
        let shifted = Piece { guest: MIB + 100, offset: 100, size: 200_000 };
        let mapped = image.overlay(&memory, shifted).expect("it can be mapped");
        assert_eq!(mapped, MIB + 4096..MIB + (200_100 & !4095));
        assert_eq!(read(&memory, mapped.start, 16), image.bytes()[4096..4112]);
    }
}
