//! `siesta serve`: VMs that come and go on request, in one process with one hierarchy.
//!
//! Owns the order of things. Must not know what requests do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::options::{self, TimerOptions};
use super::{Failure, INTERRUPTED, OK, run, values};
use crate::console::socket::Listener;
use crate::control::operator::Operator;
use crate::control::server::Server;
use crate::control::spec;
use crate::domain::TimerMode;
use crate::fleet::{Fleet, FleetConfig, Woken};
use crate::signals::Signals;

/// Arguments of `siesta serve`.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct ServeArguments {
    /// Socket that requests come to; see 'siesta ctl'
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// VMs to start with: a TOML file with a [[vm]] for each kind
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Most vCPUs at a time, all VMs together
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_vcpus: u32,
    /// Where the timers of halted vCPUs are kept
    #[arg(long, value_enum, default_value = "migrate", value_name = "migrate|thread|kernel")]
    timers: TimerMode,
    /// How long guests that look at their power buttons may take to power off after 'ctl shutdown' or
    /// SIGTERM
    #[arg(long, default_value = "10", value_parser = values::time_limit, value_name = "SECS")]
    shutdown_timeout: Duration,
    #[command(flatten)]
    timer: TimerOptions,
}

pub(super) fn serve(device: &Path, arguments: &ServeArguments) -> Result<u8, Failure> {
    // Before any thread exists, so that all inherit the mask.
    let mut signals = Signals::take().map_err(Failure::input)?;
    let refused =
        |what: String| Failure::input(format!("--control {}: {what}", arguments.control.display()));
    let vms = match &arguments.config {
        Some(path) => spec::read_config(path)
            .map_err(|what| Failure::input(format!("--config {}: {what}", path.display())))?,
        None => Vec::new(),
    };
    let listener = Listener::bind_private(&arguments.control).map_err(refused)?;
    let mut server = Server::new(listener).map_err(|error| refused(error.to_string()))?;
    let (host, facts) = options::open_host(device)?;
    arguments.timer.tell(&[arguments.timers], &facts);
    let config = FleetConfig {
        policy: arguments.timer.policy(arguments.timers, &facts),
        sharing: arguments.timer.share,
        vms: Vec::new(),
    };
    let fleet = Fleet::launch_with_room(&host, &facts, config, arguments.max_vcpus)
        .map_err(Failure::input)?;
    let watched = fleet.watch_signals(&signals).and_then(|()| fleet.watch_signals(&server));
    watched.map_err(Failure::input)?;
    let mut operator = Operator::new(fleet, &host, &facts, arguments.timer.apic_timer)
        .with_shutdown_timeout(arguments.shutdown_timeout);
    for (index, vm) in vms.iter().enumerate() {
        operator.create(vm).map_err(|what| Failure::input(format!("[[vm]] {index}: {what}")))?;
    }
    let mut ending = false;
    let status = loop {
        match operator.fleet.wait(operator.patience()) {
            Woken::VmEnded | Woken::TimeOut => {}
            Woken::Signal => {
                server.serve(|line| operator.answer(line));
                if operator.quits() {
                    break OK;
                }
                match signals.pop() {
                    Some(libc::SIGTERM) if !ending => {
                        ending = true;
                        operator.shut_down();
                    }
                    Some(_) => break INTERRUPTED,
                    None => {}
                }
            }
        }
        operator.bury().iter().for_each(|vm| run::tell(vm));
        if ending && operator.fleet.vms().is_empty() {
            break INTERRUPTED;
        }
    };
    drop(operator);
    server.finish();
    Ok(status)
}
