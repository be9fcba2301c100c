//! The loop that runs a vCPU from one halt to the next.
//!
//! Reads as a table of contents: control, inbox, own timer, duty towards halted vCPUs, entry, exit.
//! The own vCPU comes first: with an interrupt to deliver it has a turn before others are served.
//! Owns the order of these steps. Must not know how any of them is done, nor where the thread goes
//! when the loop is left.

use std::sync::atomic::Ordering;

use super::entry;
use super::exits::Next;
use super::home::Worker;
use super::{Held, Stats};
use crate::boot;
use crate::clock;
use crate::vm::{CrashCause, Outcome};

/// In what right a thread runs a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the thread's own.
    Home,
    /// It belongs to another thread. Both in host monotonic nanoseconds:
    Borrowed {
        /// The run ends here, or a little later.
        limit: u64,
        /// The thread's own vCPU has to have its next timer by then: the run ends.
        own: Option<u64>,
    },
}

/// Why a vCPU is not run any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Leave {
    /// Halted, with nothing to deliver.
    Halted,
    /// Waits for its SIPI.
    WaitSipi,
    /// The controller wants it to end.
    Stop,
    /// The controller wants it to pause.
    Pause,
    /// Its VM has used up its CPU time, until this time in host ns.
    Throttle(u64),
    /// A borrowed run ended early: its time is up or the borrower's own vCPU needs the thread.
    Yield,
}

/// Runs the vCPU until it has to be left.
pub(super) fn run(w: &mut Worker<'_>, held: &mut Held<'_>, role: Role) -> Leave {
    loop {
        w.vcpu.thread.clear_attention();
        if let Some(leave) = control(w, held, role) {
            return leave;
        }
        match pull_inbox(held) {
            Ok(false) => {}
            // It starts at the reset vector (SDM 9.4.3), where a machine without firmware has nothing.
            Ok(true) => {
                w.end_vm(held.vcpu, Outcome::Reset);
                continue;
            }
            Err(cause) => {
                w.end_vm(held.vcpu, Outcome::crashed(held, cause));
                continue;
            }
        }
        // `PENDING`, which stands for a call of the debugger, too, is cleared by now.
        if let Some(debugger) = held.vcpu.vm.stopping_debugger(held.vcpu.index) {
            debugger.wait(held);
            continue;
        }
        let now = held.moment();
        held.apic.advance(now);
        held.vcpu.stats.timer_interrupts.store(held.apic.timer_interrupts(), Ordering::Relaxed);
        if w.expire_board(held, now.ns) {
            continue;
        }
        if let Err(errno) = held.look_at_lines() {
            w.end_vm(held.vcpu, Outcome::crashed(held, CrashCause::kvm(errno)));
            continue;
        }
        if let Some(until) = held.vcpu.vm.capped_until(now.ns)
            && held.runnable()
        {
            return if role == Role::Home { Leave::Throttle(until) } else { Leave::Yield };
        }
        if held.wait_sipi {
            return Leave::WaitSipi;
        }
        if role == Role::Home && w.duty(held) {
            // Time has passed, and the own timer may be due.
            let now = held.moment();
            held.apic.advance(now);
        }
        if !held.runnable() {
            if role == Role::Home && w.duty_calls(clock::now_ns()) {
                continue;
            }
            return Leave::Halted;
        }
        if let Some(next) = entry::enter(w, held, role) {
            follow(w, held, next);
        }
    }
}

/// What others want of this thread or this vCPU, before anything else.
fn control(w: &Worker<'_>, held: &Held<'_>, role: Role) -> Option<Leave> {
    let word = held.vcpu.word.load();
    match role {
        Role::Home if word.stop() => Some(Leave::Stop),
        Role::Home => word.pause().then_some(Leave::Pause),
        Role::Borrowed { limit, own } => {
            let now = clock::now_ns();
            let own_needs_thread =
                w.vcpu.word.load().attention() || own.is_some_and(|at| at <= now);
            (word.controlled() || own_needs_thread || now >= limit).then_some(Leave::Yield)
        }
    }
}

/// Moves what was posted into the owned state. Answers whether the boot processor got INIT. `PENDING` is cleared before the inbox is read, so
/// that whatever is posted later sets it again (race 1).
fn pull_inbox(held: &mut Held<'_>) -> Result<bool, CrashCause> {
    if !held.vcpu.word.clear_pending() {
        return Ok(false);
    }
    let inbox = &held.vcpu.inbox;
    let pulled = held.apic.pull(inbox);
    if pulled.init && held.vcpu.index == 0 {
        return Ok(true);
    }
    if pulled.init {
        held.complete_exit();
        held.apic.init_reset();
        let vcpu = held.vcpu;
        entry::grant_eoi(&vcpu.vm.memory, &mut *held);
        route(held);
        held.halted = false;
        held.wait_sipi = true;
        boot::set_init_state(&held.fd).map_err(CrashCause::state)?;
    }
    if let (Some(vector), true) = (pulled.sipi, held.wait_sipi) {
        boot::set_sipi_state(&held.fd, vector).map_err(CrashCause::state)?;
        held.wait_sipi = false;
        held.forget_run_state();
    }
    for _ in 0..pulled.nmis {
        if !held.wait_sipi {
            held.give_nmi().map_err(CrashCause::kvm)?;
        }
    }
    Ok(false)
}

/// Tells the senders of interrupts where this vCPU's APIC can be reached.
pub(super) fn route(held: &Held<'_>) {
    held.vcpu.vm.routing.update(held.vcpu.index as usize, &held.apic);
}

/// Carries out what an exit asks for beyond the vCPU itself.
fn follow(w: &mut Worker<'_>, held: &mut Held<'_>, next: Next) {
    Stats::add(&w.vcpu.stats.exits, 1);
    match next {
        Next::Again => {}
        Next::Fault => held.faulting = true,
        Next::Halt => held.halted = !held.nmi_waits(),
        Next::Ipi(ipi) => w.send(held.vcpu, &ipi),
        Next::Routing => route(held),
        Next::ApicBase => {
            route(held);
            if let Err(errno) = held.tell_apic_base() {
                w.end_vm(held.vcpu, Outcome::crashed(held, CrashCause::kvm(errno)));
            }
        }
        Next::Debug(reason) => w.meet_debugger(held.vcpu, reason),
        Next::EndOfInterrupt(vector) => {
            w.board(held.vcpu, |chipset| chipset.end_of_interrupt(vector));
        }
        Next::Edge(irq) => w.board(held.vcpu, |chipset| chipset.pulse(irq)),
        Next::Errands => w.errands(held.vcpu),
        Next::MoveTsc(to) => {
            if let Err(errno) = held.move_tsc(to) {
                w.end_vm(held.vcpu, Outcome::crashed(held, CrashCause::kvm(errno)));
            }
        }
        Next::End(outcome) => w.end_vm(held.vcpu, outcome),
        Next::Crash(cause) => w.end_vm(held.vcpu, Outcome::crashed(held, cause)),
    }
}
