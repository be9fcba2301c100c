//! Timers whose migrator does not come: stopped by a tracer, or left without a CPU.
//!
//! Owns one thread that sleeps until a migrator is missed. Each migrator has a host timer that it pushes
//! ahead while it works, so that this thread is not woken; the timer signals this thread, not the migrator,
//! and so does not depend on it. Whoever leaves something to a migrator sets its timer for it, and one that
//! gives its duty away lets its own run until somebody else is missed instead (`vcpu::watch`). Must not know
//! how vCPUs are served: it wakes the home threads of those that are due, and goes on looking until nobody is
//! missed.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `Vcpu::watch` | see there | this thread | what comes late is seen by the next look |
//! | `Vcpu::expiry` | the vCPU's holder, before it parks | this thread | release/acquire; parking, and the run word, decide who looks after it |
//! | `stop` | the fleet, before it signals | this thread | release/acquire |
//! | `domains` | the fleet, under its lock | this thread, under the same | the lock |
//!
//! Where a thread may be stopped, and who sees to the timers of others then:
//!
//! | stopped | others' timers |
//! |---|---|
//! | in its guest, or in host code with nothing begun | it is missed at its duty; parked vCPUs that are due are woken |
//! | with a vCPU's event taken from the hierarchy, or its duty given up and not yet taken by another | the same: awake, it has not said anything else, whatever the hierarchy says |
//! | with its slot active, or the role passed on, and nobody told | the same: its timer, or that of the other, was set before |
//! | having made a vCPU `Waking`, before or while it wakes the thread | the thread is woken by this one, or by the migrator that finds the vCPU so |
//! | with a lock of the hierarchy | nobody waits for that for longer than a millisecond; then all do without (`domain::stall`) |
//! | asleep as keeper | somebody else is made migrator, who also serves its own vCPU |
//!
//! What it can't do: what the stopped thread runs itself, its own vCPU or a borrowed one, waits for it. Other
//! vCPUs of the same VM may need the lock of the VM's chipset, of one of its devices or of the log that it was
//! stopped with. And nobody is missed yet, so that others' timers may wait for the next look,
//! - where a thread without a duty is stopped after it has found whom to tell of its own timer, and before it
//!   has: the migrator counts as told, of later ones, too, until it looks by itself;
//! - where a migrator is stopped within a microsecond after it asked for its duty, if another thread queued an
//!   earlier timer in that time.

#![allow(unsafe_code)] // sigtimedwait and tgkill

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use tmigr::Hierarchy;

use crate::clock;
use crate::domain::{Domain, Policy};
use crate::vcpu::{Place, Post, State, Stats, Vcpu, earlier};

/// How much later than its duty and the lateness goal a migrator's timer is set. A later push moves it
/// by as much at once, so that it costs a system call 125 times a second at most.
pub const MARGIN_NS: u64 = 8_000_000;

/// While a migrator is overdue: the longest and the shortest sleep of this thread between two looks.
const LONGEST_SLEEP_NS: u64 = 2_000_000;
const SHORTEST_SLEEP_NS: u64 = 100_000;

/// The signal of the migrators' timers.
#[must_use]
pub fn signal_number() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

/// The thread.
pub struct Backstop {
    tid: i32,
    stop: Arc<AtomicBool>,
    domains: Arc<Mutex<Vec<Weak<Domain>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Backstop {
    /// Starts the thread.
    ///
    /// # Errors
    /// It could not be created.
    pub fn start() -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let domains = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        let watch = Watch { stop: Arc::clone(&stop), domains: Arc::clone(&domains) };
        let thread = thread::Builder::new().name("backstop".into()).stack_size(64 * 1024).spawn(
            move || {
                let signals = block_signal();
                // SAFETY: takes no argument and cannot fail.
                let _ = tell.send(unsafe { libc::gettid() });
                watch.live(&signals);
            },
        )?;
        let tid = told.recv().map_err(io::Error::other)?;
        Ok(Backstop { tid, stop, domains, thread: Some(thread) })
    }

    /// Looks after a domain from now on, as long as it lives.
    pub fn watch(&self, domain: &Arc<Domain>) {
        domain.set_backstop(self.tid);
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        domains.retain(|domain| domain.strong_count() > 0);
        domains.push(Arc::downgrade(domain));
    }
}

