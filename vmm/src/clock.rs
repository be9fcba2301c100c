//! The only place of the workspace that reads a clock.
//!
//! Owns nothing. Everything else is handed the time as an argument, so that it can be tested in
//! virtual time. Must not know what the time is used for.

#![allow(unsafe_code)] // clock_gettime and RDTSC

use devices::time::Moment;

/// The host's monotonic clock (`CLOCK_MONOTONIC`), in nanoseconds since an arbitrary start.
///
/// POSIX timers and futex time-outs of the VMM are armed on the same clock.
#[must_use]
pub fn now_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid for writes; CLOCK_MONOTONIC exists on every Linux host.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// The time of day (`CLOCK_REALTIME`), in nanoseconds since 1970-01-01 UTC.
#[must_use]
pub fn unix_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid for writes; CLOCK_REALTIME exists on every Linux host.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// CPU time consumed by the calling thread (`CLOCK_THREAD_CPUTIME_ID`), in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid for writes; the clock exists for every thread.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// CPU time consumed by the whole process (`CLOCK_PROCESS_CPUTIME_ID`), in nanoseconds.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid for writes; the clock exists for every process.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// CPU time consumed by a thread of this process, by the kernel's id of it, in nanoseconds; `None`: there
/// is no such thread.
#[must_use]
pub fn cpu_ns_of(tid: i32) -> Option<u64> {
    // As clock_getres(2) has it for processes and pthread_getcpuclockid(3) makes it for threads: the
    // complement of the id, and in the low bits "of a thread" and "what the scheduler counted".
    const OF_A_THREAD: i32 = 1 << 2;
    const SCHEDULED: i32 = 2;
    // The kernel's limit (proc(5), "pid_max"); a larger number would lose its upper bits below.
    const LARGEST_TID: i32 = 1 << 22;
    if !(1..=LARGEST_TID).contains(&tid) {
        return None;
    }
    let clock = (!tid << 3) | OF_A_THREAD | SCHEDULED;
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is valid for writes; a thread that is gone, or another process's, gives EINVAL.
    let rc = unsafe { libc::clock_gettime(clock, &mut ts) };
    (rc == 0).then(|| ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64)
}

/// The host's time-stamp counter, in cycles.
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC is available on every x86-64 CPU and not disabled for user mode on Linux.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Monotonic time and guest TSC of the same moment, for a guest whose TSC is the host's plus
/// `tsc_offset` (modulo 2^64).
///
/// The counter is read first: a guest deadline converted with such a pair can only come out late by
/// the few nanoseconds between the two reads, never early.
#[must_use]
pub fn moment(tsc_offset: u64) -> Moment {
    let tsc = tsc().wrapping_add(tsc_offset);
    Moment { ns: now_ns(), tsc }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_a_thread_is_told_by_its_id() {
        // SAFETY: takes no argument and cannot fail.
        let tid = unsafe { libc::gettid() };
        let before = thread_cpu_ns();
        let told = cpu_ns_of(tid).expect("this thread is there");
        assert!(before <= told && told <= thread_cpu_ns());
        assert!(told <= process_cpu_ns());
        for nobody in [0, -1, i32::MAX, i32::MIN] {
            assert_eq!(cpu_ns_of(nobody), None, "{nobody}");
        }
    }
}
