//! The run word: who may run a vCPU.
//!
//! It is one atomic, and holding it is the only right to touch the vCPU's KVM descriptor, its
//! `kvm_run` page and its owned APIC state. Owns the word's layout and every transition. Must not
//! know KVM, threads or the hierarchy: a transition that makes a wake-up necessary says so with a
//! `#[must_use]` value, and the caller carries it out.
//!
//! ```text
//!             post, stop                      take
//!   Parked ---------------> Waking ---------------------------> Home
//!    ^ ^  \                   ^  ^                              |  |
//!    | |   \ borrow           |  | hand off                park |  | wait for SIPI
//!    | |    \                 |  |                              |  v
//!    | |     +--------> Borrowed(b)                             |  WaitSipi -> Waking (INIT, SIPI, stop)
//!    | +----- park -------+                                     |
//!    +----------------------------------------------------------+        Home -> Stopped
//!
//!   Home -> Paused (PAUSE) -> Waking (resume, stop)
//! ```
//!
//! | bit, field | writer | reader | ordering, and what it pairs with |
//! |---|---|---|---|
//! | state | holder gives up; poster `Parked -> Waking`; taker | everybody | release by who gives the word up, acquire by who takes it: owned state written under the word is seen by the next holder |
//! | `PENDING` | posters set, holder clears | holder, posters | set after the inbox was written (release), cleared (acquire) *before* the inbox is read; SeqCst against [`super::kick`]'s thread state (race 2) |
//! | `STOP` | controller sets, never cleared | holder | as `PENDING` |
//! | `PAUSE` | controller sets and clears | holder | as `PENDING` |
//!
//! **Race 1, post against park.** A sender writes the inbox and sets `PENDING`; the holder finds the
//! inbox empty and parks. Both are read-modify-writes of this one word: if the park comes first, the
//! post sees `Parked` and turns it into `Waking`; if the post comes first, the park, which expects
//! `PENDING` clear, fails and the holder looks again. Test `race1_post_against_park_never_leaves_a_pending_vcpu_parked`.
//!
//! **Race 4, pause against resume.** The holder gives the word up as `Paused` while the controller
//! withdraws the pause. Both exchange this word: the pause fails once `PAUSE` is gone, and the holder
//! goes on; or the resume finds `Paused` and makes it `Waking`. Test
//! `race4_pause_against_resume_never_leaves_a_resumed_vcpu_paused`.
//!
//! The file `models` has these and the others in every order, under the model checker.

use super::sync::{AtomicU32, Ordering};

const STATE: u32 = 0b111;
const PENDING: u32 = 1 << 3;
const STOP: u32 = 1 << 4;
const PAUSE: u32 = 1 << 5;
const FLAGS: u32 = PENDING | STOP | PAUSE;
const BORROWER_SHIFT: u32 = 8;

const HOME: u32 = 0;
const PARKED: u32 = 1;
const BORROWED: u32 = 2;
const WAKING: u32 = 3;
const WAIT_SIPI: u32 = 4;
const STOPPED: u32 = 5;
const PAUSED: u32 = 6;

/// Where a vCPU is, as one reading of its run word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The home thread holds it: in the guest or handling an exit.
    Home,
    /// Halted and held by nobody.
    Parked,
    /// The home thread of the vCPU in this slot runs it.
    Borrowed(u32),
    /// The home thread was asked to take it.
    Waking,
    /// An application processor before its SIPI.
    WaitSipi,
    /// Held back by the controller: posts wait, nobody borrows it.
    Paused,
    /// Ended; nobody will run it again.
    Stopped,
}

/// Why a vCPU is posted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Post {
    /// An interrupt, an NMI, a timer: wakes a halted vCPU, not one that waits for its SIPI.
    Interrupt,
    /// INIT or SIPI: wakes an application processor that waits, too.
    Startup,
}

/// Who has to be told after a post or a stop request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever the post concerns must be told, or the vCPU sleeps on"]
pub enum Tell {
    /// Nobody: it is seen without help.
    Nobody,
    /// The home thread sleeps, or is about to: wake it to take the vCPU.
    WakeHome,
    /// The home thread has the vCPU, perhaps in a guest: kick it.
    KickHome,
    /// The home thread of the vCPU in this slot has it: kick that one.
    KickBorrower(u32),
}

/// A value of the run word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Snapshot(u32);

