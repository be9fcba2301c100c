//! Interrupt controllers and legacy devices as pure state machines.
//!
//! Owns what a guest can see of its local APIC, its serial port and the two ways to end the machine,
//! and the bus that finds a device by address. Must not know KVM, threads, clocks or files: time is
//! an argument ([`time::Moment`]), and what a register access asks for beyond the device comes back
//! as a value ([`apic::Effect`], [`bus::Outcome`]).
//!
//! The guest is untrusted everywhere: no access, of any width, at any offset, in any order and at
//! any time, panics, blocks or allocates without bound. Each device's documentation has a table of
//! what was considered.

#![forbid(unsafe_code)]

pub mod acpi_pm;
pub mod apic;
pub mod bus;
pub mod chipset;
pub mod debug_exit;
pub mod debug_port;
pub mod fw_cfg;
pub mod i8042;
pub mod ioapic;
pub mod pic;
pub mod pit;
pub mod pvpanic;
pub mod rtc;
pub mod serial;
mod sync;
pub mod time;
pub mod virtio;
