//! Guest memory: how it is laid out in the guest's physical address space, mapped and given to KVM.
//!
//! Owns nothing once made; the VM owns the [`GuestMemory`]. Must not know what is in the memory.

#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION, sysinfo(2)

mod backing;

use std::io;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vm_memory::{GuestMemoryRegion, GuestRegionMmap};

use crate::placement::numbers::Numbers;
use crate::placement::{HugePages, Placement};

/// The memory of one guest: one or two private mappings. Clones share them.
pub type GuestMemory = GuestMemoryMmap<()>;

/// The size of a page, in bytes. Guest memory is a whole number of them.
pub const PAGE: u64 = 0x1000;

/// Guest-physical address where the hole for devices (PCI, I/O APIC, local APIC) begins: 3 GiB.
pub const HOLE_START: u64 = 0xc000_0000;

/// Guest-physical address just after the hole, where the rest of the memory goes on: 4 GiB.
pub const HOLE_END: u64 = 0x1_0000_0000;

/// The most memory a guest can have, in bytes: 64 TiB, half of what a Linux process can map.
pub const MOST: u64 = 1 << 46;

/// How many times the host's memory and swap all guests of a process may have together. Guests that
/// use little of theirs are many on a host; but KVM keeps 0.25 % of a guest's memory for its own tables
/// from the start, used or not, so that a sum without bound takes the host down.
pub const OVERCOMMIT: u64 = 32;

