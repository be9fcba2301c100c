//! By when a vCPU thread is missed at its duty in the hierarchy.
//!
//! Owns what the thread said about that, and the host timer that calls the backstop then. Must not know
//! the duty, nor what the backstop does.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `back_by` | its thread; others, only earlier; the backstop takes back what is void | all | SeqCst: whoever changed it sets the timer and looks again, so that the last setting is for the last value |
//! | `missing` | the backstop sets, the thread clears when it wakes | the backstop, migrators | relaxed: a hint who can run the thread's own vCPU |
//! | `timer` | whoever needs it first | the same | acquire/release; 0: there is none yet |
//! | `settings` | whoever is about to set the timer counts that | the same, afterwards | SeqCst: whose number is not the last one may have set it over somebody else's time, and sets it again |
//!
//! Others say it for the thread when they leave something to it: it may be stopped before it hears of that.

#![allow(unsafe_code)] // a POSIX timer that several threads set

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::host_timer;
use crate::backstop;

const NEVER: u64 = u64::MAX;

/// When a thread is missed.
pub struct Watch {
    back_by: AtomicU64,
    missing: AtomicBool,
    /// The kernel's number of the timer, plus one.
    timer: AtomicUsize,
    settings: AtomicU32,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            back_by: AtomicU64::new(NEVER),
            missing: AtomicBool::new(false),
            timer: AtomicUsize::new(0),
            settings: AtomicU32::new(0),
        }
    }
}

impl Watch {
    /// By when the thread will have looked at its duty, in host monotonic ns; `u64::MAX`: it has none.
    #[must_use]
    pub fn back_by(&self) -> u64 {
        self.back_by.load(Ordering::SeqCst)
    }

