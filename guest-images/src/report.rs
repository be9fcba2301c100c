//! Report pages: what a guest tells the host about its ticks, without an exit.
//!
//! Each vCPU has one 4 KiB page at a fixed guest-physical address, which the
//! guest alone writes and the host may copy at any time. A copy taken while the
//! guest runs is not one instant: each field is whole, but the histogram may be
//! a tick ahead of `ticks` or behind it. This module owns the layout's host
//! side; it must not know how the page is read. Everything in a page is the
//! guest's word and is believed for nothing but the report itself.

/// Guest-physical address of vCPU 0's page.
pub const REPORT_BASE: u64 = 0x28_0000;
/// Size of a page in bytes.
pub const REPORT_BYTES: usize = 4096;
/// Most vCPUs that have a page.
pub const MAX_VCPUS: u32 = 64;
/// First eight bytes of a page in use, `SIESTRPT`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SIESTRPT");
/// The layout that this module decodes.
pub const VERSION: u32 = 1;
/// Linear buckets in each octave, as a power of two: a bucket is at most 1/16
/// of its lower edge wide.
pub const SUB_BUCKET_BITS: u32 = 4;
/// Buckets of the lateness histogram: 16 single cycles, then 16 for each of the
/// octaves from 2^4 to 2^64 cycles.
pub const BUCKETS: usize = 976;

const HISTOGRAM_OFFSET: usize = 0x80;

/// Guest-physical address of the page of `vcpu`. Only vCPUs below [`MAX_VCPUS`]
/// have one; beyond, the result is an address like any other.
#[must_use]
pub const fn report_address(vcpu: u32) -> u64 {
    REPORT_BASE + vcpu as u64 * REPORT_BYTES as u64
}

/// The bucket that a lateness of `cycles` TSC cycles falls into, below
/// [`BUCKETS`].
#[must_use]
pub fn bucket_of(cycles: u64) -> usize {
    let octave = (cycles | 1 << SUB_BUCKET_BITS).ilog2() - SUB_BUCKET_BITS;
    (octave << SUB_BUCKET_BITS) as usize + (cycles >> octave) as usize
}

/// The largest lateness in TSC cycles that falls into bucket `index`; indices
/// past the last bucket answer as the last one.
#[must_use]
pub fn bucket_top(index: usize) -> u64 {
    let index = index.min(BUCKETS - 1) as u64;
    let octave = (index >> SUB_BUCKET_BITS).saturating_sub(1);
    let mantissa = index - (octave << SUB_BUCKET_BITS);
    // The last bucket's upper edge is 2^64 - 1: shift the ones in.
    (mantissa << octave) | ((1 << octave) - 1)
}

/// How far a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Started, not at its end.
    Running,
    /// Everything it was asked for is done; the page will not change.
    Done,
}

/// One page, decoded, or several added up ([`Report::merge`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Index of the vCPU that the page belongs to; of the first one after a
    /// merge.
    pub vcpu: u32,
    /// Timer interrupts handled (image `tick`) or IPIs received (`ipi`).
    pub ticks: u64,
    /// Iterations of the user-mode loop (image `busy`), in steps of 1024.
    pub progress: u64,
    /// Ticks that came before their deadline.
    pub early: u64,
    /// Deadlines of a periodic timer that passed without a tick of their own.
    pub lost: u64,
    /// Largest lateness in TSC cycles, since the start (a difference keeps it).
    pub max_lateness: u64,
    /// TSC frequency in kHz that the guest believes; 0: it does not know.
    pub tsc_khz: u64,
    /// Distance of two ticks in TSC cycles; 0: no ticks.
    pub period: u64,
    /// How far the guest is; after a merge `Done` only if all are.
    pub state: State,
    /// Ticks by lateness in TSC cycles, see [`bucket_of`].
    pub histogram: Box<[u64; BUCKETS]>,
}

fn word(page: &[u8; REPORT_BYTES], offset: usize) -> u64 {
    u64::from(half(page, offset)) | u64::from(half(page, offset + 4)) << 32
}

