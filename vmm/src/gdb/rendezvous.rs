//! Where vCPU threads wait for the debugger.
//!
//! Owns who is stopped, what the debugger wants done on a vCPU, and how it goes on. A vCPU's state is
//! touched by its own thread alone, also while it is debugged: the debugger hands it work. Must not
//! know gdb's protocol.
//!
//! | variable | lock | writer | reader |
//! |---|---|---|---|
//! | `stopping` | none (sequentially consistent) | debugger, a vCPU that met a breakpoint | vCPU threads, before each entry |
//! | `cpus` | the mutex, held for a few statements | both | both |
//!
//! Races:
//! 1. *A stop asked for while a thread enters its guest, or parks.* `stopping` is set before the
//!    vCPU is posted to and its thread kicked; it is looked at after `PENDING` was cleared, and after
//!    an entry was announced.
//! 2. *A stop asked for before a thread has woken that was let go on.* `stopped`, which is cleared by
//!    whoever lets it go on, is what the thread waits for: it leaves, and comes back.
//! 3. *The VM ends while threads wait here.* Whoever sets `STOP` calls [`Debugger::disturb`]
//!    afterwards; a waiting thread looks at its word after every wake.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, kvm_guest_debug,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::vcpu::{Core, Held};

/// Breakpoints that the processor has registers for.
pub const BREAKPOINTS: usize = 4;

type Work = Box<dyn FnOnce(&mut Core) + Send>;

/// Why a vCPU stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A breakpoint.
    Breakpoint,
    /// It was to execute one instruction.
    Step,
}

/// How a vCPU goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It runs.
    Run,
    /// It executes one instruction.
    Step,
    /// It stays where it is.
    Stay,
}

/// What makes the debugger look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vCPU stopped by itself; all others have stopped since.
    Stopped(u32, Reason),
    /// All vCPUs have stopped, as asked for.
    AllStopped,
    /// The VM has ended.
    Ended,
}

#[derive(Default)]
struct Cpu {
    stopped: bool,
    step: bool,
    work: VecDeque<Work>,
}

struct State {
    cpus: Vec<Cpu>,
    reason: Option<(u32, Reason)>,
    breakpoints: [Option<u64>; BREAKPOINTS],
    asked: bool,
    ended: bool,
}

/// The meeting of one VM's vCPU threads and its debugger.
pub struct Debugger {
    /// One for each vCPU.
    stopping: Box<[AtomicBool]>,
    state: Mutex<State>,
    changed: Condvar,
    /// Readable when there may be an [`Event`].
    event: EventFd,
}

