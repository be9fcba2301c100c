//! Where the initial RAM disk (or multiboot module) goes.
//!
//! Owns nothing. Must not know how the guest is told of it. It lies as high as the kernel's protocol
//! allows, because kernels that unpack or move themselves grow upwards from where they were loaded.

use std::ops::Range;

use vm_memory::{Bytes, GuestAddress};

use super::layout::HIGH_MEMORY;
use crate::memory::{self, GuestMemory, PAGE};
use crate::shared_image::{Piece, SharedImage};

/// The highest address of an initial RAM disk for kernels that name none: what 64-bit Linux names in
/// its setup header.
pub const USUAL_MOST: u64 = 0x7fff_ffff;

/// The initial RAM disk has no place, or could not be copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitrdError {
    /// No gap is large enough.
    #[error(
        "the initrd has {size} bytes, which do not fit between 1 MiB and {top:#x} beside the kernel; \
         use more --memory, or a smaller initrd"
    )]
    NoPlace {
        /// Its size, in bytes.
        size: u64,
        /// Just after the last address that it may take.
        top: u64,
    },
    /// The kernel takes it no higher, whatever memory there is.
    #[error(
        "the initrd has {size} bytes, which do not fit between 1 MiB and {top:#x} beside the kernel, \
         which takes no initrd above that; use a smaller initrd, or a kernel with a higher initrd_addr_max"
    )]
    KernelLimit {
        /// Its size, in bytes.
        size: u64,
        /// Just after the last address that it may take.
        top: u64,
    },
    /// Guest memory does not take it.
    #[error("the initrd cannot be loaded: {0}")]
    Load(String),
}

/// Puts `initrd` at the highest page-aligned place below 3 GiB at which it ends at `most` or below
/// (the address of its last byte) and touches none of `used`. Pages of `image`, which has the same bytes,
/// are mapped; the rest, or all, is copied.
///
/// # Errors
/// [`InitrdError`] when there is no such place, or the host does not map the pages.
pub fn load(
    memory: &GuestMemory,
    used: &[Range<u64>],
    most: u64,
    initrd: &[u8],
    image: Option<&SharedImage>,
) -> Result<Range<u64>, InitrdError> {
    let size = initrd.len() as u64;
    let end = memory::low_end(memory);
    let top = end.min(most.saturating_add(1));
    let start = highest(used, top, size).ok_or(match top < end {
        true => InitrdError::KernelLimit { size, top },
        false => InitrdError::NoPlace { size, top },
    })?;
    let copied_from = match image {
        Some(image) => {
            let mapped = image.overlay(memory, Piece { guest: start, offset: 0, size });
            mapped.map_err(|fault| InitrdError::Load(fault.to_string()))?.end
        }
        None => start,
    };
    memory
        .write_slice(&initrd[(copied_from - start) as usize..], GuestAddress(copied_from))
        .map_err(|fault| InitrdError::Load(fault.to_string()))?;
    Ok(start..start + size)
}

fn highest(used: &[Range<u64>], mut top: u64, size: u64) -> Option<u64> {
    // Each round goes below one more of the used ranges.
    loop {
        let start = top.checked_sub(size)? & !(PAGE - 1);
        if start < HIGH_MEMORY {
            return None;
        }
        let in_the_way = used.iter().filter(|range| range.start < start + size);
        match in_the_way.filter(|range| start < range.end).map(|range| range.start).min() {
            Some(below) => top = below,
            None => return Some(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn place(used: &[Range<u64>], most: u64, size: usize) -> Result<Range<u64>, InitrdError> {
        load(&memory::create(16 * MIB).unwrap(), used, most, &vec![7; size], None)
    }

    #[test]
    fn initrd_lies_at_the_end_of_memory_in_whole_pages() {
        let memory = memory::create(16 * MIB).unwrap();
        let range = load(&memory, &[], USUAL_MOST, b"archive", None).unwrap();
        assert_eq!(range, 16 * MIB - 4096..16 * MIB - 4096 + 7);
        assert_eq!(memory.read_obj::<[u8; 7]>(GuestAddress(range.start)).unwrap(), *b"archive");
    }

    #[test]
    fn shared_pages_and_copied_rest_are_the_whole_initrd() {
        let bytes: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
        let image = crate::shared_image::of(&bytes).unwrap();
        for image in [Some(&*image), None] {
            let memory = memory::create(16 * MIB).unwrap();
            let range = load(&memory, &[], USUAL_MOST, &bytes, image).unwrap();
            let mut found = vec![0; bytes.len()];
            memory.read_slice(&mut found, GuestAddress(range.start)).unwrap();
            assert!(found == bytes && range.end - range.start == 100_000);
        }
    }

    #[test]
    fn highest_address_is_that_of_the_last_byte() {
        assert_eq!(place(&[], 8 * MIB - 1, 4096).unwrap(), 8 * MIB - 4096..8 * MIB);
        assert_eq!(place(&[], 8 * MIB - 2, 4096).unwrap().start, 8 * MIB - 8192);
    }

    #[test]
    fn initrd_goes_below_what_the_kernel_takes() {
        let used = [2 * MIB..15 * MIB, 15 * MIB + 100..16 * MIB];
        assert_eq!(place(&used, USUAL_MOST, 4096).unwrap(), 2 * MIB - 4096..2 * MIB);
        let gap = [2 * MIB..15 * MIB, 15 * MIB + 4096..16 * MIB];
        assert_eq!(place(&gap, USUAL_MOST, 4096).unwrap().start, 15 * MIB);
    }

    #[test]
    fn initrd_that_is_too_large_says_so() {
        for (used, most, size) in [
            (vec![], USUAL_MOST, 15 * MIB + 1),
            (vec![], USUAL_MOST, 64 * MIB),
            (vec![MIB..2 * MIB, MIB + 1..16 * MIB], USUAL_MOST, 4096),
        ] {
            let text = place(&used, most, size as usize).unwrap_err().to_string();
            assert!(text.contains(&format!("{size} bytes")) && text.contains("--memory"), "{text}");
        }
        assert!(place(&[], USUAL_MOST, 15 * MIB as usize).is_ok());
        for (most, size) in [(0, 1), (4 * MIB - 1, 4 * MIB as usize)] {
            let text = place(&[], most, size).unwrap_err().to_string();
            assert!(text.contains("initrd_addr_max") && !text.contains("--memory"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn place_is_aligned_in_memory_free_and_allowed(
            used in prop::collection::vec((0..20 * MIB, 0..3 * MIB), 0..6),
            most: u64, low in 0..20 * MIB, high: bool, size in 1..4 * MIB,
        ) {
            let used: Vec<_> = used.into_iter().map(|(start, len)| start..start + len).collect();
            let most = if high { most } else { low };
            let top = (16 * MIB).min(most.saturating_add(1));
            if let Some(start) = highest(&used, top, size) {
                prop_assert!(start.is_multiple_of(4096) && start >= MIB && start + size <= top);
                let overlaps = |r: &Range<u64>| r.start < start + size && start < r.end;
                prop_assert!(!used.iter().any(overlaps));
            }
        }
    }
}
