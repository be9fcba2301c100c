//! The thread that does what vCPU threads must not: I/O that may block.
//!
//! Owns what it carries, consoles and virtio devices, and the `event-manager` that they are registered
//! with. Must not know VMs.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId,
};
use thiserror::Error;
use vmm_sys_util::epoll::EventSet;

use crate::console::{Console, Source};

/// How long the end of the fleet waits for a reader of the consoles that does not read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the event loop could not be started.
#[derive(Debug, Error)]
pub enum EventLoopError {
    /// Its epoll could not be set up, or it has ended.
    #[error("cannot use the event loop")]
    Manager(#[source] event_manager::Error),
    /// No thread.
    #[error("cannot start the event loop")]
    Start(#[source] io::Error),
}

/// Something that the loop carries. What it does in a turn may not block: all else waits meanwhile.
pub trait Carried: MutEventSubscriber + Send {
    /// It is carried no more.
    fn finish(&mut self);
}

/// Changes what a descriptor, named `data`, is watched for: from `held`, which becomes `wanted`.
pub fn watch(
    ops: &mut EventOps<'_>,
    data: u32,
    held: &mut Option<(RawFd, EventSet)>,
    wanted: Option<(RawFd, EventSet)>,
) {
    let events = |(fd, set)| Events::with_data_raw(fd, data, set);
    let outcome = match (*held, wanted) {
        (old, new) if old == new => return,
        (Some(old), None) => ops.remove(events(old)),
        (None, Some(new)) => ops.add(events(new)),
        (Some(old), Some(new)) if old.0 == new.0 => ops.modify(events(new)),
        (Some(old), Some(new)) => ops.remove(events(old)).and_then(|()| ops.add(events(new))),
        (None, None) => return,
    };
    if let Err(error) = outcome {
        tracing::error!(?error, "cannot watch a descriptor");
    }
    *held = wanted;
}

/// A console, and what its descriptors are watched for.
struct Carrier {
    console: Console,
    interests: [Option<(RawFd, EventSet)>; Source::ALL.len()],
    /// Writes that failed. The guest decides how many, so the first alone is logged at once.
    failures: u64,
}

impl Carrier {
    fn serve(&mut self, source: Source, events: EventSet) {
        if let Err(error) = self.console.serve(source, events) {
            self.lost(&error);
        }
    }

    fn lost(&mut self, error: &io::Error) {
        if self.failures == 0 {
            tracing::warn!(%error, "console output lost");
        }
        self.failures += 1;
    }

    /// Watches the console for what it wants now.
    fn settle(&mut self, ops: &mut EventOps<'_>) {
        let Carrier { console, interests, failures: _ } = self;
        let mut update = |console: &Console| {
            for (at, (source, held)) in Source::ALL.into_iter().zip(&mut *interests).enumerate() {
                watch(ops, at as u32, held, console.interest(source));
            }
        };
        update(console);
        console.close_gone();
        // The listening socket is watched again once the client has gone.
        update(console);
    }
}

impl Carried for Carrier {
    fn finish(&mut self) {
        if let Err(error) = self.console.finish() {
            self.lost(&error);
        }
        if self.failures > 1 {
            tracing::warn!(failures = self.failures, "console output could not be written");
        }
        let dropped = self.console.dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "console output did not fit its queue");
        }
    }
}

impl MutEventSubscriber for Carrier {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        if let Some(source) = Source::ALL.get(events.data() as usize) {
            self.serve(*source, events.event_set());
            self.settle(ops);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.console.begin();
        self.settle(ops);
    }
}

/// What the loop carries, by number.
#[derive(Debug)]
pub struct CarriedId(SubscriberId);

