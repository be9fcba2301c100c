//! `siesta top`: a running process, looked at again and again.
//!
//! [`rates`] computes what happened between two samples, [`view`] draws it, [`ui`] is what keys change;
//! all three are pure. [`sampler`] asks the process. This file owns the terminal and the order of things.
//! Whatever way it is left, the terminal is as it was before. Must not know how vCPUs run.

pub mod rates;
pub mod sampler;
pub mod ui;
pub mod view;
pub mod words;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use thiserror::Error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::clock;
use crate::control::client::{Client, ClientError};
use crate::control::stats::Stats;
use crate::signals::Signals;
use rates::Rates;
use sampler::Sampler;
use ui::{Then, Ui};

/// Why there is nothing more to see.
#[derive(Debug, Error)]
pub enum TopError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ClientError),
    /// The terminal, or what is needed to watch it.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// How it was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// By a key.
    Quit,
    /// By a signal, or the terminal has gone.
    Interrupted,
}

/// The terminal in raw mode, on its second screen, until this is dropped or somebody panics.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Screen> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Screen(terminal)),
            Err(error) => {
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs no more.
        let _ = ratatui::try_restore();
        let _ = self.0.show_cursor();
    }
}

/// What is on the screen.
#[derive(Default)]
struct Picture {
    ui: Ui,
    last: Option<(Box<Stats>, Rates)>,
}

impl Picture {
    fn take(&mut self, stats: Box<Stats>) {
        let before = self.last.take().map(|(before, _)| before);
        let rates = rates::between(before.as_deref(), &stats);
        self.last = Some((stats, rates));
    }

    fn draw(&self, screen: &mut Screen) -> io::Result<()> {
        if let Some((stats, rates)) = &self.last {
            screen.0.draw(|frame| view::draw(frame, stats, rates, &self.ui))?;
        }
        Ok(())
    }

    /// Takes what was typed.
    fn typed(&mut self, screen: &mut Screen) -> io::Result<Then> {
        let mut then = Then::Nothing;
        while event::poll(Duration::ZERO)? {
            let next = match (event::read()?, &self.last) {
                (Event::Key(key), last) => {
                    let (rows, page) = match last {
                        Some((stats, rates)) => {
                            let area = screen.0.size()?.into();
                            (stats.vms.len(), view::page(area, stats, rates))
                        }
                        None => (0, 0),
                    };
                    self.ui.key(&key, rows, page)
                }
                (Event::Resize(..), _) => Then::Draw,
                _ => Then::Nothing,
            };
            match next {
                Then::Quit => return Ok(Then::Quit),
                Then::Draw => then = Then::Draw,
                Then::Nothing => {}
            }
        }
        Ok(then)
    }
}

const KEYS: u64 = 0;
const SIGNALS: u64 = 1;
const SAMPLES: u64 = 2;

/// Shows what `client`'s process does, with a new sample each `interval`, until a key or one of `signals`
/// ends it. Standard input and output must be a terminal.
///
/// # Errors
/// [`TopError`]: the process answers no more, or the terminal fails.
pub fn watch(client: Client, interval: Duration, mut signals: Signals) -> Result<Left, TopError> {
    let sampler = Sampler::start(client)?;
    let epoll = Epoll::new()?;
    let keys = io::stdin();
    let sources = [(keys.as_raw_fd(), KEYS), (signals.as_raw_fd(), SIGNALS)];
    for (fd, data) in sources.into_iter().chain([(sampler.as_raw_fd(), SAMPLES)]) {
        epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data))?;
    }
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let mut screen = Screen::take()?;
    let mut picture = Picture::default();
    // From here on a change of the terminal's size interrupts the wait.
    let _ = event::poll(Duration::ZERO)?;
    let mut due = Some(clock::now_ns());
    loop {
        let now = clock::now_ns();
        if due.is_some_and(|at| at <= now) {
            sampler.want();
            // The next one only after this one's answer.
            due = None;
        }
        let wait = due.map_or(-1, |at| {
            i32::try_from(at.saturating_sub(now).div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let mut events = [EpollEvent::default(); 3];
        // Interrupted or not, what has come is looked at.
        let count = epoll.wait(wait, &mut events).unwrap_or(0);
        let gone = |event: &EpollEvent| {
            let gone = EventSet::HANG_UP | EventSet::ERROR;
            event.data() == KEYS && event.event_set().intersects(gone)
        };
        if signals.came() || events[..count].iter().any(gone) {
            return Ok(Left::Interrupted);
        }
        let mut then = picture.typed(&mut screen)?;
        if then == Then::Quit {
            return Ok(Left::Quit);
        }
        if let Some(sample) = sampler.came() {
            picture.take(sample?);
            due = Some(now.max(clock::now_ns()).saturating_add(interval));
            then = Then::Draw;
        }
        if then == Then::Draw {
            picture.draw(&mut screen)?;
        }
    }
}
