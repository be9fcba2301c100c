//! A host timer of a vCPU thread.
//!
//! Owns a POSIX timer on the monotonic clock that signals its thread, and what it is armed for.
//! Must not know what for: the run loop hands it the earliest time at which there is anything to do.

#![allow(unsafe_code)] // timer_create, timer_settime and timer_delete

use std::io;
use std::mem;
use std::ptr;

/// A timer that signals one thread, with the signal it was made for.
pub struct HostTimer {
    id: libc::timer_t,
    /// What the timer is armed for, in host monotonic nanoseconds; `None`: nothing, or it fired.
    armed: Option<u64>,
    /// How many times the timer was set, for the costs in the reports.
    pub settings: u64,
}

impl HostTimer {
    /// A disarmed timer for the calling thread.
    ///
    /// # Errors
    /// As [`HostTimer::for_thread`].
    pub fn for_current_thread(signal: libc::c_int) -> io::Result<Self> {
        // SAFETY: takes no argument and cannot fail.
        HostTimer::for_thread(unsafe { libc::gettid() }, signal)
    }

    /// A disarmed timer that signals the thread `tid` of this process.
    ///
    /// # Errors
    /// What `timer_create(2)` says, `EAGAIN` when the process has too many timers or queued signals.
    fn for_thread(tid: i32, signal: libc::c_int) -> io::Result<Self> {
        Ok(HostTimer { id: create(tid, signal)?, armed: None, settings: 0 })
    }

    /// Arms the timer so that it fires at `at`, or up to `late` nanoseconds after it; `None` disarms
    /// it. An armed time that lies within `at ..= at + late` is left as it is, because setting it
    /// costs a system call.
    pub fn arm(&mut self, at: Option<u64>, late: u64, now: u64) {
        let armed = self.armed.filter(|armed| *armed > now);
        match (armed, at) {
            (None, None) => self.armed = None,
            (Some(have), Some(want)) if have >= want && have - want <= late => {}
            (_, Some(want)) => self.set(want.saturating_add(late).max(1)),
            (Some(_), None) => self.set(0),
        }
    }

    /// Disarms the timer unless it fires at `after` or later: then it is left, because it costs
    /// nothing until then.
    pub fn disarm_before(&mut self, after: u64, now: u64) {
        if self.armed.is_some_and(|at| at < after) {
            self.arm(None, 0, now);
        }
    }

    /// Whether the timer is armed and fires before `at`.
    #[must_use]
    pub fn fires_before(&self, at: u64, now: u64) -> bool {
        self.armed.is_some_and(|armed| armed > now && armed < at)
    }

    /// How many nanoseconds before `now` the timer fired, once after each time that it did.
    pub fn fired(&mut self, now: u64) -> Option<u64> {
        let late = now.checked_sub(self.armed?)?;
        self.armed = None;
        Some(late)
    }

    /// Absolute time; 0 disarms (timer_settime(2)).
    fn set(&mut self, at: u64) {
        set(self.id, at);
        self.settings += 1;
        self.armed = (at != 0).then_some(at);
    }
}

impl Drop for HostTimer {
    fn drop(&mut self) {
        delete(self.id);
    }
}

/// A disarmed timer that signals the thread `tid` of this process.
pub(super) fn create(tid: i32, signal: libc::c_int) -> io::Result<libc::timer_t> {
    let mut id: libc::timer_t = ptr::null_mut();
    // SAFETY: an all-zero sigevent is valid; both structures outlive the call.
    let rc = unsafe {
        let mut event: libc::sigevent = mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = tid;
        libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id)
    };
    if rc == 0 { Ok(id) } else { Err(io::Error::last_os_error()) }
}

/// Sets a timer to fire at `at`, in host monotonic ns; 0 disarms it. It may be any thread's.
pub(super) fn set(id: libc::timer_t, at: u64) {
    // SAFETY: an all-zero itimerspec is valid; a number that names no timer is refused.
    unsafe {
        let mut spec: libc::itimerspec = mem::zeroed();
        spec.it_value.tv_sec = i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX);
        spec.it_value.tv_nsec = (at % 1_000_000_000) as i64;
        libc::timer_settime(id, libc::TIMER_ABSTIME, &spec, ptr::null_mut());
    }
}

/// Deletes a timer of the caller's, who does not use it any more.
pub(super) fn delete(id: libc::timer_t) {
    // SAFETY: a number that names no timer is refused.
    unsafe { libc::timer_delete(id) };
}
