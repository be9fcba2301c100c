//! Registers on the bus, notifications by eventfd, interrupts by the chipset.
//!
//! Owns the connection between a device's transport and the three ways that lead to and from it. Must
//! not know what the device is.
//!
//! | way | from | to |
//! |---|---|---|
//! | `Port` | a vCPU's access, by the bus | the transport; `changed` tells the back-end when the device began or stopped |
//! | `queues` | KVM, for a driver's QueueNotify (`KVM_IOEVENTFD`, one eventfd a queue); without an exit | the back-end |
//! | [`Line`] | the back-end | the chipset, which makes it an edge at the I/O APIC in every timer mode |

use std::io;
use std::sync::{Arc, Weak};

use devices::bus::{self, Outcome};
use devices::virtio::Model;
use devices::virtio::mmio::{BYTES, Change, QUEUE_NOTIFY, Transport};
use kvm_ioctls::IoEventAddress;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::{Socket, VirtioError};
use crate::domain::Domain;
use crate::vm::VmShared;

/// The interrupt line of a device, for threads that are no vCPU's.
#[derive(Clone)]
pub struct Line {
    vm: Weak<VmShared>,
    domain: Weak<Domain>,
    irq: u8,
}

impl Line {
    /// The line `irq` of a VM. It does not keep the VM.
    #[must_use]
    pub fn new(vm: &Arc<VmShared>, domain: &Arc<Domain>, irq: u8) -> Self {
        Line { vm: Arc::downgrade(vm), domain: Arc::downgrade(domain), irq }
    }

    /// Gives an edge. Nothing happens when the VM is gone.
    pub fn raise(&self) {
        if let (Some(vm), Some(domain)) = (self.vm.upgrade(), self.domain.upgrade()) {
            domain.device_edge(&vm, self.irq);
        }
    }
}

/// A device in its VM.
pub struct Wired<D> {
    /// Its registers, and the model behind them.
    pub transport: Arc<Transport<D>>,
    /// Readable when the driver has put something into the queue of that number.
    pub queues: Arc<[EventFd]>,
    /// Readable when the device began to work or stopped.
    pub changed: Arc<EventFd>,
    /// Its line.
    pub irq: u8,
}

/// The registers as the bus sees them.
struct Port<D> {
    transport: Arc<Transport<D>>,
    queues: Arc<[EventFd]>,
    changed: Arc<EventFd>,
    irq: u8,
}

/// A full counter means that the reader has been told already.
fn tell(eventfd: &EventFd) {
    let _ = eventfd.write(1);
}

impl<D: Model> bus::Device for Port<D> {
    fn read(&mut self, offset: u64, data: &mut [u8], _now: u64) -> Outcome {
        self.transport.read(offset, data);
        Outcome::None
    }

    fn write(&mut self, offset: u64, data: &[u8], _now: u64) -> Outcome {
        let Change { interrupt, moved, notified } = self.transport.write(offset, data);
        if moved {
            tell(&self.changed);
        }
        // KVM signals queues that exist itself; this is for accesses that it does not recognise.
        if let Some(eventfd) = notified.and_then(|queue| self.queues.get(queue)) {
            tell(eventfd);
        }
        if interrupt { Outcome::Edge(self.irq) } else { Outcome::None }
    }
}

fn eventfd() -> Result<EventFd, VirtioError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(VirtioError::Descriptors)
}

/// Puts a device into a VM.
///
/// # Errors
/// [`VirtioError`]: descriptors, KVM or the bus.
pub fn wire<D: Model + 'static>(device: D, into: &mut Socket<'_>) -> Result<Wired<D>, VirtioError> {
    let transport = Arc::new(Transport::new(device, into.memory.clone()));
    let address = into.window.address;
    let queues: Arc<[EventFd]> =
        (0..transport.queues()).map(|_| eventfd()).collect::<Result<_, _>>()?;
    for (queue, eventfd) in (0_u32..).zip(queues.iter()) {
        let notify = IoEventAddress::Mmio(address + QUEUE_NOTIFY);
        into.vm.register_ioevent(eventfd, &notify, queue).map_err(VirtioError::Notify)?;
    }
    let wired = Wired { transport, queues, changed: Arc::new(eventfd()?), irq: into.window.irq };
    let port = Port {
        transport: Arc::clone(&wired.transport),
        queues: Arc::clone(&wired.queues),
        changed: Arc::clone(&wired.changed),
        irq: wired.irq,
    };
    let bus = std::mem::take(&mut into.bus);
    into.bus = bus.mmio(address..=address + (BYTES - 1), Box::new(port))?;
    Ok(wired)
}

/// Empties an eventfd. Answers whether it was told something.
pub fn was_told(eventfd: &EventFd) -> io::Result<bool> {
    match eventfd.read() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
