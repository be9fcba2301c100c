//! Which port or address is whose.
//!
//! Owns the map, and what an access of several bytes means: each byte goes to its own port, as on an
//! 8-bit bus; the ACPI block, which is wider, takes accesses whole. Must not know locks.

use std::ops::RangeInclusive;

use super::Chipset;
use crate::acpi_pm::{self, Action, ports};
use crate::bus::Outcome;

/// A range of ports or addresses of the chipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// The I/O APIC's registers.
    IoApic,
    /// The master PIC.
    PicMaster,
    /// The slave PIC.
    PicSlave,
    /// Edge/level control of the PICs.
    Elcr,
    /// The PIT's counters.
    Pit,
    /// The PIT's gate, the speaker, the refresh toggle.
    PortB,
    /// CMOS index and data.
    Cmos,
    /// Fast reset and A20.
    Port92,
    /// The reset register.
    ResetControl,
    /// ACPI event, control and timer registers.
    AcpiPm,
    /// The power-off port of Cloud Hypervisor and of newer QEMU and Bochs.
    PowerOff,
    /// Interrupt lines that a guest drives by hand: 0 lowers the line of the port, anything else
    /// raises it. As the ports of QEMU's `pc-testdev`, for tests of interrupt controllers.
    TestLines,
}

impl Region {
    /// Whether it belongs to the interrupt controllers or the PIT.
    pub(super) fn of_controllers(self) -> bool {
        matches!(
            self,
            Region::IoApic
                | Region::PicMaster
                | Region::PicSlave
                | Region::Elcr
                | Region::Pit
                | Region::PortB
        )
    }
}

/// I/O ports, in ascending order.
pub const PORTS: [(RangeInclusive<u16>, Region); 11] = [
    (0x20..=0x21, Region::PicMaster),
    (0x40..=0x43, Region::Pit),
    (0x61..=0x61, Region::PortB),
    (0x70..=0x71, Region::Cmos),
    (0x92..=0x92, Region::Port92),
    (0xa0..=0xa1, Region::PicSlave),
    (0x4d0..=0x4d1, Region::Elcr),
    (ports::CLOUD_HYPERVISOR_SHUTDOWN..=ports::BOCHS_SHUTDOWN + 1, Region::PowerOff),
    (0xcf9..=0xcf9, Region::ResetControl),
    (0x2000..=0x2017, Region::TestLines),
    (acpi_pm::PORTS, Region::AcpiPm),
];

/// Guest-physical addresses of the I/O APIC.
pub const IOAPIC: RangeInclusive<u64> = 0xfec0_0000..=0xfec0_0fff;

impl Chipset {
    /// Reads `data.len()` bytes, `offset` bytes into the region. The timers are up to `now`.
    pub(super) fn read(&mut self, region: Region, offset: u64, data: &mut [u8], now: u64) {
        match region {
            Region::IoApic => self.ioapic.read(offset, data),
            Region::AcpiPm => self.pm.read(offset, data, now),
            _ => {
                for (i, byte) in data.iter_mut().enumerate() {
                    *byte = self.read_byte(region, offset.saturating_add(i as u64), now);
                }
            }
        }
        // Reading register C of the clock lowers its line.
        self.settle();
    }

    /// Writes `data.len()` bytes, `offset` bytes into the region. The timers are up to `now`.
    pub(super) fn write(&mut self, region: Region, offset: u64, data: &[u8], now: u64) -> Outcome {
        let mut outcome = Outcome::None;
        match region {
            Region::IoApic => self.ioapic.write(offset, data),
            Region::AcpiPm => outcome = self.pm.write(offset, data, now).into(),
            Region::PowerOff => {
                let port = port(region, offset).unwrap_or_default();
                outcome = ports::write_shutdown(port, data).into();
            }
            _ => {
                for (i, byte) in data.iter().enumerate() {
                    let at = offset.saturating_add(i as u64);
                    let asked = self.write_byte(region, at, *byte, now);
                    if outcome == Outcome::None {
                        outcome = asked;
                    }
                }
            }
        }
        self.settle();
        outcome
    }

    fn read_byte(&mut self, region: Region, offset: u64, now: u64) -> u8 {
        let Some(port) = port(region, offset) else { return 0xff };
        match region {
            Region::PicMaster | Region::PicSlave | Region::Elcr => self.pic.read(port),
            Region::Pit | Region::PortB => self.pit.read(port, now),
            Region::Cmos => self.rtc.read(port, now),
            Region::Port92 => self.port92.read(),
            Region::ResetControl => self.reset_control.read(),
            Region::IoApic | Region::AcpiPm | Region::PowerOff | Region::TestLines => 0xff,
        }
    }

    fn write_byte(&mut self, region: Region, offset: u64, value: u8, now: u64) -> Outcome {
        let Some(port) = port(region, offset) else { return Outcome::None };
        match region {
            Region::PicMaster | Region::PicSlave | Region::Elcr => self.pic.write(port, value),
            Region::Pit => {
                self.pit.write(port, value, now);
                self.pit_programmed(port, now);
            }
            Region::PortB => self.pit.write(port, value, now),
            Region::Cmos => self.rtc.write(port, value, now),
            Region::Port92 => return self.port92.write(value).into(),
            Region::ResetControl => return self.reset_control.write(value).into(),
            Region::TestLines => self.hold(offset as u8, value != 0),
            Region::IoApic | Region::AcpiPm | Region::PowerOff => {}
        }
        Outcome::None
    }
}

fn port(region: Region, offset: u64) -> Option<u16> {
    let (range, _) = PORTS.iter().find(|(_, of)| *of == region)?;
    let port = range.start().checked_add(u16::try_from(offset).ok()?)?;
    range.contains(&port).then_some(port)
}

impl From<Action> for Outcome {
    fn from(action: Action) -> Self {
        match action {
            Action::None => Outcome::None,
            Action::PowerOff => Outcome::PowerOff,
            Action::Reset => Outcome::Reset,
        }
    }
}
