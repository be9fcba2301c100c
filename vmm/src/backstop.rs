//! Timers whose migrator does not come: stopped by a tracer, or left without a CPU.
//!
//! Owns one thread that sleeps until a migrator is overdue. Each migrator has a host timer that it
//! pushes ahead while it works, so that this thread is not woken; the timer signals this thread, not
//! the migrator, and so does not depend on it. Must not know how vCPUs are served: it wakes the home
//! threads of those that are due, and goes on doing so until the migrator shows itself.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `ThreadState::back_by` | the migrator's thread | this thread | relaxed: what comes late is seen by the next look |
//! | `Vcpu::expiry` | the vCPU's holder, before it parks | this thread | release/acquire; parking, and the run word, decide who looks after it |
//! | `stop` | the fleet, before it signals | this thread | release/acquire |
//! | `domains` | the fleet, under its lock | this thread, under the same | the lock |
//!
//! What it can't do: a thread that is stopped in the few nanoseconds in which it holds a lock of the
//! hierarchy keeps all of its group from being served. And what the stopped thread runs itself, its
//! own vCPU or a borrowed one, waits for it.

#![allow(unsafe_code)] // sigtimedwait and tgkill

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use tmigr::Hierarchy;

use crate::clock;
use crate::domain::Domain;
use crate::vcpu::{Post, State, Stats, Vcpu, earlier};

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
        // SAFETY: plain system call; the thread lives until it is joined.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.tid, signal_number()) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
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
            let domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let looks = domains.iter().filter_map(Weak::upgrade).map(|domain| look(&domain));
            let next = looks.flatten().min();
            let now = clock::now_ns();
            limit =
                next.map(|at| at.saturating_sub(now).clamp(SHORTEST_SLEEP_NS, LONGEST_SLEEP_NS));
        }
    }
}

/// Wakes who is due in a domain with an overdue migrator. Answers when to look again; `None`: no
/// migrator is overdue.
fn look(domain: &Domain) -> Option<u64> {
    let hierarchy = domain.hierarchy()?;
    let now = clock::now_ns();
    let patience = domain.policy.patience_ns();
    let (mut overdue, mut next) = (false, None);
    domain.for_each_vcpu(|vcpu| match judge(hierarchy, vcpu, patience, now) {
        Verdict::Fine => {}
        Verdict::LookAgain(at) => next = earlier(next, Some(at)),
        Verdict::Overdue => {
            overdue = true;
            Stats::add(&vcpu.stats.overdue, 1);
        }
    });
    if !overdue {
        return next;
    }
    // As long as it is overdue, others may become due at any time.
    let mut next = u64::MAX;
    domain.for_each_vcpu(|vcpu| {
        if let Some(later) = wake_if_due(domain, vcpu, patience, now) {
            next = next.min(later);
        }
    });
    Some(next)
}

/// What becomes of a thread that said by when it would have done its duty.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It has no duty, or its timer will tell.
    Fine,
    /// It did its duty and has not set its timer anew, which it may not live to do.
    LookAgain(u64),
    Overdue,
}

fn judge(hierarchy: &Hierarchy, vcpu: &Vcpu, patience: u64, now: u64) -> Verdict {
    let said = vcpu.thread.back_by();
    if said > now {
        return Verdict::Fine;
    }
    let slot = vcpu.slot;
    // Others may have taken the duty over, of which a thread that sleeps is not told.
    let void = hierarchy.is_idle(slot) && hierarchy.anybody_active(slot);
    match hierarchy.peek_responsibility(slot).filter(|_| !void) {
        None => {
            vcpu.thread.drop_back_by(said);
            Verdict::Fine
        }
        Some(at) if at.saturating_add(patience) <= now => Verdict::Overdue,
        Some(at) => Verdict::LookAgain(at.saturating_add(patience)),
    }
}

/// Answers when a parked vCPU that is not due will be.
fn wake_if_due(domain: &Domain, vcpu: &Vcpu, patience: u64, now: u64) -> Option<u64> {
    if vcpu.word.load().state() != State::Parked {
        return None;
    }
    let at = vcpu.expiry()?.saturating_add(patience);
    if at > now {
        return Some(at);
    }
    Stats::add(&vcpu.stats.rescued, 1);
    domain.post(vcpu, Post::Interrupt);
    None
}
