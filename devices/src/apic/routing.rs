//! Which vCPUs an inter-processor interrupt is for.
//!
//! Owns, for each vCPU of a VM, what its APIC last said about where it can be reached. Must not know
//! inboxes or threads.
//!
//! | variable | lock | writer | reader | ordering |
//! |---|---|---|---|---|
//! | `entries[i]` | none, one word | whoever holds vCPU `i` (release store) | any sender (acquire load) | each other; a sender sees the old place or the new one, never half of each |
//! | `turn` | none (relaxed counter) | any sender | the same | none: any value is a fair start |
//!
//! A guest that moves an APIC while it is being sent to gets what it would get on hardware: either
//! place.
//!
//! | threat | answer |
//! |---|---|
//! | a destination that nobody has | the iterator is empty |
//! | a broadcast in a loop | costs one step for each vCPU, on the sender's own time |
//! | two APICs with one logical ID | both are targets, each once |

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::icr::{DeliveryMode, Ipi, Target};
use super::regs::{DFR_MODEL, LDR_LOGICAL_ID};
use super::{LocalApic, x2apic_ldr};

const XAPIC_BROADCAST: u32 = 0xff;
const X2APIC_BROADCAST: u32 = 0xffff_ffff;

/// Where one APIC can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    id: u32,
    /// Logical ID of xAPIC mode.
    logical: u8,
    /// The flat model, else the cluster model.
    flat: bool,
    x2apic: bool,
    /// Not disabled through IA32_APIC_BASE.
    present: bool,
    /// Software-enabled (SVR), too.
    enabled: bool,
}

impl Place {
    fn of(apic: &LocalApic) -> Self {
        let x2apic = apic.is_x2apic();
        Place {
            id: apic.id(),
            logical: if x2apic { 0 } else { ((apic.ldr() & LDR_LOGICAL_ID) >> 24) as u8 },
            flat: apic.dfr() & DFR_MODEL == DFR_MODEL,
            x2apic,
            present: x2apic || apic.mmio_base().is_some(),
            enabled: apic.enabled(),
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.id)
            | u64::from(self.logical) << 32
            | u64::from(self.flat) << 40
            | u64::from(self.x2apic) << 41
            | u64::from(self.present) << 42
            | u64::from(self.enabled) << 43
    }

    fn unpack(word: u64) -> Self {
        let bit = |n: u32| word & (1 << n) != 0;
        Place {
            id: word as u32,
            logical: (word >> 32) as u8,
            flat: bit(40),
            x2apic: bit(41),
            present: bit(42),
            enabled: bit(43),
        }
    }

    fn accepts_logical(&self, destination: u32) -> bool {
        if self.x2apic {
            let ldr = x2apic_ldr(self.id);
            return destination >> 16 == ldr >> 16 && destination & ldr & 0xffff != 0;
        }
        let Ok(destination) = u8::try_from(destination) else {
            return false;
        };
        if self.flat {
            destination & self.logical != 0
        } else {
            destination >> 4 == self.logical >> 4 && destination & self.logical & 0xf != 0
        }
    }
}

/// The routing table of one VM.
#[derive(Debug)]
pub struct Routing {
    entries: Box<[AtomicU64]>,
    turn: AtomicUsize,
}

impl Routing {
    /// A table for `n` vCPUs, vCPU `i` having APIC ID `i` and an APIC fresh from reset.
    #[must_use]
    pub fn new(n: usize) -> Self {
        let place = |i: usize| Place {
            // KVM allows far fewer vCPUs than there are IDs.
            id: u32::try_from(i).unwrap_or(X2APIC_BROADCAST),
            logical: 0,
            flat: true,
            x2apic: false,
            present: true,
            enabled: false,
        };
        Routing {
            entries: (0..n).map(|i| AtomicU64::new(place(i).pack())).collect(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Notes where vCPU `index`, whose APIC this is, can be reached from now on. To be called by its
    /// holder after [`super::Effect::Routing`] and after
    /// [`LocalApic::init_reset`]. An index outside the table is ignored.
    pub fn update(&self, index: usize, apic: &LocalApic) {
        if let Some(entry) = self.entries.get(index) {
            entry.store(Place::of(apic).pack(), Ordering::Release);
        }
    }

    /// The vCPUs that the interrupt is for, each once.
    ///
    /// [`DeliveryMode::LowestPriority`] goes to one of its destinations, a different one each time
    /// (which one is up to the processor: SDM 12.6.2.4), and to none that is software-disabled, which
    /// would lose it. An APIC disabled through IA32_APIC_BASE receives nothing. A sender in one mode reaches APICs in the other by their ID, by broadcast,
    /// and by a logical destination as far as the receiver understands it.
    pub fn resolve(&self, sender_index: usize, ipi: &Ipi) -> Targets<'_> {
        let one = ipi.mode == DeliveryMode::LowestPriority;
        let n = self.entries.len();
        let (start, left) = match ipi.target {
            Target::OnlySelf => (sender_index, usize::from(sender_index < n)),
            Target::Physical { destination, x2apic }
                if !is_broadcast(destination, x2apic) && self.is_at_own_index(destination) =>
            {
                (destination as usize, 1)
            }
            _ if one && n > 0 => (self.turn.fetch_add(1, Ordering::Relaxed) % n, n),
            _ => (0, n),
        };
        Targets { routing: self, sender: sender_index, target: ipi.target, one, at: start, left }
    }

    fn place(&self, index: usize) -> Option<Place> {
        self.entries.get(index).map(|entry| Place::unpack(entry.load(Ordering::Acquire)))
    }

    fn is_at_own_index(&self, id: u32) -> bool {
        self.place(id as usize).is_some_and(|place| place.id == id)
    }
}

fn is_broadcast(destination: u32, x2apic: bool) -> bool {
    destination == if x2apic { X2APIC_BROADCAST } else { XAPIC_BROADCAST }
}

/// The vCPUs that an interrupt is for, in ascending order but for
/// [`DeliveryMode::LowestPriority`], which has at most one.
#[derive(Debug)]
#[must_use]
pub struct Targets<'a> {
    routing: &'a Routing,
    sender: usize,
    target: Target,
    one: bool,
    at: usize,
    left: usize,
}

impl Targets<'_> {
    fn wants(&self, index: usize) -> bool {
        let receives = |place: &Place| place.present && (place.enabled || !self.one);
        let Some(place) = self.routing.place(index).filter(receives) else {
            return false;
        };
        match self.target {
            Target::OnlySelf => index == self.sender,
            Target::All => true,
            Target::AllButSelf => index != self.sender,
            Target::Physical { destination, x2apic } => {
                is_broadcast(destination, x2apic) || destination == place.id
            }
            Target::Logical { destination, x2apic } => {
                is_broadcast(destination, x2apic) || place.accepts_logical(destination)
            }
        }
    }
}

impl Iterator for Targets<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            let index = self.at;
            self.left -= 1;
            self.at = if index + 1 < self.routing.entries.len() { index + 1 } else { 0 };
            if self.wants(index) {
                if self.one {
                    self.left = 0;
                }
                return Some(index);
            }
        }
        None
    }
}
