//! A vCPU: its run word, its owned state, and the threads that run it.
//!
//! Start with `word` (who may run a vCPU) and `kick` (how a thread is told), then `cycle` (the loop
//! from one halt to the next), `home` (the life of a vCPU's own thread) and `duty` (expiring the
//! timers of halted vCPUs). This file owns the shared part of a vCPU and the only way to its owned
//! part, [`Held`]. Must not know what the exits mean.

#![allow(unsafe_code)] // `Held` hands out the owned part: the run word is its lock

mod budget;
mod cycle;
mod deadlines;
mod duty;
mod entry;
mod errands;
mod exits;
mod home;
mod host_timer;
mod in_kernel;
mod kick;
mod lateness;
mod lead;
mod membership;
#[cfg(all(test, loom))]
mod models;
mod place;
mod sync;
mod watch;
mod word;

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use devices::apic::{Inbox, LocalApic};
use devices::time::Moment;
use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use tmigr::Slot;

use crate::clock;
use crate::msr::{self, TscMove};
use crate::trail::Trail;
use crate::vm::VmShared;

pub use budget::{Backoff, ServiceTime, Share, Turns};
pub use home::{Worker, spawn};
pub(crate) use host_timer::HostTimer;
pub(crate) use kick::Entry;
pub use kick::{Place, ThreadState, admit_signal, hold_signal, signal_number, take_signal};
pub use lateness::Lateness;
pub use watch::Watch;
pub use word::{Post, RunWord, Snapshot, State, Tell};

/// What only the holder of the run word may touch.
pub struct Core {
    /// KVM's descriptor of the vCPU.
    pub fd: VcpuFd,
    run: *mut kvm_run,
    /// The local APIC's registers; unused in mode `kernel`.
    pub apic: LocalApic,
    /// Guest TSC minus host TSC, modulo 2^64.
    pub tsc_offset: u64,
    /// IA32_TSC_ADJUST.
    tsc_adjust: u64,
    /// The guest executed HLT and nothing that ends it was delivered since.
    pub halted: bool,
    /// An application processor between INIT and SIPI.
    pub wait_sipi: bool,
    /// A vector lies in the sync-regs area that KVM has not consumed yet.
    staged: bool,
    /// The last exit was answered with #GP, which the next entry raises.
    faulting: bool,
    /// An NMI was handed to KVM since the last entry.
    nmi_given: bool,
    /// The event state in the sync-regs area is that of the last exit.
    events_fresh: bool,
    /// IA32_APIC_BASE as KVM showed it last.
    apic_base: u64,
    /// Where the guest ends interrupts without an exit.
    eoi_flags: entry::EoiFlags,
    /// How long serving this vCPU takes.
    pub service: ServiceTime,
    /// The last exits, for crash reports.
    pub trail: Trail,
}

// SAFETY: the raw pointer is to the `kvm_run` mapping owned by `fd`, which may be used from any
// thread, one at a time; the run word sees to the latter.
unsafe impl Send for Core {}

impl Core {
    /// Wraps a vCPU that was set up and never run.
    #[must_use]
    pub fn new(mut fd: VcpuFd, apic: LocalApic, tsc_offset: u64, wait_sipi: bool) -> Self {
        let run: *mut kvm_run = fd.get_kvm_run();
        let apic_base = apic.base_msr();
        Core {
            fd,
            run,
            apic,
            tsc_offset,
            tsc_adjust: 0,
            halted: false,
            wait_sipi,
            staged: false,
            faulting: false,
            nmi_given: false,
            events_fresh: false,
            apic_base,
            eoi_flags: entry::EoiFlags::default(),
            service: ServiceTime::default(),
            trail: Trail::default(),
        }
    }

    /// Host time and this guest's TSC.
    #[must_use]
    pub fn moment(&self) -> Moment {
        clock::moment(self.tsc_offset)
    }

    fn run_page(&mut self) -> &mut kvm_run {
        // SAFETY: the mapping lives as long as `fd`; `&mut self` makes this the only reference.
        unsafe { &mut *self.run }
    }

