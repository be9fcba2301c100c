//! What the person at the terminal has chosen: the order of the VMs and where the list begins.
//!
//! Pure: a key changes it. Must not know terminals or how it is drawn.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rates::{Rates, VmRates};
use crate::control::stats::Stats;

/// By which column the VMs are ordered. Figures: the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// As they were created.
    #[default]
    Vm,
    /// By CPU time.
    Cpu,
    /// By saved wakeups.
    Saved,
    /// By hand-offs.
    HandedOff,
    /// By the median of the lateness.
    P50,
    /// By the 99th percentile of the lateness.
    P99,
}

impl Sort {
    fn next(self) -> Sort {
        match self {
            Sort::Vm => Sort::Cpu,
            Sort::Cpu => Sort::Saved,
            Sort::Saved => Sort::HandedOff,
            Sort::HandedOff => Sort::P50,
            Sort::P50 => Sort::P99,
            Sort::P99 => Sort::Vm,
        }
    }

    /// The VMs of `stats`, by their places there, in this order.
    #[must_use]
    pub fn order(self, stats: &Stats, rates: &Rates) -> Vec<usize> {
        let mut order: Vec<usize> = (0..stats.vms.len()).collect();
        let figure = |vm: &VmRates| {
            let value = match self {
                Sort::Vm => None,
                Sort::Cpu => vm.cpu_percent,
                Sort::Saved => vm.saved,
                Sort::HandedOff => vm.handed_off,
                Sort::P50 => vm.p50_ns.map(|ns| ns as f64),
                Sort::P99 => vm.p99_ns.map(|ns| ns as f64),
            };
            value.unwrap_or(-1.0)
        };
        let of = |at: usize| rates.vms.get(at).map_or(-1.0, figure);
        // A stable sort leaves those that are alike as they were created.
        order.sort_by(|a, b| of(*b).partial_cmp(&of(*a)).unwrap_or(Ordering::Equal));
        order
    }
}

/// What a key led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing to draw.
    Nothing,
    /// The picture is another one.
    Draw,
    /// The person has seen enough.
    Quit,
}

/// The choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ui {
    /// The order of the VMs.
    pub sort: Sort,
    /// The first VM of the list that is shown.
    pub first: usize,
}

impl Ui {
    /// Takes a key, while `rows` VMs are there and `page` of them fit.
    #[must_use]
    pub fn key(&mut self, key: &KeyEvent, rows: usize, page: usize) -> Then {
        if key.kind == KeyEventKind::Release {
            return Then::Nothing;
        }
        let last = rows.saturating_sub(page);
        let page = page.max(1);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let first = self.first.min(last);
        self.first = match key.code {
            KeyCode::Char('c') if control => return Then::Quit,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Then::Quit,
            KeyCode::Char('s' | 'S') => {
                self.sort = self.sort.next();
                0
            }
            KeyCode::Up => first.saturating_sub(1),
            KeyCode::Down => (first + 1).min(last),
            KeyCode::PageUp => first.saturating_sub(page),
            KeyCode::PageDown => (first + page).min(last),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => return Then::Nothing,
        };
        Then::Draw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(ui: &mut Ui, code: KeyCode) -> Then {
        ui.key(&KeyEvent::new(code, KeyModifiers::NONE), 100, 10)
    }

    #[test]
    fn arrows_and_pages_stay_within_the_list() {
        let mut ui = Ui::default();
        for (code, first) in [
            (KeyCode::Up, 0),
            (KeyCode::Down, 1),
            (KeyCode::PageDown, 11),
            (KeyCode::PageUp, 1),
            (KeyCode::PageUp, 0),
            (KeyCode::End, 90),
            (KeyCode::Down, 90),
            (KeyCode::PageDown, 90),
            (KeyCode::Up, 89),
            (KeyCode::Home, 0),
        ] {
            assert_eq!((press(&mut ui, code), ui.first), (Then::Draw, first), "{code:?}");
        }
        let mut few = Ui { first: 90, ..Ui::default() };
        let down = KeyEvent::new(KeyCode::Down, KeyModifiers::NONE);
        let _ = few.key(&down, 3, 10);
        assert_eq!(few.first, 0, "most of them have gone, and all fit");
        let _ = few.key(&down, 0, 0);
        assert_eq!(few.first, 0);
    }

    #[test]
    fn three_keys_quit_and_others_do_nothing() {
        let mut ui = Ui::default();
        assert_eq!(press(&mut ui, KeyCode::Char('q')), Then::Quit);
        assert_eq!(press(&mut ui, KeyCode::Esc), Then::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(ui.key(&interrupt, 1, 1), Then::Quit);
        assert_eq!(press(&mut ui, KeyCode::Char('c')), Then::Nothing);
        assert_eq!(press(&mut ui, KeyCode::Enter), Then::Nothing);
        assert_eq!(ui, Ui::default());
    }

    #[test]
    fn the_order_changes_column_by_column_and_comes_round() {
        let mut ui = Ui { first: 7, ..Ui::default() };
        let mut seen = Vec::new();
        for _ in 0..6 {
            assert_eq!(press(&mut ui, KeyCode::Char('s')), Then::Draw);
            assert_eq!(ui.first, 0);
            seen.push(ui.sort);
        }
        let all = [Sort::Cpu, Sort::Saved, Sort::HandedOff, Sort::P50, Sort::P99, Sort::Vm];
        assert_eq!(seen, all);
    }
}