    /// Takes back what was said, unless something else was said since.
    pub fn forget(&self, said: u64) {
        let _ = self.back_by.compare_exchange(said, NEVER, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The thread has slept beyond its time-out: it can't be relied on to run its own vCPU.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn set_missing(&self, missing: bool) {
        if self.is_missing() != missing {
            self.missing.store(missing, Ordering::Relaxed);
        }
    }

    /// The thread itself says something else than before, at `now`; `backstop` is the thread that is
    /// called. `false`: somebody has spoken meanwhile, and it is to look at its duty again.
    #[must_use]
    pub(super) fn say(&self, said: u64, at: u64, backstop: i32, now: u64) -> bool {
        // The timer first: a thread that is stopped between the two is called for in time.
        let number = (at != NEVER || said > now).then(|| self.set(at, backstop));
        let alone = self.back_by.compare_exchange(said, at, Ordering::SeqCst, Ordering::SeqCst);
        // Without a setting the time is over, and with it the timer; others who have spoken have set it.
        if let Some(number) = number {
            self.settle(at, number, backstop);
        }
        alone.is_ok()
    }

    /// Somebody leaves something to the thread, which is missed from `at` on if it does not come.
    pub fn expect(&self, at: u64, backstop: i32) {
        let mut said = self.back_by();
        if said <= at {
            return;
        }
        let number = self.set(at, backstop);
        while said > at {
            match self.back_by.compare_exchange(said, at, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(seen) => said = seen,
            }
        }
        self.settle(at, number, backstop);
    }

    /// Sets the timer, which was set for `armed` as the setting of that number, until it is set for what was
    /// said last, and by nobody else since.
    fn settle(&self, mut armed: u64, mut number: u32, backstop: i32) {
        loop {
            let said = self.back_by();
            if said == armed && self.settings.load(Ordering::SeqCst) == number {
                return;
            }
            number = self.set(said, backstop);
            armed = said;
        }
    }

    /// Answers the number of this setting, which is taken first: whoever sets the timer meanwhile has another.
    fn set(&self, at: u64, backstop: i32) -> u32 {
        let number = self.settings.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        if let Some(timer) = self.timer(at != NEVER, backstop) {
            host_timer::set(timer, if at == NEVER { 0 } else { at });
        }
        number
    }

    /// The timer, made if it is needed and there is none.
    fn timer(&self, needed: bool, backstop: i32) -> Option<libc::timer_t> {
        let known = self.timer.load(Ordering::Acquire);
        if known != 0 {
            return Some((known - 1) as libc::timer_t);
        }
        if !needed {
            return None;
        }
        let made = match host_timer::create(backstop, backstop::signal_number()) {
            Ok(made) => made,
            Err(error) => {
                tracing::warn!(%error, "no timer for the backstop");
                return None;
            }
        };
        let name = made as usize + 1;
        match self.timer.compare_exchange(0, name, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(made),
            Err(other) => {
                host_timer::delete(made);
                Some((other - 1) as libc::timer_t)
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let known = *self.timer.get_mut();
        if known != 0 {
            host_timer::delete((known - 1) as libc::timer_t);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Signals that nobody waits for would end the process.
    fn me() -> i32 {
        // SAFETY: takes no argument and cannot fail.
        unsafe { libc::gettid() }
    }

    const FAR: u64 = u64::MAX / 4;

    #[test]
    fn others_make_it_earlier_never_later() {
        let watch = Watch::default();
        watch.expect(FAR, me());
        watch.expect(FAR + 1, me());
        assert_eq!(watch.back_by(), FAR);
        watch.expect(FAR - 1, me());
        assert_eq!(watch.back_by(), FAR - 1);
    }

    #[test]
    fn thread_that_was_spoken_for_looks_again() {
        let watch = Watch::default();
        assert!(watch.say(NEVER, FAR, me(), 0));
        watch.expect(FAR - 7, me());
        assert!(!watch.say(FAR, NEVER, me(), 0), "what it is to come for would be forgotten");
        assert_eq!(watch.back_by(), FAR - 7);
        assert!(watch.say(FAR - 7, NEVER, me(), 0));
        watch.forget(FAR);
        assert_eq!(watch.back_by(), NEVER);
    }

    /// For how long the kernel's timer is set still, in ns; 0: it is not.
    fn remaining(watch: &Watch) -> u64 {
        let timer = (watch.timer.load(Ordering::SeqCst) - 1) as libc::timer_t;
        // SAFETY: an all-zero itimerspec is valid, and outlives the call; the timer is the watch's.
        let left = unsafe {
            let mut left: libc::itimerspec = std::mem::zeroed();
            assert_eq!(libc::timer_gettime(timer, &mut left), 0);
            left
        };
        left.it_value.tv_sec as u64 * 1_000_000_000 + left.it_value.tv_nsec as u64
    }

    const SECOND: u64 = 1_000_000_000;

    fn is_set_for(watch: &Watch, at: u64) -> bool {
        (crate::clock::now_ns() + remaining(watch)).abs_diff(at) < SECOND / 2
    }

    /// In the order of the race: the later time is said by another between this one's setting and its word.
    #[test]
    fn who_speaks_last_sets_the_timer_again_if_others_have_set_it_meanwhile() {
        let watch = Watch::default();
        let (early, late) = (FAR - 2 * SECOND, FAR - SECOND);
        let number = watch.set(early, me());
        watch.expect(late, me());
        assert!(is_set_for(&watch, late));
        let order = Ordering::SeqCst;
        watch.back_by.compare_exchange(late, early, order, order).expect("nobody else speaks");
        watch.settle(early, number, me());
        assert!(is_set_for(&watch, early));
    }

    #[test]
    fn threads_that_speak_at_the_same_time_leave_the_earliest() {
        let watch = Watch::default();
        std::thread::scope(|s| {
            for thread in 0..4 {
                let watch = &watch;
                s.spawn(move || {
                    for round in 0..500 {
                        watch.expect(FAR - (round * 4 + thread) * SECOND, me());
                    }
                });
            }
        });
        let earliest = FAR - (499 * 4 + 3) * SECOND;
        assert_eq!(watch.back_by(), earliest);
        assert!(is_set_for(&watch, earliest));
    }
}