impl Drop for Backstop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        call(self.tid);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes the thread look at all domains.
pub fn call(tid: i32) {
    // SAFETY: plain system call; a thread that is gone gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal_number()) };
}

/// Blocks the signal for this thread, so that it is waited for.
fn block_signal() -> libc::sigset_t {
    // SAFETY: the set is initialised before use and outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal_number());
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut());
        set
    }
}

/// Waits for the signal, for at most so many ns. Takes one signal; others make the next wait short.
fn wait(signals: &libc::sigset_t, limit: Option<u64>) {
    let limit = limit.map(|ns| libc::timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (ns % 1_000_000_000) as i64,
    });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: set and time outlive the call; nothing is written.
    unsafe { libc::sigtimedwait(signals, ptr::null_mut(), limit) };
}

struct Watch {
    stop: Arc<AtomicBool>,
    domains: Arc<Mutex<Vec<Weak<Domain>>>>,
}

impl Watch {
    fn live(&self, signals: &libc::sigset_t) {
        let mut limit = None;
        loop {
            wait(signals, limit);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // Not a copy of them: whoever is stopped may have the allocator's lock.
            let domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
            let looks = domains.iter().filter_map(Weak::upgrade).map(|domain| look(&domain));
            let next = looks.flatten().min();
            drop(domains);
            let now = clock::now_ns();
            limit =
                next.map(|at| at.saturating_sub(now).clamp(SHORTEST_SLEEP_NS, LONGEST_SLEEP_NS));
        }
    }
}

/// Looks at a domain: is somebody missed, then wakes whoever is due. Answers when to look again; `None`:
/// nobody is missed.
fn look(domain: &Domain) -> Option<u64> {
    let hierarchy = domain.hierarchy()?;
    let now = clock::now_ns();
    let patience = domain.policy.patience_ns();
    let mut next = None;
    if !domain.recover() {
        next = Some(now + LONGEST_SLEEP_NS);
    }
    domain.for_each_vcpu(|vcpu| match judge(hierarchy, vcpu, &domain.policy, now) {
        Verdict::Fine => {}
        Verdict::LookAgain(at) => next = earlier(next, Some(at)),
        Verdict::Overdue { asleep } => {
            next = earlier(next, Some(now + LONGEST_SLEEP_NS));
            if asleep {
                vcpu.watch.set_missing(true);
                // If it has only lost its time-out, or its CPU, it says so itself.
                vcpu.thread.rouse();
            }
            Stats::add(&vcpu.stats.overdue, 1);
        }
    });
    // As long as somebody is missed, others may become due at any time.
    next?;
    let (mut woken, mut left_alone) = (false, None);
    domain.for_each_vcpu(|vcpu| match find(vcpu, patience, now) {
        Found::Nothing => {}
        Found::DueAt(at) => next = earlier(next, Some(at)),
        // Its own thread is one that does not come; on another's it can run.
        Found::Due if vcpu.watch.is_missing() => left_alone = Some(vcpu.slot),
        Found::Due => {
            woken = true;
            Stats::add(&vcpu.stats.rescued, 1);
            domain.post(vcpu, Post::Interrupt);
        }
        Found::NotWoken => {
            if vcpu.thread.rouse() {
                woken = true;
                Stats::add(&vcpu.stats.rescued, 1);
            }
        }
    });
    if let Some(slot) = left_alone.filter(|_| !woken) {
        domain.summon(slot, None);
    }
    next
}

/// What becomes of a thread that said by when it would have done its duty.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It has no duty, or its timer will tell.
    Fine,
    /// It did its duty and has not set its timer anew, which it may not live to do; or it has a duty for
    /// which no timer is set.
    LookAgain(u64),
    /// It did not do its duty: in host code or a guest, or `asleep` beyond its time-out.
    Overdue { asleep: bool },
}

fn judge(hierarchy: &Hierarchy, vcpu: &Vcpu, policy: &Policy, now: u64) -> Verdict {
    if vcpu.word.load().state() == State::Stopped {
        return Verdict::Fine;
    }
    let slot = vcpu.slot;
    let asleep = vcpu.thread.place() == Place::Asleep;
    let said = vcpu.watch.back_by();
    // Others may have taken the duty over, of which a thread that sleeps is not told.
    let void = hierarchy.is_idle(slot) && hierarchy.anybody_active(slot);
    let duty = hierarchy.peek_responsibility(slot).filter(|_| !void);
    weigh(said, duty, asleep, policy, now, || vcpu.watch.forget(said))
}

