//! Finds out what things cost on this host, in a few seconds.
//!
//! Owns the order of the measurements and those of threads and timers, which need no guest. Medians
//! of many rounds, so that others on the host do little harm. Must not know what the figures are
//! used for.

#![allow(unsafe_code)] // prctl and sched_setaffinity

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use thiserror::Error;

use super::tree::Tree;
use super::{Costs, LARGEST_NS, guests};
use crate::bench::{LaunchError, Progress};
use crate::clock;
use crate::kvm::Host;
use crate::probe::{self, Facts, ProbeError};
use crate::vcpu::{HostTimer, ThreadState, signal_number};

/// Rounds of what takes microseconds.
const ROUNDS: usize = 2_000;
/// Rounds of what waits for a time to come.
const WAITS: usize = 300;
const WAIT_NS: u64 = 300_000;
const FAR_NS: u64 = 10_000_000_000;

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// A thread could not be started or confined to a CPU, or has no host timer.
    #[error("cannot measure threads")]
    Thread(#[source] io::Error),
    /// A hierarchy could not be made.
    #[error(transparent)]
    Hierarchy(#[from] tmigr::CreateError),
    /// The scratch guest could not be run.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Guests could not be run.
    #[error("cannot run the guests that are measured")]
    Guests(#[source] LaunchError),
    /// The user ended it.
    #[error("interrupted")]
    Interrupted,
}

/// Measures all costs. Takes less than ten seconds.
///
/// Must be called by a thread that runs no guest, while the process runs nothing else.
///
/// # Errors
/// [`MeasureError`]; nothing is left running.
pub fn measure(
    host: Host,
    facts: &Facts,
    progress: &mut dyn Progress,
) -> Result<Costs, MeasureError> {
    let mut next = |what: &str| {
        progress.show(&format!("measuring {what}"));
        if progress.interrupted() { Err(MeasureError::Interrupted) } else { Ok(()) }
    };
    next("threads")?;
    let Threads { thread_wakeup_ns, idle_exit_ns, timer_interrupt_ns } = threads()?;
    next("timers")?;
    let (timer_set_near_ns, timer_set_far_ns) = timer_settings().map_err(MeasureError::Thread)?;
    let timer_exit_ns = probe::timer_exit_ns(&host)?;
    next("the hierarchy")?;
    let (hierarchy_tick_ns, hierarchy_halt_ns) = hierarchy()?;
    let mut guests = guests::Guests::new(host, *facts);
    next("kicks")?;
    // With one CPU there is no other thread that could send a signal meanwhile.
    let kick_ns = guests.kick_ns().map_err(MeasureError::Guests)?.unwrap_or(timer_exit_ns);
    next("ticks served inline")?;
    let tick_inline_ns = guests.tick_inline_ns().map_err(MeasureError::Guests)?;
    next("ticks with a thread each")?;
    let tick_thread_ns = guests.tick_thread_ns().map_err(MeasureError::Guests)?;
    next("ticks in the kernel")?;
    let tick_kernel_ns = guests.tick_kernel_ns().map_err(MeasureError::Guests)?;
    let most = |ns: u64| ns.min(LARGEST_NS);
    Ok(Costs {
        exit_ns: most(facts.exit_cost_ns),
        exit_other_thread_ns: most(facts.other_thread_cost_ns),
        thread_wakeup_ns: most(thread_wakeup_ns),
        idle_exit_ns: most(idle_exit_ns),
        timer_interrupt_ns: most(timer_interrupt_ns),
        timer_set_near_ns: most(timer_set_near_ns),
        timer_set_far_ns: most(timer_set_far_ns),
        timer_exit_ns: most(timer_exit_ns),
        kick_ns: most(kick_ns),
        tick_inline_ns: most(tick_inline_ns),
        tick_thread_ns: most(tick_thread_ns),
        tick_kernel_ns: most(tick_kernel_ns),
        hierarchy_tick_ns: most(hierarchy_tick_ns),
        hierarchy_halt_ns: most(hierarchy_halt_ns),
    })
}

/// The middle one; 0 of none.
pub(super) fn median(mut times: Vec<u64>) -> u64 {
    let middle = times.len() / 2;
    if times.is_empty() { 0 } else { *times.select_nth_unstable(middle).1 }
}

struct Threads {
    thread_wakeup_ns: u64,
    idle_exit_ns: u64,
    timer_interrupt_ns: u64,
}

/// On a host with one CPU nothing wakes from idle by a wake; the default stands for it then.
fn threads() -> Result<Threads, MeasureError> {
    let cpus = allowed_cpus().map_err(MeasureError::Thread)?;
    let (first, last) = match (cpus.first(), cpus.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => return Err(MeasureError::Thread(io::Error::from(io::ErrorKind::NotFound))),
    };
    let thread_wakeup_ns = one_way_ns(first, first).map_err(MeasureError::Thread)?;
    let idle_exit_ns = match first == last {
        true => Costs::default().idle_exit_ns,
        false => {
            one_way_ns(first, last).map_err(MeasureError::Thread)?.saturating_sub(thread_wakeup_ns)
        }
    };
    let late = thread::scope(|scope| scope.spawn(sleep_lateness_ns).join());
    let late = late.map_err(|_| MeasureError::Thread(io::Error::other("a thread that died")))?;
    let timer_interrupt_ns = late.saturating_sub(thread_wakeup_ns + idle_exit_ns);
    Ok(Threads { thread_wakeup_ns, idle_exit_ns, timer_interrupt_ns })
}

/// From a thread's wake by another one, which then sleeps, to its first look at the clock.
fn one_way_ns(cpu: usize, other_cpu: usize) -> io::Result<u64> {
    let [ping, pong] = [(); 2].map(|()| Arc::new(ThreadState::default()));
    let sent = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            confine(other_cpu).inspect_err(|_| done.store(true, Ordering::SeqCst))?;
            let mut times = Vec::new();
            loop {
                pong.sleep(None);
                let now = clock::now_ns();
                if done.load(Ordering::SeqCst) {
                    return Ok::<_, io::Error>(times);
                }
                // Relaxed: the wake orders it.
                match sent.swap(0, Ordering::Relaxed) {
                    0 => continue,
                    at => times.push(now.saturating_sub(at)),
                }
                ping.wake();
            }
        });
        let waker = scope.spawn(|| {
            let confined = confine(cpu);
            for _ in 0..ROUNDS {
                if done.load(Ordering::SeqCst) || confined.is_err() {
                    break;
                }
                sent.store(clock::now_ns(), Ordering::Relaxed);
                pong.wake();
                ping.sleep(Some(clock::now_ns() + 10_000_000));
            }
            done.store(true, Ordering::SeqCst);
            pong.wake();
            confined
        });
        let died = |_| io::Error::other("a thread that died");
        waker.join().map_err(died)??;
        let times = other.join().map_err(died)??;
        Ok(median(times))
    })
}

