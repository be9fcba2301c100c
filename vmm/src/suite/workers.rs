//! Runs tests, several at a time, each kernel in a fleet of its own.
//!
//! Owns the threads that wait for VMs, and the order of the results. Whatever way it is left, no VM
//! goes on. Must not know how results are shown.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `next` | workers | workers | relaxed: each number is handed out once |
//! | `Stop::wanted` | whoever ends the run early | workers | relaxed: a worker that misses it starts one more VM, which `Stop::told` ends |
//! | `Stop::told` | as above | epoll of every running fleet; never taken in | the kernel's |

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::judge::{self, Failure, Finished, Reason};
use super::plan::{Plan, Test};
use crate::assemble::{BuildError, VmConfig};
use crate::boot::{self, BootError};
use crate::clock;
use crate::console::Sink;
use crate::console::capture::Capture;
use crate::fleet::{Fleet, FleetConfig, FleetError, Sharing, Woken};
use crate::kvm::Host;
use crate::placement::Placement;
use crate::probe::Facts;
use crate::signals::Signals;
use crate::vm::{Outcome, VmShared};

/// How a run of tests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All tests were run.
    Complete,
    /// The process was asked to end.
    Interrupted,
}

/// Why no tests can be run, or no more.
#[derive(Debug, Error)]
pub enum SuiteError {
    /// The arguments or the host: no kernel could be run this way.
    #[error(transparent)]
    Launch(#[from] FleetError),
    /// The reader of the results has gone.
    #[error("cannot write results: {0}")]
    Report(#[source] io::Error),
}

/// What a worker has to say.
enum News {
    Finished(usize, Box<Finished>),
    Interrupted,
    Failed(FleetError),
}

/// Ends the run before its time: running VMs are ended and no more are started.
struct Stop {
    wanted: AtomicBool,
    told: EventFd,
}

impl Stop {
    fn new() -> Result<Self, FleetError> {
        let told = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(FleetError::Descriptors)?;
        Ok(Stop { wanted: AtomicBool::new(false), told })
    }

    fn now(&self) {
        self.wanted.store(true, Ordering::Relaxed);
        // A full counter means that it has been said already.
        let _ = self.told.write(1);
    }

    fn wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// Takes in one result: the test's number in the plan, from 0, and what is known about it.
pub type Report<'a> = dyn FnMut(usize, Finished) -> io::Result<()> + 'a;

/// Runs the tests of a plan. `report` is given each result in the order of the plan, as soon as all
/// before it are there. On a signal running VMs are ended and no more are started.
///
/// # Errors
/// [`SuiteError`]; nothing is left running.
pub fn run(
    host: &Host,
    facts: &Facts,
    plan: &Plan,
    signals: &Signals,
    report: &mut Report<'_>,
) -> Result<End, SuiteError> {
    let next = AtomicUsize::new(0);
    let stop = Stop::new()?;
    let (sender, news) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..plan.jobs.min(plan.tests.len()) {
            let sender = sender.clone();
            let worker = Worker { host, facts, plan, signals, stop: &stop };
            let next = &next;
            scope.spawn(move || {
                while !worker.stop.wanted() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(test) = plan.tests.get(index) else { return };
                    let news = worker.run(index, test);
                    let last = !matches!(news, News::Finished(..));
                    // The receiver lives as long as this scope.
                    let _ = sender.send(news);
                    if last {
                        worker.stop.now();
                    }
                }
            });
        }
        drop(sender);
        let outcome = in_order(&news, report);
        if outcome.is_err() {
            stop.now();
        }
        outcome
    })
}

/// Hands results on in order until no worker has any more to say.
fn in_order(news: &mpsc::Receiver<News>, report: &mut Report<'_>) -> Result<End, SuiteError> {
    let mut waiting = BTreeMap::new();
    let mut due = 0;
    let mut end = End::Complete;
    for news in news {
        match news {
            News::Finished(index, finished) => drop(waiting.insert(index, finished)),
            News::Interrupted => end = End::Interrupted,
            News::Failed(error) => return Err(error.into()),
        }
        while let Some(finished) = waiting.remove(&due) {
            report(due, *finished).map_err(SuiteError::Report)?;
            due += 1;
        }
    }
    // After an interruption some are missing in between.
    for (index, finished) in waiting {
        report(index, *finished).map_err(SuiteError::Report)?;
    }
    Ok(end)
}

struct Worker<'a> {
    host: &'a Host,
    facts: &'a Facts,
    plan: &'a Plan,
    signals: &'a Signals,
    stop: &'a Stop,
}

