//! A thread of another process, stopped as a debugger would.
//!
//! A stop signal would stop all threads of the process; a tracer stops one. Owns the stop, which ends
//! when the value is dropped, and the way to the next of the thread's own atomic instructions: between two
//! of those others see no difference. Source: ptrace(2), `PTRACE_SEIZE`, `PTRACE_INTERRUPT`,
//! `PTRACE_SINGLESTEP`.

#![allow(unsafe_code)] // ptrace(2)

use std::fs;
use std::io;
use std::ops::Range;

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

impl StoppedThread {
    /// Lets the thread go on until it has executed another atomic instruction that lies in `code`.
    /// Answers the address behind that.
    ///
    /// # Errors
    /// What ptrace(2) says; the thread has ended, or does not come there in `limit` instructions.
    pub fn to_next_atomic(&self, code: &Range<u64>, limit: u64) -> io::Result<u64> {
        for _ in 0..limit {
            let at = self.instruction_pointer()?;
            let atomic = code.contains(&at) && is_atomic(self.bytes_at(at)?);
            self.step()?;
            if atomic {
                return self.instruction_pointer();
            }
        }
        Err(io::Error::other("it does not come to an atomic instruction"))
    }

    /// Executes one instruction, and what signals there are.
    fn step(&self) -> io::Result<()> {
        let mut signal = 0;
        loop {
            request_with(libc::PTRACE_SINGLESTEP, self.0, 0, signal)?;
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            if unsafe { libc::waitpid(self.0, &mut status, libc::__WALL) } != self.0 {
                return Err(io::Error::last_os_error());
            }
            if !libc::WIFSTOPPED(status) {
                return Err(io::Error::other("the thread has ended"));
            }
            match libc::WSTOPSIG(status) {
                libc::SIGTRAP => return Ok(()),
                other => signal = other as usize,
            }
        }
    }

    fn instruction_pointer(&self) -> io::Result<u64> {
        let at = std::mem::offset_of!(libc::user_regs_struct, rip);
        peek(libc::PTRACE_PEEKUSER, self.0, at)
    }

    fn bytes_at(&self, at: u64) -> io::Result<[u8; 8]> {
        peek(libc::PTRACE_PEEKTEXT, self.0, at as usize).map(u64::to_le_bytes)
    }
}

/// A locked instruction, or an exchange with memory, which is one without a prefix (SDM vol. 2, "LOCK",
/// "XCHG").
fn is_atomic(code: [u8; 8]) -> bool {
    let mut code = code.iter().skip_while(|byte| [0x64, 0x65, 0x66].contains(*byte));
    match code.next() {
        Some(0xf0) => true,
        Some(rex @ 0x40..=0x4f) if *rex != 0 => exchanges(code.next(), code.next()),
        first => exchanges(first, code.next()),
    }
}

fn exchanges(opcode: Option<&u8>, operands: Option<&u8>) -> bool {
    matches!(opcode, Some(0x86 | 0x87)) && operands.is_some_and(|operands| operands >> 6 != 3)
}

/// Where the code of a process's own program lies.
#[must_use]
pub fn code_of(pid: i32) -> Option<Range<u64>> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let program = program.to_str()?;
    let line = maps.lines().find(|line| line.contains("r-xp") && line.ends_with(program))?;
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?)
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // It fails where the thread is gone.
        let _ = request(libc::PTRACE_DETACH, self.0);
    }
}

fn request(what: libc::c_uint, tid: i32) -> io::Result<()> {
    request_with(what, tid, 0, 0)
}

fn request_with(what: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: these requests read and write no memory of this process.
    let rc = unsafe { libc::ptrace(what, tid, address, data) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A word of the thread, which may be any, so that an error is told by `errno` alone.
fn peek(what: libc::c_uint, tid: i32, at: usize) -> io::Result<u64> {
    // SAFETY: the request writes nothing of this process but `errno`.
    let word = unsafe {
        *libc::__errno_location() = 0;
        libc::ptrace(what, tid, at, 0)
    };
    match io::Error::last_os_error() {
        error if error.raw_os_error() != Some(0) => Err(error),
        _ => Ok(word as u64),
    }
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