/// `forget`: what was said is void.
fn weigh(
    said: u64,
    duty: Option<u64>,
    asleep: bool,
    policy: &Policy,
    now: u64,
    forget: impl FnOnce(),
) -> Verdict {
    let soon = now.saturating_add(LONGEST_SLEEP_NS);
    match duty {
        // It is about to set the timer, or was stopped before it did.
        Some(at) if said > now && said > policy.missed_at(at) => Verdict::LookAgain(soon),
        _ if said > now => Verdict::Fine,
        Some(at) if at.saturating_add(policy.patience_ns()) <= now => Verdict::Overdue { asleep },
        Some(at) if asleep => Verdict::LookAgain(at.saturating_add(policy.patience_ns())),
        None if asleep => {
            forget();
            Verdict::Fine
        }
        // Awake, it would have said something else by now, whatever has become of what it was to do: it
        // may have taken that from the hierarchy, or left it, and have gone no further.
        _ => Verdict::LookAgain(soon),
    }
}

/// What a look at a vCPU found.
enum Found {
    Nothing,
    /// It is parked, and due at this time.
    DueAt(u64),
    Due,
    /// Its thread is to take it and sleeps: whoever made it so may not have come to wake it.
    NotWoken,
}

fn find(vcpu: &Vcpu, patience: u64, now: u64) -> Found {
    match vcpu.word.load().state() {
        State::Waking => Found::NotWoken,
        State::Parked => match vcpu.expiry().map(|at| at.saturating_add(patience)) {
            Some(at) if at <= now => Found::Due,
            Some(at) => Found::DueAt(at),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::domain::TimerMode;

    const NOW: u64 = 10_000_000_000;

    fn verdict(said: u64, duty: Option<u64>, asleep: bool) -> (Verdict, bool) {
        let policy = Policy::unmeasured(TimerMode::Migrate);
        let mut forgotten = false;
        let verdict = weigh(said, duty, asleep, &policy, NOW, || forgotten = true);
        (verdict, forgotten)
    }

    fn soon() -> Verdict {
        Verdict::LookAgain(NOW + LONGEST_SLEEP_NS)
    }

    #[test]
    fn thread_that_is_not_missed_is_fine_whether_it_sleeps_or_not() {
        for asleep in [false, true] {
            assert_eq!(verdict(u64::MAX, None, asleep), (Verdict::Fine, false));
            assert_eq!(verdict(NOW + 1, Some(NOW), asleep), (Verdict::Fine, false));
            assert_eq!(verdict(NOW + 1, Some(NOW - 8_000_000), asleep), (Verdict::Fine, false));
        }
    }

    #[test]
    fn thread_without_a_timer_for_what_it_is_to_do_is_looked_at_again() {
        assert_eq!(verdict(u64::MAX, Some(NOW + 5), false), (soon(), false));
        assert_eq!(verdict(NOW + 20_000_000, Some(NOW - 20_000_000), false), (soon(), false));
    }

    #[test]
    fn thread_that_is_awake_and_silent_is_suspect_even_with_nothing_left_to_do() {
        assert_eq!(verdict(NOW, None, false), (soon(), false));
        assert_eq!(verdict(NOW - 1, Some(NOW + 1_000_000_000), false), (soon(), false));
    }

    #[test]
    fn sleeper_whose_duty_is_void_is_forgotten_and_one_with_a_later_duty_waited_for() {
        assert_eq!(verdict(NOW - 1, None, true), (Verdict::Fine, true));
        let patience = Policy::unmeasured(TimerMode::Migrate).patience_ns();
        let later = Verdict::LookAgain(NOW + 7 + patience);
        assert_eq!(verdict(NOW - 1, Some(NOW + 7), true), (later, false));
    }

    #[test]
    fn duty_that_was_not_done_is_overdue() {
        for asleep in [false, true] {
            let overdue = Verdict::Overdue { asleep };
            assert_eq!(verdict(NOW, Some(NOW - 9_000_000), asleep), (overdue, false));
        }
    }
}
