//! What is behind the balloon: guest memory that is given back to the host.
//!
//! Owns the way to ask a running VM's balloon for another size. Must not know queues.
//!
//! Pages are dropped with `MADV_DONTNEED`: the next access finds an empty one. Pages of an image that
//! several VMs share (`shared_image`) are found as they were in the image again, which is no secret: it is
//! the image that this VM was booted from; what the VM itself wrote there is gone, as anywhere else.
//! Memory of huge pages is not given back in small pieces, so a balloon there is refused.

#![allow(unsafe_code)] // madvise

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::virtio::Signal;
use devices::virtio::balloon::{Balloon, GivesBack, PAGE, Report};
use devices::virtio::mmio::Transport;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::on_loop::{self, HostSide};
use super::wiring::{self, Line, Wired};
use super::{Backend, Plug, Running, Socket, VirtioError};
use crate::event_loop::EventLoop;
use crate::memory::GuestMemory;

/// How often statistics are asked for at most, in ns: each time wakes the guest.
pub const PAUSE_NS: u64 = 5_000_000_000;

/// The memory of a guest.
pub struct HostMemory(GuestMemory);

impl HostMemory {
    /// The memory that pages are given back of.
    #[must_use]
    pub fn new(memory: GuestMemory) -> Self {
        HostMemory(memory)
    }
}

impl GivesBack for HostMemory {
    fn give_back(&mut self, start: u64, count: u64) {
        let end = start.saturating_add(count.saturating_mul(PAGE));
        for region in self.0.iter() {
            let first = region.start_addr().raw_value();
            // Both are whole pages, as regions are.
            let from = start.max(first);
            let to = end.min(first.saturating_add(region.len()));
            if from >= to || !start.is_multiple_of(PAGE) {
                continue;
            }
            let (offset, len) = ((from - first) as usize, (to - from) as usize);
            // SAFETY: the pages lie in one live mapping of this process that is the guest's and nothing
            // else's, so no Rust reference points into it, and whoever reads them copes with any bytes.
            let done = unsafe {
                let place = region.as_ptr().add(offset);
                libc::madvise(place.cast(), len, libc::MADV_DONTNEED)
            };
            if done != 0 {
                let error = std::io::Error::last_os_error();
                tracing::debug!(%error, "the host does not take pages back");
            }
        }
    }
}

impl HostSide for Balloon<HostMemory> {}

/// A balloon that is to be put into a VM.
pub(super) struct BalloonPlug {
    /// In bytes.
    pub target: u64,
}

impl Plug for BalloonPlug {
    fn plug(self: Box<Self>, into: &mut Socket<'_>) -> Result<Box<dyn Backend>, VirtioError> {
        let host = HostMemory::new(into.memory.clone());
        Ok(Box::new(BalloonBackend(wiring::wire(Balloon::new(host, self.target), into)?)))
    }
}

struct BalloonBackend(Wired<Balloon<HostMemory>>);

impl Backend for BalloonBackend {
    fn start(self: Box<Self>, line: Line, event_loop: &EventLoop) -> Result<Running, VirtioError> {
        let control = Control {
            transport: Arc::clone(&self.0.transport),
            line: line.clone(),
            asked: AtomicU64::new(0),
        };
        let device = event_loop.carry(Box::new(on_loop::Carried::new(self.0, line)))?;
        Ok(Running::Balloon { device, control })
    }

    fn irq(&self) -> u8 {
        self.0.irq
    }
}

/// The balloon of a VM that runs.
pub struct Control {
    transport: Arc<Transport<Balloon<HostMemory>>>,
    line: Line,
    /// When statistics were last asked for, in ns. Relaxed: one thread does.
    asked: AtomicU64,
}

impl Control {
    /// Asks the guest for a balloon of this size, in bytes; whole pages count. It may take its time, and
    /// need not do it at all.
    pub fn set_target(&self, bytes: u64) {
        let _ = self.transport.inspect(|device, _| device.set_target(bytes));
        let changed = Signal { config: true, ..Signal::NONE };
        if self.transport.serve(|_, _| changed).interrupt {
            self.line.raise();
        }
    }

    /// The balloon as it is `now`, in ns of the host's monotonic clock. If its statistics have not been asked
    /// for in the last [`PAUSE_NS`], new ones are, and found the next time.
    #[must_use]
    pub fn report(&self, now: u64) -> Report {
        let report = self.transport.inspect(|device, _| device.report());
        if now < self.asked.load(Ordering::Relaxed).saturating_add(PAUSE_NS) {
            return report;
        }
        self.asked.store(now, Ordering::Relaxed);
        if self.transport.serve(Balloon::ask).interrupt {
            self.line.raise();
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use crate::memory::HOLE_END;
    use vm_memory::{Bytes, GuestAddress};

    const MIB: u64 = 1 << 20;

    fn resident(memory: &GuestMemory, at: u64) -> bool {
        let place = memory.get_slice(GuestAddress(at), 4096).expect("it is memory");
        let mut there = 0_u8;
        // SAFETY: the page is mapped; the kernel writes one byte for it.
        let done =
            unsafe { libc::mincore(place.ptr_guard_mut().as_ptr().cast(), 4096, &raw mut there) };
        assert_eq!(done, 0);
        there & 1 == 1
    }

    #[test]
    fn pages_are_the_hosts_again_and_neighbours_stay() {
        let memory = memory::create(4 * MIB).expect("memory");
        for page in 0..16 {
            memory.write_obj(page + 1, GuestAddress(MIB + page * PAGE)).expect("it is memory");
        }
        HostMemory::new(memory.clone()).give_back(MIB + 4 * PAGE, 3);
        for page in 0..16 {
            let at = MIB + page * PAGE;
            let given = (4..7).contains(&page);
            assert_eq!(resident(&memory, at), !given, "{page}");
            let found: u64 = memory.read_obj(GuestAddress(at)).expect("it is memory");
            assert_eq!(found, if given { 0 } else { page + 1 });
        }
    }

    #[test]
    fn what_is_no_memory_is_left_alone() {
        let memory = memory::create(3 * 1024 * MIB + MIB).expect("memory");
        let mut host = HostMemory::new(memory.clone());
        let (low, high) = (GuestAddress(2 * MIB), GuestAddress(HOLE_END + 4096));
        for at in [low, high] {
            memory.write_obj(7_u64, at).expect("it is memory");
        }
        host.give_back(HOLE_END + MIB, 10);
        host.give_back(2 * MIB + 1, 1);
        host.give_back(u64::MAX - 4095, u64::MAX);
        for at in [low, high] {
            assert_eq!(memory.read_obj::<u64>(at).expect("it is memory"), 7);
        }
        host.give_back(MIB, u64::MAX);
        for at in [low, high] {
            assert_eq!(memory.read_obj::<u64>(at).expect("it is memory"), 0, "all of it");
        }
    }
}
