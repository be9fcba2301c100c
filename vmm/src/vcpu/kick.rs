//! Kicking and waking threads, whatever vCPU they happen to run.
//!
//! Owns the state of a vCPU thread as others see it (in host code, in some guest, asleep), the
//! signal that gets it out of `KVM_RUN`, and the futex it sleeps on. Must not know run words, the
//! hierarchy or why somebody is kicked.
//!
//! | variable | writer | reader | ordering, and what it pairs with |
//! |---|---|---|---|
//! | `place` | its thread: `HOST`/`GUEST`; a kicker: `GUEST -> KICKED` | kickers | SeqCst; a kicker's flag (a run word's `PENDING`, `attention`) is written before `place` is read, the thread writes `place` before it reads the flags (race 2) |
//! | `attention` | kickers set, its thread clears | its thread | SeqCst, as above |
//! | `futex` | its thread `AWAKE -> ASLEEP -> AWAKE`; a waker: `-> TOKEN` | both | SeqCst exchange; a token left while awake makes the next sleep return at once (race 3) |
//!
//! The signal is blocked in a vCPU thread's host code and unblocked by KVM while it runs the guest (KVM
//! API, "KVM_SET_SIGNAL_MASK"). So it is never delivered, which would cost a stack frame and a system
//! call each time: it ends the run, or keeps the next one from starting, and the thread takes it in.
//!
//! **Race 2, post against entry.** The thread has looked at its flags and is about to enter the
//! guest; a sender posts now. The thread stores `GUEST` and looks at the flags *again*; the sender
//! stores the flag and then reads `place`. One of both sees the other (SeqCst on both sides). If it
//! is the sender, the signal comes before, in or after the ioctl: pending, it ends a `KVM_RUN` that
//! is entered after it at once. What comes too late ends the next one, which costs an entry and no
//! more.
//!
//! **Race 3, wake against sleep.** A wake before the sleep leaves a token.

#![allow(unsafe_code)] // futex, tgkill and signal masks have no safe interface

use std::fmt;
use std::mem;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use kvm_bindings::{KVMIO, kvm_signal_mask};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::place::{Nap, PlaceWord};

/// Size of the kernel's set of signals (KVM API, "KVM_SET_SIGNAL_MASK").
const KERNEL_SET_BYTES: usize = 8;

ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);

/// The signal of kicks and of the threads' host timers.
#[must_use]
pub fn signal_number() -> libc::c_int {
    libc::SIGRTMIN()
}

/// The set of the signal alone.
fn only_signal() -> libc::sigset_t {
    // SAFETY: the set is initialised before use.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal_number());
        set
    }
}

/// Blocks the signal for the calling thread, to which nothing may have sent it before. From then on it
/// ends the thread's `KVM_RUN`s and nothing else.
pub fn hold_signal() {
    // SAFETY: the set outlives the call, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &only_signal(), ptr::null_mut()) };
}

/// Lets the signal, and what else is not blocked in the calling thread, end this vCPU's runs, on
/// whatever thread.
///
/// # Errors
/// KVM refuses.
pub fn admit_signal(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    #[repr(C)]
    struct Mask {
        head: kvm_signal_mask,
        set: [u8; KERNEL_SET_BYTES],
    }
    let mut mask = Mask {
        head: kvm_signal_mask { len: KERNEL_SET_BYTES as u32, ..Default::default() },
        set: [0; KERNEL_SET_BYTES],
    };
    // SAFETY: the set is initialised by the call and outlives all uses; the kernel's set is the first
    // bytes of the C library's, and of nothing but bytes; the structure outlives the ioctl, which reads
    // as many bytes behind its head as `len` says.
    let rc = unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut set);
        libc::sigdelset(&mut set, signal_number());
        ptr::copy_nonoverlapping((&raw const set).cast(), mask.set.as_mut_ptr(), KERNEL_SET_BYTES);
        ioctl_with_ref(&vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK(), &mask.head)
    };
    if rc == 0 { Ok(()) } else { Err(kvm_ioctls::Error::last()) }
}

/// Takes in one signal that ended a run, or came at another time; none may have come.
pub fn take_signal() {
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: set and time outlive the call; nothing is written.
    unsafe { libc::sigtimedwait(&only_signal(), ptr::null_mut(), &at_once) };
}

/// Where a vCPU thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In host code.
    Host,
    /// In the guest of some vCPU.
    Guest,
    /// In a guest, and told to come out.
    Kicked,
    /// In [`ThreadState::sleep`].
    Asleep,
}