/// The running thread.
pub struct EventLoop {
    endpoint: RemoteEndpoint<Box<dyn Carried>>,
    /// Written once, by the loop's own thread.
    stop: Arc<AtomicBool>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts the thread, which carries nothing yet.
    ///
    /// # Errors
    /// [`EventLoopError`]: out of descriptors or threads.
    pub fn start() -> Result<Self, EventLoopError> {
        let mut manager =
            EventManager::<Box<dyn Carried>>::new().map_err(EventLoopError::Manager)?;
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let (finished, done) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("event-loop".into())
            .stack_size(256 * 1024)
            .spawn(move || {
                while !stopping.load(Ordering::Acquire) {
                    if let Err(error) = manager.run() {
                        tracing::error!(?error, "the event loop has ended");
                        break;
                    }
                }
                // Nobody waits for it when the fleet gave up on a stuck reader.
                let _ = finished.send(());
            })
            .map_err(EventLoopError::Start)?;
        Ok(EventLoop { endpoint, stop, done, thread: Some(thread) })
    }

    /// Carries a console's output and input from now on.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn add(&self, console: Console) -> Result<CarriedId, EventLoopError> {
        let interests = [None; Source::ALL.len()];
        self.carry(Box::new(Carrier { console, interests, failures: 0 }))
    }

    /// Carries something from now on.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn carry(&self, carried: Box<dyn Carried>) -> Result<CarriedId, EventLoopError> {
        let added = self.endpoint.call_blocking(move |manager| {
            Ok::<_, event_manager::Error>(manager.add_subscriber(carried))
        });
        added.map(CarriedId).map_err(EventLoopError::Manager)
    }

    /// Carries what is left of a console's output, and closes it; stops carrying anything else. Does
    /// not wait for it.
    pub fn remove(&self, id: CarriedId) {
        let removed = self.endpoint.fire(move |manager| {
            if let Ok(mut carried) = manager.remove_subscriber(id.0) {
                carried.finish();
            }
        });
        if let Err(error) = removed {
            tracing::error!(?error, "cannot close what the event loop carries");
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Behind whatever else the loop was asked for. It fails if the loop has ended already.
        let stop = Arc::clone(&self.stop);
        let _ = self.endpoint.fire(move |_| stop.store(true, Ordering::Release));
        if self.done.recv_timeout(PATIENCE).is_err() {
            tracing::warn!("console output is not being read; giving up on it");
            return;
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{self, Sink, socket::Listener};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn hears(client: &mut UnixStream, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        client.read_exact(&mut heard).expect("that much was said");
        assert_eq!(heard, expected);
    }

    #[test]
    fn clients_come_one_after_the_other_and_say_as_much_as_they_like() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        let listener = Listener::bind(&path).expect("a socket");
        let (console, mut guest) = console::console(Sink::Socket(listener)).expect("an eventfd");
        let event_loop = EventLoop::start().expect("a thread");
        let console = event_loop.add(console).expect("it runs");
        guest.write_all(b"early").expect("never fails");
        for _ in 0..3 {
            let mut client = UnixStream::connect(&path).expect("it listens");
            guest.write_all(b" more").expect("never fails");
            let patience = Some(Duration::from_secs(20));
            client.set_read_timeout(patience).expect("it is more than nothing");
            let mut first = [0];
            client.read_exact(&mut first).expect("something was said");
            let said = vec![b'x'; 5 * console::INPUT_MOST];
            let mut other = client.try_clone().expect("a descriptor");
            let talker = thread::spawn(move || other.write_all(&said).map(|()| said.len()));
            let (mut reader, mut heard) = (guest.reader(), 0);
            while heard < 5 * console::INPUT_MOST {
                heard += reader.read(&mut [0; 100]).expect("never fails");
            }
            assert_eq!(talker.join().expect("a thread").expect("a socket"), heard);
        }
        event_loop.remove(console);
        drop(event_loop);
        assert!(!path.exists());
    }

    #[test]
    fn output_of_the_end_reaches_the_client() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        let listener = Listener::bind(&path).expect("a socket");
        let (console, mut guest) = console::console(Sink::Socket(listener)).expect("an eventfd");
        let event_loop = EventLoop::start().expect("a thread");
        let console = event_loop.add(console).expect("it runs");
        let mut client = UnixStream::connect(&path).expect("it listens");
        guest.write_all(b"last words").expect("never fails");
        event_loop.remove(console);
        drop(event_loop);
        hears(&mut client, b"last words");
    }
}