/// Why a guest has no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No memory was asked for.
    #[error("--memory 0: a guest needs memory, for instance --memory 64M")]
    Zero,
    /// The size is not a whole number of pages.
    #[error("--memory: {bytes} bytes is not a multiple of 4 KiB; use {} bytes", round_up(*.bytes))]
    Unaligned {
        /// What was asked for, in bytes.
        bytes: u64,
    },
    /// The size is above [`MOST`].
    #[error("--memory: {bytes} bytes ({}) is more than a guest can have, which is 64 TiB", mib(*.bytes))]
    TooMuch {
        /// What was asked for, in bytes.
        bytes: u64,
    },
    /// The host does not map that much.
    #[error("--memory: the host cannot map {bytes} bytes ({}): {fault}", mib(*.bytes))]
    Map {
        /// What was asked for, in bytes.
        bytes: u64,
        /// What the host or the memory map said.
        fault: String,
    },
    /// The size is not a whole number of huge pages.
    #[error(
        "--hugepages {pages}: --memory of {bytes} bytes is not a multiple of {pages}; use --memory {}M",
        .bytes.next_multiple_of(.pages.bytes()) >> 20
    )]
    HugeUnaligned {
        /// The size that was asked for, in bytes.
        bytes: u64,
        /// The pages.
        pages: HugePages,
    },
    /// There are not as many huge pages.
    #[error("--hugepages {pages}: {needed} pages are needed, {free} are free; raise {file}")]
    HugePool {
        /// The pages.
        pages: HugePages,
        /// How many the VM needs.
        needed: u64,
        /// How many are free and not reserved.
        free: u64,
        /// Where the number of pages is set.
        file: String,
    },
    /// There are as many, and the host does not give them.
    #[error(
        "--hugepages {pages}: {needed} pages are needed, {free} are free, and the host refuses: {fault}; \
         see the limits of the process's cgroup (hugetlb)"
    )]
    HugeRefused {
        /// The pages.
        pages: HugePages,
        /// How many the VM needs.
        needed: u64,
        /// How many are free and not reserved.
        free: u64,
        /// What the host said.
        fault: String,
    },
    /// The processor or the kernel knows no such pages.
    #[error("--hugepages {pages}: this host has no huge pages of {pages}")]
    NoHugePages {
        /// The pages.
        pages: HugePages,
    },
    /// There are not as many huge pages on the nodes.
    #[error(
        "--hugepages {pages}: the nodes of --numa {nodes} do not have {} free pages ({fault}); raise \
         nr_hugepages in /sys/devices/system/node/node*/hugepages", .bytes / .pages.bytes()
    )]
    HugeOnNodes {
        /// The size that was asked for, in bytes.
        bytes: u64,
        /// The pages.
        pages: HugePages,
        /// The nodes.
        nodes: Numbers,
        /// What the kernel said.
        #[source]
        fault: io::Error,
    },
    /// All guests together have more than the host can keep account of.
    #[error(
        "--memory: {bytes} bytes ({}) beside the other VMs' {} are more than {OVERCOMMIT} times the \
         host's memory and swap ({}): use fewer VMs or less memory", mib(*.bytes), mib(*.others), mib(*.host)
    )]
    Sum {
        /// What was asked for, in bytes.
        bytes: u64,
        /// What the other VMs have, in bytes.
        others: u64,
        /// What the host has, swap included, in bytes.
        host: u64,
    },
    /// The host does not bind memory to the nodes.
    #[error("--numa {nodes}: the host refuses these nodes: {fault}")]
    Bind {
        /// The nodes.
        nodes: Numbers,
        /// What the kernel said.
        #[source]
        fault: io::Error,
    },
    /// KVM refuses the mapping.
    #[error("kvm does not take {bytes} bytes of guest memory at {start:#x}")]
    Register {
        /// Guest-physical start of the refused region.
        start: u64,
        /// Its size, in bytes.
        bytes: u64,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

fn round_up(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(PAGE).unwrap_or(MOST)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Whether one more guest of `bytes` may be, where the others have `others` bytes together.
///
/// # Errors
/// [`MemoryError::Sum`]: no.
pub fn check_sum(others: u64, bytes: u64) -> Result<(), MemoryError> {
    check_sum_on(host_bytes(), others, bytes)
}

fn check_sum_on(host: u64, others: u64, bytes: u64) -> Result<(), MemoryError> {
    let most = host.saturating_mul(OVERCOMMIT);
    if others.saturating_add(bytes) > most {
        return Err(MemoryError::Sum { bytes, others, host });
    }
    Ok(())
}

/// Memory and swap of the host, in bytes (sysinfo(2)).
fn host_bytes() -> u64 {
    // SAFETY: all bytes zero are a valid structure, which outlives the call.
    let info = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        if libc::sysinfo(&mut info) != 0 {
            return u64::MAX;
        }
        info
    };
    info.totalram.saturating_add(info.totalswap).saturating_mul(u64::from(info.mem_unit))
}

/// Maps `bytes` of zeroed memory: one region from address 0 up to [`HOLE_START`], what is left in a
/// second one from [`HOLE_END`].
///
/// The mapping is private and anonymous and reserves no swap (`MAP_NORESERVE`): the host gives a page
/// when the guest or Siesta first touches it.
///
/// # Errors
/// [`MemoryError`] when `bytes` is 0, not a multiple of 4 KiB, above [`MOST`], or more than the host
/// maps.
pub fn create(bytes: u64) -> Result<GuestMemory, MemoryError> {
    create_placed(bytes, &Placement::default())
}

/// As [`create`], of the pages and NUMA nodes that `placement` says. Huge pages are all taken at once;
/// pages of certain nodes are, as any others, when they are first touched.
///
/// # Errors
/// [`MemoryError`], also when the host has not as many of these pages.
pub fn create_placed(bytes: u64, placement: &Placement) -> Result<GuestMemory, MemoryError> {
    if bytes == 0 {
        return Err(MemoryError::Zero);
    }
    if !bytes.is_multiple_of(PAGE) {
        return Err(MemoryError::Unaligned { bytes });
    }
    if bytes > MOST {
        return Err(MemoryError::TooMuch { bytes });
    }
    backing::check(bytes, placement)?;
    let low = bytes.min(HOLE_START);
    let mut regions = vec![map(bytes, 0, low, placement)?];
    if bytes > low {
        regions.push(map(bytes, HOLE_END, bytes - low, placement)?);
    }
    GuestMemory::from_regions(regions)
        .map_err(|fault| MemoryError::Map { bytes, fault: fault.to_string() })
}

fn map(
    bytes: u64,
    start: u64,
    len: u64,
    placement: &Placement,
) -> Result<GuestRegionMmap<()>, MemoryError> {
    let failed = |fault: String| MemoryError::Map { bytes, fault };
    let len = usize::try_from(len).map_err(|e| failed(e.to_string()))?;
    let mapping = backing::map(bytes, len, placement)?;
    GuestRegionMmap::new(mapping, GuestAddress(start))
        .ok_or_else(|| failed("the region wraps around the address space".into()))
}

/// Gives the memory to the VM (`KVM_SET_USER_MEMORY_REGION`, KVM API section 4.35), one slot a
/// region, numbered from 0.
///
/// The caller keeps `memory` for as long as a vCPU of the VM can run: the guest writes into the
/// mappings without any further check.
///
/// # Errors
/// [`MemoryError::Register`] when KVM refuses a region, for instance because the VM has one already.
pub fn register(vm: &VmFd, memory: &GuestMemory) -> Result<(), MemoryError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let start = region.start_addr().raw_value();
        let bytes = region.len();
        let kvm_region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: start,
            memory_size: bytes,
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is exactly one live mapping of this process, made for this guest and for
        // nothing else, so no Rust reference points into it; the caller keeps it while the guest runs.
        unsafe { vm.set_user_memory_region(kvm_region) }
            .map_err(|source| MemoryError::Register { start, bytes, source })?;
    }
    Ok(())
}

