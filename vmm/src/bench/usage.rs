//! What the kernel accounts to this process: `getrusage(2)`.
//!
//! Owns the system calls. Must not know what is made of the numbers.

#![allow(unsafe_code)] // getrusage and sysconf

/// Totals of a process or thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time together, in nanoseconds.
    pub cpu_ns: u64,
    /// Times it gave up the CPU by itself, each of which a wake-up follows (`ru_nvcsw`).
    pub voluntary: u64,
    /// Times the CPU was taken from it (`ru_nivcsw`).
    pub involuntary: u64,
}

impl Usage {
    /// All threads of this process, those that have ended included.
    #[must_use]
    pub fn of_process() -> Usage {
        read(libc::RUSAGE_SELF)
    }

    /// The calling thread.
    #[must_use]
    pub fn of_this_thread() -> Usage {
        read(libc::RUSAGE_THREAD)
    }

    /// What happened since `earlier`, or what is left without `earlier`.
    #[must_use]
    pub fn less(self, earlier: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
        }
    }
}

fn read(who: libc::c_int) -> Usage {
    // SAFETY: all-zero is a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `usage` is valid for writes; with a valid `who` the call cannot fail.
    unsafe { libc::getrusage(who, &mut usage) };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    Usage {
        cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime),
        voluntary: usage.ru_nvcsw as u64,
        involuntary: usage.ru_nivcsw as u64,
    }
}

/// The unit of `/proc/stat`, in nanoseconds.
#[must_use]
pub fn clock_tick_ns() -> u64 {
    // SAFETY: the call reads a constant of the system.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(hz).unwrap_or(100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_a_voluntary_switch_of_this_thread() {
        let before = (Usage::of_process(), Usage::of_this_thread());
        for _ in 0..5 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let thread = Usage::of_this_thread().less(before.1);
        let process = Usage::of_process().less(before.0);
        assert!((5..50).contains(&thread.voluntary), "{thread:?}");
        assert!(process.voluntary >= thread.voluntary, "{process:?}");
    }

    #[test]
    fn work_takes_cpu_time() {
        let before = Usage::of_this_thread();
        let mut rounds = 0_u64;
        while Usage::of_this_thread().less(before).cpu_ns < 3_000_000 {
            rounds += 1;
            assert!(rounds < 100_000_000, "CPU time stands still");
        }
        assert!(Usage::of_process().cpu_ns >= 3_000_000);
        assert!((1_000_000..=10_000_000).contains(&clock_tick_ns()));
    }
}
