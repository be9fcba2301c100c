//! What guest memory is made of: ordinary or huge pages, of any or of certain NUMA nodes.
//!
//! Owns the mapping's flags and what is done to a mapping before anything touches it. Must not know
//! where in the guest it lies.

#![allow(unsafe_code)] // mbind, madvise

use std::fs;
use std::io;

use libc::c_void;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

use super::MemoryError;
use crate::placement::numbers::Numbers;
use crate::placement::{HugePages, Placement};

/// Checks that `bytes` of memory are a whole number of the pages that were asked for.
pub(super) fn check(bytes: u64, placement: &Placement) -> Result<(), MemoryError> {
    match placement.hugepages {
        Some(pages) if !bytes.is_multiple_of(pages.bytes()) => {
            Err(MemoryError::HugeUnaligned { bytes, pages })
        }
        _ => Ok(()),
    }
}

/// Maps `len` bytes of a guest that has `bytes` in all.
pub(super) fn map(
    bytes: u64,
    len: usize,
    placement: &Placement,
) -> Result<MmapRegion<()>, MemoryError> {
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let flags = match placement.hugepages {
        // Without MAP_NORESERVE, so that a pool that is too small shows here.
        Some(pages) => {
            anonymous | libc::MAP_HUGETLB | ((pages.shift() as i32) << libc::MAP_HUGE_SHIFT)
        }
        None => anonymous | libc::MAP_NORESERVE,
    };
    let mapping = MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .build();
    let mapping = mapping.map_err(|fault| match placement.hugepages {
        Some(pages) => Pool::of(pages).too_small(bytes, &fault.to_string()),
        None => MemoryError::Map { bytes, fault: fault.to_string() },
    })?;
    if let Some(nodes) = &placement.numa {
        bind(&mapping, nodes).map_err(|fault| MemoryError::Bind { nodes: nodes.clone(), fault })?;
    }
    if let Some(pages) = placement.hugepages {
        // The reservation says nothing of nodes and cgroups, and a page that is missing when the guest
        // needs it ends the process.
        populate(&mapping).map_err(|fault| match &placement.numa {
            Some(nodes) => MemoryError::HugeOnNodes { bytes, pages, nodes: nodes.clone(), fault },
            None => Pool::of(pages).too_small(bytes, &fault.to_string()),
        })?;
    }
    Ok(mapping)
}

/// Lets the mapping have memory of these nodes only (mbind(2)).
fn bind(mapping: &MmapRegion<()>, nodes: &Numbers) -> io::Result<()> {
    let mask = nodes.mask(1);
    // The kernel takes one bit less than it is told.
    let bits = (size_of_val(&mask[..]) * 8 + 1) as u64;
    let (start, len) = (mapping.as_ptr(), mapping.size());
    // SAFETY: the range is a mapping of ours, which keeps its contents; the mask has so many bits.
    let done = unsafe {
        libc::syscall(libc::SYS_mbind, start, len, libc::MPOL_BIND, mask.as_ptr(), bits, 0)
    };
    let error = io::Error::last_os_error();
    match done {
        0 => Ok(()),
        // A kernel without NUMA has node 0, and nothing else can have been asked for.
        _ if error.raw_os_error() == Some(libc::ENOSYS) && *nodes == Numbers::of([0]) => Ok(()),
        _ => Err(error),
    }
}

/// Takes all pages of the mapping now (madvise(2), Linux 5.14).
fn populate(mapping: &MmapRegion<()>) -> io::Result<()> {
    let (start, len) = (mapping.as_ptr().cast::<c_void>(), mapping.size());
    // SAFETY: the range is a mapping of ours, to which nothing refers yet.
    match unsafe { libc::madvise(start, len, libc::MADV_POPULATE_WRITE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The host's huge pages of one size.
struct Pool {
    pages: HugePages,
    /// None: the host does not have the size.
    free: Option<u64>,
}

impl Pool {
    fn of(pages: HugePages) -> Self {
        let count = |name: &str| {
            let path = format!("{}/{name}", folder(pages));
            fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        let free = count("free_hugepages");
        let free = free.map(|free| free.saturating_sub(count("resv_hugepages").unwrap_or(0)));
        Pool { pages, free }
    }

    fn too_small(self, bytes: u64, fault: &str) -> MemoryError {
        let Pool { pages, free } = self;
        let needed = bytes / pages.bytes();
        match free {
            None => MemoryError::NoHugePages { pages },
            // Something else than the pool, as a cgroup's limit.
            Some(free) if free >= needed => {
                MemoryError::HugeRefused { pages, needed, free, fault: fault.to_owned() }
            }
            Some(free) => MemoryError::HugePool { pages, needed, free, file: file(pages) },
        }
    }
}

fn folder(pages: HugePages) -> String {
    format!("/sys/kernel/mm/hugepages/hugepages-{}kB", pages.bytes() >> 10)
}

/// Where the size of the pool is set.
fn file(pages: HugePages) -> String {
    let usual = fs::read_to_string("/proc/meminfo").is_ok_and(|facts| {
        let line = facts.lines().find_map(|line| line.strip_prefix("Hugepagesize:"));
        line.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok())
            .is_some_and(|kib: u64| kib << 10 == pages.bytes())
    });
    match usual {
        true => "/proc/sys/vm/nr_hugepages".into(),
        false => format!("{}/nr_hugepages", folder(pages)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_that_is_too_small_is_named_with_what_is_needed_and_what_there_is() {
        let pool = |free| Pool { pages: HugePages::Size2M, free };
        let error = pool(Some(3)).too_small(64 << 20, "").to_string();
        let file = file(HugePages::Size2M);
        for part in ["--hugepages 2M", "32 pages are needed", "3 are free", &file] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = pool(None).too_small(64 << 20, "").to_string();
        assert!(error.contains("this host has no huge pages of 2M"), "{error}");
        let error = pool(Some(32)).too_small(64 << 20, "a limit").to_string();
        assert!(error.contains("a limit") && error.contains("cgroup"), "{error}");
    }

    #[test]
    fn memory_is_a_whole_number_of_huge_pages() {
        let placement = Placement { hugepages: Some(HugePages::Size2M), ..Placement::default() };
        assert!(check(64 << 20, &placement).is_ok());
        let error = check((64 << 20) + 4096, &placement).expect_err("it is not").to_string();
        assert!(error.contains("--hugepages 2M") && error.contains("--memory 66M"), "{error}");
        let placement = Placement { hugepages: Some(HugePages::Size1G), ..Placement::default() };
        let error = check(64 << 20, &placement).expect_err("it is not").to_string();
        assert!(error.contains("--memory 1024M"), "{error}");
    }

    /// The kernel shows the policy of each mapping.
    #[test]
    fn memory_is_bound_before_it_is_touched() {
        let numa = Some(Numbers::of([0]));
        let placement = Placement { numa, ..Placement::default() };
        let mapping = map(1 << 20, 1 << 20, &placement).expect("every host has node 0");
        let Ok(maps) = fs::read_to_string("/proc/self/numa_maps") else {
            return eprintln!("skipped: a kernel without NUMA");
        };
        let start = format!("{:x} ", mapping.as_ptr() as usize);
        let line = maps.lines().find(|line| line.trim_start_matches('0').starts_with(&start));
        let line = line.expect("it is mapped");
        assert!(line.contains(" bind:0") && !line.contains("anon="), "{line}");
    }
}
