//! The MMIO transport: one page of registers, version 2 (Virtio 1.2, section 4.2.2).
//!
//! Owns the registers, the status handshake, the interrupt status, and the device model behind them,
//! with the one lock that vCPU threads and the back-end's thread share. Must not know buses, event
//! loops or interrupt controllers: what an access leads to comes back as a [`Change`], what serving
//! the device leads to as a [`Served`].
//!
//! | variable | lock | writers | readers |
//! |---|---|---|---|
//! | `interrupts` | none (AcqRel): a bit is set after what it tells of was written | back-end; vCPU threads acknowledge | vCPU threads |
//! | all else | `inner`, held for one access or one turn of the model | vCPU threads, back-end | the same |
//!
//! What a driver touches once it runs, the interrupt registers and QueueNotify, needs no lock.
//!
//! | what a driver may do | answer |
//! |---|---|
//! | accesses below 0x100 that are not of 4 aligned bytes | zero; ignored |
//! | registers that do not exist, or the other way than they can be accessed | zero; ignored |
//! | clear status bits but by a reset, or set NEEDS_RESET | ignored |
//! | FEATURES_OK with features that were not offered, or without VIRTIO_F_VERSION_1 | not set |
//! | features after FEATURES_OK, queues after DRIVER_OK or while ready | ignored |
//! | DRIVER_OK before FEATURES_OK, or after FAILED | ignored |
//! | queue sizes that are no power of two or too large, rings that are not aligned or not in memory | the queue is checked at DRIVER_OK; NEEDS_RESET |
//! | a queue that does not exist | QueueNumMax is zero, all else ignored |
//! | reset while requests are on their way | the model lets go of guest memory before the write returns |
//! | notifications before DRIVER_OK, or after NEEDS_RESET | ignored |

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::{Memory, Model, Signal};

/// The size of a device's registers, in bytes.
pub const BYTES: u64 = 0x1000;
/// Offset of QueueNotify, whose writes can be caught before they get here.
pub const QUEUE_NOTIFY: u64 = reg::VIRTIO_MMIO_QUEUE_NOTIFY as u64;

const CONFIG: u64 = reg::VIRTIO_MMIO_CONFIG as u64;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"SIES");
/// What the transport itself offers.
const OWN_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;
/// All of the status register that a driver can set, in the order in which it does.
const STATUS: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED;
/// Widths of accesses to the configuration, in bytes.
const WIDTHS: RangeInclusive<usize> = 1..=8;

/// What a driver's access leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Change {
    /// The device's line is to be raised.
    pub interrupt: bool,
    /// The device began to work, or stopped: its back-end is to look at it.
    pub moved: bool,
    /// The driver has put something into this queue.
    pub notified: Option<usize>,
}

/// What serving a device leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Served {
    /// The device's line is to be raised.
    pub interrupt: bool,
    /// There is more to do: [`Signal::more`].
    pub more: bool,
}

/// A queue as its driver describes it, unchecked.
#[derive(Clone, Copy, Debug, Default)]
struct QueueRegisters {
    size: u32,
    ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

struct Inner<D> {
    device: D,
    status: u32,
    offered: u64,
    accepted: u64,
    /// Which half of the features the driver reads, and which it writes.
    offered_half: u32,
    accepted_half: u32,
    selected: u32,
    queues: Vec<QueueRegisters>,
    generation: u32,
    /// The model is between `activate` and `reset`.
    active: bool,
}

/// A device behind its registers.
pub struct Transport<D> {
    inner: Mutex<Inner<D>>,
    memory: Memory,
    interrupts: AtomicU32,
}

impl<D: Model> Transport<D> {
    /// The registers after reset. Of `memory`, the device touches what its driver tells it to.
    pub fn new(device: D, memory: Memory) -> Self {
        let count = device.queue_sizes().len();
        let inner = Inner {
            offered: device.features() | OWN_FEATURES,
            device,
            status: 0,
            accepted: 0,
            offered_half: 0,
            accepted_half: 0,
            selected: 0,
            queues: vec![QueueRegisters::default(); count],
            generation: 0,
            active: false,
        };
        Transport { inner: Mutex::new(inner), memory, interrupts: AtomicU32::new(0) }
    }

    /// How many queues the device has.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.lock().queues.len()
    }

