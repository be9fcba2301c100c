//! The thread of a disk.
//!
//! Owns the thread, the buffer and the file. Each disk has a thread of its own, as reads, writes and
//! above all flushes may block for long: on the event loop they would hold up the consoles and
//! devices of all VMs, on a vCPU's thread the guests that it serves. It sleeps until KVM signals the
//! queue. Must not know requests.
//!
//! A pause of the VM leaves it alone: what is under way is finished, its interrupt waits in the vCPU's
//! inbox, and no more comes. At the end of the VM what is under way is dropped after the piece that
//! the file is working at; the guest is gone by then.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use devices::virtio::block::{Block, serve};
use devices::virtio::mmio::Transport;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::file::{AlignedBuffer, DiskFile};
use crate::virtio::wiring::{Line, Wired, was_told};

/// Bytes of a request that are moved at a time.
const PIECE: usize = 256 << 10;
const STACK: usize = 128 << 10;

/// The running thread.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    transport: Arc<Transport<Block>>,
    /// Written once. Release/acquire; `changed` is told afterwards.
    stop: AtomicBool,
    /// Readable when the device began to work, or is to end.
    changed: Arc<EventFd>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("stop", &self.stop).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// Out of descriptors or threads.
    pub fn start(wired: Wired<Block>, file: DiskFile, line: Line) -> io::Result<Self> {
        let Wired { transport, queues, changed, irq: _ } = wired;
        let shared = Arc::new(Shared { transport, stop: AtomicBool::new(false), changed });
        let epoll = Epoll::new()?;
        for eventfd in queues.iter().chain([&*shared.changed]) {
            let event = EpollEvent::new(EventSet::IN, 0);
            epoll.ctl(ControlOperation::Add, eventfd.as_raw_fd(), event)?;
        }
        let seen = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("disk".into())
            .stack_size(STACK)
            .spawn(move || live(&seen, &queues, &epoll, file, &line))?;
        Ok(Worker { shared, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // A request that is under way finds that it is nobody's.
        self.shared.transport.halt();
        let _ = self.shared.changed.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic has been printed.
            let _ = thread.join();
        }
    }
}

fn live(shared: &Shared, queues: &[EventFd], epoll: &Epoll, mut file: DiskFile, line: &Line) {
    let mut buffer = AlignedBuffer::new(PIECE);
    let mut failures = 0_u64;
    let mut events = [EpollEvent::default(); 2];
    loop {
        if let Err(error) = epoll.wait(-1, &mut events)
            && error.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(%error, "a disk's thread cannot wait; the disk stops");
            return;
        }
        for eventfd in queues.iter().chain([&*shared.changed]) {
            let _ = was_told(eventfd);
        }
        while !shared.stop.load(Ordering::Acquire) {
            let Some(turn) = serve::one(&shared.transport, &mut file, buffer.bytes()) else {
                break;
            };
            if let Some(error) = turn.failed {
                // The guest decides how many, so the first alone is logged at once.
                if failures == 0 {
                    tracing::warn!(%error, "a disk's request failed");
                }
                failures += 1;
            }
            if turn.served.interrupt {
                line.raise();
            }
        }
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
    }
    if failures > 1 {
        tracing::warn!(failures, "requests to a disk failed");
    }
}
