//! Paravirtual EOI: when the guest may end an interrupt without an exit.

use super::*;

const PV_EOI: u32 = 0x4b56_4d04;
const FLAG: u64 = 0x1230;

/// Guest memory as far as the flag is concerned: does what the holder of a vCPU does.
#[derive(Default)]
struct Memory {
    flags: std::collections::BTreeMap<u64, bool>,
}

impl Memory {
    fn enter(&mut self, apic: &mut LocalApic) {
        while let Some(grant) = apic.grant_eoi() {
            self.flags.insert(grant.address, grant.set);
        }
    }

    fn flag(&self) -> bool {
        self.flags.get(&FLAG).copied().unwrap_or(false)
    }

    /// What the guest does at the end of an interrupt; true if that needed no exit.
    fn guest_eoi(&mut self) -> bool {
        self.flags.insert(FLAG, false).unwrap_or(false)
    }

    fn exit(&mut self, apic: &mut LocalApic) {
        if apic.granted_eoi().is_some_and(|at| !self.flags.get(&at).copied().unwrap_or(false)) {
            apic.eoi_without_exit();
        }
    }
}

fn enabled() -> LocalApic {
    let mut apic = x2apic();
    set(&mut apic, PV_EOI, FLAG | 1);
    apic
}

fn arrive(apic: &mut LocalApic, vector: u8) {
    let inbox = Inbox::new();
    inbox.post(vector);
    let _ = apic.pull(&inbox);
}

fn in_service(apic: &mut LocalApic, vector: u8) -> bool {
    get(apic, ISR + u32::from(vector) / 32) & 1 << (vector % 32) != 0
}

#[test]
fn lonely_interrupt_is_ended_without_an_exit() {
    let (mut apic, mut memory) = (enabled(), Memory::default());
    arrive(&mut apic, 0x40);
    apic.acknowledge(0x40);
    memory.enter(&mut apic);
    assert!(memory.flag());
    assert!(memory.guest_eoi());
    memory.exit(&mut apic);
    assert!(!in_service(&mut apic, 0x40));
    memory.enter(&mut apic);
    assert!(!memory.flag(), "nothing is in service");
}

#[test]
fn exit_before_the_guests_eoi_leaves_the_interrupt_in_service() {
    let (mut apic, mut memory) = (enabled(), Memory::default());
    arrive(&mut apic, 0x40);
    apic.acknowledge(0x40);
    memory.enter(&mut apic);
    memory.exit(&mut apic);
    assert!(in_service(&mut apic, 0x40));
    memory.enter(&mut apic);
    assert!(memory.flag(), "it still may end it so");
    assert!(memory.guest_eoi());
    memory.exit(&mut apic);
    assert!(!in_service(&mut apic, 0x40));
}

#[test]
fn interrupt_that_waits_needs_the_exit() {
    let (mut apic, mut memory) = (enabled(), Memory::default());
    arrive(&mut apic, 0x40);
    apic.acknowledge(0x40);
    memory.enter(&mut apic);
    arrive(&mut apic, 0x30);
    memory.exit(&mut apic);
    memory.enter(&mut apic);
    assert!(!memory.guest_eoi(), "or 0x30 would wait for the next exit");
    set(&mut apic, EOI, 0);
    assert!(!in_service(&mut apic, 0x40));
    assert_eq!(apic.next_vector(), Some(0x30));
}

#[test]
fn nested_interrupts_need_the_exit() {
    let (mut apic, mut memory) = (enabled(), Memory::default());
    arrive(&mut apic, 0x40);
    apic.acknowledge(0x40);
    memory.enter(&mut apic);
    arrive(&mut apic, 0x80);
    memory.exit(&mut apic);
    apic.acknowledge(0x80);
    memory.enter(&mut apic);
    assert!(!memory.flag());
    set(&mut apic, EOI, 0);
    assert!(in_service(&mut apic, 0x40) && !in_service(&mut apic, 0x80));
    memory.enter(&mut apic);
    assert!(memory.flag(), "one is left");
}

#[test]
fn guest_that_writes_eoi_all_the_same_ends_one_interrupt_not_two() {
    let (mut apic, mut memory) = (enabled(), Memory::default());
    arrive(&mut apic, 0x40);
    apic.acknowledge(0x40);
    memory.enter(&mut apic);
    memory.exit(&mut apic);
    set(&mut apic, EOI, 0);
    arrive(&mut apic, 0x50);
    apic.acknowledge(0x50);
    memory.enter(&mut apic);
    memory.exit(&mut apic);
    assert!(in_service(&mut apic, 0x50));
}

#[test]
fn init_and_a_new_address_leave_no_flag_behind() {
    let (mut apic, mut memory) = (enabled(), Memory::default());
    arrive(&mut apic, 0x40);
    apic.acknowledge(0x40);
    memory.enter(&mut apic);
    set(&mut apic, PV_EOI, 0x2000 | 1);
    memory.enter(&mut apic);
    assert_eq!(memory.flags.get(&FLAG), Some(&false));
    assert_eq!(memory.flags.get(&0x2000), Some(&true));
    apic.init_reset();
    memory.enter(&mut apic);
    assert_eq!(memory.flags.get(&0x2000), Some(&false));
    assert_eq!(get(&mut apic, PV_EOI), 0);
}

#[test]
fn register_exists_where_it_is_offered_and_wants_an_aligned_address() {
    let mut apic = enabled();
    assert_eq!(get(&mut apic, PV_EOI), FLAG | 1);
    assert!(refused(&mut apic, PV_EOI, FLAG | 3));
    assert_eq!(get(&mut apic, PV_EOI), FLAG | 1);
    let mut without = x2apic_of(ApicConfig { pv_eoi: false, ..CONFIG });
    assert!(refused(&mut without, PV_EOI, FLAG | 1));
    assert!(without.read_msr(PV_EOI, at(0)).is_err());
}