impl Snapshot {
    /// The state part.
    #[must_use]
    pub fn state(self) -> State {
        match self.0 & STATE {
            HOME => State::Home,
            PARKED => State::Parked,
            BORROWED => State::Borrowed(self.0 >> BORROWER_SHIFT),
            WAKING => State::Waking,
            WAIT_SIPI => State::WaitSipi,
            PAUSED => State::Paused,
            _ => State::Stopped,
        }
    }

    /// Something was posted since the holder looked last.
    #[must_use]
    pub fn pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// The controller wants the vCPU to end.
    #[must_use]
    pub fn stop(self) -> bool {
        self.0 & STOP != 0
    }

    /// The controller wants the vCPU to be paused.
    #[must_use]
    pub fn pause(self) -> bool {
        self.0 & PAUSE != 0
    }

    /// The controller wants something of the holder.
    #[must_use]
    pub fn controlled(self) -> bool {
        self.0 & (STOP | PAUSE) != 0
    }

    /// The holder has to look before it enters the guest or gives the word up.
    #[must_use]
    pub fn attention(self) -> bool {
        self.0 & FLAGS != 0
    }

    fn flags(self) -> u32 {
        self.0 & FLAGS
    }
}

/// The run word of one vCPU.
pub struct RunWord(AtomicU32);

impl RunWord {
    /// A word that waits for the SIPI (`true`) or for its home thread to take it (`false`).
    #[must_use]
    pub fn new(wait_sipi: bool) -> Self {
        RunWord(AtomicU32::new(if wait_sipi { WAIT_SIPI } else { WAKING }))
    }

