//! `siesta bench density`.
//!
//! Owns the arguments. Must not know how anything is measured.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::options::{self, TimerOptions};
use super::{Failure, GUEST_FAILED, INTERRUPTED, OK, rates, values};
use crate::assemble::ApicTimer;
pub(super) use crate::bench::chain;
use crate::bench::{self, BenchError, Line, Plan, ThisHost, TickMode};
use crate::clock;
use crate::domain::TimerMode;
use crate::probe::Facts;
use crate::signals::Signals;
use crate::tiny_guests::TinyGuests;

/// Longest interval that can be asked for, in seconds: a day.
const LONGEST: f64 = 86_400.0;

/// Idle guests, if nothing says how many.
const VMS: u32 = 64;
/// Limit of a search, if nothing says otherwise.
const MOST_SEARCHED: u32 = 1024;

/// Arguments of `siesta bench density`.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
pub(super) struct DensityArguments {
    /// Idle guests that tick [default: 64, or what --hz says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(rates::MOST_VMS)))]
    vms: Option<u32>,
    /// Guests that compute without pause
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=1024))]
    busy: u32,
    /// Ticks a second of each idle guest, or of so many guests each: 400:64,100:64
    #[arg(long, default_value = "100", value_name = "HZ|HZ:N,..", value_parser = rates::parse)]
    hz: rates::Written,
    /// How idle guests use their APIC timer
    #[arg(long, value_enum, default_value = "auto", value_name = "auto|deadline|oneshot|periodic")]
    tick: TickMode,
    /// Length of each measured interval [default: 4, with --find-max 2]
    #[arg(long, value_parser = interval, value_name = "SECS")]
    secs: Option<f64>,
    /// Timer modes to compare, in this order
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "kernel,thread,migrate",
        value_name = "MODES"
    )]
    modes: Vec<TimerMode>,
    /// How often each mode is measured; the modes take turns
    #[arg(long, default_value_t = 3, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Find how many idle guests each mode carries: the most, up to --vms [default: 1024], of which
    /// no tick is lost and 99 % are at most --lateness-goal late, which is needed and also the
    /// policy's own goal. A mix of --hz gives proportions
    #[arg(long, conflicts_with_all = ["repeat", "sweep_borrow_share"])]
    find_max: bool,
    /// Run everything once for each of these shares, in percent: one line a share
    #[arg(long, value_delimiter = ',', value_name = "PERCENT,..", value_parser = clap::value_parser!(u8).range(0..=100), conflicts_with = "borrow_share")]
    sweep_borrow_share: Vec<u8>,
    /// Seed of the phases of the ticks [default: drawn, and printed]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Also write the figures into this file (schema siesta.density/1, with --find-max
    /// siesta.density-max/1, with --sweep-borrow-share siesta.density-sweep/1, see docs/density.md)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    timer: TimerOptions,
}

fn interval(text: &str) -> Result<f64, String> {
    values::seconds_up_to(text, LONGEST)
}

pub(super) fn density(device: &Path, arguments: &DensityArguments) -> Result<u8, Failure> {
    let signals = RefCell::new(Signals::take().map_err(Failure::input)?);
    let plan = arguments.plan()?;
    let (host, facts) = options::open_host(device)?;
    arguments.timer.tell(&arguments.modes, &facts);
    arguments.check(&facts)?;
    let timer = arguments.timer.clone();
    let mut guests = TinyGuests {
        host,
        facts,
        policy: Box::new(move |mode, facts| timer.policy(mode, facts)),
        sharing: arguments.timer.share,
        apic_timer: arguments.timer.apic_timer,
    };
    let shares = &arguments.sweep_borrow_share;
    let goal_ns = arguments.timer.lateness_goal.map(|goal| goal.as_nanos() as u64);
    let mut progress = Line::on_stderr(|| signals.borrow_mut().came());
    let mut out = io::stdout().lock();
    let (of_host, out) = (&mut ThisHost::open(), &mut out);
    let measured = match goal_ns.filter(|_| arguments.find_max) {
        Some(goal_ns) => {
            bench::find_max(&mut guests, of_host, (&plan, goal_ns), out, &mut progress).map(drop)
        }
        None if !shares.is_empty() => {
            bench::sweep(&mut guests, of_host, (&plan, shares), out, &mut progress).map(drop)
        }
        None => bench::density(&mut guests, of_host, &plan, out, &mut progress).map(drop),
    };
    drop(progress);
    let _ = out.flush();
    match measured {
        Ok(()) => Ok(OK),
        Err(error) => Err(Failure { message: chain(&error), status: status(&error) }),
    }
}

impl DensityArguments {
    /// What is to be measured.
    fn plan(&self) -> Result<Plan, Failure> {
        if self.tick == TickMode::Deadline && self.timer.apic_timer == ApicTimer::Oneshot {
            return Err(Failure::input(
                "--tick deadline contradicts --apic-timer oneshot, which takes that mode from the \
                 guests; leave one of them out",
            ));
        }
        if self.find_max && self.timer.lateness_goal.is_none() {
            return Err(Failure::input(
                "--find-max needs --lateness-goal: how late ticks may be, as 500us or 2ms",
            ));
        }
        let rates = match self.find_max {
            true => self.hz.scaled(self.vms.unwrap_or(MOST_SEARCHED)),
            false => self.hz.rates(self.vms, VMS).map_err(Failure::input)?,
        };
        Ok(Plan {
            rates,
            tick: self.tick,
            busy: self.busy,
            secs: self.secs.unwrap_or(if self.find_max { 2.0 } else { 4.0 }),
            modes: self.modes.clone(),
            repeat: if self.find_max { 1 } else { self.repeat },
            seed: self.seed.unwrap_or_else(|| clock::now_ns() >> 10 & 0xffff_ffff),
            slack_ns: u64::try_from(self.timer.timer_slack.as_nanos()).unwrap_or(u64::MAX),
            borrow_share_percent: self.timer.borrow_share,
            command: std::env::args().collect::<Vec<_>>().join(" "),
            json: self.json.clone(),
        })
    }

    /// Whether this host can offer what the guests are to use.
    fn check(&self, facts: &Facts) -> Result<(), Failure> {
        let user_apic = self.modes.iter().find(|&&mode| mode != TimerMode::Kernel);
        match user_apic.filter(|_| self.tick == TickMode::Deadline && !facts.tsc_deadline_exits) {
            None => Ok(()),
            Some(mode) => Err(Failure::input(format!(
                "--tick deadline: this host's KVM does not hand TSC-deadline writes to user space, \
                 as mode {} needs; use --tick oneshot, or --modes kernel",
                mode.name()
            ))),
        }
    }
}

fn status(error: &BenchError) -> u8 {
    match error {
        BenchError::Interrupted => INTERRUPTED,
        error if error.is_usage() => super::BAD_INPUT,
        _ => GUEST_FAILED,
    }
}
