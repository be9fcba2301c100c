//! What devices know of time.
//!
//! Owns the type of a moment. Must not know how a moment is read.

/// One moment, on the two clocks that matter to an APIC timer.
///
/// Both are of the same moment. If they are read one after the other, `tsc` should be read first: a
/// deadline in TSC cycles then comes out late by the time between the reads, never early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// The host's monotonic clock, in nanoseconds since an arbitrary start.
    pub ns: u64,
    /// The guest's time-stamp counter, in cycles.
    pub tsc: u64,
}
