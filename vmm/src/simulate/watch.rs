//! How far the models are, for somebody who watches, and how they are told to end early.
//!
//! Owns a figure for each mode and a flag. Must not know how they are shown. Relaxed throughout:
//! each is a figure of its own.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Interrupted;
use crate::domain::TimerMode;

/// Shared between the models and whoever waits for them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    stop: AtomicBool,
    per_mille: [AtomicU32; 3],
}

impl Watch {
    /// A model has done this part, 0 to 1.
    pub(super) fn progress(&self, mode: TimerMode, part: f64) -> Result<(), Interrupted> {
        self.per_mille[mode as usize].store((part * 1e3) as u32, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// All models end at their next look.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// One line about these modes.
    pub(super) fn line(&self, modes: &[TimerMode]) -> String {
        let parts = modes.iter().map(|&mode| {
            let per_mille = self.per_mille[mode as usize].load(Ordering::Relaxed);
            format!("{} {} %", mode.name(), per_mille / 10)
        });
        format!("simulating: {}", parts.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_each_mode_and_a_stop_reaches_the_models() {
        let watch = Watch::default();
        assert_eq!(watch.progress(TimerMode::Migrate, 0.255), Ok(()));
        let line = watch.line(&[TimerMode::Thread, TimerMode::Migrate]);
        assert_eq!(line, "simulating: thread 0 %, migrate 25 %");
        watch.stop();
        assert_eq!(watch.progress(TimerMode::Migrate, 0.3), Err(Interrupted));
    }
}
