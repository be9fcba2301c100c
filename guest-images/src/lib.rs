//! Tiny guest kernels, built from source and embedded as data.
//!
//! Each image is an ELF64 file linked at 2 MiB with two entries: a PVH note
//! (32-bit) and the Linux 64-bit boot protocol (the ELF entry). The contract,
//! the command-line parameters and the memory layout are in
//! `docs/guest-abi.md`. This crate owns the images and the decoding of what
//! they report ([`report`]); it must not know who boots them.

pub mod report;

/// A guest kernel.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// What it is called on a command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// The ELF64 file.
    pub elf: &'static [u8],
}

macro_rules! image {
    ($name:literal, $summary:literal) => {
        Image {
            name: $name,
            summary: $summary,
            elf: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".elf")),
        }
    };
}

static IMAGES: &[Image] = &[
    image!("hello", "says hello on the serial port and leaves, or fails as asked"),
    image!("tick", "re-arms the APIC timer and measures how late each tick is"),
    image!("busy", "counts in user mode and never halts"),
    image!("ipi", "passes IPIs round a ring of vCPUs that sleep in HLT"),
    image!("halt", "checks what ends a HLT"),
    image!("apic-modes", "checks the local APIC of one CPU: modes, priorities, timer"),
    image!("ipis", "checks every kind of interrupt between CPUs"),
    image!("pit", "checks the 8254 timer"),
    image!("pic", "checks the pair of 8259A interrupt controllers"),
    image!("echo", "sends back what its serial port receives, by interrupts"),
    image!("virtio", "checks a disk and an entropy device, which are to be there"),
    image!("rtc", "checks the MC146818 clock"),
    image!("ioapic", "checks the I/O APIC"),
    image!("start", "starts any number of vCPUs and measures how long it takes"),
    image!("smp-start", "checks INIT, SIPI and the state that they leave"),
    image!("x2apic", "checks which x2APIC registers and bits there are"),
    image!("pv-eoi", "checks KVM's paravirtual end of interrupt"),
    image!("clock", "checks kvmclock, moves of the TSC, and deadlines beside them"),
    image!("storm", "does one wrong thing very often, and checks that it lives"),
    image!("nmi", "checks NMI, HLT and the shadows of instructions"),
];

/// Every image, in a fixed order.
#[must_use]
pub fn all() -> &'static [Image] {
    IMAGES
}

/// The image called `name`, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Image> {
    IMAGES.iter().find(|image| image.name == name)
}
