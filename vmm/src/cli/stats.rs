//! `siesta stats`: everything that a running `siesta serve` tells, once.
//!
//! Owns its arguments and the text. Must not know how it is found out.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Failure, OK, values};
use crate::control::client::Client;
use crate::control::stats::{LatenessStats, Stats, VmStats};
use crate::top::view;
use crate::top::words::{time, uptime};

/// Arguments of `siesta stats`.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct StatsArguments {
    /// The socket of 'siesta serve'
    #[arg(long, visible_alias = "control", value_name = "SOCKET")]
    socket: PathBuf,
    /// One line of JSON, in the form siesta.stats/1 (docs/observability.md)
    #[arg(long)]
    json: bool,
    /// How long the process may take to answer, in seconds
    #[arg(long, default_value = "10", value_parser = patience, value_name = "SECS")]
    timeout: Duration,
}

pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let wrong = "write a number of seconds from 0.001 to 3600";
    let seconds = values::seconds_up_to(text, 3600.0).map_err(|_| wrong)?;
    if seconds < 0.001 { Err(wrong.into()) } else { Ok(Duration::from_secs_f64(seconds)) }
}

pub(super) fn stats(arguments: &StatsArguments) -> Result<u8, Failure> {
    let client = Client::connect(&arguments.socket)
        .map_err(|error| Failure::input(format!("--socket {error}")))?;
    let stats = client.patient(arguments.timeout).stats().map_err(Failure::guest)?;
    let text = if arguments.json {
        serde_json::to_string(&stats).map_err(Failure::guest)? + "\n"
    } else {
        text(&stats)
    };
    // A reader that closed the pipe has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(OK)
}

fn text(stats: &Stats) -> String {
    let process = &stats.process;
    let mut text = format!(
        "siesta {}, process {}, up {}, CPU time {}\n\
         timers {}, inline {}, slack {}, borrow limit {}, borrow share {} %, lateness goal {}\n\
         {} VMs, {} created, {} ended; wakeups saved: {}\n\
         lateness: {}\n",
        process.version,
        process.pid,
        uptime(process.uptime_ns),
        time(Some(process.cpu_ns)),
        stats.timers,
        if process.inline { "on" } else { "off" },
        time(Some(process.slack_ns)),
        time(Some(process.borrow_limit_ns)),
        process.borrow_share_percent,
        time(Some(process.lateness_goal_ns)),
        stats.vms.len(),
        stats.created,
        stats.ended,
        stats.totals.inline,
        lateness(&stats.lateness),
    );
    text += &hierarchies(stats);
    for vm in &stats.vms {
        text += &vm_text(vm);
    }
    text
}

fn lateness(lateness: &LatenessStats) -> String {
    match lateness.count {
        0 => "no timer of a halted vCPU was looked after".to_owned(),
        count => format!(
            "p50 {}, p99 {}, max {} of {count} timers",
            time(lateness.p50_ns),
            time(lateness.p99_ns),
            time(lateness.max_ns)
        ),
    }
}

fn hierarchies(stats: &Stats) -> String {
    let mut text = String::new();
    for hierarchy in &stats.hierarchies {
        text += &match &hierarchy.vm {
            Some(vm) => format!("hierarchy of {}", vm.escape_debug()),
            None => "hierarchy".to_owned(),
        };
        text += &format!(": {} notices", hierarchy.notices);
        if let Some(keeper) = &hierarchy.keeper {
            text += &format!(", keeper {}", keeper.to_string().escape_debug());
        }
        text.push('\n');
        for (at, level) in (0..).zip(&hierarchy.levels) {
            text += &format!(
                "  level {at}: {} groups, {} walks, {} locks, {} passes, {} expiries, {} retries; \
                 {}\n",
                level.groups,
                level.walks,
                level.locks,
                level.passes,
                level.expiries,
                level.retries,
                view::migrators(hierarchy, at).escape_debug(),
            );
        }
    }
    text
}

fn vm_text(vm: &VmStats) -> String {
    let mut text = format!(
        "{}: {}, up {}, {} MiB; lateness: {}\n",
        vm.vm.escape_debug(),
        format!("{:?}", vm.state).to_lowercase(),
        uptime(vm.uptime_ns),
        vm.memory >> 20,
        lateness(&vm.lateness),
    );
    if let Some(balloon) = &vm.balloon {
        let mib = |bytes: Option<u64>| {
            bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
        };
        text += &format!(
            "  balloon: {} of {}; guest: total {}, free {}, available {}, caches {}\n",
            mib(Some(balloon.actual)),
            mib(Some(balloon.target)),
            mib(balloon.total),
            mib(balloon.free),
            mib(balloon.available),
            mib(balloon.caches),
        );
    }
    for (index, vcpu) in vm.vcpus.iter().enumerate() {
        let counters = &vcpu.counters;
        text += &format!(
            "  {index}: {}{}, thread {}, CPU time {}; exits {}, inline {} (by helper {}), served {}, \
             handed off {}, kicks {}, stale {}, relieved {}, overdue {}, rescued {}, throttled {}, \
             timer {}; lent {}, given {}\n",
            vcpu.state.escape_debug(),
            if vcpu.isolated { ", isolated" } else { "" },
            vcpu.thread.escape_debug(),
            time(vcpu.cpu_ns),
            counters.exits,
            counters.inline,
            counters.by_helper,
            counters.served,
            counters.handed_off,
            counters.kicks,
            counters.stale_timeouts,
            counters.relieved,
            counters.overdue,
            counters.rescued,
            counters.throttled,
            counters.timer_interrupts,
            time(Some(counters.lent_ns)),
            time(Some(counters.served_ns)),
        );
    }
    text
}
