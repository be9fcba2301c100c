//! How interrupt lines reach KVM's own PIC and I/O APIC.
//!
//! Owns the list of routes. Must not know the devices behind the lines. KVM's default leaves line 0,
//! its PIT's, at input 0 of the I/O APIC; the MP and ACPI tables say input 2, as on a PC, so that they
//! are the same in all timer modes. Source: KVM API, "KVM_SET_GSI_ROUTING".

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry,
};
use kvm_ioctls::VmFd;

/// Inputs of the I/O APIC.
const INPUTS: u32 = 24;
/// Lines that a PIC has too, eight for each of the two.
const PIC_LINES: u32 = 16;
/// The line between the two PICs, which is no device's.
const CASCADE: u32 = 2;

/// Routes the lines of a VM that has KVM's interrupt controllers.
///
/// # Errors
/// What KVM says.
pub fn route(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    let entries: Vec<_> = routes().map(|(line, chip, pin)| entry(line, chip, pin)).collect();
    let routing =
        KvmIrqRouting::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
    vm.set_gsi_routing(&routing)
}

/// Line, chip and input of each route.
fn routes() -> impl Iterator<Item = (u32, u32, u32)> {
    let pic = (0..PIC_LINES).filter(|line| *line != CASCADE).map(|line| match line {
        0..8 => (line, KVM_IRQCHIP_PIC_MASTER, line),
        _ => (line, KVM_IRQCHIP_PIC_SLAVE, line - 8),
    });
    let io_apic = (0..INPUTS).filter(|line| *line != CASCADE).map(|line| {
        let pin = if line == 0 { 2 } else { line };
        (line, KVM_IRQCHIP_IOAPIC, pin)
    });
    pic.chain(io_apic)
}

fn entry(line: u32, chip: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi: line, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_reaches_both_controllers_where_the_tables_say() {
        let of = |wanted| routes().filter(move |(line, ..)| *line == wanted).collect::<Vec<_>>();
        assert_eq!(of(0), [(0, KVM_IRQCHIP_PIC_MASTER, 0), (0, KVM_IRQCHIP_IOAPIC, 2)]);
        assert_eq!(of(9), [(9, KVM_IRQCHIP_PIC_SLAVE, 1), (9, KVM_IRQCHIP_IOAPIC, 9)]);
        assert_eq!(of(23), [(23, KVM_IRQCHIP_IOAPIC, 23)]);
        assert_eq!(of(2), []);
    }

    #[test]
    fn no_input_has_two_lines() {
        let mut inputs: Vec<_> = routes().map(|(_, chip, pin)| (chip, pin)).collect();
        let count = inputs.len();
        inputs.sort_unstable();
        inputs.dedup();
        assert_eq!(inputs.len(), count);
    }
}
