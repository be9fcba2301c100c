//! Options that several commands have, and the policy that they and the host make.
//!
//! Owns the defaults that depend on the host. Must not know the commands.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::{Failure, values};
use crate::assemble::ApicTimer;
use crate::cpu_features::CpuFeatures;
use crate::domain::{Policy, TimerMode};
use crate::fleet::Sharing;
use crate::kvm::{self, Host, LARGEST_VM};
use crate::limits::Limits;
use crate::probe::{self, Facts};

/// What a VM is, beside its kernel.
#[derive(Args, Clone, Debug)]
pub(super) struct GuestOptions {
    /// vCPUs of each VM
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_VM)))]
    pub cpus: u32,
    /// Memory of each VM: 64M, 2G; a plain number is MiB
    #[arg(long, default_value = "64M", value_parser = values::memory_size, value_name = "SIZE")]
    pub memory: u64,
    /// The kernel's command line [default: nothing; in 'run', for Linux: console=ttyS0 panic=-1 pci=off]
    #[arg(long, value_name = "TEXT")]
    pub cmdline: Option<String>,
    /// CPU features to add or to take away, by Linux's names: +rdrand,-avx2
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        value_name = "+X,-Y"
    )]
    pub cpu_features: CpuFeatures,
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Where the timers of halted vCPUs are kept
    #[arg(long, value_enum, default_value = "migrate", value_name = "migrate|thread|kernel")]
    pub timers: TimerMode,
}

/// Largest `--cpu-cap`: the vCPUs of the largest VM, each on a CPU of its own.
pub(crate) const MOST_CAP: i64 = 100 * LARGEST_VM as i64;

/// What a VM may ask of the host.
#[derive(Args, Clone, Debug)]
pub(super) struct LimitOptions {
    /// Most CPU time of a VM, in percent of one CPU: 50, 250 [default: no limit]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=MOST_CAP))]
    pub cpu_cap: Option<u32>,
    /// Most CPU time of a VM on other vCPUs' threads, in percent of one CPU [default: 10]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub served_share: Option<u32>,
    /// Shortest period of a VM's timers: periodic ones are slowed down to it, and a vCPU whose timers
    /// fire more often is served by its own thread alone [default: 200us]
    #[arg(long, value_name = "DURATION", value_parser = values::timer_period)]
    pub min_timer_period: Option<Duration>,
}

impl LimitOptions {
    pub(super) fn limits(&self) -> Limits {
        let defaults = Limits::default();
        Limits {
            min_timer_period_ns: self.min_timer_period.map_or(defaults.min_timer_period_ns, nanos),
            served_share_percent: self.served_share.unwrap_or(defaults.served_share_percent),
            cpu_cap_percent: self.cpu_cap,
            ..defaults
        }
    }
}

/// How vCPUs and their timers are treated.
#[derive(Args, Clone, Debug)]
pub(super) struct TimerOptions {
    /// Whose vCPUs look after each other's timers: all of this process's, or each VM's own
    #[arg(long, value_enum, default_value = "host", value_name = "host|vm")]
    pub share: Sharing,
    /// How late a timer may expire, so that one wakeup serves several (not in mode kernel)
    #[arg(long, value_parser = values::duration, default_value = "0", value_name = "DURATION")]
    pub timer_slack: Duration,
    /// Share of a running vCPU's time that may go to others, in percent; 0: none, 100: no limit
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100), default_value_t = BORROW_SHARE, value_name = "PERCENT")]
    pub borrow_share: u8,
    /// Longest time for which a halted vCPU is run on another's thread [default: 100us, more where exits are slow]
    #[arg(long, value_parser = values::duration, value_name = "DURATION")]
    pub borrow_limit: Option<Duration>,
    /// How late a timer may be before its migrator is taken to be overloaded or absent [default: 100us above what a wakeup takes]
    #[arg(long, value_parser = values::duration, value_name = "DURATION")]
    pub lateness_goal: Option<Duration>,
    /// Whether halted vCPUs are run on others' threads (mode migrate): where this host does that
    /// cheaply, always, or never
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|force|off")]
    pub inline: Inline,
    /// How guests may arm their APIC timer
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|deadline|oneshot")]
    pub apic_timer: ApicTimer,
}

/// Whether halted vCPUs are run on the threads of others (`--inline`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Inline {
    /// Where a measurement at start says that it is cheap
    Auto,
    /// Whatever it costs
    Force,
    /// Never: their own threads are woken
    Off,
}

/// The lateness goal, beyond what a wakeup takes.
const LATENESS_GOAL_NS: u64 = 100_000;

/// Share of a running vCPU's time that may go to others, in percent.
const BORROW_SHARE: u8 = 5;

