//! ACPI tables: tell a guest which CPUs and interrupt controllers it has, and how to switch off.
//!
//! Owns nothing. Must not know how the devices behind the registers work; they and the tables agree by
//! the constants in [`super::layout`]. Source: ACPI Specification 6.5, chapters 5 and 18. The byte
//! forms of AML, FADT, FACS and XSDT are the crate `acpi_tables`'.
//!
//! | table | says |
//! |---|---|
//! | RSDP | where RSDT and XSDT are, which list the same tables |
//! | FADT | PM1a registers, PM timer (32 bits), power button, reset register, SCI 9; ACPI mode is always on (no SMI command); no sleep button, VGA or 8042 |
//! | FACS | nothing; other hardware than "reduced" has to have one |
//! | MADT | a local APIC for each CPU, x2APIC entries from ID 255 on; the I/O APIC; interrupt 0 at GSI 2, the SCI level-triggered; NMI at LINT1 |
//! | DSDT | `\_S5` (off), COM1, the panic port, the virtio devices, and a processor device for each of the first [`MOST_PROCESSOR_DEVICES`] CPUs |

use acpi_tables::Aml;
use acpi_tables::aml::{
    self, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use devices::virtio::mmio;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::{self, DSDT, IO_APIC, LOCAL_APIC, PM_TIMER, PM1A_CONTROL, PM1A_EVENT, RSDP};
use super::layout::{RESET_PORT, RESET_VALUE, SCI, SLEEP_TYPE_OFF, io_apic_id};
use crate::memory::GuestMemory;

/// The port of pvpanic.
const PANIC: u16 = *devices::pvpanic::PORT.start();

const OEM: [u8; 6] = *b"SIESTA";
const OEM_TABLE: [u8; 8] = *b"SIESTAVM";
const OEM_REVISION: u32 = 1;
/// The most CPUs that the MADT lists: what KVM allows at most, and what has place.
pub const MOST_CPUS: u32 = 4096;
/// The most CPUs that have a device of their own in the DSDT, for the sake of its size. Others are in
/// the MADT alone, which is what counts for starting them.
pub const MOST_PROCESSOR_DEVICES: u32 = 1024;
/// Size of every table's header, in bytes.
const HEADER: u32 = 36;
/// `IAPC_BOOT_ARCH`: there are devices on the ISA bus; there is no VGA, and no keyboard behind the 8042.
const BOOT_ARCH: u16 = 1 << 0 | 1 << 2;
/// MADT flag: there are 8259s too.
const PCAT_COMPAT: u32 = 1;
/// MADT interrupt flags: active high; edge- or level-triggered.
const HIGH_EDGE: u16 = 0b0101;
const HIGH_LEVEL: u16 = 0b1101;

/// Writes all tables for `cpus` CPUs with local APIC IDs, and processor UIDs, from 0 on. CPUs above
/// [`MOST_CPUS`] are not listed. There are the first `virtio` virtio devices of
/// [`layout::virtio_window`].
///
/// # Errors
/// When guest memory ends below 1 MiB.
pub fn write(memory: &GuestMemory, cpus: u32, virtio: usize) -> Result<(), GuestMemoryError> {
    memory.write_slice(&dsdt(cpus, virtio), GuestAddress(DSDT))?;
    // The RSDP has 36 bytes; the FACS has to be aligned to 64.
    let mut at = RSDP + 64;
    let mut put = |bytes: &[u8]| {
        let place = at;
        at = (at + bytes.len() as u64).next_multiple_of(64);
        memory.write_slice(bytes, GuestAddress(place)).map(|()| place)
    };
    let facs = put(&bytes(&FACS::new()))?;
    let fadt = put(&fadt(facs))?;
    let madt = put(&madt(cpus))?;
    let rsdt = put(&rsdt(&[fadt, madt]))?;
    let xsdt = put(&xsdt(&[fadt, madt]))?;
    memory.write_slice(&rsdp(rsdt, xsdt), GuestAddress(RSDP))
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn rsdp(rsdt: u64, xsdt: u64) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[9..15].copy_from_slice(&OEM);
    bytes[15] = 2; // ACPI 2.0 or later
    bytes[16..20].copy_from_slice(&(rsdt as u32).to_le_bytes());
    bytes[20..24].copy_from_slice(&36u32.to_le_bytes());
    bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
    bytes[8] = layout::checksum(&bytes[..20]);
    bytes[32] = layout::checksum(&bytes);
    bytes
}

/// A table of this signature with `body` behind its header.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(body);
    table.as_slice().to_vec()
}

fn rsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|at| (*at as u32).to_le_bytes()).collect();
    table(*b"RSDT", 1, &body)
}

