//! CPU time of the host's other processes.
//!
//! Owns the fields of `/proc/PID/stat` (`proc(5)`) that are read for it. Must not know what is made
//! of the sum. `/proc/stat` would be one file instead of many, but most kernels fill it by sampling
//! at the timer tick, which guests that tick, too, mislead by 10-20 % of a CPU.
//!
//! What a process has used goes to its parent when it is waited for, so the sum over all processes,
//! their waited-for children included, grows by what was used, whoever ends meanwhile; but for a
//! process whose parent does not wait (SIGCHLD ignored), whose time then leaves the sum. Outside the
//! first PID namespace, where `/proc` shows some of the processes only, there is no sum.

use std::fs;
use std::path::Path;

/// The link that names the first PID namespace (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// The sum below `proc`, without process `own`, in nanoseconds; `None` if there is nothing to read.
#[must_use]
pub fn cpu_ns(proc: &Path, own: u32, tick_ns: u64) -> Option<u64> {
    let first = fs::read_link(proc.join("self/ns/pid")).ok()?;
    if first.to_str() != Some(FIRST_NAMESPACE) {
        return None;
    }
    let mut sum = None;
    for entry in fs::read_dir(proc).ok()?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if pid.is_none_or(|pid| pid == own) {
            continue;
        }
        // It may have ended since it was listed; then its time is its parent's.
        let text = fs::read_to_string(entry.path().join("stat")).ok();
        if let Some(ticks) = text.and_then(|text| ticks(&text)) {
            sum = Some(sum.unwrap_or(0_u64).wrapping_add(ticks.wrapping_mul(tick_ns)));
        }
    }
    sum
}

/// utime, stime, cutime and cstime: fields 14 to 17, counted from behind the name, which may hold
/// anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<i64> =
        rest.split_whitespace().skip(11).take(4).map_while(|word| word.parse().ok()).collect();
    (fields.len() == 4).then(|| fields.iter().map(|&ticks| ticks.max(0) as u64).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) name (x) S 1 42 42 0 -1 4194304 10 20 0 0 7 3 100 50 20 0 1 0 9";

    #[test]
    fn time_of_a_process_includes_its_children_and_its_name_may_hold_anything() {
        assert_eq!(ticks(STAT), Some(160));
        assert_eq!(ticks("42 (x) S 1 2 3"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn all_processes_but_the_own_are_added_up() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for pid in ["42", "43", "self", "99"] {
            fs::create_dir(root.path().join(pid)).expect("can create");
            if pid != "99" {
                fs::write(root.path().join(pid).join("stat"), STAT).expect("can write");
            }
        }
        assert_eq!(cpu_ns(root.path(), 1, 10), None, "some namespace");
        fs::create_dir(root.path().join("self/ns")).expect("can create");
        std::os::unix::fs::symlink(FIRST_NAMESPACE, root.path().join("self/ns/pid")).expect("can");
        assert_eq!(cpu_ns(root.path(), 1, 10), Some(3_200));
        assert_eq!(cpu_ns(root.path(), 42, 10), Some(1_600));
        assert_eq!(cpu_ns(Path::new("/nonexistent"), 1, 10), None);
    }
}