    /// The driver reads `data.len()` bytes, `offset` bytes into the registers. All of `data` is
    /// written.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            if WIDTHS.contains(&data.len()) {
                self.lock().device.read_config(offset, data);
            }
            return;
        }
        if let (Some(register), Ok(bytes)) = (aligned(offset), <&mut [u8; 4]>::try_from(data)) {
            let value = match register {
                reg::VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupts.load(Ordering::Acquire),
                _ => self.lock().register(register),
            };
            *bytes = value.to_le_bytes();
        }
    }

    /// The driver writes `data`, `offset` bytes into the registers.
    pub fn write(&self, offset: u64, data: &[u8]) -> Change {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            if WIDTHS.contains(&data.len()) {
                self.lock().device.write_config(offset, data);
            }
            return Change::default();
        }
        let (Some(register), Ok(bytes)) = (aligned(offset), <[u8; 4]>::try_from(data)) else {
            return Change::default();
        };
        let value = u32::from_le_bytes(bytes);
        match register {
            reg::VIRTIO_MMIO_INTERRUPT_ACK => {
                self.interrupts.fetch_and(!value, Ordering::AcqRel);
                Change::default()
            }
            reg::VIRTIO_MMIO_STATUS => self.set_status(value),
            reg::VIRTIO_MMIO_QUEUE_NOTIFY => {
                let inner = self.lock();
                let queue = usize::try_from(value).ok();
                let known = queue.filter(|queue| inner.active && *queue < inner.queues.len());
                Change { notified: known, ..Change::default() }
            }
            _ => {
                self.lock().set_register(register, value);
                Change::default()
            }
        }
    }

    /// The back-end does something to the device, if that is active.
    pub fn serve(&self, with: impl FnOnce(&mut D, &Memory) -> Signal) -> Served {
        let mut inner = self.lock();
        if !inner.active {
            return Served::default();
        }
        let signal = with(&mut inner.device, &self.memory);
        let interrupt = self.apply(&mut inner, signal);
        Served { interrupt, more: signal.more && !signal.broken }
    }

    /// The back-end looks at the device, active or not. Answers what `with` does; it is told whether
    /// the device is active.
    pub fn inspect<R>(&self, with: impl FnOnce(&mut D, bool) -> R) -> R {
        let mut inner = self.lock();
        let active = inner.active;
        with(&mut inner.device, active)
    }

    /// Stops the device from the host's side, as a reset does: it touches guest memory no more.
    pub fn halt(&self) {
        self.lock().stop();
    }

    /// Carries out what a device asked for. Answers whether its line is to be raised.
    fn apply(&self, inner: &mut Inner<D>, signal: Signal) -> bool {
        if signal.broken {
            inner.status |= NEEDS_RESET;
            inner.stop();
        }
        let config = signal.config || signal.broken;
        if config {
            inner.generation = inner.generation.wrapping_add(1);
        }
        let used = if signal.used { reg::VIRTIO_MMIO_INT_VRING } else { 0 };
        let bits = used | if config { reg::VIRTIO_MMIO_INT_CONFIG } else { 0 };
        self.interrupts.fetch_or(bits, Ordering::AcqRel);
        bits != 0
    }

    fn set_status(&self, value: u32) -> Change {
        let mut inner = self.lock();
        let was_active = inner.active;
        let mut interrupt = false;
        if value == 0 {
            inner.reset();
            self.interrupts.store(0, Ordering::Release);
        } else {
            let asked = value & STATUS;
            // Bits are cleared by a reset alone.
            if inner.status & STATUS & !asked == 0 {
                let activated = inner.raise(asked, &self.memory);
                interrupt = self.apply(&mut inner, activated);
            }
        }
        Change { interrupt, moved: was_active != inner.active, notified: None }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<D>> {
        // The registers are valid between any two statements; a model that panicked serves nothing
        // that it would not have served before.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn aligned(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|offset| offset.is_multiple_of(4))
}

fn half(value: u64, which: u32) -> u32 {
    match which {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, which: u32, to: u32) {
    match which {
        0 => *value = *value & !0xffff_ffff | u64::from(to),
        1 => *value = *value & 0xffff_ffff | u64::from(to) << 32,
        _ => {}
    }
}

impl<D: Model> Inner<D> {
    fn register(&self, register: u32) -> u32 {
        let queue = self.queues.get(self.selected as usize);
        match register {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.device.id(),
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered, self.offered_half),
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                let sizes = self.device.queue_sizes();
                sizes.get(self.selected as usize).map_or(0, |size| u32::from(*size))
            }
            reg::VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready)),
            reg::VIRTIO_MMIO_STATUS => self.status,
            // There are no shared memory regions: their length is -1 (4.2.2.1).
            reg::VIRTIO_MMIO_SHM_LEN_LOW
            | reg::VIRTIO_MMIO_SHM_LEN_HIGH
            | reg::VIRTIO_MMIO_SHM_BASE_LOW
            | reg::VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            reg::VIRTIO_MMIO_CONFIG_GENERATION => self.generation,
            _ => 0,
        }
    }

    fn set_register(&mut self, register: u32, value: u32) {
        match register {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_half = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.accepted_half = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES if self.status & FEATURES_OK == 0 => {
                set_half(&mut self.accepted, self.accepted_half, value);
            }
            reg::VIRTIO_MMIO_QUEUE_SEL => self.selected = value,
            _ => self.set_queue_register(register, value),
        }
    }

    fn set_queue_register(&mut self, register: u32, value: u32) {
        if self.status & (DRIVER_OK | NEEDS_RESET) != 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.selected as usize) else { return };
        if register == reg::VIRTIO_MMIO_QUEUE_READY {
            queue.ready = value & 1 != 0;
            return;
        }
        if queue.ready {
            return;
        }
        match register {
            reg::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut queue.descriptors, 0, value),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut queue.descriptors, 1, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut queue.available, 0, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut queue.available, 1, value),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut queue.used, 0, value),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut queue.used, 1, value),
            _ => {}
        }
    }

    /// The driver sets status bits, none of which it had cleared.
    fn raise(&mut self, asked: u32, memory: &Memory) -> Signal {
        let new = asked & !self.status;
        self.status |= new & (ACKNOWLEDGE | DRIVER | FAILED);
        let legal =
            self.accepted & !self.offered == 0 && self.accepted >> VIRTIO_F_VERSION_1 & 1 == 1;
        if new & FEATURES_OK != 0 && legal {
            self.status |= FEATURES_OK;
        }
        let begins = new & DRIVER_OK != 0 && self.status & (FEATURES_OK | FAILED) == FEATURES_OK;
        if !begins {
            return Signal::NONE;
        }
        self.status |= DRIVER_OK;
        match self.checked_queues(memory) {
            Some(queues) => {
                self.device.activate(self.accepted, queues);
                self.active = true;
                Signal::NONE
            }
            None => Signal { broken: true, ..Signal::NONE },
        }
    }

    /// The queues, if all that the driver uses are usable.
    fn checked_queues(&self, memory: &Memory) -> Option<Vec<Queue>> {
        let event_idx = self.accepted >> VIRTIO_RING_F_EVENT_IDX & 1 == 1;
        let checked = |(registers, most): (&QueueRegisters, &u16)| {
            let mut queue = Queue::new(*most).ok()?;
            if !registers.ready {
                return Some(queue);
            }
            let size = u16::try_from(registers.size).ok()?;
            queue.try_set_size(size).ok()?;
            queue.try_set_desc_table_address(GuestAddress(registers.descriptors)).ok()?;
            queue.try_set_avail_ring_address(GuestAddress(registers.available)).ok()?;
            queue.try_set_used_ring_address(GuestAddress(registers.used)).ok()?;
            queue.set_event_idx(event_idx);
            queue.set_ready(true);
            // The crate takes a ring at address 0 for one that was not set.
            (registers.available != 0 && queue.is_valid(memory)).then_some(queue)
        };
        self.queues.iter().zip(self.device.queue_sizes()).map(checked).collect()
    }

    /// The device touches guest memory no more.
    fn stop(&mut self) {
        if std::mem::take(&mut self.active) {
            self.device.reset();
        }
    }

    fn reset(&mut self) {
        self.stop();
        let Inner {
            device: _,
            status,
            offered: _,
            accepted,
            offered_half,
            accepted_half,
            selected,
            queues,
            generation: _,
            active: _,
        } = self;
        (*status, *accepted, *offered_half, *accepted_half, *selected) = (0, 0, 0, 0, 0);
        queues.fill(QueueRegisters::default());
    }
}