fn half(page: &[u8; REPORT_BYTES], offset: usize) -> u32 {
    let bytes = [page[offset], page[offset + 1], page[offset + 2], page[offset + 3]];
    u32::from_le_bytes(bytes)
}

impl Report {
    /// Decodes a page. `None`: no guest has opened it, or its layout is
    /// another version's.
    #[must_use]
    pub fn decode(page: &[u8; REPORT_BYTES]) -> Option<Self> {
        let known = word(page, 0x00) == MAGIC
            && half(page, 0x08) == VERSION
            && half(page, 0x50) as usize == BUCKETS
            && half(page, 0x54) == SUB_BUCKET_BITS;
        let state = match half(page, 0x60) {
            1 => State::Running,
            2 => State::Done,
            _ => return None,
        };
        let mut histogram = Box::new([0; BUCKETS]);
        for (index, bucket) in histogram.iter_mut().enumerate() {
            *bucket = u64::from(half(page, HISTOGRAM_OFFSET + 4 * index));
        }
        known.then_some(Self {
            vcpu: half(page, 0x0c),
            ticks: word(page, 0x10),
            progress: word(page, 0x18),
            early: word(page, 0x20),
            lost: word(page, 0x28),
            max_lateness: word(page, 0x30),
            tsc_khz: word(page, 0x38),
            period: word(page, 0x40),
            state,
            histogram,
        })
    }

    /// Ticks in the histogram.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.histogram.iter().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// The lateness in TSC cycles that the share `q` (0 to 1, clamped) of the
    /// ticks does not exceed: the upper edge of its bucket, at most 1/16 too
    /// large, and never above [`Report::max_lateness`]. 0 without ticks.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let samples = self.samples();
        if samples == 0 {
            return 0;
        }
        let rank = ((samples as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0_u64;
        for (index, &count) in self.histogram.iter().enumerate() {
            seen = seen.saturating_add(count);
            if seen >= rank {
                return bucket_top(index).min(self.max_lateness);
            }
        }
        self.max_lateness
    }

    /// `cycles` of this guest's TSC in nanoseconds; 0 where the guest does not
    /// know its frequency.
    #[must_use]
    pub fn nanoseconds(&self, cycles: u64) -> u64 {
        let nanoseconds = u128::from(cycles) * 1_000_000 / u128::from(self.tsc_khz.max(1));
        if self.tsc_khz == 0 {
            return 0;
        }
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }

    /// Adds the counts of another vCPU. Frequency, period and index stay this
    /// one's, so lateness adds up only between vCPUs of one TSC frequency.
    pub fn merge(&mut self, other: &Self) {
        self.ticks = self.ticks.saturating_add(other.ticks);
        self.progress = self.progress.saturating_add(other.progress);
        self.early = self.early.saturating_add(other.early);
        self.lost = self.lost.saturating_add(other.lost);
        self.max_lateness = self.max_lateness.max(other.max_lateness);
        if other.state == State::Running {
            self.state = State::Running;
        }
        for (mine, theirs) in self.histogram.iter_mut().zip(other.histogram.iter()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// What happened between `earlier` and this copy of the same page. Counts
    /// that went back, which no honest guest shows, become 0. The largest
    /// lateness is that of the whole run where the interval's own maximum falls
    /// into the same bucket, else the upper edge of that bucket.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = self.clone();
        delta.ticks = self.ticks.saturating_sub(earlier.ticks);
        delta.progress = self.progress.saturating_sub(earlier.progress);
        delta.early = self.early.saturating_sub(earlier.early);
        delta.lost = self.lost.saturating_sub(earlier.lost);
        for (mine, theirs) in delta.histogram.iter_mut().zip(earlier.histogram.iter()) {
            // The page's counters are 32 bits wide and wrap.
            *mine = u64::from((*mine as u32).wrapping_sub(*theirs as u32));
        }
        let highest = delta.histogram.iter().rposition(|&count| count != 0);
        delta.max_lateness = highest.map_or(0, |index| {
            if index == bucket_of(self.max_lateness) {
                self.max_lateness
            } else {
                bucket_top(index).min(self.max_lateness)
            }
        });
        delta
    }
}
