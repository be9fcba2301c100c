//! The ownership protocol in every order that the bounds allow: senders, migrators, the controller and
//! the home thread against each other.
//!
//! | model | hole |
//! |---|---|
//! | `race1_*` | a post against the end of a home run, or of a borrowed one: left unseen in a parked vCPU's inbox |
//! | `race2_*` | a post against an entry: left unseen by a guest that runs |
//! | `race3_*` | a wake against the beginning of a sleep: slept through |
//! | `race4_*` | a pause against its own withdrawal: a resumed vCPU stays paused |
//! | `race5_*` | a stop against a borrowed run and its hand-off: a vCPU that never ends |
//! | `race6_*` | two migrators and a home thread's time-out: two holders; or a timer that neither expires |
//! | `race7_*` | the end of a stall against a halt: a vCPU parked with its timer queued nowhere |
//! | `race8_*` | a look at a vCPU whose waker is stopped, against the beginning of a sleep: never woken |
//!
//! A wake of the home thread is its run, here in the thread that woke it: what the scheduler does
//! between the two is among the orders that are tried. Owned state is a checked cell: two holders at a
//! time are found by the checker itself.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use super::place::{Nap, PlaceWord};
use super::word::{Post, RunWord, State, Tell};

const TIMER: u32 = 1 << 8;

struct World {
    word: RunWord,
    inbox: AtomicU32,
    handled: AtomicU32,
    owned: UnsafeCell<u32>,
}

impl World {
    /// A parked vCPU.
    fn parked() -> Arc<Self> {
        let world = World {
            word: RunWord::new(false),
            inbox: AtomicU32::new(0),
            handled: AtomicU32::new(0),
            owned: UnsafeCell::new(0),
        };
        assert!(world.word.take_waking() && world.word.park());
        Arc::new(world)
    }

    fn touch(&self) {
        // SAFETY: the run word is held; if it were not, the checker would say so.
        self.owned.with_mut(|owned| unsafe { *owned += 1 });
    }

    fn look(&self) {
        self.touch();
        if self.word.clear_pending() {
            let got = self.inbox.swap(0, Ordering::AcqRel);
            self.handled.fetch_or(got, Ordering::AcqRel);
        }
    }

    fn tell(&self, tell: Tell) {
        // A kicked thread looks before it gives the word up, as it does in any case here.
        if tell == Tell::WakeHome {
            self.home();
        }
    }

    fn home(&self) {
        if self.word.take_waking() {
            self.run();
        }
    }

    fn run(&self) {
        loop {
            self.look();
            let word = self.word.load();
            if word.stop() {
                return self.word.finish();
            }
            if word.pause() {
                if self.word.pause() {
                    return;
                }
                continue;
            }
            if self.word.park() {
                return;
            }
        }
    }

    /// A time-out of the home thread.
    fn time_out(&self) {
        if self.word.take_parked() {
            self.run();
        }
    }

    fn post(&self, bit: u32) {
        self.inbox.fetch_or(bit, Ordering::AcqRel);
        self.tell(self.word.post(Post::Interrupt));
    }

    fn migrate(&self, by: u32) {
        if !self.word.borrow(by) {
            return self.post(TIMER);
        }
        self.look();
        self.handled.fetch_or(TIMER, Ordering::AcqRel);
        if self.word.load().controlled() || !self.word.park() {
            self.word.hand_off();
            self.home();
        }
    }

    fn all_seen(&self, bits: u32) {
        assert_eq!(self.inbox.load(Ordering::Acquire), 0, "left in the inbox");
        assert_eq!(self.handled.load(Ordering::Acquire), bits, "not handled");
        let word = self.word.load();
        assert_eq!(word.state(), State::Parked);
        assert!(!word.pending());
    }
}

/// Runs each of `parts` on a thread of its own, in every order, then `after`.
fn explore(
    name: &str,
    parts: &'static [fn(&World)],
    after: impl Fn(&World) + Sync + Send + 'static,
) {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let world = World::parked();
        let (first, rest) = parts.split_first().expect("somebody acts");
        let threads: Vec<_> = rest
            .iter()
            .map(|part| {
                let world = Arc::clone(&world);
                thread::spawn(move || part(&world))
            })
            .collect();
        first(&world);
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        after(&world);
    });
    let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
    println!("{name}: {executions} executions with at most 4 preemptions");
}

#[test]
fn race1_two_senders_and_a_migrator_leave_nothing_unseen() {
    let parts: &[fn(&World)] = &[|w| w.post(1), |w| w.post(2), |w| w.migrate(7)];
    explore("race 1", parts, |w| w.all_seen(1 | 2 | TIMER));
}

/// The guest runs until it is signalled: then it must not run with a post unseen.
#[test]
fn race2_post_against_entry_is_seen_or_signalled() {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    loom::model(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let shared = Arc::new((RunWord::new(false), PlaceWord::new(), AtomicBool::new(false)));
        assert!(shared.0.take_waking());
        let poster = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (word, place, signalled) = &*shared;
                if word.post(Post::Interrupt) == Tell::KickHome && place.kick() {
                    signalled.store(true, Ordering::SeqCst);
                }
            })
        };
        let (word, place, signalled) = &*shared;
        let mut runs = false;
        if !word.load().attention() {
            place.enter();
            runs = !word.load().attention();
            if !runs {
                place.leave();
            }
        }
        poster.join().expect("it does not panic");
        assert!(!runs || signalled.load(Ordering::SeqCst), "the guest runs on, unsignalled");
    });
    let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
    println!("race 2: {executions} executions with all preemptions");
}