/// What others may do to a vCPU thread. Shared; see the table at the head of the file.
pub struct ThreadState {
    place: PlaceWord,
    attention: AtomicBool,
    futex: Nap,
    tid: AtomicI32,
}

impl Default for ThreadState {
    fn default() -> Self {
        ThreadState {
            place: PlaceWord::new(),
            attention: AtomicBool::new(false),
            futex: Nap::new(),
            tid: AtomicI32::new(0),
        }
    }
}

impl fmt::Display for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place() {
            Place::Host => "in host code",
            Place::Guest => "in a guest",
            Place::Kicked => "kicked",
            Place::Asleep => "asleep",
        };
        write!(f, "its thread is {place}")
    }
}

impl ThreadState {
    /// To be called by the thread itself, before anybody can need to kick it.
    pub fn adopt_current_thread(&self) {
        // SAFETY: takes no argument and cannot fail.
        let tid = unsafe { libc::gettid() };
        self.tid.store(tid, Ordering::SeqCst);
    }

    /// The kernel's id of the thread; 0 before it started.
    #[must_use]
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    /// Where the thread was at some moment.
    #[must_use]
    pub fn place(&self) -> Place {
        match self.place.seen() {
            Place::Host if self.futex.asleep() => Place::Asleep,
            place => place,
        }
    }

    /// Gets the thread out of whatever guest it is in. In host code it looks at its flags before it
    /// enters; asleep, it is none of a kick's business.
    pub fn kick(&self) {
        if self.place.kick() {
            // SAFETY: plain system call; a thread that is gone gives ESRCH.
            unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    libc::getpid(),
                    self.tid.load(Ordering::SeqCst),
                    signal_number(),
                )
            };
        }
    }

    /// Makes the thread look at its responsibility in the hierarchy again, wherever it is.
    pub fn call_attention(&self) {
        self.attention.store(true, Ordering::SeqCst);
        self.kick();
        self.wake();
    }

    /// Clears the attention flag, to be called *before* what it stands for is looked at.
    pub fn clear_attention(&self) {
        if self.attention.load(Ordering::Relaxed) {
            self.attention.store(false, Ordering::SeqCst);
        }
    }

    /// Somebody called for attention since it was cleared.
    #[must_use]
    pub fn attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Wakes the thread if it sleeps in [`ThreadState::sleep`], or lets its next sleep return at
    /// once. Answers whether it slept.
    pub fn wake(&self) -> bool {
        let slept = self.futex.wake();
        if slept {
            self.wake_futex();
        }
        slept
    }

    /// The same for a thread that somebody may have begun to wake and was stopped: the word says that it
    /// is awake then, and it sleeps on in the kernel. Answers whether it slept.
    pub fn rouse(&self) -> bool {
        let _ = self.futex.wake();
        self.wake_futex()
    }

    /// Answers whether anybody slept.
    fn wake_futex(&self) -> bool {
        // SAFETY: the futex word outlives the call; FUTEX_WAKE takes no further pointer.
        let woken = unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.futex.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            )
        };
        woken > 0
    }

    /// Sleeps until woken or until `deadline` (host monotonic nanoseconds; `None`: no time-out).
    /// May return early; the caller looks at the state of the world, not at the reason.
    pub fn sleep(&self, deadline: Option<u64>) {
        if self.futex.begin() {
            let timeout = deadline.map(|ns| libc::timespec {
                tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: (ns % 1_000_000_000) as i64,
            });
            // SAFETY: the futex word and the timespec outlive the call. FUTEX_WAIT_BITSET takes an
            // absolute time of CLOCK_MONOTONIC (futex(2)).
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.futex.as_ptr(),
                    libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                    Nap::ASLEEP,
                    timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
                    ptr::null::<u32>(),
                    libc::FUTEX_BITSET_MATCH_ANY,
                )
            };
        }
        self.futex.end();
    }
}

/// The time between the announcement "in the guest" and the return to host code. Dropped before
/// the run word is given up.
pub struct Entry<'a>(&'a ThreadState);

impl<'a> Entry<'a> {
    /// Announces the entry. After this, and before `KVM_RUN`, the caller looks at every flag that a
    /// kick may stand for.
    #[must_use]
    pub fn new(thread: &'a ThreadState) -> Self {
        thread.place.enter();
        Entry(thread)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.place.leave();
    }
}
