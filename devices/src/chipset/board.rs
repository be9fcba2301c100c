//! The chipset as several threads share it.
//!
//! Owns the chipset's lock, and what is published of it for a look without the lock. Must not know
//! who carries out the errands, nor threads.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | `chipset` | whoever holds its lock, for one access | the same | the lock |
//! | `deadline` | under the lock | the holder of the vCPU that looks after the chipset's timers | release/acquire; who makes it earlier posts to that vCPU afterwards ([`Errand::Earlier`]) |
//! | `intr` | under the lock | the holder of a vCPU whose LINT0 it drives | release/acquire; who changes it posts to that vCPU afterwards ([`Errand::Intr`]) |
//! | `maskable` | under the lock | the holder of the owner, before it parks | release/acquire; as `deadline`, which changes with it |
//! | `order` | nobody: it is a lock alone, held while errands are carried out | | the lock |
//! | `owner` | the holder of the vCPU that owned it before | anybody | release/acquire; the new owner is posted to afterwards |
//!
//! The lock is held for one access, never while a local APIC or a thread is told: errands are taken
//! out one by one and carried out without it. Whoever finds one carries it out; two threads may each
//! carry part, as two buses would. Levels of lines alone have an order: [`Board::in_order`].

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ports::{IOAPIC, PORTS};
use super::{Chipset, ChipsetConfig, Errand, LineLevel, Region};
use crate::bus::{BusBuilder, BusError, Device, Outcome};

const NEVER: u64 = u64::MAX;

struct Inner {
    chipset: Chipset,
    intr_changed: bool,
    earlier: bool,
}

/// The chipset of one VM, shared.
pub struct Board {
    inner: Mutex<Inner>,
    deadline: AtomicU64,
    intr: AtomicBool,
    maskable: AtomicBool,
    owner: AtomicU32,
    external: bool,
    order: Mutex<()>,
}

impl Board {
    /// A board after power-up. Its timers belong to vCPU 0.
    #[must_use]
    pub fn new(config: &ChipsetConfig) -> Self {
        let inner = Inner { chipset: Chipset::new(config), intr_changed: false, earlier: false };
        Board {
            inner: Mutex::new(inner),
            deadline: AtomicU64::new(NEVER),
            intr: AtomicBool::new(false),
            maskable: AtomicBool::new(true),
            owner: AtomicU32::new(0),
            external: config.external_controllers,
            order: Mutex::new(()),
        }
    }

    /// With external controllers: to be held from before [`Board::take_errand`] until what it answered
    /// has been carried out. Else one thread may tell of a line's fall before another has told of its
    /// rise, which it took earlier; and a guest may go on whose line has not fallen yet. Without, there
    /// are no lines to be told of, and nothing to wait for.
    pub fn in_order(&self) -> Option<MutexGuard<'_, ()>> {
        self.external.then(|| self.order.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the chipset's ports and addresses on a bus; with external controllers only those that
    /// are not theirs.
    ///
    /// # Errors
    /// [`BusError`]: another device has part of them.
    pub fn attach(self: &Arc<Self>, mut bus: BusBuilder) -> Result<BusBuilder, BusError> {
        let external = self.lock().chipset.external;
        let part = |region| Box::new(Part { board: Arc::clone(self), region });
        for (ports, region) in PORTS {
            if !(external && region.of_controllers()) {
                bus = bus.pio(ports, part(region))?;
            }
        }
        if !external {
            let addresses: RangeInclusive<u64> = IOAPIC;
            bus = bus.mmio(addresses, part(Region::IoApic))?;
        }
        Ok(bus)
    }

    /// Does something to the chipset, whose timers are up to `now` (host monotonic ns) by then.
    /// Answers what `with` answers, and whether there are errands to be carried out.
    pub fn with<R>(&self, now: u64, with: impl FnOnce(&mut Chipset) -> R) -> (R, bool) {
        let mut inner = self.lock();
        inner.chipset.advance(now);
        let answer = with(&mut inner.chipset);
        let any = self.publish(&mut inner);
        (answer, any)
    }

    /// What is to be done next, if anything.
    pub fn take_errand(&self) -> Option<Errand> {
        let mut inner = self.lock();
        if let Some(message) = inner.chipset.take_message() {
            return Some(Errand::Message(message));
        }
        if std::mem::take(&mut inner.intr_changed) {
            return Some(Errand::Intr);
        }
        if std::mem::take(&mut inner.earlier) {
            return Some(Errand::Earlier);
        }
        inner.chipset.has_line().then_some(Errand::Lines)
    }

    /// Tells external controllers of all changes of lines, one after the other, under
    /// [`Board::in_order`].
    pub fn tell_lines(&self, mut tell: impl FnMut(LineLevel)) {
        loop {
            let level = self.lock().chipset.take_line();
            let Some(level) = level else { break };
            tell(level);
        }
    }

    /// Host ns at which [`Board::with`] is to be called next, by the owner's holder.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        Some(self.deadline.load(Ordering::Acquire)).filter(|at| *at != NEVER)
    }

    /// The PIC's output.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.intr.load(Ordering::Acquire)
    }

    /// All that the timers can cause is maskable interrupts: no NMI, INIT or SMI.
    #[must_use]
    pub fn maskable(&self) -> bool {
        self.maskable.load(Ordering::Acquire)
    }

    /// The vCPU that looks after the timers.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner.load(Ordering::Acquire)
    }

    /// Makes another vCPU look after the timers. It has to be told.
    pub fn give_to(&self, vcpu: u32) {
        self.owner.store(vcpu, Ordering::Release);
    }

    fn publish(&self, inner: &mut Inner) -> bool {
        let deadline = inner.chipset.deadline().unwrap_or(NEVER);
        let before = self.deadline.load(Ordering::Relaxed);
        if deadline != before {
            self.deadline.store(deadline, Ordering::Release);
            inner.earlier |= deadline < before;
        }
        self.maskable.store(inner.chipset.maskable(), Ordering::Release);
        let intr = inner.chipset.intr();
        if intr != self.intr.load(Ordering::Relaxed) {
            self.intr.store(intr, Ordering::Release);
            inner.intr_changed = true;
        }
        inner.intr_changed || inner.earlier || inner.chipset.has_errand()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A chipset is valid between any two of its statements.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A range of the bus that belongs to the chipset.
struct Part {
    board: Arc<Board>,
    region: Region,
}

impl Device for Part {
    fn read(&mut self, offset: u64, data: &mut [u8], now: u64) -> Outcome {
        let read = |chipset: &mut Chipset| chipset.read(self.region, offset, data, now);
        let ((), errands) = self.board.with(now, read);
        if errands { Outcome::Errands } else { Outcome::None }
    }

    fn write(&mut self, offset: u64, data: &[u8], now: u64) -> Outcome {
        let write = |chipset: &mut Chipset| chipset.write(self.region, offset, data, now);
        match self.board.with(now, write) {
            (Outcome::None, true) => Outcome::Errands,
            (outcome, _) => outcome,
        }
    }
}