impl Worker<'_> {
    fn run(&self, index: usize, test: &Test) -> News {
        let started = clock::now_ns();
        let finished = |mut finished: Finished| {
            finished.name.clone_from(&test.name);
            finished.took = Duration::from_nanos(clock::now_ns().saturating_sub(started));
            News::Finished(index, Box::new(finished))
        };
        let head = test.expected.as_ref().map_or(0, |expected| expected.head_most());
        let capture = Arc::new(Capture::new(head));
        let mut fleet = match self.launch(test, &capture) {
            Ok(fleet) => fleet,
            Err(Unlaunched::Kernel(error)) => return finished(not_loaded(&error)),
            Err(Unlaunched::Other(error)) => return News::Failed(error),
        };
        let Some(vm) = fleet.vms().first().map(Arc::clone) else { return News::Interrupted };
        let watched =
            fleet.watch_signals(self.signals).and_then(|()| fleet.watch_signals(&self.stop.told));
        let woken = match watched {
            Ok(()) => self.wait(&fleet, &vm, started),
            Err(error) => return News::Failed(error),
        };
        let mut details = Vec::new();
        if woken == Woken::TimeOut {
            details.push(("vcpus", whereabouts(&fleet, &vm)));
        }
        fleet.stop(|| match woken {
            Woken::TimeOut => Outcome::TimedOut,
            _ => Outcome::Interrupted,
        });
        let outcome = vm.outcome().unwrap_or(&Outcome::Interrupted);
        if woken == Woken::Signal {
            return News::Interrupted;
        }
        let serial = capture.take();
        let failure = judge::judge(test, &self.plan.success, outcome, &serial);
        if let Outcome::Crashed(crash) = outcome {
            details.push(("registers", crash.registers.clone()));
            details.push(("last_exits", crash.trail.clone()));
        }
        finished(Finished { failure, details, serial, ..Finished::default() })
    }

    fn launch(&self, test: &Test, capture: &Arc<Capture>) -> Result<Fleet, Unlaunched> {
        let plan = self.plan;
        let kernel = boot::read_kernel(&test.kernel).map_err(Unlaunched::Kernel)?;
        let config = VmConfig {
            kernel: kernel.into(),
            kernel_name: test.kernel.display().to_string(),
            initrd: None,
            cmdline: plan.cmdline.clone(),
            cpus: plan.cpus,
            memory: plan.memory,
            apic_timer: plan.apic_timer,
            cpu_features: plan.cpu_features.clone(),
            debug: false,
            limits: Default::default(),
            placement: Placement::default(),
            virtio: Default::default(),
        };
        let fleet = FleetConfig {
            policy: plan.policy.clone(),
            sharing: Sharing::Vm,
            vms: vec![(config, Sink::Memory(Arc::clone(capture)))],
        };
        Fleet::launch(self.host, self.facts, fleet).map_err(|error| match error {
            FleetError::Build(BuildError::Boot(error @ BootError::Kernel { .. })) => {
                Unlaunched::Kernel(error)
            }
            other => Unlaunched::Other(other),
        })
    }

    /// Waits for the VM's end. Nobody takes the signal in, so that every worker sees it.
    fn wait(&self, fleet: &Fleet, vm: &VmShared, started: u64) -> Woken {
        let limit = u64::try_from(self.plan.time_limit.as_nanos()).unwrap_or(u64::MAX);
        let until = started.saturating_add(limit);
        while !vm.has_ended() {
            let left = Duration::from_nanos(until.saturating_sub(clock::now_ns()));
            if left.is_zero() {
                return Woken::TimeOut;
            }
            if fleet.wait(Some(left)) == Woken::Signal {
                return Woken::Signal;
            }
        }
        Woken::VmEnded
    }
}

/// Why a test could not be started.
enum Unlaunched {
    /// It is this kernel's fault: others may run.
    Kernel(BootError),
    /// No kernel could.
    Other(FleetError),
}

fn not_loaded(error: &BootError) -> Finished {
    let failure = Failure { reason: Reason::NotLoaded, message: error.to_string() };
    Finished { failure: Some(failure), ..Finished::default() }
}

fn whereabouts(fleet: &Fleet, vm: &VmShared) -> String {
    fleet.vcpus_of(vm).map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(index: usize) -> News {
        let finished = Finished { name: index.to_string(), ..Finished::default() };
        News::Finished(index, Box::new(finished))
    }

    fn order(news: Vec<News>) -> (Vec<String>, Result<End, SuiteError>) {
        let (sender, receiver) = mpsc::channel();
        for news in news {
            sender.send(news).expect("a receiver");
        }
        drop(sender);
        let mut names = Vec::new();
        let end = in_order(&receiver, &mut |index, finished| {
            assert_eq!(finished.name, index.to_string());
            names.push(finished.name);
            Ok(())
        });
        (names, end)
    }

    #[test]
    fn results_come_in_the_order_of_the_plan() {
        let (names, end) = order([2, 0, 3, 1].map(finished).into());
        assert_eq!(names, ["0", "1", "2", "3"]);
        assert!(matches!(end, Ok(End::Complete)));
    }

    #[test]
    fn what_is_there_is_reported_after_an_interruption() {
        let (names, end) = order(vec![finished(1), News::Interrupted, finished(3)]);
        assert_eq!(names, ["1", "3"]);
        assert!(matches!(end, Ok(End::Interrupted)));
    }

    #[test]
    fn reader_that_has_gone_ends_it() {
        let (sender, receiver) = mpsc::channel();
        sender.send(finished(0)).expect("a receiver");
        drop(sender);
        let end = in_order(&receiver, &mut |_, _| Err(io::ErrorKind::BrokenPipe.into()));
        assert!(matches!(end, Err(SuiteError::Report(_))));
    }
}
