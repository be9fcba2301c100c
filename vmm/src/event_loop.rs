//! The thread that does what vCPU threads must not: I/O that may block.
//!
//! Owns the consoles and the `event-manager` they are registered with. Must not know VMs.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use thiserror::Error;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::console::{Console, Source};

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

/// A console and what its descriptors are watched for.
struct Watched {
    console: Console,
    interests: [Option<(RawFd, EventSet)>; Source::ALL.len()],
}

struct Carrier {
    consoles: Vec<Watched>,
    stop: Arc<EventFd>,
    stopped: bool,
}

/// What the events of a console's source carry. 0 is the stop request.
fn data(index: usize, source: usize) -> u32 {
    (1 + index * Source::ALL.len() + source) as u32
}

impl Carrier {
    fn serve(&mut self, index: usize, source: Source, events: EventSet) {
        let Some(watched) = self.consoles.get_mut(index) else { return };
        if let Err(error) = watched.console.serve(source, events) {
            tracing::warn!(vm = index, %error, "console output lost");
        }
    }

    /// Watches a console for what it wants now.
    fn settle(&mut self, index: usize, ops: &mut EventOps<'_>) {
        let Some(Watched { console, interests }) = self.consoles.get_mut(index) else { return };
        let mut update = |console: &Console| {
            for (at, (source, held)) in Source::ALL.into_iter().zip(&mut *interests).enumerate() {
                let wanted = console.interest(source);
                let events = |(fd, set)| Events::with_data_raw(fd, data(index, at), set);
                let outcome = match (*held, wanted) {
                    (old, new) if old == new => continue,
                    (Some(old), None) => ops.remove(events(old)),
                    (None, Some(new)) => ops.add(events(new)),
                    (Some(old), Some(new)) if old.0 == new.0 => ops.modify(events(new)),
                    (Some(old), Some(new)) => {
                        ops.remove(events(old)).and_then(|()| ops.add(events(new)))
                    }
                    (None, None) => continue,
                };
                if let Err(error) = outcome {
                    tracing::error!(?error, "cannot watch a console");
                }
                *held = wanted;
            }
        };
        update(console);
        console.close_gone();
        // The listening socket is watched again once the client has gone.
        update(console);
    }

    fn finish_all(&mut self) {
        for (index, Watched { console, .. }) in self.consoles.iter_mut().enumerate() {
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
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match (events.data() as usize).checked_sub(1) {
            None => self.stopped = true,
            Some(data) => {
                let index = data / Source::ALL.len();
                let source = Source::ALL[data % Source::ALL.len()];
                self.serve(index, source, events.event_set());
                self.settle(index, ops);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::with_data(&*self.stop, 0, EventSet::IN)) {
            tracing::error!(?error, "cannot watch for the end");
        }
        for index in 0..self.consoles.len() {
            self.settle(index, ops);
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
        let unwatched = |console| Watched { console, interests: [None; Source::ALL.len()] };
        let consoles = consoles.into_iter().map(unwatched).collect();
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
        let event_loop = EventLoop::start(vec![console]).expect("a thread");
        guest.write_all(b"early").expect("never fails");
        for _ in 0..3 {
            let mut client = UnixStream::connect(&path).expect("it listens");
            guest.write_all(b" more").expect("never fails");
            let patience = Some(Duration::from_secs(20));
            client.set_read_timeout(patience).expect("it is more than nothing");
            let mut first = [0];
            client.read_exact(&mut first).expect("something was said");
            let said = vec![b'x'; 5 * console::socket::INPUT_MOST];
            let mut other = client.try_clone().expect("a descriptor");
            let talker = thread::spawn(move || other.write_all(&said).map(|()| said.len()));
            let (mut reader, mut heard) = (guest.reader(), 0);
            while heard < 5 * console::socket::INPUT_MOST {
                heard += reader.read(&mut [0; 100]).expect("never fails");
            }
            assert_eq!(talker.join().expect("a thread").expect("a socket"), heard);
        }
        drop(event_loop);
        assert!(!path.exists());
    }

    #[test]
    fn output_of_the_end_reaches_the_client() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        let listener = Listener::bind(&path).expect("a socket");
        let (console, mut guest) = console::console(Sink::Socket(listener)).expect("an eventfd");
        let event_loop = EventLoop::start(vec![console]).expect("a thread");
        let mut client = UnixStream::connect(&path).expect("it listens");
        guest.write_all(b"last words").expect("never fails");
        drop(event_loop);
        hears(&mut client, b"last words");
    }
}
