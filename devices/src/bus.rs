//! Which device an address belongs to.
//!
//! Owns the devices, in two tables that are sorted and frozen before the first vCPU runs. Must not
//! know what a device does, nor the local APIC, which is no bus device but the vCPU's own.
//!
//! | variable | lock | writers | readers |
//! |---|---|---|---|
//! | the tables | none: immutable after [`BusBuilder::freeze`] | | any vCPU thread |
//! | each device | its own mutex, held for one access | any vCPU thread | the same |
//!
//! A device that panics leaves its lock poisoned; the next access takes it all the same, as a
//! device's state is valid between any two of its statements.
//!
//! | threat | answer |
//! |---|---|
//! | an address that nobody has, or an access that leaves its device's range | [`Outcome::Unclaimed`]; reads as all ones |
//! | an access at the very end of the address space | no sum overflows; unclaimed |
//! | an access of no bytes | unclaimed |
//! | a string instruction that arrives as one long access | a device takes what lies in its range; the caller splits strings by the size of their elements |

use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

/// What an access comes to, beyond the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Nothing.
    None,
    /// The guest ends its VM with this value (debug-exit port).
    Exit(u32),
    /// The guest resets the machine.
    Reset,
    /// The guest powers the machine off.
    PowerOff,
    /// The guest says that its kernel has panicked.
    Panicked,
    /// The device gives an edge on this interrupt line ([`crate::chipset::Chipset::pulse`]).
    Edge(u8),
    /// The chipset has errands ([`crate::chipset::Board::take_errand`]).
    Errands,
    /// No device is there. A read has returned all ones.
    Unclaimed,
}

/// A device on the bus.
pub trait Device: Send {
    /// Reads `data.len()` bytes (at least one), `offset` bytes into the device's range. All of
    /// `data` is written; a place without a register reads as all ones or as zero, as the device
    /// documents. The access lies within the range. `now` is the host's monotonic clock, in ns.
    fn read(&mut self, offset: u64, data: &mut [u8], now: u64) -> Outcome;

    /// Writes `data.len()` bytes (at least one), `offset` bytes into the device's range. The access
    /// lies within the range.
    fn write(&mut self, offset: u64, data: &[u8], now: u64) -> Outcome;
}

/// Why a device could not be put on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BusError {
    /// The range has no address.
    #[error("empty range {start:#x}..={end:#x}")]
    Empty {
        /// First address.
        start: u64,
        /// Last address.
        end: u64,
    },
    /// Another device has part of the range.
    #[error("range {start:#x}..={end:#x} overlaps {taken_start:#x}..={taken_end:#x}")]
    Overlap {
        /// First address.
        start: u64,
        /// Last address.
        end: u64,
        /// First address of the other device.
        taken_start: u64,
        /// Its last.
        taken_end: u64,
    },
}

struct Slot {
    start: u64,
    /// Inclusive, so that a range may end with the address space.
    end: u64,
    device: Mutex<Box<dyn Device>>,
}

/// One address space: slots sorted by address, none overlapping another.
#[derive(Default)]
struct Table(Vec<Slot>);

impl Table {
    fn insert(
        &mut self,
        range: RangeInclusive<u64>,
        device: Box<dyn Device>,
    ) -> Result<(), BusError> {
        let (start, end) = range.into_inner();
        if start > end {
            return Err(BusError::Empty { start, end });
        }
        let at = self.0.partition_point(|slot| slot.end < start);
        if let Some(taken) = self.0.get(at).filter(|slot| slot.start <= end) {
            return Err(BusError::Overlap {
                start,
                end,
                taken_start: taken.start,
                taken_end: taken.end,
            });
        }
        self.0.insert(at, Slot { start, end, device: Mutex::new(device) });
        Ok(())
    }

    /// The device that has all `len` bytes at `address`, and the offset of the first.
    fn find(&self, address: u64, len: usize) -> Option<(&Slot, u64)> {
        let last = address.checked_add(u64::try_from(len).ok()?.checked_sub(1)?)?;
        let at = self.0.partition_point(|slot| slot.end < address);
        let slot = self.0.get(at).filter(|slot| slot.start <= address && last <= slot.end)?;
        Some((slot, address - slot.start))
    }

    fn read(&self, address: u64, data: &mut [u8], now: u64) -> Outcome {
        let Some((slot, offset)) = self.find(address, data.len()) else {
            data.fill(0xff);
            return Outcome::Unclaimed;
        };
        slot.device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data, now)
    }

    fn write(&self, address: u64, data: &[u8], now: u64) -> Outcome {
        let Some((slot, offset)) = self.find(address, data.len()) else {
            return Outcome::Unclaimed;
        };
        slot.device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data, now)
    }
}

/// A bus on which devices are still being put.
#[derive(Default)]
pub struct BusBuilder {
    pio: Table,
    mmio: Table,
}

impl BusBuilder {
    /// A bus without devices.
    #[must_use]
    pub fn new() -> Self {
        BusBuilder::default()
    }

    /// Puts a device at these I/O ports.
    ///
    /// # Errors
    /// [`BusError`]: the range is empty, or part of it is taken.
    pub fn pio(
        mut self,
        range: RangeInclusive<u16>,
        device: Box<dyn Device>,
    ) -> Result<Self, BusError> {
        self.pio.insert(u64::from(*range.start())..=u64::from(*range.end()), device)?;
        Ok(self)
    }

    /// Puts a device at these guest-physical addresses.
    ///
    /// # Errors
    /// [`BusError`]: the range is empty, or part of it is taken.
    pub fn mmio(
        mut self,
        range: RangeInclusive<u64>,
        device: Box<dyn Device>,
    ) -> Result<Self, BusError> {
        self.mmio.insert(range, device)?;
        Ok(self)
    }

    /// The bus, to which nothing can be added any more.
    #[must_use]
    pub fn freeze(self) -> Bus {
        let BusBuilder { pio, mmio } = self;
        Bus { pio, mmio }
    }
}

/// The bus of one VM.
pub struct Bus {
    pio: Table,
    mmio: Table,
}

impl Bus {
    /// Reads I/O ports.
    pub fn pio_read(&self, port: u16, data: &mut [u8], now: u64) -> Outcome {
        self.pio.read(u64::from(port), data, now)
    }

    /// Writes I/O ports.
    pub fn pio_write(&self, port: u16, data: &[u8], now: u64) -> Outcome {
        self.pio.write(u64::from(port), data, now)
    }

    /// Reads guest-physical addresses.
    pub fn mmio_read(&self, address: u64, data: &mut [u8], now: u64) -> Outcome {
        self.mmio.read(address, data, now)
    }

    /// Writes guest-physical addresses.
    pub fn mmio_write(&self, address: u64, data: &[u8], now: u64) -> Outcome {
        self.mmio.write(address, data, now)
    }
}

#[cfg(test)]
mod tests;
