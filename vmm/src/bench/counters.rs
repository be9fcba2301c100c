//! What the host counts: idle entries, timer interrupts, CPU time, memory.
//!
//! Owns the formats of `/proc` and `/sys` that are read for it (`proc(5)`; the kernel's
//! `admin-guide/pm/cpuidle.rst`). Must not know what is made of the numbers. A file that a host
//! does not have makes a counter `None`, never an error.

use std::fs;
use std::path::Path;

use super::idle_events::IdleEvents;
use super::others;
use super::usage::{Usage, clock_tick_ns};

/// Totals since the host or the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// This process, without the thread that measures.
    pub process: Usage,
    /// CPU time of the thread that measures, in nanoseconds.
    pub measuring_ns: u64,
    /// Times a CPU entered an idle state.
    pub idle_entries: Option<u64>,
    /// Local timer interrupts of all CPUs.
    pub timer_interrupts: Option<u64>,
    /// CPU time of the host's other processes, in nanoseconds.
    pub others_ns: Option<u64>,
    /// CPU time of the whole host.
    pub host: Option<CpuTime>,
}

/// What all CPUs together had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Time wanted while the hypervisor below ran something else, in nanoseconds.
    pub stolen_ns: u64,
    /// CPUs that are online.
    pub cpus: u32,
}

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Proportional set size, in KiB.
    pub pss_kib: Option<u64>,
    /// Open file descriptors.
    pub fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Counters {
    /// Reads all counters of this host; `idle` counts for a host that does not itself.
    #[must_use]
    pub fn read(idle: Option<&IdleEvents>) -> Counters {
        let thread = Usage::of_this_thread();
        let stat = fs::read_to_string("/proc/stat").ok();
        let interrupts = fs::read_to_string("/proc/interrupts").ok();
        Counters {
            process: Usage::of_process().less(thread),
            measuring_ns: thread.cpu_ns,
            idle_entries: idle_entries(Path::new("/sys/devices/system/cpu"))
                .or_else(|| idle?.entries()),
            timer_interrupts: interrupts.and_then(|text| timer_interrupts(&text)),
            others_ns: others::cpu_ns(Path::new("/proc"), std::process::id(), clock_tick_ns()),
            host: stat.and_then(|text| cpu_time(&text, clock_tick_ns())),
        }
    }
}

impl Footprint {
    /// Reads that of this process. Takes the kernel a walk over all its pages.
    #[must_use]
    pub fn read() -> Footprint {
        let number = |path: &str, key: &str| field(&fs::read_to_string(path).ok()?, key);
        Footprint {
            pss_kib: number("/proc/self/smaps_rollup", "Pss:"),
            fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
            threads: number("/proc/self/status", "Threads:"),
        }
    }
}

/// CPU time of a thread of this process, in nanoseconds; `None` if it has ended or the kernel does
/// not account it.
#[must_use]
pub fn thread_cpu_ns(tid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The sum of `cpu*/cpuidle/state*/usage` below `cpus`.
fn idle_entries(cpus: &Path) -> Option<u64> {
    let mut sum = None;
    for cpu in fs::read_dir(cpus).ok()?.flatten() {
        let name = cpu.file_name();
        if !name.to_str().and_then(|name| name.strip_prefix("cpu")).is_some_and(is_number) {
            continue;
        }
        let Ok(states) = fs::read_dir(cpu.path().join("cpuidle")) else {
            continue;
        };
        for state in states.flatten() {
            let usage = fs::read_to_string(state.path().join("usage")).ok();
            if let Some(usage) = usage.and_then(|text| text.trim().parse::<u64>().ok()) {
                sum = Some(sum.unwrap_or(0_u64).wrapping_add(usage));
            }
        }
    }
    sum
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The sum of the line `LOC` of `/proc/interrupts`.
fn timer_interrupts(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("LOC:"))?;
    let counts = line.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    counts.reduce(u64::wrapping_add)
}

/// From `/proc/stat`, whose unit is `tick_ns`.
fn cpu_time(text: &str, tick_ns: u64) -> Option<CpuTime> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let columns: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq and softirq, and since Linux 2.6.11 what was stolen.
    let stolen = match columns.len() {
        0..7 => return None,
        7 => 0,
        _ => columns[7],
    };
    let cpus = text.lines().filter_map(|line| line.strip_prefix("cpu")).filter(|line| {
        line.split_whitespace().next().is_some_and(is_number) && !line.starts_with(' ')
    });
    Some(CpuTime { stolen_ns: stolen.wrapping_mul(tick_ns), cpus: cpus.count() as u32 })
}

