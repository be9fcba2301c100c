//! Asks the process on a thread of its own, so that keys are heard while it is silent.
//!
//! Owns the connection and the thread. Must not know when a sample is wanted or what for.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::control::client::{Client, ClientError};
use crate::control::stats::Stats;

/// A sample, or why there is none.
pub type Sample = Result<Box<Stats>, ClientError>;

/// The thread. It ends with its connection or, at its next answer, when this is dropped; nobody waits for
/// it. The descriptor is readable when a sample has come.
pub struct Sampler {
    wants: Sender<()>,
    samples: Receiver<Sample>,
    bell: Arc<EventFd>,
}

impl AsRawFd for Sampler {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

impl Sampler {
    /// Starts the thread.
    ///
    /// # Errors
    /// Out of threads or descriptors.
    pub fn start(mut client: Client) -> io::Result<Sampler> {
        let (wants, wanted) = mpsc::channel();
        let (tell, samples) = mpsc::channel();
        let bell = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let ring = Arc::clone(&bell);
        thread::Builder::new().name("sampler".into()).spawn(move || {
            for () in wanted {
                let sample = client.stats();
                let over = sample.is_err();
                if tell.send(sample).is_err() {
                    return;
                }
                // A full counter means that it has been rung already.
                let _ = ring.write(1);
                if over {
                    return;
                }
            }
        })?;
        Ok(Sampler { wants, samples, bell })
    }

    /// Asks for a sample.
    pub fn want(&self) {
        // A thread that has ended has said why.
        let _ = self.wants.send(());
    }

    /// What has come since the last call.
    #[must_use]
    pub fn came(&self) -> Option<Sample> {
        let _ = self.bell.read();
        self.samples.try_recv().ok()
    }
}
