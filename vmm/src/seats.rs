//! Which vCPU has which slot, while VMs come and go.
//!
//! Owns the table from slots to vCPUs and the time at which a vCPU that left may be freed. Must not
//! know how slots are chosen, nor what a vCPU is.
//!
//! | variable | writer | reader | ordering |
//! |---|---|---|---|
//! | each seat | the controller: in, and out once the vCPU's thread has ended | any thread, pinned | release/acquire; a vCPU that was taken out is freed when every thread that was pinned then has unpinned (epochs) |
//!
//! Pinning takes no lock and costs one fence, so a migrator's pass pins once, not once for each vCPU.

#![allow(unsafe_code)] // an epoch's guard, not a lifetime, keeps a vCPU alive

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crossbeam_epoch::{self as epoch, Atomic, Guard, Owned};

use crate::vcpu::Vcpu;

/// Between two looks at whether something was freed.
const ROUND: Duration = Duration::from_micros(50);

/// The table of one domain.
pub struct Seats(Box<[Atomic<Arc<Vcpu>>]>);

impl Seats {
    /// A table of `count` slots, all empty.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Seats((0..count).map(|_| Atomic::null()).collect())
    }

    /// How many slots there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.len() as u32
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The vCPU in a slot, for as long as the thread is pinned.
    #[must_use]
    pub fn get<'g>(&self, slot: u32, guard: &'g Guard) -> Option<&'g Vcpu> {
        let seated = self.0.get(slot as usize)?.load(Ordering::Acquire, guard);
        // SAFETY: what is in a seat is valid until every guard that was there when it left has gone
        // (`leave`); `guard` was there when it was found.
        unsafe { seated.as_ref() }.map(Arc::as_ref)
    }

    /// Puts a vCPU into its slot, which must be free.
    pub fn take(&self, slot: u32, vcpu: Arc<Vcpu>) {
        if let Some(seat) = self.0.get(slot as usize) {
            let guard = epoch::pin();
            let before = seat.swap(Owned::new(vcpu), Ordering::AcqRel, &guard);
            debug_assert!(before.is_null(), "slot {slot} is taken");
        }
    }

    /// Takes a vCPU out of its slot.
    pub fn leave(&self, slot: u32) {
        let Some(seat) = self.0.get(slot as usize) else { return };
        let guard = epoch::pin();
        let before = seat.swap(epoch::Shared::null(), Ordering::AcqRel, &guard);
        if !before.is_null() {
            // SAFETY: it was swapped out by this call alone, and nobody finds it any more.
            unsafe { guard.defer_destroy(before) };
            // VMs hold memory and descriptors, so they shall not wait for the next thread that pins.
            guard.flush();
        }
    }
}

/// Hurries the freeing of vCPUs that have left, until `freed` or for `limit`: passes that were under
/// way have ended by then.
pub fn settle(limit: Duration, freed: impl Fn() -> bool) {
    let rounds = limit.as_micros() / ROUND.as_micros();
    for _ in 0..rounds {
        epoch::pin().flush();
        if freed() {
            return;
        }
        thread::sleep(ROUND);
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        for seat in &mut self.0 {
            // SAFETY: nobody has a reference to the table any more, so this is the only one to take
            // what is left in it; null is told apart.
            drop(unsafe { std::mem::replace(seat, Atomic::null()).try_into_owned() });
        }
    }
}
