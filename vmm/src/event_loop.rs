//! The thread that does what vCPU threads must not: I/O that may block.
//!
//! Owns the consoles and the `event-manager` they are registered with. Must not know VMs.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use thiserror::Error;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::console::Console;

/// How long the end of the fleet waits for a reader of the consoles that does not read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the event loop could not be started.
#[derive(Debug, Error)]
pub enum EventLoopError {
    /// epoll could not be set up.
    #[error("cannot set up the event loop")]
    Epoll(#[source] event_manager::Error),
    /// No eventfd or thread.
    #[error("cannot start the event loop")]
    Start(#[source] io::Error),
}

struct Carrier {
    consoles: Vec<Console>,
    stop: Arc<EventFd>,
    stopped: bool,
}

impl Carrier {
    fn drain(&mut self, index: usize) {
        let Some(console) = self.consoles.get_mut(index) else { return };
        if let Err(error) = console.drain() {
            tracing::warn!(vm = index, %error, "console output lost");
        }
    }

    fn finish_all(&mut self) {
        for (index, console) in self.consoles.iter_mut().enumerate() {
            if let Err(error) = console.finish() {
                tracing::warn!(vm = index, %error, "console output lost");
            }
            let dropped = console.dropped();
            if dropped > 0 {
                tracing::warn!(vm = index, dropped, "console output did not fit its queue");
            }
        }
    }
}

impl MutEventSubscriber for Carrier {
    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        match (events.data() as usize).checked_sub(1) {
            None => self.stopped = true,
            Some(index) => self.drain(index),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let stop = Events::with_data(&*self.stop, 0, EventSet::IN);
        let consoles = (1..).zip(&self.consoles);
        let all = std::iter::once(stop)
            .chain(consoles.map(|(data, c)| Events::with_data(c.ready(), data, EventSet::IN)));
        for events in all {
            if let Err(error) = ops.add(events) {
                tracing::error!(?error, "cannot watch a console");
            }
        }
    }
}

/// The running thread.
pub struct EventLoop {
    stop: Arc<EventFd>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts carrying the consoles' output.
    ///
    /// # Errors
    /// [`EventLoopError`]: out of descriptors or threads.
    pub fn start(consoles: Vec<Console>) -> Result<Self, EventLoopError> {
        let stop =
            Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(EventLoopError::Start)?);
        let mut manager = EventManager::<Carrier>::new().map_err(EventLoopError::Epoll)?;
        let carrier = Carrier { consoles, stop: Arc::clone(&stop), stopped: false };
        let id = manager.add_subscriber(carrier);
        let (finished, done) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("event-loop".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                loop {
                    let outcome = manager.run();
                    let Ok(carrier) = manager.subscriber_mut(id) else { break };
                    if carrier.stopped || outcome.is_err() {
                        carrier.finish_all();
                        break;
                    }
                }
                // Nobody waits for it when the fleet gave up on a stuck reader.
                let _ = finished.send(());
            })
            .map_err(EventLoopError::Start)?;
        Ok(EventLoop { stop, done, thread: Some(thread) })
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // The counter of a fresh eventfd cannot be full.
        let _ = self.stop.write(1);
        if self.done.recv_timeout(PATIENCE).is_err() {
            tracing::warn!("console output is not being read; giving up on it");
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
