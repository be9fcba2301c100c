//! The memory balloon (Virtio 1.2, section 5.5): inflate, deflate, statistics.
//!
//! Owns its queues, the size that was asked for, the size that the driver tells, and its last
//! statistics. Must not know how memory is given back to the host: that is [`GivesBack`], which also
//! decides whether an address is memory at all.
//!
//! The driver may take pages out of the balloon rather than run out of memory
//! (`VIRTIO_BALLOON_F_DEFLATE_ON_OOM`), and need not ask before it uses them again: they come back as
//! pages that the host has not given yet.
//!
//! | threat | answer |
//! |---|---|
//! | page numbers outside of memory, or repeated | ignored, harmless |
//! | lists of gigabytes | the first [`MOST_PAGES`] of a list are given back, the rest is left alone |
//! | endless lists | [`MOST_LISTS`] a turn |
//! | statistics without end, or of unknown kinds | the first [`MOST_STATISTICS`] entries are read, unknown ones ignored |
//! | more than one buffer for statistics | the earlier one is given back |
//! | a false size of the balloon | told as it is, used for nothing |

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::Queue;

use super::ring::{Broken, Chain, Ring};
use super::{Memory, Model, Signal, copy_config};

/// The queue of pages that go into the balloon.
pub const INFLATE: usize = 0;
/// The queue of pages that come out of it.
pub const DEFLATE: usize = 1;
/// The queue of statistics.
pub const STATISTICS: usize = 2;
/// The size of the balloon's pages, in bytes, whatever pages the guest has.
pub const PAGE: u64 = 4096;
/// The most pages of one list that are given back. Linux's lists have 256.
pub const MOST_PAGES: usize = 1024;
/// The most lists that are read in one turn.
pub const MOST_LISTS: usize = 4;
/// The most statistics that are read.
pub const MOST_STATISTICS: usize = 64;

const F_STATS_VQ: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;

/// Where the driver says in the configuration how large the balloon is.
const ACTUAL: u64 = 4;
/// A statistic: 16 bits of tag, 64 bits of value.
const ENTRY: usize = 10;
const QUEUE_SIZES: [u16; 3] = [128, 128, 16];

/// How memory is given back to the host. None of its calls blocks for long.
pub trait GivesBack: Send {
    /// The guest does not need `count` pages from guest-physical address `start` on, a multiple of
    /// [`PAGE`]. What of this is not guest memory is ignored. Until the guest touches them again they
    /// may be empty.
    fn give_back(&mut self, start: u64, count: u64);
}

/// What the driver tells of its memory. Numbers of bytes unless they say otherwise; those that it does
/// not tell are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Swapped in.
    pub swap_in: Option<u64>,
    /// Swapped out.
    pub swap_out: Option<u64>,
    /// Page faults that needed the disk, a number.
    pub major_faults: Option<u64>,
    /// Other page faults, a number.
    pub minor_faults: Option<u64>,
    /// Not used for anything.
    pub free: Option<u64>,
    /// All there is.
    pub total: Option<u64>,
    /// What could be had without swapping.
    pub available: Option<u64>,
    /// Caches of files.
    pub caches: Option<u64>,
}

impl Statistics {
    fn set(&mut self, tag: u16, value: u64) {
        let place = match tag {
            0 => &mut self.swap_in,
            1 => &mut self.swap_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free,
            5 => &mut self.total,
            6 => &mut self.available,
            7 => &mut self.caches,
            _ => return,
        };
        *place = Some(value);
    }
}

/// The balloon as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The size that was asked for, in bytes.
    pub target: u64,
    /// The size that the driver tells, in bytes.
    pub actual: u64,
    /// Its last statistics.
    pub statistics: Statistics,
}

/// The balloon.
pub struct Balloon<G> {
    host: G,
    /// In pages.
    target: u32,
    actual: u32,
    statistics: Statistics,
    inflate: Option<Ring>,
    deflate: Option<Ring>,
    reports: Option<Ring>,
    /// The buffer that is kept until statistics are wanted.
    held: Option<u16>,
}

impl<G: GivesBack> Balloon<G> {
    /// A balloon whose size is to be `target` bytes, as soon as there is a driver.
    pub fn new(host: G, target: u64) -> Self {
        let mut balloon = Balloon {
            host,
            target: 0,
            actual: 0,
            statistics: Statistics::default(),
            inflate: None,
            deflate: None,
            reports: None,
            held: None,
        };
        let _ = balloon.set_target(target);
        balloon
    }

    /// What is behind the device.
    pub fn host(&self) -> &G {
        &self.host
    }

    /// Asks for another size, in bytes; whole pages, at most 16 TiB, count.
    pub fn set_target(&mut self, bytes: u64) -> Signal {
        self.target = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        Signal { config: true, ..Signal::NONE }
    }

