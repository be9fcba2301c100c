//! A device that the event loop carries.
//!
//! Owns which of the device's descriptors are watched, and that each turn is a bounded one: what is
//! left is done in another, after the other devices had theirs. Must not know what the device is.
//! What it does may not block: all VMs of the process share the loop.

use std::os::fd::{AsRawFd, RawFd};

use devices::virtio::mmio::Served;
use devices::virtio::{Memory, Model, Signal};
use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;

use super::wiring::{Line, Wired, was_told};
use crate::event_loop;

/// A device that can be carried by the event loop.
pub trait HostSide: Model {
    /// Descriptors of the host that are to be watched now, and for what: as many each time. They are
    /// asked for after each turn, while the device is active.
    fn interests(&self) -> Vec<Option<(RawFd, EventSet)>> {
        Vec::new()
    }

    /// The descriptor at this place of [`HostSide::interests`] is ready.
    fn ready(&mut self, _memory: &Memory, _index: usize, _events: EventSet) -> Signal {
        Signal::NONE
    }
}

/// A device that is to be carried by the event loop.
pub struct OnLoop<D>(pub D);

/// A descriptor that is watched.
type Watched = Option<(RawFd, EventSet)>;

/// A device as the event loop has it.
pub(super) struct Carried<D> {
    device: Wired<D>,
    line: Line,
    /// What is watched beyond the device's own eventfds.
    held: Vec<Watched>,
}

const CHANGED: u32 = 0;
const FIRST_QUEUE: u32 = 1;

impl<D: HostSide> Carried<D> {
    pub(super) fn new(device: Wired<D>, line: Line) -> Self {
        Carried { device, line, held: Vec::new() }
    }

    fn queues(&self) -> u32 {
        self.device.queues.len() as u32
    }

    fn turn(&self, with: impl FnOnce(&mut D, &Memory) -> Signal) -> Served {
        let served = self.device.transport.serve(with);
        if served.interrupt {
            self.line.raise();
        }
        served
    }

    fn serve_queue(&self, queue: u32) {
        let Some(eventfd) = self.device.queues.get(queue as usize) else { return };
        let _ = was_told(eventfd);
        let served = self.turn(|device, memory| device.notified(queue as usize, memory));
        if served.more {
            // The loop comes back to it after the others.
            let _ = eventfd.write(1);
        }
    }

    fn settle(&mut self, ops: &mut EventOps<'_>) {
        let wanted = self.device.transport.inspect(|device, active| match active {
            true => device.interests(),
            false => Vec::new(),
        });
        let places = self.held.len().max(wanted.len());
        self.held.resize(places, None);
        let first = FIRST_QUEUE + self.queues();
        for (at, held) in self.held.iter_mut().enumerate() {
            let wanted = wanted.get(at).copied().flatten();
            event_loop::watch(ops, first + at as u32, held, wanted);
        }
    }
}

impl<D: HostSide> MutEventSubscriber for Carried<D> {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            CHANGED => {
                let _ = was_told(&self.device.changed);
                // The driver may have filled its rings before.
                (0..self.queues()).for_each(|queue| self.serve_queue(queue));
            }
            data if data - FIRST_QUEUE < self.queues() => self.serve_queue(data - FIRST_QUEUE),
            data => {
                let index = (data - FIRST_QUEUE - self.queues()) as usize;
                // What is ready may be of a descriptor that is watched no more.
                if self.held.get(index).is_some_and(|held| held.is_some()) {
                    let set = events.event_set();
                    let served = self.turn(|device, memory| device.ready(memory, index, set));
                    if served.more {
                        // As if the driver had asked; each device knows what it has left.
                        self.device.queues.iter().for_each(|eventfd| {
                            let _ = eventfd.write(1);
                        });
                    }
                }
            }
        }
        self.settle(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let own = std::iter::once(&*self.device.changed).chain(self.device.queues.iter());
        for (data, eventfd) in (CHANGED..).zip(own) {
            event_loop::watch(ops, data, &mut None, Some((eventfd.as_raw_fd(), EventSet::IN)));
        }
    }
}

impl<D: HostSide> event_loop::Carried for Carried<D> {
    fn finish(&mut self) {}
}