    /// Reads the word. SeqCst: partner of the posters' exchange, against the thread state of
    /// `kick`.
    #[must_use]
    pub fn load(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::SeqCst))
    }

    fn exchange(&self, from: u32, to: u32) -> bool {
        // SeqCst includes the acquire and release of the table above.
        self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Says that something was written into the inbox, and whom to tell.
    pub fn post(&self, why: Post) -> Tell {
        self.flag(PENDING, why)
    }

    /// Asks whoever has the vCPU to end it.
    pub fn request_stop(&self) -> Tell {
        self.flag(STOP, Post::Startup)
    }

    /// Asks whoever has the vCPU to hand it to its home thread, which pauses it.
    pub fn request_pause(&self) -> Tell {
        self.flag(PAUSE, Post::Startup)
    }

    /// Withdraws a pause, whether the vCPU has come to it or not.
    pub fn resume(&self) -> Tell {
        let mut old = self.0.load(Ordering::SeqCst);
        loop {
            let paused = old & STATE == PAUSED;
            let new = if paused { old & !(STATE | PAUSE) | WAKING } else { old & !PAUSE };
            match self.0.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) if paused => return Tell::WakeHome,
                Ok(_) => return Tell::Nobody,
                Err(seen) => old = seen,
            }
        }
    }

    fn flag(&self, bit: u32, why: Post) -> Tell {
        // SeqCst, also where nothing is stored: a poster that finds the bit set relies on the holder to
        // see its post when it clears the bit.
        let mut old = self.0.load(Ordering::SeqCst);
        loop {
            let wakes = match old & STATE {
                PARKED => true,
                WAIT_SIPI => why == Post::Startup,
                PAUSED => bit == STOP,
                _ => false,
            };
            if old & bit != 0 && !wakes {
                return Tell::Nobody;
            }
            let new = if wakes { (old & !STATE) | WAKING | bit } else { old | bit };
            match self.0.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) if wakes => return Tell::WakeHome,
                Ok(_) => {
                    return match Snapshot(old).state() {
                        State::Home => Tell::KickHome,
                        State::Borrowed(by) => Tell::KickBorrower(by),
                        _ => Tell::Nobody,
                    };
                }
                Err(seen) => old = seen,
            }
        }
    }

    /// The holder clears `PENDING`; it must read the inbox *after* this. Answers whether it was set.
    #[must_use]
    pub fn clear_pending(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & PENDING == 0 {
            return false;
        }
        self.0.fetch_and(!PENDING, Ordering::SeqCst) & PENDING != 0
    }

    /// `Waking -> Home`, by the home thread.
    #[must_use]
    pub(super) fn take_waking(&self) -> bool {
        self.move_keeping_flags(WAKING, HOME)
    }

    /// `Parked -> Home`, by the home thread whose time-out came.
    #[must_use]
    pub(super) fn take_parked(&self) -> bool {
        self.move_keeping_flags(PARKED, HOME)
    }

    /// `Parked -> Borrowed(by)`, by another vCPU's thread.
    #[must_use]
    pub(super) fn borrow(&self, by: u32) -> bool {
        self.exchange(PARKED, BORROWED | (by << BORROWER_SHIFT))
    }

    /// `Parked -> Waking`, without a post: the home thread shall look after the hierarchy.
    #[must_use]
    pub fn summon(&self) -> bool {
        self.exchange(PARKED, WAKING)
    }

    /// `Home` or `Borrowed -> Parked`. Fails when something is pending or a stop is wanted.
    #[must_use]
    pub(super) fn park(&self) -> bool {
        self.give_up_clear(PARKED)
    }

    /// `Home -> WaitSipi`. Fails like [`RunWord::park`].
    #[must_use]
    pub(super) fn wait_sipi(&self) -> bool {
        self.give_up_clear(WAIT_SIPI)
    }

    /// `Home -> Paused`. Fails when the pause was withdrawn, or a stop is wanted.
    #[must_use]
    pub(super) fn pause(&self) -> bool {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            if !Snapshot(old).pause() || Snapshot(old).stop() {
                return false;
            }
            let new = Snapshot(old).flags() | PAUSED;
            match self.0.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => old = seen,
            }
        }
    }

    /// `Borrowed -> Waking`; the home thread must be woken.
    pub(super) fn hand_off(&self) {
        self.give_up(WAKING);
    }

    /// `Home -> Stopped`.
    pub(super) fn finish(&self) {
        self.give_up(STOPPED);
    }

    /// Only the holder calls this, so the state part cannot change meanwhile; the flags can.
    fn give_up_clear(&self, to: u32) -> bool {
        let old = self.0.load(Ordering::Relaxed);
        Snapshot(old).flags() == 0 && self.exchange(old, to)
    }

    fn give_up(&self, to: u32) {
        let mut old = self.0.load(Ordering::Relaxed);
        while let Err(seen) = self.0.compare_exchange_weak(
            old,
            Snapshot(old).flags() | to,
            Ordering::SeqCst,
            Ordering::Relaxed,
        ) {
            old = seen;
        }
    }

    fn move_keeping_flags(&self, from: u32, to: u32) -> bool {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            if old & STATE != from {
                return false;
            }
            match self.0.compare_exchange_weak(
                old,
                Snapshot(old).flags() | to,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(seen) => old = seen,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    fn home() -> RunWord {
        let word = RunWord::new(false);
        assert!(word.take_waking());
        word
    }

    fn parked() -> RunWord {
        let word = home();
        assert!(word.park());
        word
    }

    #[test]
    fn first_post_to_a_parked_vcpu_wakes_its_home_thread_and_the_second_nobody() {
        let word = parked();
        assert_eq!(word.post(Post::Interrupt), Tell::WakeHome);
        assert_eq!(word.load().state(), State::Waking);
        assert_eq!(word.post(Post::Interrupt), Tell::Nobody);
        assert!(word.take_waking());
        assert!(word.clear_pending());
        assert!(!word.clear_pending());
    }

    #[test]
    fn pending_word_cannot_be_parked() {
        let word = home();
        assert_eq!(word.post(Post::Interrupt), Tell::KickHome);
        assert!(!word.park());
        assert!(word.clear_pending());
        assert!(word.park());
    }

    #[test]
    fn post_to_a_borrowed_vcpu_kicks_its_borrower() {
        let word = parked();
        assert!(word.borrow(70_000));
        assert_eq!(word.load().state(), State::Borrowed(70_000));
        assert_eq!(word.post(Post::Interrupt), Tell::KickBorrower(70_000));
        assert!(!word.park(), "the interrupt posted at the end of a borrowed run must be seen");
        word.hand_off();
        assert_eq!(word.load().state(), State::Waking);
        assert!(word.load().pending(), "a hand-off keeps what is pending");
        assert!(word.take_waking());
    }

    #[test]
    fn only_a_parked_vcpu_can_be_borrowed_summoned_or_taken_by_a_time_out() {
        for word in [home(), RunWord::new(false), RunWord::new(true)] {
            assert!(!word.borrow(1));
            assert!(!word.summon());
            assert!(!word.take_parked());
        }
        let word = parked();
        assert!(word.borrow(1));
        assert!(!word.borrow(2), "borrowed runs never share a vCPU");
        assert!(!word.take_parked());
        assert!(word.park());
        assert!(word.take_parked());
    }

    #[test]
    fn waiting_processor_is_woken_by_startup_alone_even_with_an_older_post_pending() {
        let word = RunWord::new(true);
        assert_eq!(word.post(Post::Interrupt), Tell::Nobody);
        assert_eq!(word.load().state(), State::WaitSipi);
        assert_eq!(word.post(Post::Startup), Tell::WakeHome);
        assert!(word.take_waking());
        assert!(!word.wait_sipi());
        assert!(word.clear_pending());
        assert!(word.wait_sipi());
    }

    #[test]
    fn stop_reaches_every_state_and_survives_hand_offs() {
        assert_eq!(parked().request_stop(), Tell::WakeHome);
        assert_eq!(RunWord::new(true).request_stop(), Tell::WakeHome);
        let word = parked();
        assert!(word.borrow(3));
        assert_eq!(word.request_stop(), Tell::KickBorrower(3));
        word.hand_off();
        assert!(word.take_waking());
        assert!(word.load().stop());
        assert!(!word.park());
        word.finish();
        assert_eq!(word.load().state(), State::Stopped);
        assert_eq!(word.post(Post::Interrupt), Tell::Nobody);
    }

    /// Race 1 of this file with real threads: whatever the order, a post is either seen by the
    /// holder before it parks or wakes the vCPU.
    #[test]
    fn race1_post_against_park_never_leaves_a_pending_vcpu_parked() {
        let word = home();
        let (inbox, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        let (rounds, done) = (20_000u64, AtomicBool::new(false));
        std::thread::scope(|s| {
            s.spawn(|| {
                for _ in 0..rounds {
                    inbox.fetch_add(1, Ordering::Release);
                    // A poster relies on the word alone; this holder spins instead of sleeping.
                    let _ = word.post(Post::Interrupt);
                }
                done.store(true, Ordering::Release);
            });
            loop {
                if word.clear_pending() {
                    seen.store(inbox.load(Ordering::Acquire), Ordering::Relaxed);
                }
                let finished = done.load(Ordering::Acquire);
                if word.park() {
                    if finished {
                        break;
                    }
                    while word.load().state() == State::Parked && !done.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    if !word.take_waking() {
                        assert!(word.take_parked());
                    }
                }
            }
        });
        assert_eq!(seen.load(Ordering::Relaxed), rounds, "parked with an interrupt unseen");
    }

    #[test]
    fn pause_reaches_every_state_and_lets_posts_wait() {
        assert_eq!(parked().request_pause(), Tell::WakeHome);
        assert_eq!(RunWord::new(true).request_pause(), Tell::WakeHome);
        let word = parked();
        assert!(word.borrow(3));
        assert_eq!(word.request_pause(), Tell::KickBorrower(3));
        assert!(!word.park());
        word.hand_off();
        assert!(word.take_waking());
        assert!(word.pause());
        assert_eq!(word.load().state(), State::Paused);
        assert_eq!(word.post(Post::Startup), Tell::Nobody);
        assert!(!word.borrow(1) && !word.take_waking() && !word.take_parked());
        assert_eq!(word.resume(), Tell::WakeHome);
        assert!(word.load().pending() && !word.load().pause());
        assert!(word.take_waking());
    }

    #[test]
    fn withdrawn_pause_does_not_pause_and_a_paused_vcpu_can_be_stopped() {
        let word = home();
        assert!(!word.pause());
        assert_eq!(word.request_pause(), Tell::KickHome);
        assert_eq!(word.resume(), Tell::Nobody);
        assert!(!word.pause());
        let _ = word.request_pause();
        assert!(word.pause());
        assert_eq!(word.request_stop(), Tell::WakeHome);
        assert!(word.take_waking());
        assert!(!word.pause(), "a stop comes first");
    }

    /// Race 4 with real threads: after the last resume the vCPU is not paused, whatever the order.
    #[test]
    fn race4_pause_against_resume_never_leaves_a_resumed_vcpu_paused() {
        let word = home();
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                for _ in 0..20_000 {
                    let _ = word.request_pause();
                    let _ = word.resume();
                }
                done.store(true, Ordering::Release);
            });
            let mut paused = 0_u32;
            loop {
                let finished = done.load(Ordering::Acquire);
                if word.pause() {
                    paused += 1;
                    while !word.take_waking() {
                        assert!(!finished, "paused after the last resume");
                        std::hint::spin_loop();
                    }
                }
                if finished {
                    break;
                }
            }
            assert!(paused <= 20_000);
        });
        assert_eq!(word.load().state(), State::Home);
    }
}
