//! Mode `kernel`: KVM has the interrupt controllers and blocks a halted vCPU itself.
//!
//! Owns the loop of that mode, which is the baseline of every comparison, so it does nothing that
//! another VMM would not do. Must not touch the hierarchy.

#![allow(unsafe_code)] // the kvm_run page

use super::exits::{self, Next};
use super::home::Worker;
use super::{Core, Held, Stats, earlier, kick};
use crate::clock;
use crate::vm::{CrashCause, Outcome};

/// Runs the vCPU until its VM ends.
pub(super) fn live(w: &mut Worker<'_>) {
    let Some(mut held) = w.vcpu.take_waking() else { return };
    while !held.vcpu.word.load().stop() {
        if held.vcpu.word.load().pause() {
            held = match held.pause() {
                Ok(()) => w.wait_paused(),
                Err(held) => held,
            };
            continue;
        }
        if let Some(until) = held.vcpu.vm.capped_until(clock::now_ns()) {
            w.throttle(&held, until);
            continue;
        }
        if let Some(debugger) = held.vcpu.vm.stopping_debugger(held.vcpu.index) {
            debugger.wait(&mut held);
        }
        match enter(w, &mut held) {
            Next::Debug(reason) => w.meet_debugger(held.vcpu, reason),
            Next::Edge(irq) => w.board(held.vcpu, |chipset| chipset.pulse(irq)),
            Next::Errands => w.errands(held.vcpu),
            // KVM serves what leads to the others itself.
            Next::Again
            | Next::Fault
            | Next::Halt
            | Next::Ipi(_)
            | Next::Routing
            | Next::ApicBase
            | Next::EndOfInterrupt(_)
            | Next::MoveTsc(_) => {}
            Next::End(outcome) => w.end_vm(held.vcpu, outcome),
            Next::Crash(cause) => w.end_vm(held.vcpu, Outcome::crashed(&mut held, cause)),
        }
    }
    held.finish();
}

fn enter(w: &mut Worker<'_>, held: &mut Held<'_>) -> Next {
    w.expire_board(held, clock::now_ns());
    let vcpu = held.vcpu;
    let core: &mut Core = &mut *held;
    let entry = kick::Entry::new(&w.vcpu.thread);
    // After the announcement, so that a change of the deadline is seen here or kicks.
    let now = clock::now_ns();
    let due = !w.arm_for_board(earlier(vcpu.board_deadline(), vcpu.vm.cap_ends(now)), now);
    if due || vcpu.word.load().controlled() || vcpu.vm.stopping_debugger(vcpu.index).is_some() {
        return Next::Again;
    }
    let began = vcpu.vm.cap_clock();
    let result = core.fd.run();
    drop(entry);
    vcpu.vm.charge_cap(began);
    Stats::add(&vcpu.stats.exits, 1);
    match result {
        Ok(exit) => {
            let now = clock::moment(core.tsc_offset);
            // SAFETY: a plain read; `io` has meaning at an exit for a port alone, and every bit
            // pattern of it is valid.
            let io_bytes = unsafe { (*core.run).__bindgen_anon_1.io.size };
            let exit = exits::Exit { exit, io_bytes };
            exits::decode(exit, &mut core.apic, &vcpu.vm, &mut core.trail, now)
        }
        Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
            kick::take_signal();
            Next::Again
        }
        Err(e) => Next::Crash(CrashCause::kvm(e)),
    }
}