/// The number after `key` in a file of one field a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  989 10 1163 118208 793 1 32 760 500 5
cpu0 445 5 529 59603 47 1 10 350 250 5
cpu11 544 5 634 58605 746 0 22 410 250 0
intr 1234 0 0
ctxt 99999
";

    #[test]
    fn stolen_time_and_the_number_of_cpus() {
        let expected = CpuTime { stolen_ns: 760 * 10_000_000, cpus: 2 };
        assert_eq!(cpu_time(STAT, 10_000_000), Some(expected));
    }

    #[test]
    fn a_kernel_without_steal_or_a_broken_line() {
        assert_eq!(cpu_time("cpu  1 2 3 4 5 6 7\n", 1).map(|time| time.stolen_ns), Some(0));
        assert_eq!(cpu_time("cpu  1 2 3 4 5 6\n", 1), None);
        assert_eq!(cpu_time("cpu0 1 2 3 4 5 6 7 8\n", 1), None);
        assert_eq!(cpu_time("", 1), None);
    }

    #[test]
    fn timer_interrupts_of_all_cpus() {
        let text = "           CPU0       CPU1\n  9:          7          0  IO-APIC   5-edge  timer
NMI:          5          0   Non-maskable interrupts
 LOC:      10150      11618   Local timer interrupts
RES:       3114       2460   Rescheduling interrupts\n";
        assert_eq!(timer_interrupts(text), Some(21_768));
        assert_eq!(timer_interrupts("NMI: 1 2 x\n"), None);
        assert_eq!(timer_interrupts("LOC: none\n"), None);
    }

    #[test]
    fn idle_entries_of_all_cpus_and_states() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("can create");
            fs::write(path, text).expect("can write");
        };
        put("cpu0/topology/core_id", "0\n");
        assert_eq!(idle_entries(root.path()), None, "no cpuidle on this host");
        put("cpu0/cpuidle/state0/usage", "5\n");
        put("cpu0/cpuidle/state1/usage", "70\n");
        put("cpu13/cpuidle/state0/usage", "900\n");
        put("cpuidle/state0/usage", "1000000\n");
        put("cpufreq/cpuidle/state0/usage", "1000000\n");
        assert_eq!(idle_entries(root.path()), Some(975));
        assert_eq!(idle_entries(Path::new("/nonexistent")), None);
    }

    #[test]
    fn fields_of_smaps_and_status() {
        let smaps = "55ee-7ffc ---p 0 00:00 0   [rollup]\nRss:    1668 kB\nPss:     391 kB\n";
        assert_eq!(field(smaps, "Pss:"), Some(391));
        assert_eq!(field("Name:\tsiesta\nThreads:\t67\n", "Threads:"), Some(67));
        assert_eq!(field("Pss_Anon: 1 kB\n", "Pss:"), None);
    }

    #[test]
    fn this_host_is_readable() {
        let counters = Counters::read(None);
        assert!(counters.host.is_some_and(|host| host.cpus >= 1));
        assert_eq!(
            counters.others_ns.is_some(),
            std::fs::read_link("/proc/self/ns/pid")
                .is_ok_and(|link| link.to_str() == Some("pid:[4026531836]"))
        );
        let footprint = Footprint::read();
        assert!(footprint.threads.is_some_and(|threads| threads >= 1));
        assert!(footprint.fds.is_some_and(|fds| fds >= 3));
    }
}