    fn interrupts_enabled(&self) -> bool {
        // SAFETY: as above; a shared read.
        unsafe { (*self.run).if_flag != 0 }
    }

    /// Nothing keeps the vCPU from executing instructions right now. A vector or NMI that was handed
    /// to KVM for an entry that did not take place ends the halt as well.
    #[must_use]
    pub fn runnable(&self) -> bool {
        !self.wait_sipi && (!self.halted || self.wants_entry())
    }

    /// An interrupt or NMI is delivered as soon as the vCPU is entered: it can be taken, or was
    /// handed to KVM already, for an entry that did not take place.
    #[must_use]
    pub fn wants_entry(&self) -> bool {
        self.staged
            || self.nmi_given
            || (self.interrupts_enabled()
                && (self.apic.next_vector().is_some() || self.apic.extint_wanted()))
    }

    /// When the local APIC's timer wakes the halted vCPU: never while it could not (IF = 0, or its
    /// vector blocked by the priority).
    fn own_expiry(&self) -> Option<u64> {
        if !self.interrupts_enabled() || !self.apic.timer_vector_deliverable() {
            return None;
        }
        self.apic.deadline()
    }

    /// The guest has written IA32_APIC_BASE.
    fn tell_apic_base(&mut self) -> Result<(), kvm_ioctls::Error> {
        let value = self.apic.base_msr();
        if value != self.apic_base {
            msr::set_apic_base(&self.fd, value)?;
            self.apic_base = value;
        }
        Ok(())
    }

    /// The guest has moved its TSC, or tried to on a host where it cannot.
    fn move_tsc(&mut self, to: TscMove) -> Result<(), kvm_ioctls::Error> {
        let (offset, adjust) = to.apply(self.tsc_offset, self.tsc_adjust, clock::tsc());
        if msr::set_tsc(&self.fd, offset, adjust)? {
            (self.tsc_offset, self.tsc_adjust) = (offset, adjust);
            let now = self.moment();
            self.apic.tsc_changed(now);
        }
        Ok(())
    }
}

/// Counters of a vCPU and of its home thread; written by the thread that does the work, read by
/// reports. Relaxed: each is a figure of its own.
#[derive(Default)]
pub struct Stats {
    /// VM exits handled on the home thread, those of borrowed vCPUs included.
    pub exits: AtomicU64,
    /// Timers of other vCPUs that the home thread expired inline.
    pub inline: AtomicU64,
    /// Those of `inline` that were served while the own vCPU was halted.
    pub by_helper: AtomicU64,
    /// Vcpus that the home thread found due and handed to their own thread.
    pub handed_off: AtomicU64,
    /// Signals and wakes sent because a responsibility started or became earlier.
    pub kicks: AtomicU64,
    /// Time-outs of the home thread that found nothing to do.
    pub stale_timeouts: AtomicU64,
    /// Times that the share of borrowed runs was used up and the slot left the hierarchy.
    pub relieved: AtomicU64,
    /// Looks of the backstop that found the home thread overdue.
    pub overdue: AtomicU64,
    /// Times that the backstop woke this vCPU, because nobody served it.
    pub rescued: AtomicU64,
    /// Interrupts of this vCPU's APIC timer; written by its holder.
    pub timer_interrupts: AtomicU64,
    /// Times that the home thread slept because its VM had used up its CPU time.
    pub throttled: AtomicU64,
    /// Nanoseconds of the home thread spent in borrowed runs.
    pub lent_ns: AtomicU64,
    /// Timers of this vCPU that other threads expired inline.
    pub served: AtomicU64,
    /// Nanoseconds for which other threads ran this vCPU.
    pub served_ns: AtomicU64,
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// A vCPU as everybody may see it.
pub struct Vcpu {
    /// The VM it belongs to.
    pub vm: Arc<VmShared>,
    /// Its number in the VM, which is its APIC ID.
    pub index: u32,
    /// Its slot in the hierarchy.
    pub slot: Slot,
    /// Who may run it.
    pub word: RunWord,
    /// Where interrupts are posted.
    pub inbox: Inbox,
    /// Its home thread.
    pub thread: ThreadState,
    /// When its home thread is missed at its duty.
    pub watch: Watch,
    /// Its counters.
    pub stats: Stats,
    /// How late its timers were looked after while it was parked.
    pub lateness: Lateness,
    /// The timer with which it was parked last; `u64::MAX`: none. Written by the holder before it
    /// parks, read by the backstop while it is parked. Release/acquire.
    expiry: AtomicU64,
    /// It neither serves others nor is served. Written by the controller, which posts to the vCPU
    /// afterwards; read by its home thread. Release/acquire.
    isolated: AtomicBool,
    /// It is to stay out of the hierarchy for a while. Written by a migrator that hands it to its home
    /// thread, which takes it. Relaxed: the run word, handed over afterwards, orders it.
    sent_away: AtomicBool,
    core: UnsafeCell<Option<Core>>,
}

// SAFETY: everything but `core` is `Sync`; `core` is reached through `Held` alone, of which there
// is at most one for each vCPU because the run word's transitions grant it.
unsafe impl Sync for Vcpu {}

impl fmt::Display for Vcpu {
    /// Where it is, for messages about guests that do not end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load();
        let Stats { exits, inline, handed_off, .. } = &self.stats;
        let [exits, inline, handed_off] =
            [exits, inline, handed_off].map(|counter| counter.load(Ordering::Relaxed));
        write!(f, "vCPU {} (slot {}) is {:?}", self.index, self.slot.0, word.state())?;
        if word.pending() {
            write!(f, ", pending")?;
        }
        write!(f, "; {}", self.thread)?;
        write!(f, "; {exits} exits, {inline} served inline, {handed_off} handed off")
    }
}

