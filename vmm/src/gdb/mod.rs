//! A gdb stub: breakpoints, steps, registers and memory of a running guest (`--gdb`).
//!
//! Owns the thread that talks to gdb. vCPU threads meet it at the [`rendezvous`], so that each vCPU is
//! still touched by its own thread alone; with a debugger no vCPU is run on another's thread. The VM
//! stops before its first instruction and waits for a debugger; a debugger that goes lets it run on.
//! Must not know how vCPUs are run.

#![allow(unsafe_code)] // poll(2)

mod registers;
pub mod rendezvous;
pub mod stream;
mod target;

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};

use self::rendezvous::{Debugger, Event, Reason, Resume};
use self::stream::{Listener, Stream};
use self::target::{Debugged, Fatal, tid};
use crate::domain::Domain;
use crate::vm::{Outcome, VmShared};

/// Serves debuggers until the VM has ended.
///
/// # Errors
/// The thread could not be created.
pub fn serve(
    listener: Listener,
    debugger: Arc<Debugger>,
    vm: Arc<VmShared>,
    domain: Arc<Domain>,
) -> io::Result<JoinHandle<()>> {
    let mut debugged = Debugged::new(debugger, vm, domain);
    Builder::new().name("gdb".into()).spawn(move || {
        while let Some(stream) = next_debugger(&listener, &debugged) {
            session(&mut debugged, stream);
        }
    })
}

/// Waits for a debugger; none once the VM has ended.
fn next_debugger(listener: &Listener, debugged: &Debugged) -> Option<Stream> {
    loop {
        // Before the wait: the event of the end may have been taken by the last session.
        if debugged.debugger.has_ended() {
            return None;
        }
        let [connects, _] = poll([listener.as_raw_fd(), debugged.debugger.event_fd().as_raw_fd()]);
        if connects {
            return listener.accept().ok();
        }
        // Nobody debugs: what has stopped is met by the next debugger.
        let _ = debugged.debugger.event_fd().read();
    }
}

fn session(debugged: &mut Debugged, stream: Stream) {
    debugged.debugger.ask_to_stop();
    debugged.domain.call_for_debugger(&debugged.vm);
    while !matches!(debugged.debugger.take_event(), Some(Event::AllStopped | Event::Ended)) {
        let _ = poll([debugged.debugger.event_fd().as_raw_fd(); 2]);
    }
    match converse(debugged, stream) {
        Ok(Some(DisconnectReason::Kill)) => {
            debugged.vm.end(Outcome::Interrupted);
            debugged.domain.stop_vm(&debugged.vm);
        }
        Ok(reason) => tracing::info!(?reason, "the debugger is gone"),
        Err(error) if debugged.vm.has_ended() => tracing::debug!(%error, "the debugger is gone"),
        Err(error) => tracing::warn!(%error, "the debugger is gone"),
    }
    debugged.debugger.clear_breakpoints();
    debugged.debugger.resume(|_| Resume::Run);
}

/// Waits until one of two descriptors is readable; answers which are.
fn poll(fds: [i32; 2]) -> [bool; 2] {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the array outlives the call, which is told its length.
    unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
    polled.map(|fd| fd.revents != 0)
}

/// Answers gdb until it goes, or the VM has ended (`None`).
fn converse(
    debugged: &mut Debugged,
    stream: Stream,
) -> Result<Option<DisconnectReason>, GdbStubError<Fatal, io::Error>> {
    let mut gdb = GdbStub::new(stream).run_state_machine(debugged)?;
    loop {
        gdb = match gdb {
            GdbStubStateMachine::Idle(mut idle) => {
                let debugger = Arc::clone(&debugged.debugger);
                match next_byte(idle.borrow_conn(), &debugger) {
                    Some(byte) => idle.incoming_data(debugged, byte)?,
                    None => return Ok(None),
                }
            }
            GdbStubStateMachine::Running(mut running) => {
                if let Some(event) = debugged.debugger.take_event() {
                    running.report_stop(debugged, stop_reason(event, &debugged.vm))?
                } else {
                    let debugger = Arc::clone(&debugged.debugger);
                    let connection = running.borrow_conn();
                    let fds = [connection.as_raw_fd(), debugger.event_fd().as_raw_fd()];
                    match poll(fds) {
                        [true, _] => match connection.read() {
                            Ok(byte) => running.incoming_data(debugged, byte)?,
                            Err(_) => return Ok(Some(DisconnectReason::Disconnect)),
                        },
                        _ => GdbStubStateMachine::Running(running),
                    }
                }
            }
            GdbStubStateMachine::CtrlCInterrupt(interrupted) => {
                debugged.debugger.ask_to_stop();
                debugged.domain.call_for_debugger(&debugged.vm);
                interrupted.interrupt_handled(debugged, None::<Stop>)?
            }
            GdbStubStateMachine::Disconnected(gone) => return Ok(Some(gone.get_reason())),
        }
    }
}

/// The next byte that gdb sends to a VM that has stopped; none once either has ended.
fn next_byte(connection: &mut Stream, debugger: &Debugger) -> Option<u8> {
    loop {
        match poll([connection.as_raw_fd(), debugger.event_fd().as_raw_fd()]) {
            [true, _] => return connection.read().ok(),
            _ if debugger.has_ended() => return None,
            _ => {
                let _ = debugger.event_fd().read();
            }
        }
    }
}

type Stop = MultiThreadStopReason<u64>;

fn stop_reason(event: Event, vm: &VmShared) -> Stop {
    match event {
        Event::Stopped(index, Reason::Breakpoint) => MultiThreadStopReason::HwBreak(tid(index)),
        Event::Stopped(index, Reason::Step) => {
            MultiThreadStopReason::SignalWithThread { tid: tid(index), signal: Signal::SIGTRAP }
        }
        Event::AllStopped => MultiThreadStopReason::Signal(Signal::SIGINT),
        Event::Ended => {
            MultiThreadStopReason::Exited(vm.outcome().map_or(0, crate::vm::Outcome::status))
        }
    }
}
