//! Operations driven step by step, so that two of them can be interleaved by hand, or in every way.
//!
//! Each exchange of a group's word, each lock and each publication of a parent is a step: an
//! operation under control stops before it and goes on when it is told to. Only one thread runs at
//! a time, so a schedule gives the same result every time. Owns the control of test threads. Must
//! not know what the operations are.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

/// What an operation does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// It exchanges a group's word.
    Exchange,
    /// It takes a lock, which is free.
    Lock,
    /// It takes a lock that the other operation holds.
    Blocked,
    /// It publishes a parent.
    Publish,
}

struct Gate {
    reached: Sender<Step>,
    go: Receiver<()>,
}

impl Gate {
    fn stop(&self, step: Step) {
        // The test has ended, by a failure: nobody waits any more.
        if self.reached.send(step).is_err() || self.go.recv().is_err() {
            panic!("the test has given up");
        }
    }
}

thread_local! {
    static GATE: RefCell<Option<Gate>> = const { RefCell::new(None) };
}

fn stop(step: impl Fn() -> Step) {
    GATE.with_borrow(|gate| {
        if let Some(gate) = gate {
            gate.stop(step());
        }
    });
}

/// Called by the implementation before it exchanges a word.
pub(crate) fn before_exchange() {
    stop(|| Step::Exchange);
}

/// Called by the implementation before it publishes a parent.
pub(crate) fn before_publish() {
    stop(|| Step::Publish);
}

/// Called by the implementation before it locks; `is_free` says whether it would have to wait.
pub(crate) fn before_lock(is_free: impl Fn() -> bool) {
    if !GATE.with_borrow(Option::is_some) {
        return;
    }
    loop {
        let was_free = is_free();
        stop(|| if was_free { Step::Lock } else { Step::Blocked });
        // The other one may have taken the lock since, or given it up: then this one stops before it
        // once more.
        if was_free && is_free() {
            return;
        }
    }
}

/// An operation under control.
pub(crate) struct Operation<'scope, T> {
    thread: Option<ScopedJoinHandle<'scope, T>>,
    reached: Receiver<Step>,
    go: Sender<()>,
    /// What it stands before; `None`: it has ended.
    pub next: Option<Step>,
}

impl<'scope, T: Send + 'scope> Operation<'scope, T> {
    /// Starts an operation, up to its first step.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        run: impl FnOnce() -> T + Send + 'scope,
    ) -> Self {
        let (reached_in, reached) = channel();
        let (go, go_out) = channel();
        let thread = scope.spawn(move || {
            GATE.set(Some(Gate { reached: reached_in, go: go_out }));
            let result = run();
            GATE.set(None);
            result
        });
        let mut operation = Operation { thread: Some(thread), reached, go, next: None };
        operation.await_step();
        operation
    }

    fn await_step(&mut self) {
        // The sender is dropped at the operation's end.
        self.next = self.reached.recv().ok();
    }

    /// Carries out the step that it stands before, and goes on to the next.
    pub(crate) fn step(&mut self) {
        assert!(self.next.is_some(), "it has ended");
        self.go.send(()).expect("it waits");
        self.await_step();
    }

    /// Goes on until it stands before the `n`th step of this kind from here, the present one
    /// included.
    #[track_caller]
    pub(crate) fn until(&mut self, step: Step, mut n: u32) {
        loop {
            assert!(self.next.is_some(), "it ended before that {step:?}");
            n -= u32::from(self.next == Some(step));
            if n == 0 {
                return;
            }
            self.step();
        }
    }

    /// Goes on to the end; what it answered.
    #[track_caller]
    pub(crate) fn finish(mut self) -> T {
        while let Some(step) = self.next {
            assert_ne!(step, Step::Blocked, "the other one holds the lock");
            self.step();
        }
        self.thread.take().expect("is joined once").join().expect("it does not panic")
    }
}

/// How often an operation that could go on is interrupted by the other in one order. Defects that need
/// more than four are rare, and the number of orders grows with the power of this one.
const MOST_PREEMPTIONS: u32 = 4;

/// One decision: who takes the step.
#[derive(Clone, Copy)]
struct Choice {
    second: bool,
    /// The other one is still to be tried here.
    other_left: bool,
}

/// The orders, one after another: at each step the one that runs goes on, and once that is explored
/// the other has a go, as long as preemptions are left.
#[derive(Default)]
struct Schedule {
    choices: Vec<Choice>,
    at: usize,
    second_runs: bool,
    preemptions: u32,
}

impl Schedule {
    /// Whether the second one takes the next step.
    fn choose(&mut self, first_can: bool, second_can: bool) -> bool {
        let both = first_can && second_can;
        if self.at == self.choices.len() {
            let second = if both { self.second_runs } else { second_can };
            let other_left = both && self.preemptions < MOST_PREEMPTIONS;
            self.choices.push(Choice { second, other_left });
        }
        let second = self.choices[self.at].second;
        self.at += 1;
        self.preemptions += u32::from(both && second != self.second_runs);
        self.second_runs = second;
        second
    }

    /// The next order; false: that was the last.
    fn advance(&mut self) -> bool {
        (self.at, self.second_runs, self.preemptions) = (0, false, 0);
        while let Some(choice) = self.choices.pop() {
            if choice.other_left {
                self.choices.push(Choice { second: !choice.second, other_left: false });
                return true;
            }
        }
        false
    }
}

/// Runs two operations on a new world in every order of their steps with at most
/// [`MOST_PREEMPTIONS`], and checks what is left; answers how many orders there were.
pub(crate) fn in_every_order<W: Sync, A: Send, B: Send>(
    new: impl Fn() -> W,
    first: impl Fn(&W) -> A + Sync,
    second: impl Fn(&W) -> B + Sync,
    check: impl Fn(&W, A, B),
) -> u32 {
    let mut schedule = Schedule::default();
    let mut orders = 0;
    loop {
        let world = new();
        let (one, other) = std::thread::scope(|scope| {
            let mut one = Operation::start(scope, || first(&world));
            let mut other = Operation::start(scope, || second(&world));
            loop {
                let can = |next: Option<Step>| next.is_some_and(|step| step != Step::Blocked);
                match (can(one.next), can(other.next)) {
                    (false, false) => {
                        // What it was blocked by may be free again.
                        match (one.next, other.next) {
                            (None, None) => break,
                            (Some(_), None) => one.step(),
                            (None, Some(_)) => other.step(),
                            (Some(_), Some(_)) => panic!("they wait for each other"),
                        }
                    }
                    (first_can, second_can) => {
                        if schedule.choose(first_can, second_can) {
                            other.step();
                        } else {
                            one.step();
                        }
                    }
                }
                refresh(&mut one);
                refresh(&mut other);
            }
            (one.finish(), other.finish())
        });
        check(&world, one, other);
        orders += 1;
        if !schedule.advance() {
            return orders;
        }
    }
}

/// Has a blocked operation look at its lock again.
fn refresh<'scope, T: Send + 'scope>(operation: &mut Operation<'scope, T>) {
    if operation.next == Some(Step::Blocked) {
        operation.step();
    }
}