impl Vcpu {
    /// A vCPU that its home thread will take, or that waits for its SIPI, as `core` says.
    #[must_use]
    pub fn new(vm: Arc<VmShared>, index: u32, slot: Slot, core: Core) -> Self {
        Vcpu {
            vm,
            index,
            slot,
            // In mode `kernel` KVM keeps application processors waiting.
            word: RunWord::new(core.wait_sipi),
            inbox: Inbox::new(),
            thread: ThreadState::default(),
            watch: Watch::default(),
            stats: Stats::default(),
            lateness: Lateness::default(),
            expiry: AtomicU64::new(u64::MAX),
            isolated: AtomicBool::new(false),
            sent_away: AtomicBool::new(false),
            core: UnsafeCell::new(Some(core)),
        }
    }

    fn held(&self, granted: bool) -> Option<Held<'_>> {
        granted.then_some(Held { vcpu: self })
    }

    /// The timer with which it was parked last, in host monotonic ns.
    #[must_use]
    pub fn expiry(&self) -> Option<u64> {
        Some(self.expiry.load(Ordering::Acquire)).filter(|at| *at != u64::MAX)
    }

    /// Whether it is kept out of the hierarchy.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.isolated.load(Ordering::Acquire)
    }

    /// Keeps it out of the hierarchy, or lets it in again. It has to be posted to, if it has a thread.
    pub fn set_isolated(&self, isolated: bool) {
        self.isolated.store(isolated, Ordering::Release);
    }

    /// A migrator that holds it, and is about to hand it to its home thread, cannot serve it in time.
    pub(crate) fn send_away(&self) {
        self.sent_away.store(true, Ordering::Relaxed);
    }

    /// Whether that was so; asked by its home thread.
    pub(crate) fn was_sent_away(&self) -> bool {
        self.sent_away.load(Ordering::Relaxed) && self.sent_away.swap(false, Ordering::Relaxed)
    }

    /// Host ns of the next timer of the chipset, if this vCPU looks after them.
    #[must_use]
    pub fn board_deadline(&self) -> Option<u64> {
        let board = &self.vm.board;
        if board.owner() == self.index { board.deadline() } else { None }
    }

    /// The home thread takes a vCPU that waits for it.
    #[must_use]
    pub fn take_waking(&self) -> Option<Held<'_>> {
        self.held(self.word.take_waking())
    }

    /// The home thread takes a parked vCPU.
    #[must_use]
    pub fn take_parked(&self) -> Option<Held<'_>> {
        self.held(self.word.take_parked())
    }

    /// The thread of vCPU `by` takes a parked vCPU.
    #[must_use]
    pub fn borrow(&self, by: Slot) -> Option<Held<'_>> {
        self.held(self.word.borrow(by.0))
    }
}