/// How late a thread is back from a sleep with a time-out, on a CPU with nothing else to do.
fn sleep_lateness_ns() -> u64 {
    // SAFETY: takes integers only. Without it sleeps end up to 50 us late on purpose
    // (PR_SET_TIMERSLACK, prctl(2)).
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
    let state = ThreadState::default();
    let lateness = |_| {
        let until = clock::now_ns() + WAIT_NS;
        state.sleep(Some(until));
        clock::now_ns().saturating_sub(until)
    };
    median((0..WAITS).map(lateness).collect())
}

/// Near and far.
fn timer_settings() -> io::Result<(u64, u64)> {
    crate::vcpu::hold_signal();
    let mut timer = HostTimer::for_current_thread(signal_number())?;
    let mut medians = [0; 2];
    for (ahead, result) in [WAIT_NS, FAR_NS].into_iter().zip(&mut medians) {
        let mut time = || {
            let before = clock::now_ns();
            timer.arm(Some(before + ahead), 0, before);
            clock::now_ns().saturating_sub(before)
        };
        *result = median((0..ROUNDS).map(|_| time()).collect());
    }
    timer.arm(None, 0, clock::now_ns());
    Ok((medians[0], medians[1]))
}

/// A tick, and a wake with a halt.
fn hierarchy() -> Result<(u64, u64), MeasureError> {
    let mut tree = Tree::new()?;
    let per_tick = |_| {
        let before = clock::now_ns();
        let expired: u64 = (0..100).map(|_| tree.pass(10_000)).sum();
        clock::now_ns().saturating_sub(before) / expired.max(1)
    };
    let tick = median((0..50).map(per_tick).collect());
    let per_halt = |_| {
        let before = clock::now_ns();
        (0..1_000).for_each(|_| tree.wake_and_halt());
        clock::now_ns().saturating_sub(before) / 1_000
    };
    Ok((tick, median((0..50).map(per_halt).collect())))
}

pub(super) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: all-zero is a valid set, which outlives the call.
    let (set, rc) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let rc = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        (set, rc)
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `cpu` is below the size of the set.
    Ok((0..libc::CPU_SETSIZE as usize)
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect())
}

/// Confines the calling thread to one CPU.
fn confine(cpu: usize) -> io::Result<()> {
    confine_thread(0, cpu)
}

/// Confines a thread of this process to one CPU; 0 is the calling one.
pub(super) fn confine_thread(tid: i32, cpu: usize) -> io::Result<()> {
    // SAFETY: all-zero is a valid set; `cpu` was found in one; the set outlives the call.
    let rc = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &set)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_few_and_none() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![9, 1, 5]), 5);
    }

    #[test]
    fn what_needs_no_guest_is_measured_and_within_reason() {
        let Threads { thread_wakeup_ns, .. } = threads().unwrap();
        assert!((100..LARGEST_NS).contains(&thread_wakeup_ns), "{thread_wakeup_ns}");
        let (near, far) = timer_settings().unwrap();
        assert!((20..LARGEST_NS).contains(&near) && (20..LARGEST_NS).contains(&far));
        let (tick, halt) = hierarchy().unwrap();
        assert!((10..LARGEST_NS).contains(&tick) && (10..LARGEST_NS).contains(&halt));
    }
}