/// Borrowed runs last at most this long on a host whose exits take a microsecond, and in proportion
/// where they take longer: the limit is meant in exits, about a hundred.
const BORROW_LIMIT_NS: u64 = 100_000;
const EXIT_NS: u64 = 1_000;

impl TimerOptions {
    /// The defaults, for VMs that have nothing to do with each other.
    pub(super) fn apart(apic_timer: ApicTimer) -> Self {
        TimerOptions {
            share: Sharing::Vm,
            timer_slack: Duration::ZERO,
            borrow_share: BORROW_SHARE,
            borrow_limit: None,
            lateness_goal: None,
            inline: Inline::Auto,
            apic_timer,
        }
    }

    pub(super) fn policy(&self, mode: TimerMode, facts: &Facts) -> Policy {
        let scaled = BORROW_LIMIT_NS.max(BORROW_LIMIT_NS * facts.exit_cost_ns / EXIT_NS);
        let limit = self.borrow_limit.map_or(scaled, nanos);
        // What a thread of its own would take to be there.
        let floor = facts.wakeup_ns + facts.exit_cost_ns;
        Policy {
            mode,
            inline: match self.inline {
                Inline::Auto => inline_pays(facts),
                Inline::Force => true,
                Inline::Off => false,
            },
            slack_ns: nanos(self.timer_slack),
            borrow_limit_ns: limit,
            borrow_share_percent: self.borrow_share,
            lateness_goal_ns: self.lateness_goal.map_or(floor + LATENESS_GOAL_NS, nanos),
            wakeup_ns: floor,
        }
    }

    /// Says what the host's way of running vCPUs means for the policy, if it means something in one
    /// of these modes.
    pub(super) fn tell(&self, modes: &[TimerMode], facts: &Facts) {
        if !modes.contains(&TimerMode::Migrate) {
            return;
        }
        let cost_us = facts.other_thread_cost_ns / 1000;
        match self.inline {
            Inline::Auto if !inline_pays(facts) => tracing::warn!(
                "running a vCPU on another thread takes {cost_us} us here; halted vCPUs are woken on \
                 their own threads instead (Linux 6.13 mends it; --inline force overrides it, \
                 --inline off agrees)"
            ),
            Inline::Force if !inline_pays(facts) => tracing::info!(
                "running a vCPU on another thread takes {cost_us} us here; --inline force does it \
                 nevertheless"
            ),
            _ => {}
        }
    }
}

/// Before Linux 6.13 a vCPU that changes threads stalls; then home threads are woken instead.
fn inline_pays(facts: &Facts) -> bool {
    facts.other_thread_cost_ns <= 4 * facts.exit_cost_ns + 20_000
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens KVM and finds out what it does.
pub(super) fn open_host(device: &Path) -> Result<(Host, Facts), Failure> {
    let host = kvm::open_at(device).map_err(Failure::input)?;
    let facts = probe::run(&host).map_err(Failure::guest)?;
    tracing::info!(?facts, "host");
    Ok((host, facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        pvm_type: false,
        tsc_deadline_exits: true,
        exit_cost_ns: 900,
        other_thread_cost_ns: 1_000,
        wakeup_ns: 5_000,
        tsc_moves: true,
        tsc_khz: 2_000_000,
    };

    #[test]
    fn borrow_limit_grows_with_the_exit_cost_and_never_shrinks() {
        let options = TimerOptions {
            timer_slack: Duration::from_millis(1),
            ..TimerOptions::apart(ApicTimer::Auto)
        };
        assert_eq!(options.policy(TimerMode::Migrate, &FACTS).borrow_limit_ns, 100_000);
        let slow = Facts { exit_cost_ns: 7_500, ..FACTS };
        assert_eq!(options.policy(TimerMode::Migrate, &slow).borrow_limit_ns, 750_000);
        assert_eq!(options.policy(TimerMode::Migrate, &slow).slack_ns, 1_000_000);
    }

    #[test]
    fn hosts_that_stall_on_a_change_of_thread_are_served_without_it() {
        assert!(inline_pays(&FACTS));
        assert!(!inline_pays(&Facts { other_thread_cost_ns: 50_000_000, ..FACTS }));
    }

    #[test]
    fn inline_service_can_be_forced_and_turned_off() {
        let stalls = Facts { other_thread_cost_ns: 50_000_000, ..FACTS };
        for (inline, cheap, dear) in
            [(Inline::Auto, true, false), (Inline::Force, true, true), (Inline::Off, false, false)]
        {
            let options = TimerOptions { inline, ..TimerOptions::apart(ApicTimer::Auto) };
            assert_eq!(options.policy(TimerMode::Migrate, &FACTS).inline, cheap, "{inline:?}");
            assert_eq!(options.policy(TimerMode::Migrate, &stalls).inline, dear, "{inline:?}");
        }
    }
}