/// Just after the last byte of memory below [`HOLE_START`]: the size of the low region.
#[must_use]
pub fn low_end(memory: &GuestMemory) -> u64 {
    memory
        .iter()
        .filter(|r| r.start_addr().raw_value() < HOLE_START)
        .map(|r| r.start_addr().raw_value() + r.len())
        .max()
        .unwrap_or(0)
}

/// Just after the last byte of memory from [`HOLE_END`] on; [`HOLE_END`] itself when there is none.
#[must_use]
pub fn high_end(memory: &GuestMemory) -> u64 {
    memory
        .iter()
        .filter(|r| r.start_addr().raw_value() >= HOLE_END)
        .map(|r| r.start_addr().raw_value() + r.len())
        .max()
        .unwrap_or(HOLE_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    const GIB: u64 = 1 << 30;

    #[test]
    fn all_guests_together_have_no_more_than_the_host_can_keep_account_of() {
        let host = 1 << 30;
        assert!(check_sum_on(host, 31 << 30, 1 << 30).is_ok());
        let error = check_sum_on(host, 31 << 30, (1 << 30) + PAGE).expect_err("too much");
        assert!(error.to_string().contains("beside the other VMs' 31744 MiB"), "{error}");
        assert!(check_sum_on(host, u64::MAX, PAGE).is_err());
        assert!(check_sum(0, PAGE).is_ok());
    }

    #[test]
    fn small_guest_has_one_zeroed_region_at_0() {
        let memory = create(64 << 20).unwrap();
        assert_eq!(memory.num_regions(), 1);
        assert_eq!((low_end(&memory), high_end(&memory)), (64 << 20, HOLE_END));
        assert_eq!(memory.read_obj::<u64>(GuestAddress((64 << 20) - 8)).unwrap(), 0);
    }

    #[test]
    fn exactly_3_gib_needs_no_second_region() {
        let memory = create(3 * GIB).unwrap();
        assert_eq!(memory.num_regions(), 1);
        assert_eq!(low_end(&memory), HOLE_START);
    }

    #[test]
    fn memory_above_3_gib_goes_on_at_4_gib() {
        let memory = create(3 * GIB + PAGE).unwrap();
        assert_eq!((low_end(&memory), high_end(&memory)), (HOLE_START, HOLE_END + PAGE));
        assert!(!memory.address_in_range(GuestAddress(HOLE_START)));
        assert!(!memory.address_in_range(GuestAddress(HOLE_END - 1)));
        memory.write_obj(7u8, GuestAddress(HOLE_END + PAGE - 1)).unwrap();
    }

    #[test]
    fn a_bad_size_names_the_fix() {
        assert!(create(0).unwrap_err().to_string().contains("--memory 64M"));
        assert!(create(4097).unwrap_err().to_string().contains("use 8192 bytes"));
        assert!(create(u64::MAX).unwrap_err().to_string().contains("not a multiple"));
        let above = create(MOST + PAGE).unwrap_err().to_string();
        assert!(above.contains("64 TiB") && above.contains("67108864 MiB"), "{above}");
    }

    #[test]
    fn more_than_the_host_maps_is_an_error_that_names_the_size() {
        // The whole user half of the address space.
        let error = map(MOST, 0, 1 << 47, &Placement::default()).unwrap_err().to_string();
        assert!(error.contains("cannot map 70368744177664 bytes"), "{error}");
    }
}