    /// Asks for new statistics. They come by themselves ([`Balloon::report`]); nothing happens while an
    /// earlier question has not been answered.
    pub fn ask(&mut self, memory: &Memory) -> Signal {
        self.ask_now(memory).into()
    }

    /// The balloon as it is now.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            target: u64::from(self.target) * PAGE,
            actual: u64::from(self.actual) * PAGE,
            statistics: self.statistics,
        }
    }

    fn ask_now(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let (Some(ring), Some(head)) = (&mut self.reports, self.held.take()) else {
            return Ok(Signal::NONE);
        };
        ring.give_back(memory, head, 0)?;
        Ok(Signal::used(ring.wants_interrupt(memory)?))
    }

    fn lists(&mut self, memory: &Memory, inflates: bool) -> Result<Signal, Broken> {
        let ring = if inflates { &mut self.inflate } else { &mut self.deflate };
        let Some(ring) = ring else { return Ok(Signal::NONE) };
        let mut signal = Signal { more: true, ..Signal::NONE };
        let mut used = false;
        for _ in 0..MOST_LISTS {
            let Some(chain) = ring.next(memory)? else {
                signal.more = false;
                break;
            };
            if inflates {
                give_back(&mut self.host, &chain, memory)?;
            }
            ring.give_back(memory, chain.head, 0)?;
            used = true;
        }
        signal.used = used && ring.wants_interrupt(memory)?;
        Ok(signal)
    }

    fn take_statistics(&mut self, memory: &Memory) -> Result<Signal, Broken> {
        let Some(ring) = &mut self.reports else { return Ok(Signal::NONE) };
        let mut signal = Signal { more: true, ..Signal::NONE };
        let mut used = false;
        for _ in 0..MOST_LISTS {
            let Some(chain) = ring.next(memory)? else {
                signal.more = false;
                break;
            };
            let mut bytes = [0; MOST_STATISTICS * ENTRY];
            let count = chain.read(memory, 0, &mut bytes)?;
            let mut statistics = Statistics::default();
            for entry in bytes[..count].chunks_exact(ENTRY) {
                let (tag, value) = entry.split_at(2);
                if let (Ok(tag), Ok(value)) = (tag.try_into(), value.try_into()) {
                    statistics.set(u16::from_le_bytes(tag), u64::from_le_bytes(value));
                }
            }
            self.statistics = statistics;
            if let Some(earlier) = self.held.replace(chain.head) {
                ring.give_back(memory, earlier, 0)?;
                used = true;
            }
        }
        signal.used = used && ring.wants_interrupt(memory)?;
        Ok(signal)
    }
}

/// Gives the pages of a list back, neighbours together.
fn give_back(host: &mut impl GivesBack, chain: &Chain, memory: &Memory) -> Result<(), Broken> {
    let mut bytes = [0; MOST_PAGES * 4];
    let count = chain.read(memory, 0, &mut bytes)?;
    let numbers = bytes[..count].chunks_exact(4).filter_map(|number| number.try_into().ok());
    let mut pages: Vec<u32> = numbers.map(u32::from_le_bytes).collect();
    pages.sort_unstable();
    pages.dedup();
    for run in pages.chunk_by(|page, next| page.checked_add(1) == Some(*next)) {
        host.give_back(u64::from(run[0]) * PAGE, run.len() as u64);
    }
    Ok(())
}

impl<G: GivesBack> Model for Balloon<G> {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        F_STATS_VQ | F_DEFLATE_ON_OOM
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 8];
        config[..4].copy_from_slice(&self.target.to_le_bytes());
        config[4..].copy_from_slice(&self.actual.to_le_bytes());
        copy_config(&config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(actual)) = (offset, data.try_into()) {
            self.actual = u32::from_le_bytes(actual);
        }
    }

    fn activate(&mut self, features: u64, queues: Vec<Queue>) {
        let mut rings = queues.into_iter().map(Ring::from);
        (self.inflate, self.deflate) = (rings.next(), rings.next());
        self.reports = rings.next().filter(|_| features & F_STATS_VQ != 0);
    }

    fn reset(&mut self) {
        (self.inflate, self.deflate, self.reports) = (None, None, None);
        self.held = None;
        // The pages are the guest's again, and the host gives them when they are touched.
        self.actual = 0;
        self.statistics = Statistics::default();
    }

    fn notified(&mut self, queue: usize, memory: &Memory) -> Signal {
        match queue {
            INFLATE => self.lists(memory, true).into(),
            DEFLATE => self.lists(memory, false).into(),
            _ => self.take_statistics(memory).into(),
        }
    }
}
