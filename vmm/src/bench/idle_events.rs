//! Idle entries of the host's CPUs, counted by the tracepoint `sched:sched_switch`.
//!
//! For hosts without a cpuidle driver, which keep no count of their own (`perf_event_open(2)`: a
//! counter for each CPU, nothing is recorded, nobody is woken). Counted are switches to the idle
//! task; `power:cpu_idle` would be nearer to what cpuidle counts, but not every way into idle meets
//! it. Needs CAP_PERFMON, and the
//! tracepoint's number, which tracefs tells; where that is not mounted it is for a moment, in a
//! mount namespace of a thread that then ends (CAP_SYS_ADMIN), so that the host sees nothing of it.
//!
//! Owns the counters. Must not know what is made of them.

#![allow(unsafe_code)] // perf_event_open, unshare and mount

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::ptr;

const ID: &str = "events/sched/sched_switch/id";
/// The idle task of every CPU has number 0.
const FILTER: &CStr = c"next_pid == 0";
const MOUNT_POINT: &CStr = c"/sys/kernel/tracing";

/// The first version of `struct perf_event_attr`, which all later kernels take.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    config1: u64,
}

const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
/// `_IOW('$', 6, char *)`.
const PERF_EVENT_IOC_SET_FILTER: libc::c_ulong = 0x4008_2406;

/// A counter for each CPU.
#[derive(Debug)]
pub struct IdleEvents(Vec<File>);

impl IdleEvents {
    /// Starts counting; `None` where the host does not let us.
    #[must_use]
    pub fn open() -> Option<IdleEvents> {
        Self::counting(FILTER)
    }

    /// Counts the switches that the filter lets through.
    fn counting(filter: &CStr) -> Option<IdleEvents> {
        let id = known_id().or_else(id_of_a_private_mount)?;
        let cpus = online_cpus(&fs::read_to_string("/sys/devices/system/cpu/online").ok()?);
        let counters: Option<Vec<File>> =
            cpus.into_iter().map(|cpu| counter(id, cpu, filter)).collect();
        counters.filter(|all| !all.is_empty()).map(IdleEvents)
    }

    /// Idle entries of all CPUs since the start.
    #[must_use]
    pub fn entries(&self) -> Option<u64> {
        let mut sum = 0_u64;
        for mut counter in self.0.iter() {
            let mut value = [0; 8];
            counter.read_exact(&mut value).ok()?;
            sum = sum.wrapping_add(u64::from_ne_bytes(value));
        }
        Some(sum)
    }
}

fn counter(id: u64, cpu: i32, filter: &CStr) -> Option<File> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        ..Attributes::default()
    };
    // SAFETY: `attributes` outlives the call and says its own size.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1,
            cpu,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the descriptor is new and nobody else's.
    let counter = unsafe { File::from_raw_fd(fd) };
    // SAFETY: the string is terminated and outlives the call.
    let filtered = unsafe { libc::ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter.as_ptr()) };
    (filtered == 0).then_some(counter)
}

/// The numbers in a list such as `0-3,8`.
fn online_cpus(list: &str) -> Vec<i32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

fn id_below(mount_point: &str) -> Option<u64> {
    fs::read_to_string(format!("{mount_point}/{ID}")).ok()?.trim().parse().ok()
}

fn known_id() -> Option<u64> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    tracefs_of(&mounts).into_iter().find_map(id_below)
}

/// Where tracefs is mounted, by a text like `/proc/self/mounts`.
fn tracefs_of(mounts: &str) -> Vec<&str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "tracefs").then_some(place)
        })
        .collect()
}

fn id_of_a_private_mount() -> Option<u64> {
    let thread = std::thread::Builder::new().name("tracefs".into()).spawn(|| {
        // SAFETY: all strings are terminated and outlive the calls. The thread leaves the mount
        // namespace of the others before it mounts, and ends with the mount.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    ptr::null(),
                    c"/".as_ptr(),
                    ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    ptr::null(),
                ) == 0
                && libc::mount(
                    c"tracefs".as_ptr(),
                    MOUNT_POINT.as_ptr(),
                    c"tracefs".as_ptr(),
                    libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
                    ptr::null(),
                ) == 0
        };
        mounted.then(|| id_below(MOUNT_POINT.to_str().ok()?)).flatten()
    });
    thread.ok()?.join().ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(online_cpus("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(online_cpus("0\n"), [0]);
        assert_eq!(online_cpus("\n"), [0; 0]);
    }

    #[test]
    fn mounts_of_tracefs_alone() {
        let mounts = "proc /proc proc rw 0 0\ntracefs /a tracefs rw 0 0\nx /tracefs ext4 rw 0 0\n";
        assert_eq!(tracefs_of(mounts), ["/a"]);
    }

    /// Switches away from this thread rather than to the idle task: those happen on a loaded host,
    /// too.
    #[test]
    fn switches_are_counted_by_the_filter_and_the_mounts_stay_as_they_are() {
        let mounts = || fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounted = mounts();
        // SAFETY: takes no argument and cannot fail.
        let tid = unsafe { libc::gettid() };
        let filter = std::ffi::CString::new(format!("prev_pid == {tid}")).expect("no zero");
        let (Some(ours), Some(idle)) = (IdleEvents::counting(&filter), IdleEvents::open()) else {
            eprintln!("skipped: the tracepoint sched:sched_switch cannot be counted here");
            return;
        };
        let before = ours.entries().expect("counters can be read");
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let switches = ours.entries().expect("counters can be read") - before;
        // Others may take the CPU away besides, but not a thousand times.
        assert!((20..1000).contains(&switches), "{switches}");
        assert!(idle.entries().is_some());
        assert_eq!(mounts(), mounted);
    }
}
