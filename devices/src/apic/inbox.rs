//! What others want of an APIC that they do not hold.
//!
//! Owns the requests between their posting and the holder's [`super::LocalApic::pull`]. Any thread
//! posts, without a lock; only the holder takes. Must not know who has to be woken: the poster tells
//! the holder after the post, through a word of its own (`PENDING`).
//!
//! | variable | writer | reader | ordering | pairs with |
//! |---|---|---|---|---|
//! | `vectors`, `events` | any poster (`fetch_or`, exchange; SeqCst) | the holder (load, SeqCst; `swap`, acquire) | what the poster wrote to guest memory before is visible to the guest that takes the interrupt; and the order of race 4 | the other; `PENDING` |
//! | `levels` | any poster (`fetch_or`, release), before `LEVEL` in `events` | the holder (`swap`, acquire), after it | race 3 | `events` |
//!
//! On x86 a `SeqCst` load costs what any load costs, and so does a `SeqCst` exchange.
//!
//! Races:
//! 1. *INIT after SIPI or NMI.* All are bits of one word, so a post of INIT withdraws a SIPI, and NMIs,
//!    that were not taken yet. A holder that finds others beside INIT may conclude that INIT came first.
//! 2. *Two SIPIs.* The first one counts, as it would for a processor that waits (SDM 9.4.4.1).
//! 3. *A level-triggered vector.* Its bit is set before `LEVEL`: a holder that finds `LEVEL` finds the
//!    bit, and one that does not is made to look again.
//! 4. *A post during a look.* The holder clears `PENDING` before it looks and the poster sets it after
//!    the post, so either this look finds the post or another one follows. A poster that finds
//!    `PENDING` set leaves it at that: whoever clears it later must see the post. That is a store
//!    before a load on both sides, so all four accesses are `SeqCst`, the poster's reading of
//!    `PENDING` among them.
//! 5. *A vector posted before INIT.* A look may find INIT and miss the vector, as they are two words.
//!    The vector's own `PENDING` makes the holder look again before the guest runs, and a reset APIC
//!    drops it.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

const SIPI_VECTOR: u32 = 0xff;
const SIPI: u32 = 1 << 8;
const NMI: u32 = 1 << 9;
const INIT: u32 = 1 << 10;
const TIMER: u32 = 1 << 11;
const EXTINT: u32 = 1 << 12;
const LEVEL: u32 = 1 << 13;
const SECOND_NMI: u32 = 1 << 14;

/// The inbox of one local APIC.
#[derive(Debug, Default)]
pub struct Inbox {
    /// Edge-triggered interrupts.
    vectors: [AtomicU64; 4],
    /// Level-triggered ones.
    levels: [AtomicU64; 4],
    events: AtomicU32,
}

/// The parts of an inbox that are not vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Pulled {
    /// How many NMIs were posted, 0 to 2: one that is delivered at once and one that waits for its
    /// IRET. A processor drops what comes beyond (SDM 7.7.1: only one is remembered).
    pub nmis: u8,
    /// INIT was posted: the owner resets the vCPU, the APIC included
    /// ([`super::LocalApic::init_reset`]), before it looks at `sipi` and `nmis`.
    pub init: bool,
    /// The vector of a start-up IPI. If `init` is set too, INIT came first.
    pub sipi: Option<u8>,
    /// Somebody found this APIC's timer due: [`super::LocalApic::advance`] is to be called.
    pub timer: bool,
    /// An external interrupt was posted. [`super::LocalApic::pull`] has noted it.
    pub extint: bool,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Inbox::default()
    }

    /// Posts an edge-triggered interrupt. Vectors below 16 are noted in the receiver's ESR.
    pub fn post(&self, vector: u8) {
        self.vectors[usize::from(vector / 64)].fetch_or(1 << (vector % 64), Ordering::SeqCst);
    }

    /// Posts a level-triggered interrupt, the same way.
    pub fn post_level(&self, vector: u8) {
        self.levels[usize::from(vector / 64)].fetch_or(1 << (vector % 64), Ordering::Release);
        // So that a look at the events alone tells that there is one.
        self.events.fetch_or(LEVEL, Ordering::SeqCst);
    }

    /// Posts an external interrupt.
    pub fn post_extint(&self) {
        self.events.fetch_or(EXTINT, Ordering::SeqCst);
    }

    /// Posts an NMI.
    pub fn post_nmi(&self) {
        self.change(|events| events | NMI | if events & NMI == 0 { 0 } else { SECOND_NMI });
    }

    /// Posts INIT, and withdraws a start-up IPI and NMIs that were not taken yet: a processor that
    /// starts has no NMI of its former life pending, as KVM has it, too.
    pub fn post_init(&self) {
        self.change(|events| events & !(SIPI | SIPI_VECTOR | NMI | SECOND_NMI) | INIT);
    }

    /// Posts a start-up IPI. It does not replace one that was not taken yet.
    pub fn post_sipi(&self, vector: u8) {
        self.change(|events| match events & SIPI {
            0 => events | SIPI | u32::from(vector),
            _ => events,
        });
    }

    /// Tells the holder that the timer is due.
    pub fn post_timer(&self) {
        self.events.fetch_or(TIMER, Ordering::SeqCst);
    }

    /// Takes the edge-triggered vectors, 64 in a word, lowest first.
    pub(super) fn take_vectors(&self) -> [u64; 4] {
        self.vectors.each_ref().map(take)
    }

    /// Takes the rest: the level-triggered vectors, and what is no vector.
    pub(super) fn take_events(&self) -> ([u64; 4], Pulled) {
        let events = match self.events.load(Ordering::SeqCst) {
            0 => 0,
            _ => self.events.swap(0, Ordering::Acquire),
        };
        let levels = if events & LEVEL == 0 { [0; 4] } else { self.levels.each_ref().map(take) };
        let pulled = Pulled {
            nmis: u8::from(events & NMI != 0) + u8::from(events & SECOND_NMI != 0),
            init: events & INIT != 0,
            sipi: (events & SIPI != 0).then_some((events & SIPI_VECTOR) as u8),
            timer: events & TIMER != 0,
            extint: events & EXTINT != 0,
        };
        (levels, pulled)
    }

    fn change(&self, next: impl Fn(u32) -> u32) {
        let mut seen = self.events.load(Ordering::Relaxed);
        while let Err(now) =
            self.events.compare_exchange_weak(seen, next(seen), Ordering::SeqCst, Ordering::Relaxed)
        {
            seen = now;
        }
    }
}

fn take(word: &AtomicU64) -> u64 {
    match word.load(Ordering::SeqCst) {
        0 => 0,
        _ => word.swap(0, Ordering::Acquire),
    }
}
