//! What the comparison of `oracle.rs` is told beforehand: where Siesta is not done yet, and where an
//! oracle does not do what the manual says.
//!
//! Owns the two lists. `docs/controllers.md` has the second as prose.

/// A thing that Siesta's modes do not do yet.
pub(super) struct NotYet {
    /// The image.
    pub image: &'static str,
    /// The timer modes.
    pub modes: &'static [&'static str],
    /// The beginning of the names of the checks; empty: the whole image.
    pub check: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// An entry that is no longer needed fails the test that it is for.
pub(super) const NOT_YET: &[NotYet] = &[];

/// Who is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oracle {
    /// Siesta's mode `kernel`: KVM's controllers and PIT.
    Kernel,
    /// QEMU with KVM's controllers and PIT.
    QemuKvm,
    /// QEMU with KVM's local APIC alone.
    QemuSplit,
}

/// Where an oracle may differ from the manual.
pub(super) struct Differs {
    /// Who.
    pub who: &'static [Oracle],
    /// In which image.
    pub image: &'static str,
    /// The beginning of the names of the checks that fail there.
    pub check: &'static str,
}

const KVM: &[Oracle] = &[Oracle::Kernel, Oracle::QemuKvm, Oracle::QemuSplit];
const KVM_PIT: &[Oracle] = &[Oracle::Kernel, Oracle::QemuKvm];
const QEMU_PIT: &[Oracle] = &[Oracle::QemuSplit];

const fn differs(who: &'static [Oracle], image: &'static str, check: &'static str) -> Differs {
    Differs { who, image, check }
}

/// In the order of the table in `docs/controllers.md`.
pub(super) const DIFFERS: &[Differs] = &[
    differs(KVM, "apic-modes", "reenabled-"),
    differs(KVM, "apic-modes", "esr-send-illegal-vector"),
    differs(KVM, "apic-modes", "esr-illegal-register"),
    differs(KVM, "x2apic", "tpr-bit-8-faults"),
    differs(KVM, "x2apic", "eoi-other-than-zero-faults"),
    differs(KVM, "x2apic", "svr-bit-10-faults"),
    differs(KVM, "x2apic", "timer-bit-"),
    differs(KVM, "x2apic", "thermal-bit-"),
    differs(KVM, "x2apic", "performance-bit-"),
    differs(KVM, "x2apic", "lint0-bit-"),
    differs(KVM, "x2apic", "lint1-bit-"),
    differs(KVM, "x2apic", "error-bit-"),
    differs(KVM, "x2apic", "tdcr-bit-"),
    // KVM's local APIC on a PVM-type host alone: nothing is ever in service.
    differs(KVM, "apic-modes", "isr-in-handler"),
    differs(KVM, "apic-modes", "ppr-in-handler"),
    differs(KVM, "apic-modes", "higher-class-nests"),
    differs(KVM, "apic-modes", "own-class-does-not-nest"),
    differs(KVM, "pv-eoi", "bit-is-set-"),
    // On a busy host KVM may notice an expiry later than the count says, and the mask then is off.
    differs(KVM, "apic-modes", "masked-expiry-is-lost"),
    // KVM leaves an armed deadline's timer of the host as it is. Only where the TSC can be moved.
    differs(KVM, "clock", "deadline-left-in-the-past-fires-at-once"),
    differs(KVM, "clock", "deadline-is-postponed-"),
    differs(KVM, "clock", "deadline-comes-near-with-the-counter"),
    differs(KVM, "clock", "deadline-is-met-by-what-is-written"),
    differs(KVM_PIT, "pic", "poll-acknowledges"),
    differs(KVM, "pit", "port61-closed-gate-stops-mode-0"),
    differs(KVM_PIT, "ioapic", "entry-reserved-bits-are-zero"),
    differs(KVM, "rtc", "periodic-stops"),
    differs(KVM_PIT, "ioapic", "level-comes-again-after-eoi"),
    differs(QEMU_PIT, "ioapic", "low-level-is-silent"),
    differs(QEMU_PIT, "pit", "ioapic-mode-3-fires-at-its-rate"),
];

/// Image and beginning of the name of checks that a busy host can fail, as they count or wait for the
/// host's time; all others hold however late the guest runs. The one line that the guests can raise
/// on every board is the PIT's, which comes when a thread of the host has its turn.
pub(super) const TIMED: &[(&str, &str)] = &[
    ("pit", ""),
    ("pic", ""),
    ("ioapic", ""),
    ("rtc", ""),
    ("nmi", "nmi-behind-another-"),
    ("apic-modes", "timer-divides-by-16"),
    ("apic-modes", "timer-keeps-its-count"),
    ("apic-modes", "periodic-reloads"),
    ("apic-modes", "stopped-timer-does-not-fire"),
    ("apic-modes", "deadline-zero-disarms"),
    ("apic-modes", "deadline-mode-left-disarms"),
];