impl Debugger {
    /// A debugger for a VM of `cpus` vCPUs, all of which stop before their first instruction.
    ///
    /// # Errors
    /// No eventfd (`EMFILE`).
    pub fn new(cpus: u32) -> io::Result<Self> {
        let state = State {
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            reason: None,
            breakpoints: [None; BREAKPOINTS],
            asked: true,
            ended: false,
        };
        Ok(Debugger {
            stopping: (0..cpus).map(|_| AtomicBool::new(true)).collect(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Readable when there may be an event.
    #[must_use]
    pub fn event_fd(&self) -> &EventFd {
        &self.event
    }

    /// The vCPU is to stop. To be looked at after a kick, before the guest is entered.
    #[must_use]
    pub fn stopping(&self, index: u32) -> bool {
        self.stopping.get(index as usize).is_some_and(|stopping| stopping.load(Ordering::SeqCst))
    }

    fn stop_all(&self) {
        for stopping in &self.stopping {
            stopping.store(true, Ordering::SeqCst);
        }
    }

    /// Asks all vCPUs to stop. Their threads have to be told.
    pub fn ask_to_stop(&self) {
        let mut state = self.lock();
        state.asked = true;
        self.stop_all();
    }

    /// A vCPU met a breakpoint or executed its one instruction. The others have to be told to stop.
    pub fn met(&self, index: u32, reason: Reason) {
        let mut state = self.lock();
        if state.reason.is_none() {
            state.reason = Some((index, reason));
        }
        self.stop_all();
    }

    /// The VM's vCPUs have ended.
    pub fn end(&self) {
        self.lock().ended = true;
        self.disturb();
        self.tell();
    }

    /// The VM's vCPUs have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Makes waiting threads look at their words.
    pub fn disturb(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// The vCPU's thread stays here until the debugger lets it go on or the VM is to end.
    pub fn wait(&self, held: &mut Held<'_>) {
        let index = held.vcpu.index as usize;
        let mut state = self.lock();
        if !self.stopping(held.vcpu.index) {
            return;
        }
        state.cpus[index].stopped = true;
        if state.cpus.iter().all(|cpu| cpu.stopped) {
            self.tell();
        }
        while state.cpus[index].stopped && !held.vcpu.word.load().stop() {
            if let Some(work) = state.cpus[index].work.pop_front() {
                drop(state);
                work(&mut *held);
                state = self.lock();
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let cpu = &mut state.cpus[index];
        cpu.stopped = false;
        // Whoever waits for an answer is told that there is none.
        cpu.work.clear();
        let control = control(cpu.step, &state.breakpoints);
        drop(state);
        if let Err(error) = held.fd.set_guest_debug(&control) {
            tracing::error!(%error, "cannot set breakpoints");
        }
    }

    /// What has happened since the vCPUs were let go, if all have stopped or ended.
    #[must_use]
    pub fn take_event(&self) -> Option<Event> {
        let _ = self.event.read();
        let mut state = self.lock();
        if state.ended {
            return Some(Event::Ended);
        }
        if !state.cpus.iter().all(|cpu| cpu.stopped) {
            return None;
        }
        if let Some((index, reason)) = state.reason.take() {
            return Some(Event::Stopped(index, reason));
        }
        std::mem::take(&mut state.asked).then_some(Event::AllStopped)
    }

    /// Does something to a stopped vCPU, on its own thread; `None`: it has ended or goes on.
    pub fn on<R: Send + 'static>(
        &self,
        index: u32,
        work: impl FnOnce(&mut Core) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = mpsc::channel();
        let work: Work = Box::new(move |core| {
            // A debugger that is gone needs no answer.
            let _ = answer.send(work(core));
        });
        let mut state = self.lock();
        let ended = state.ended;
        let cpu = state.cpus.get_mut(index as usize).filter(|cpu| cpu.stopped && !ended)?;
        cpu.work.push_back(work);
        drop(state);
        self.changed.notify_all();
        answered.recv().ok()
    }

    /// Lets each vCPU go on as `how` says.
    pub fn resume(&self, how: impl Fn(u32) -> Resume) {
        let mut state = self.lock();
        for (index, cpu) in (0_u32..).zip(&mut state.cpus) {
            let how = how(index);
            cpu.step = how == Resume::Step;
            // Nobody waits for those that stay: they have stopped already.
            self.stopping[index as usize].store(how == Resume::Stay, Ordering::SeqCst);
            cpu.stopped &= how == Resume::Stay;
        }
        state.reason = None;
        state.asked = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Sets a breakpoint; false: the processor has no register left for it.
    #[must_use]
    pub fn add_breakpoint(&self, address: u64) -> bool {
        let mut state = self.lock();
        let taken = state.breakpoints.contains(&Some(address));
        match state.breakpoints.iter_mut().find(|at| at.is_none()) {
            _ if taken => true,
            Some(free) => {
                *free = Some(address);
                true
            }
            None => false,
        }
    }

    /// Removes a breakpoint; false: there is none.
    #[must_use]
    pub fn remove_breakpoint(&self, address: u64) -> bool {
        let mut state = self.lock();
        let found = state.breakpoints.iter_mut().find(|at| **at == Some(address));
        found.map(|at| *at = None).is_some()
    }

    /// Removes all breakpoints.
    pub fn clear_breakpoints(&self) {
        self.lock().breakpoints = [None; BREAKPOINTS];
    }

    fn tell(&self) {
        // A full counter means that the debugger has been told already.
        let _ = self.event.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// DR7: the enable bits of the breakpoints (SDM vol. 3B, 18.2.4), each for execution.
fn control(step: bool, breakpoints: &[Option<u64>; BREAKPOINTS]) -> kvm_guest_debug {
    let mut debug = kvm_guest_debug::default();
    for (n, address) in breakpoints.iter().enumerate() {
        if let Some(address) = address {
            debug.arch.debugreg[n] = *address;
            debug.arch.debugreg[7] |= 2 << (2 * n);
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
        }
    }
    if step {
        debug.control |= KVM_GUESTDBG_SINGLESTEP;
    }
    if debug.control != 0 {
        debug.control |= KVM_GUESTDBG_ENABLE;
    }
    debug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakpoints_are_as_many_as_the_processor_has() {
        let debugger = Debugger::new(1).expect("an eventfd");
        for address in 0..4 {
            assert!(debugger.add_breakpoint(address));
        }
        assert!(debugger.add_breakpoint(3), "it is there already");
        assert!(!debugger.add_breakpoint(4));
        assert!(debugger.remove_breakpoint(1));
        assert!(!debugger.remove_breakpoint(1));
        assert!(debugger.add_breakpoint(4));
    }

    #[test]
    fn registers_follow_breakpoints_and_step() {
        let none = control(false, &[None; BREAKPOINTS]);
        assert_eq!(none.control, 0);
        let some = control(true, &[None, Some(0x1000), None, Some(0x2000)]);
        let all = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP | KVM_GUESTDBG_SINGLESTEP;
        assert_eq!(some.control, all);
        assert_eq!(some.arch.debugreg[..4], [0, 0x1000, 0, 0x2000]);
        assert_eq!(some.arch.debugreg[7], 0b1000_1000);
    }

    #[test]
    fn nothing_is_done_on_a_vcpu_that_has_not_stopped() {
        let debugger = Debugger::new(1).expect("an eventfd");
        assert_eq!(debugger.on(0, |_| ()), None);
        assert_eq!(debugger.on(7, |_| ()), None);
        assert_eq!(debugger.take_event(), None);
        debugger.end();
        assert_eq!(debugger.take_event(), Some(Event::Ended));
    }
}
