//! No vCPU of a VM runs before all of its threads are placed.
//!
//! Owns the meeting of the VM's home threads with whoever starts them. Must not know vCPUs.
//!
//! | variable | lock | writers | readers |
//! |---|---|---|---|
//! | `state` | its mutex, held for a change of it | home threads: `placed`, `fault`; the starter: `verdict` | both |

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Placement, PlacementError};

/// Where threads wait until all are placed.
#[derive(Debug)]
pub struct Gate {
    placement: Placement,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Threads that have tried.
    placed: usize,
    /// What the first said that failed.
    fault: Option<PlacementError>,
    /// Whether they may go on; nobody has decided yet: none.
    verdict: Option<bool>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A home thread comes: it is placed, and waits for the others. Answers whether it may go on.
    #[must_use]
    pub fn pass(&self) -> bool {
        let outcome = self.placement.apply_to_current_thread();
        let mut state = self.lock();
        state.placed += 1;
        if let Err(fault) = outcome {
            state.fault.get_or_insert(fault);
        }
        self.changed.notify_all();
        let state = self.changed.wait_while(state, |state| state.verdict.is_none());
        state.unwrap_or_else(PoisonError::into_inner).verdict == Some(true)
    }
}

/// The starter's end of a [`Gate`]. Dropped before it was opened, it sends all threads home.
#[derive(Debug)]
pub struct Keeper(Arc<Gate>);

impl Keeper {
    /// A gate for threads that are to be placed so.
    #[must_use]
    pub fn new(placement: Placement) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Keeper(Arc::new(Gate { placement, state, changed }))
    }

    /// The threads' end.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.0)
    }

    /// Waits for `count` threads, and lets them go on if all are placed.
    ///
    /// # Errors
    /// What one of them said; all are sent home.
    pub fn open(self, count: usize) -> Result<(), PlacementError> {
        let state = self.0.changed.wait_while(self.0.lock(), |state| state.placed < count);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        match state.fault.take() {
            Some(fault) => Err(fault),
            None => {
                state.verdict = Some(true);
                Ok(())
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.lock().verdict.get_or_insert(false);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::numbers::{MOST, Numbers};
    use std::thread;

    fn threads(keeper: &Keeper, count: usize) -> Vec<thread::JoinHandle<bool>> {
        let gates = (0..count).map(|_| keeper.gate());
        gates.map(|gate| thread::spawn(move || gate.pass())).collect()
    }

    fn ends(threads: Vec<thread::JoinHandle<bool>>) -> Vec<bool> {
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    }

    #[test]
    fn all_go_on_when_all_are_placed() {
        let keeper = Keeper::new(Placement { nice: Some(19), ..Placement::default() });
        let waiting = threads(&keeper, 3);
        keeper.open(3).expect("anybody may be nice");
        assert_eq!(ends(waiting), [true; 3]);
    }

    #[test]
    fn nobody_goes_on_when_one_is_not_placed() {
        let pin = Some(Numbers::of([MOST]));
        let keeper = Keeper::new(Placement { pin, ..Placement::default() });
        let waiting = threads(&keeper, 3);
        let fault = keeper.open(3).expect_err("there is no such CPU").to_string();
        assert!(fault.starts_with("--pin 65535"), "{fault}");
        assert_eq!(ends(waiting), [false; 3]);
    }

    #[test]
    fn threads_are_sent_home_when_not_all_could_be_started() {
        let keeper = Keeper::new(Placement::default());
        let waiting = threads(&keeper, 2);
        drop(keeper);
        assert_eq!(ends(waiting), [false; 2]);
    }
}
