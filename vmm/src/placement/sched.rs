//! Scheduling policies of threads (`--sched`), and the system calls that place the calling thread.
//!
//! Owns how a policy is written. Must not know VMs.

#![allow(unsafe_code)] // sched_setscheduler, setpriority, sched_setaffinity, sched_getaffinity

use std::fmt;
use std::io;
use std::str::FromStr;

use libc::c_ulong;
use serde::{Deserialize, Serialize};

use super::numbers::{MOST, Numbers};

/// A scheduling policy (sched(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sched {
    /// `SCHED_OTHER`.
    Other,
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`.
    Idle,
    /// `SCHED_FIFO` with this priority, 1 to 99.
    Fifo(u8),
    /// `SCHED_RR` with this priority, 1 to 99.
    Rr(u8),
}

impl Sched {
    /// The real-time priority; 0: none.
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Sched::Other | Sched::Batch | Sched::Idle => 0,
            Sched::Fifo(priority) | Sched::Rr(priority) => priority,
        }
    }

    /// The kernel's number of the policy.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Sched::Other => libc::SCHED_OTHER,
            Sched::Batch => libc::SCHED_BATCH,
            Sched::Idle => libc::SCHED_IDLE,
            Sched::Fifo(_) => libc::SCHED_FIFO,
            Sched::Rr(_) => libc::SCHED_RR,
        }
    }
}

impl fmt::Display for Sched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sched::Other => f.write_str("other"),
            Sched::Batch => f.write_str("batch"),
            Sched::Idle => f.write_str("idle"),
            Sched::Fifo(priority) => write!(f, "fifo:{priority}"),
            Sched::Rr(priority) => write!(f, "rr:{priority}"),
        }
    }
}

impl From<Sched> for String {
    fn from(sched: Sched) -> String {
        sched.to_string()
    }
}

/// A text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write other, batch, idle, fifo:PRIO or rr:PRIO, with a PRIO from 1 to 99")]
pub struct NotSched;

impl FromStr for Sched {
    type Err = NotSched;

    fn from_str(text: &str) -> Result<Self, NotSched> {
        let real_time = |priority: &str| match priority.parse() {
            Ok(priority @ 1..=99) if !text.contains('+') => Ok(priority),
            _ => Err(NotSched),
        };
        match text.split_once(':') {
            None if text == "other" => Ok(Sched::Other),
            None if text == "batch" => Ok(Sched::Batch),
            None if text == "idle" => Ok(Sched::Idle),
            Some(("fifo", priority)) => real_time(priority).map(Sched::Fifo),
            Some(("rr", priority)) => real_time(priority).map(Sched::Rr),
            _ => Err(NotSched),
        }
    }
}

impl TryFrom<String> for Sched {
    type Error = NotSched;

    fn try_from(text: String) -> Result<Self, NotSched> {
        text.parse()
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the calling thread a policy.
///
/// # Errors
/// `EPERM`: it may not have it.
pub(super) fn set_policy(sched: Sched) -> io::Result<()> {
    // SAFETY: all zero is a value of this plain structure.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = sched.priority().into();
    // SAFETY: 0 is the calling thread; the structure is only read.
    done(unsafe { libc::sched_setscheduler(0, sched.number(), &raw const parameters) })
}

/// Gives the calling thread a nice value, -20 to 19.
///
/// # Errors
/// `EACCES`: it may not have one that low.
pub(super) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes integers only. On Linux nice values are those of threads, and 0 is the calling
    // one (setpriority(2), "C library/kernel differences").
    done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

/// Lets the calling thread run on these CPUs only.
///
/// # Errors
/// `EINVAL`: on none of them it can.
pub(super) fn set_cpus(cpus: &Numbers) -> io::Result<()> {
    let mask = cpus.mask(0);
    // SAFETY: the kernel reads so many bytes of the mask, which is one of words of bits.
    done(unsafe { libc::sched_setaffinity(0, size_of_val(&mask[..]), mask.as_ptr().cast()) })
}

/// The CPUs that the calling thread may run on.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn cpus() -> io::Result<Numbers> {
    let mut mask = vec![0; (MOST / c_ulong::BITS) as usize + 1];
    let size = size_of_val(&mask[..]);
    // SAFETY: the kernel writes at most so many bytes of the mask.
    done(unsafe { libc::sched_getaffinity(0, size, mask.as_mut_ptr().cast()) })?;
    Ok(Numbers::from_mask(&mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["other", "batch", "idle", "fifo:1", "fifo:99", "rr:50"] {
            assert_eq!(text.parse::<Sched>().expect(text).to_string(), text);
            let json = format!("\"{text}\"");
            let sched: Sched = serde_json::from_str(&json).expect(text);
            assert_eq!(serde_json::to_string(&sched).expect(text), json);
        }
        for wrong in [
            "", "fifo", "fifo:", "fifo:0", "fifo:100", "rr:-1", "rr:+1", "other:1", "Other",
            "deadline",
        ] {
            assert_eq!(wrong.parse::<Sched>(), Err(NotSched), "{wrong}");
        }
    }

    /// In a thread of its own, which ends with what it was given.
    #[test]
    fn calling_thread_is_placed() {
        std::thread::spawn(|| {
            let all = cpus().expect("a mask");
            let one = Numbers::of(all.iter().take(1));
            set_cpus(&one).expect("a CPU of its own");
            assert_eq!(cpus().expect("a mask"), one);
            set_nice(19).expect("anybody may be nice");
            // SAFETY: takes integers only.
            assert_eq!(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }, 19);
            set_policy(Sched::Batch).expect("anybody may");
            // SAFETY: takes an integer only.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_BATCH);
            let nowhere = set_cpus(&Numbers::of([MOST])).expect_err("there is no such CPU");
            assert_eq!(nowhere.raw_os_error(), Some(libc::EINVAL));
        })
        .join()
        .expect("it does not panic");
    }
}
