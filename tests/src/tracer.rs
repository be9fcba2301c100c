//! A thread of another process, stopped as a debugger would.
//!
//! A stop signal would stop all threads of the process; a tracer stops one. Owns the stop, which ends
//! when the value is dropped. Source: ptrace(2), `PTRACE_SEIZE`, `PTRACE_INTERRUPT`.

#![allow(unsafe_code)] // ptrace(2)

use std::fs;
use std::io;

/// A stopped thread.
pub struct StoppedThread(i32);

impl StoppedThread {
    /// Stops the thread `tid` of a child. To be dropped by the same thread of the test.
    ///
    /// # Errors
    /// What ptrace(2) says.
    pub fn stop(tid: i32) -> io::Result<Self> {
        request(libc::PTRACE_SEIZE, tid)?;
        let stopped = StoppedThread(tid);
        request(libc::PTRACE_INTERRUPT, tid)?;
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        if unsafe { libc::waitpid(tid, &mut status, libc::__WALL) } != tid {
            return Err(io::Error::last_os_error());
        }
        Ok(stopped)
    }

    /// The number of the system call that it was stopped in, or at the end of.
    #[must_use]
    pub fn system_call(&self) -> Option<libc::c_long> {
        let told = fs::read_to_string(format!("/proc/{}/syscall", self.0)).ok()?;
        told.split_ascii_whitespace().next()?.parse().ok().filter(|number| *number >= 0)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // It fails where the thread is gone.
        let _ = request(libc::PTRACE_DETACH, self.0);
    }
}

fn request(what: libc::c_uint, tid: i32) -> io::Result<()> {
    // SAFETY: these requests read and write no memory of this process.
    let rc = unsafe { libc::ptrace(what, tid, 0, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The thread of that name in a process.
#[must_use]
pub fn thread_of(pid: i32, name: &str) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let mut ids = tasks.filter_map(|task| {
        let comm = fs::read_to_string(task.path().join("comm")).ok()?;
        (comm.trim_end() == name).then(|| task.file_name().to_str()?.parse().ok())?
    });
    ids.next()
}
