//! What the hierarchy is compared with: one heap of all timers behind one lock, and a host timer of
//! one's own.
//!
//! Owns both, and the reading of a thread's account. Must not know the hierarchy.

#![allow(unsafe_code)] // POSIX timers and `getrusage` have no safe interface

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// All timers in one heap. An entry is deleted when it comes to the top and is out of date, or
/// when most of the heap is.
pub struct Heap(Mutex<Timers>);

struct Timers {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    /// By slot, the expiry that counts, if any.
    current: Vec<Option<u64>>,
}

impl Timers {
    fn counts(&self, entry: &Reverse<(u64, u32)>) -> bool {
        self.current[entry.0.1 as usize] == Some(entry.0.0)
    }

    fn tidy(&mut self) {
        while self.heap.peek().is_some_and(|top| !self.counts(top)) {
            self.heap.pop();
        }
        if self.heap.len() > 2 * self.current.len() {
            let current = &self.current;
            self.heap.retain(|Reverse((at, slot))| current[*slot as usize] == Some(*at));
        }
    }
}

impl Heap {
    /// A heap with a timer for each slot.
    pub fn new(timers: impl Iterator<Item = u64>) -> Self {
        let current: Vec<_> = timers.map(Some).collect();
        let entries = (0u32..).zip(&current).filter_map(|(slot, at)| Some(Reverse(((*at)?, slot))));
        let heap = entries.collect();
        Heap(Mutex::new(Timers { heap, current }))
    }

    /// The slot halts with a timer; the first expiry of all.
    pub fn halt(&self, slot: u32, at: u64) -> Option<u64> {
        let mut timers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        timers.current[slot as usize] = Some(at);
        timers.heap.push(Reverse((at, slot)));
        timers.tidy();
        timers.heap.peek().map(|top| top.0.0)
    }

    /// The slot wakes, and looks after its timer itself.
    pub fn wake(&self, slot: u32) {
        let mut timers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        timers.current[slot as usize] = None;
    }
}

/// A POSIX timer that tells nobody.
pub struct HostTimer(libc::timer_t);

impl HostTimer {
    pub fn new() -> io::Result<Self> {
        let mut event = MaybeUninit::<libc::sigevent>::zeroed();
        let mut timer = MaybeUninit::<libc::timer_t>::zeroed();
        // SAFETY: all zeroes is a legal `sigevent`, and both pointers are to values of ours.
        let failed = unsafe {
            (*event.as_mut_ptr()).sigev_notify = libc::SIGEV_NONE;
            libc::timer_create(libc::CLOCK_MONOTONIC, event.as_mut_ptr(), timer.as_mut_ptr())
        };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `timer_create` succeeded, so it wrote the timer's identity.
        Ok(HostTimer(unsafe { timer.assume_init() }))
    }

    /// Arms the timer for a second that the host does not live to see, `at` varying the
    /// nanosecond, so that no call arms it for what it is armed for.
    pub fn arm(&self, at: u64) {
        const FAR: libc::time_t = 1 << 32;
        let value = libc::timespec { tv_sec: FAR, tv_nsec: (at % 1_000_000_000) as libc::c_long };
        let interval = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let new = libc::itimerspec { it_interval: interval, it_value: value };
        // SAFETY: the timer exists as long as `self`, and `new` outlives the call.
        let failed =
            unsafe { libc::timer_settime(self.0, libc::TIMER_ABSTIME, &new, ptr::null_mut()) };
        assert_eq!(failed, 0, "an armed timer can be armed again");
    }
}

impl Drop for HostTimer {
    fn drop(&mut self) {
        // SAFETY: the timer was made by `timer_create` and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// How often the calling thread has lost its CPU to another.
pub fn times_preempted() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: all zeroes is a legal `rusage`, and the pointer is to a value of ours.
    unsafe {
        let failed = libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        assert_eq!(failed, 0, "every thread has this account");
        usage.assume_init().ru_nivcsw
    }
}