/// The right to run a vCPU. Given up by one of its methods; dropping it without is a defect that
/// leaves the vCPU held for ever, which `must_use` and the run loop's structure prevent.
#[must_use = "a held vCPU must be given up"]
pub struct Held<'a> {
    /// The shared part.
    pub vcpu: &'a Vcpu,
}

impl Held<'_> {
    /// Host ns at which a timer of this vCPU fires next: its APIC's, or one of the chipset's that it
    /// looks after.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        earlier(self.apic.deadline(), self.vcpu.board_deadline())
    }

    /// The expiry with which the halted vCPU enters the hierarchy. Timers that could not wake it are
    /// none; those of the chipset may be for another vCPU.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        if self.wait_sipi {
            return None;
        }
        let board = self.vcpu.board_deadline().filter(|_| {
            let vm = &self.vcpu.vm;
            self.interrupts_enabled() || vm.cpus > 1 || !vm.board.maskable()
        });
        earlier(self.own_expiry(), board).map(|at| self.vcpu.vm.limits.stretch(at))
    }

    /// The local APIC's registers, for a report; empty where KVM has it.
    #[must_use]
    pub fn apic_report(&self) -> String {
        if self.vcpu.vm.user_apic { self.apic.to_string() } else { String::new() }
    }

    /// Parks the vCPU, unless something is pending.
    ///
    /// # Errors
    /// The vCPU, still held: somebody posted, or wants it to stop.
    pub fn park(self) -> Result<(), Self> {
        self.vcpu.expiry.store(self.next_expiry().unwrap_or(u64::MAX), Ordering::Release);
        if self.vcpu.word.park() { Ok(()) } else { Err(self) }
    }

    /// Leaves an application processor waiting for its SIPI.
    ///
    /// # Errors
    /// As [`Held::park`].
    pub fn wait_sipi(self) -> Result<(), Self> {
        if self.vcpu.word.wait_sipi() { Ok(()) } else { Err(self) }
    }

    /// Pauses the vCPU, and tells whoever waits for that.
    ///
    /// # Errors
    /// The vCPU, still held: the pause was withdrawn, or it is to stop.
    pub fn pause(self) -> Result<(), Self> {
        // The guest's watchdogs shall know why time has passed (KVM API, "KVM_KVMCLOCK_CTRL"). It
        // fails where the guest has no such clock.
        let _ = self.fd.kvmclock_ctrl();
        // What becomes due meanwhile is not late.
        self.vcpu.expiry.store(u64::MAX, Ordering::Release);
        if !self.vcpu.word.pause() {
            return Err(self);
        }
        self.vcpu.vm.pauses.tell();
        Ok(())
    }

    /// Hands a borrowed vCPU to its home thread, which the caller must wake.
    pub fn hand_off(self) {
        self.vcpu.word.hand_off();
    }

    /// Ends the vCPU: its descriptor and mapping are freed here.
    pub fn finish(self) {
        // SAFETY: this is the holder, and no borrow of the core outlives it.
        drop(unsafe { (*self.vcpu.core.get()).take() });
        self.vcpu.word.finish();
    }
}

impl Deref for Held<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        // SAFETY: holding the run word excludes every other reference; see `Vcpu`'s `Sync`.
        unsafe { (*self.vcpu.core.get()).as_ref() }.expect("a held vCPU has not ended")
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        // SAFETY: as in `deref`.
        unsafe { (*self.vcpu.core.get()).as_mut() }.expect("a held vCPU has not ended")
    }
}

/// The earlier of two times, either of which may not be there.
pub(crate) fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