fn xsdt(tables: &[u64]) -> Vec<u8> {
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    for at in tables {
        xsdt.add_entry(*at);
    }
    bytes(&xsdt)
}

fn fadt(facs: u64) -> Vec<u8> {
    let port = |port: u16, bytes: u8, access| {
        GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, u64::from(port))
    };
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = (DSDT as u32).into();
    fadt.x_dsdt = DSDT.into();
    fadt.sci_int = u16::from(SCI).into();
    fadt.pm1a_evt_blk = u32::from(PM1A_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.x_pm1a_evt_blk = port(PM1A_EVENT, 4, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(PM1A_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.x_pm1a_cnt_blk = port(PM1A_CONTROL, 2, AccessSize::WordAccess);
    fadt.pm_tmr_blk = u32::from(PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm_tmr_blk = port(PM_TIMER, 4, AccessSize::DwordAccess);
    // Latencies above 100 and 1000 us: the idle states C2 and C3 do not exist.
    fadt.p_lvl2_lat = 0xfff.into();
    fadt.p_lvl3_lat = 0xfff.into();
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = port(RESET_PORT, 1, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    bytes(&fadt.finalize())
}

fn madt(cpus: u32) -> Vec<u8> {
    let cpus = cpus.min(MOST_CPUS);
    let enabled = 1u32.to_le_bytes();
    let mut body = [LOCAL_APIC.to_le_bytes(), PCAT_COMPAT.to_le_bytes()].concat();
    for id in 0..cpus {
        // An ID of 8 bits is not 255, which means all (section 5.2.12.12).
        match u8::try_from(id).ok().filter(|id| *id < u8::MAX) {
            Some(id) => body.extend([&[0, 8, id, id], &enabled[..]].concat()),
            None => {
                let id = id.to_le_bytes();
                body.extend([&[9, 16, 0, 0], &id[..], &enabled, &id].concat());
            }
        }
    }
    body.extend([1, 12, io_apic_id(cpus), 0]);
    body.extend([IO_APIC, 0].map(u32::to_le_bytes).concat());
    for (irq, gsi, flags) in [(0, 2u32, HIGH_EDGE), (SCI, u32::from(SCI), HIGH_LEVEL)] {
        body.extend([2, 10, 0, irq]);
        body.extend(gsi.to_le_bytes());
        body.extend(flags.to_le_bytes());
    }
    body.extend([4, 6, 0xff, 0, 0, 1]);
    if cpus > u32::from(u8::MAX) {
        body.extend([0xa, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    }
    table(*b"APIC", 5, &body)
}

/// The device of this number. Linux looks for virtio devices of this ID.
fn virtio_device(index: usize) -> Vec<u8> {
    let Some(window) = layout::virtio_window(index) else { return Vec::new() };
    let registers = Memory32Fixed::new(true, window.address as u32, mmio::BYTES as u32);
    let line = Interrupt::new(true, true, false, false, u32::from(window.irq));
    let id = Name::new("_HID".into(), &"LNRO0005");
    let uid = Name::new("_UID".into(), &(index as u32));
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&registers, &line]));
    let path = format!("VR{index:02X}").as_str().into();
    bytes(&Device::new(path, vec![&id, &uid, &resources]))
}

fn dsdt(cpus: u32, virtio: usize) -> Vec<u8> {
    let off =
        Name::new("_S5_".into(), &Package::new(vec![&SLEEP_TYPE_OFF, &SLEEP_TYPE_OFF, &0u8, &0u8]));
    let mut body = bytes(&off);
    let ports = IO::new(0x3f8, 0x3f8, 1, 8);
    let line = Interrupt::new(true, true, false, false, 4);
    let id = Name::new("_HID".into(), &EISAName::new("PNP0501"));
    let uid = Name::new("_UID".into(), &aml::ONE);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &line]));
    let mut devices = bytes(&Device::new("COM1".into(), vec![&id, &uid, &resources]));
    (0..virtio).for_each(|index| devices.extend(virtio_device(index)));
    // Linux's driver finds it by this name, and takes a port as well as memory.
    let port = IO::new(PANIC, PANIC, 1, 1);
    let id = Name::new("_HID".into(), &"QEMU0001");
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(vec![&port]));
    devices.extend(bytes(&Device::new("PEVT".into(), vec![&id, &uid, &resources])));
    let id = Name::new("_HID".into(), &"ACPI0007");
    for uid in 0..cpus.min(MOST_PROCESSOR_DEVICES) {
        let path = format!("C{uid:03X}").as_str().into();
        let uid = Name::new("_UID".into(), &uid);
        devices.extend(bytes(&Device::new(path, vec![&id, &uid])));
    }
    body.extend(Scope::raw("_SB_".into(), devices));
    table(*b"DSDT", 2, &body)
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