#[test]
fn race3_wake_against_sleep_is_not_slept_through() {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    loom::model(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // A reason to be awake, the word, and the kernel's wake.
        let shared = Arc::new((AtomicBool::new(false), Nap::new(), AtomicBool::new(false)));
        let waker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (reason, nap, woken) = &*shared;
                reason.store(true, Ordering::SeqCst);
                if nap.wake() {
                    woken.store(true, Ordering::SeqCst);
                }
            })
        };
        let (reason, nap, woken) = &*shared;
        // A token of an earlier time may make the first sleep short.
        let mut sleeps = false;
        for _ in 0..2 {
            if reason.load(Ordering::SeqCst) {
                break;
            }
            if nap.begin() && nap.asleep() {
                sleeps = true;
                break;
            }
            nap.end();
        }
        waker.join().expect("it does not panic");
        let wakes = !nap.asleep() || woken.load(Ordering::SeqCst);
        assert!(!sleeps || wakes, "it sleeps on");
    });
    let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
    println!("race 3: {executions} executions with all preemptions");
}

#[test]
fn race4_pause_and_resume_among_a_migrator_and_a_sender() {
    let parts: &[fn(&World)] = &[
        |w| {
            w.tell(w.word.request_pause());
            w.tell(w.word.resume());
        },
        |w| w.post(1),
        |w| w.migrate(7),
    ];
    explore("race 4", parts, |w| w.all_seen(1 | TIMER));
}

#[test]
fn race5_stop_reaches_a_vcpu_that_is_borrowed_posted_to_and_handed_off() {
    let parts: &[fn(&World)] =
        &[|w| w.tell(w.word.request_stop()), |w| w.post(1), |w| w.migrate(7)];
    explore("race 5", parts, |w| {
        assert_eq!(w.word.load().state(), State::Stopped);
        // Whoever posts later does not wake the dead.
        assert_eq!(w.word.post(Post::Startup), Tell::Nobody);
    });
}

#[test]
fn race5_stop_during_a_pause() {
    let parts: &[fn(&World)] = &[
        |w| {
            w.tell(w.word.request_pause());
            w.tell(w.word.request_stop());
        },
        |w| w.time_out(),
        |w| w.migrate(7),
    ];
    explore("race 5, paused", parts, |w| assert_eq!(w.word.load().state(), State::Stopped));
}

#[test]
fn race6_two_migrators_and_a_time_out_never_hold_it_together() {
    let parts: &[fn(&World)] = &[|w| w.migrate(7), |w| w.migrate(9), |w| w.time_out()];
    explore("race 6", parts, |w| {
        assert_eq!(w.handled.load(Ordering::Acquire) & TIMER, TIMER);
        assert_eq!(w.word.load().state(), State::Parked);
        assert_eq!(w.inbox.load(Ordering::Acquire), 0);
    });
}

#[test]
fn race7_the_end_of_a_stall_reaches_a_thread_that_halts_without_the_hierarchy() {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    loom::model(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // The word, the mark, and whether the timer was queued at the last halt.
        let shared = Arc::new((RunWord::new(false), AtomicBool::new(true), AtomicBool::new(false)));
        assert!(shared.0.take_waking());
        fn halt((word, stalled, queued): &(RunWord, AtomicBool, AtomicBool)) {
            loop {
                let _ = word.clear_pending();
                queued.store(!stalled.load(Ordering::SeqCst), Ordering::SeqCst);
                if word.park() {
                    return;
                }
            }
        }
        let backstop = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1.store(false, Ordering::SeqCst);
                if shared.0.post(Post::Interrupt) == Tell::WakeHome {
                    assert!(shared.0.take_waking());
                    halt(&shared);
                }
            })
        };
        halt(&shared);
        backstop.join().expect("it does not panic");
        assert_eq!(shared.0.load().state(), State::Parked);
        assert!(shared.2.load(Ordering::SeqCst), "its timer is queued nowhere");
    });
    let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
    println!("race 7: {executions} executions with all preemptions");
}

#[test]
fn race8_thread_whose_waker_was_stopped_is_woken_by_whoever_looks() {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&executions);
    loom::model(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let shared = Arc::new((RunWord::new(false), Nap::new(), AtomicBool::new(false)));
        assert!(shared.0.take_waking() && shared.0.park());
        let looker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (word, nap, woken) = &*shared;
                // Whoever posts goes no further than this.
                let _ = word.post(Post::Interrupt);
                // Or to this one, before it has told the kernel.
                let _ = nap.wake();
                // So whoever looks tells the kernel in any case.
                if word.load().state() == State::Waking {
                    let _ = nap.wake();
                    woken.store(true, Ordering::SeqCst);
                }
            })
        };
        let (word, nap, woken) = &*shared;
        let mut sleeps = false;
        if !word.take_waking() {
            sleeps = nap.begin() && nap.asleep();
        }
        looker.join().expect("it does not panic");
        let wakes = !nap.asleep() || woken.load(Ordering::SeqCst);
        assert!(!sleeps || wakes, "it sleeps on");
    });
    let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
    println!("race 8: {executions} executions with all preemptions");
}
