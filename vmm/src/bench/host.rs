//! The facts about a host without which the figures mean little.
//!
//! Owns where the kernel tells them and how they are printed. Must not measure anything: what an
//! exit costs is handed in.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The facts printed above the table; what a host does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The CPU's name.
    pub cpu_model: Option<String>,
    /// CPUs that this process may use.
    pub cpus: Option<u32>,
    /// Whether the host is a virtual machine itself.
    pub virtualized: Option<bool>,
    /// Whether KVM is of the PVM type, which switches to guests in software.
    pub pvm: bool,
    /// Longest time KVM polls before a halted vCPU sleeps, in nanoseconds: hides wake-ups and costs
    /// CPU time (mode `kernel` only).
    pub halt_poll_ns: Option<u64>,
    /// Who chooses the idle states of the host's CPUs.
    pub cpuidle_driver: Option<String>,
    /// What the kernel reads time from.
    pub clocksource: Option<String>,
    /// What one exit to user space and the entry after it cost, in nanoseconds, measured at start.
    pub exit_cost_ns: Option<u64>,
}

impl HostFacts {
    /// Reads the facts of this host; `exit_cost_ns` is the caller's measurement.
    #[must_use]
    pub fn read(exit_cost_ns: Option<u64>) -> HostFacts {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        HostFacts {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu_model: cpuinfo_field(&cpuinfo, "model name").map(str::to_owned),
            cpus: std::thread::available_parallelism().ok().map(|cpus| cpus.get() as u32),
            virtualized: virtualized(&cpuinfo),
            pvm: Path::new("/sys/module/kvm_pvm").exists(),
            halt_poll_ns: line("/sys/module/kvm/parameters/halt_poll_ns")
                .and_then(|text| text.parse().ok()),
            cpuidle_driver: line("/sys/devices/system/cpu/cpuidle/current_driver"),
            clocksource: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            exit_cost_ns,
        }
    }

    /// Three lines for people, without a line feed at the end.
    #[must_use]
    pub fn lines(&self) -> String {
        let text = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".to_owned());
        let poll = match self.halt_poll_ns {
            Some(ns) => ns.to_string(),
            None => "unknown".to_owned(),
        };
        let cpus = self.cpus.map_or_else(|| "unknown".to_owned(), |cpus| cpus.to_string());
        let cost = self
            .exit_cost_ns
            .map_or_else(|| "unknown".to_owned(), |ns| format!("{:.1} us", ns as f64 / 1e3));
        format!(
            "host: Linux {}, {cpus} CPUs ({}{})\n      KVM {}, halt_poll_ns {}, exit to user space \
             {cost}\n      cpuidle {}, clock {}",
            text(&self.kernel),
            text(&self.cpu_model),
            if self.virtualized == Some(true) { ", virtual" } else { "" },
            if self.pvm { "of the PVM type" } else { "with VMX or SVM" },
            poll,
            text(&self.cpuidle_driver),
            text(&self.clocksource),
        )
    }
}

/// The first line of a file, if it has one.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// A field of the first CPU in `/proc/cpuinfo`.
fn cpuinfo_field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

/// Whether the CPU says that there is a hypervisor below.
fn virtualized(cpuinfo: &str) -> Option<bool> {
    let flags = cpuinfo_field(cpuinfo, "flags")?;
    Some(flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "\
processor\t: 0
model name\t: Intel(R) Xeon(R) Processor @ 2.80GHz
flags\t\t: fpu vme hypervisor tsc_deadline_timer

processor\t: 1
model name\t: another
";

    #[test]
    fn cpuinfo_is_read_by_field() {
        let model = cpuinfo_field(CPUINFO, "model name");
        assert_eq!(model, Some("Intel(R) Xeon(R) Processor @ 2.80GHz"));
        assert_eq!(virtualized(CPUINFO), Some(true));
        assert_eq!(virtualized("flags : fpu hypervisors\n"), Some(false));
        assert_eq!(virtualized("model name : x\n"), None);
    }

    #[test]
    fn the_lines_say_what_is_unknown() {
        let facts = HostFacts {
            kernel: Some("6.18.0".to_owned()),
            cpus: Some(2),
            virtualized: Some(true),
            pvm: true,
            halt_poll_ns: Some(200_000),
            exit_cost_ns: Some(7_040),
            ..HostFacts::default()
        };
        assert_eq!(
            facts.lines(),
            "host: Linux 6.18.0, 2 CPUs (unknown, virtual)\n      KVM of the PVM type, \
             halt_poll_ns 200000, exit to user space 7.0 us\n      cpuidle unknown, clock unknown"
        );
    }
}
