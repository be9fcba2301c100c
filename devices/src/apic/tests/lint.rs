use super::*;
use crate::apic::Lint;

const LVT_LINT0: u32 = 0x835;
const LVT_LINT1: u32 = 0x836;

fn write(apic: &mut LocalApic, msr: u32, value: u64) -> Effect {
    apic.write_msr(msr, value, at(0)).expect("no reserved bits")
}

fn bsp() -> LocalApic {
    x2apic_of(ApicConfig { bsp: true, ..CONFIG })
}

/// SDM 12.5.1: the entry's delivery mode says what the pin does.
#[test]
fn fixed_edge_on_a_pin_requests_its_vector_once() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT0, 0x41);
    assert!(!apic.set_lint(Lint::Lint0, true));
    assert_eq!(apic.next_vector(), Some(0x41));
    apic.acknowledge(0x41);
    assert!(!apic.set_lint(Lint::Lint0, true));
    assert_eq!(write(&mut apic, EOI, 0), Effect::None);
    assert_eq!(apic.next_vector(), None, "it did not rise again");
}

/// SDM 12.5.1, "Remote IRR Flag": set while a level-triggered interrupt is served.
#[test]
fn fixed_level_on_lint0_requests_again_at_its_end_while_asserted() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT0, 0x8041);
    let _ = apic.set_lint(Lint::Lint0, true);
    apic.acknowledge(0x41);
    assert_eq!(apic.read_msr(LVT_LINT0, at(0)), Ok(0xc041));
    assert_eq!(write(&mut apic, EOI, 0), Effect::EndOfInterrupt(0x41));
    assert_eq!(apic.next_vector(), Some(0x41));
    let _ = apic.set_lint(Lint::Lint0, false);
    apic.acknowledge(0x41);
    let _ = write(&mut apic, EOI, 0);
    assert_eq!(apic.next_vector(), None);
    assert_eq!(apic.read_msr(LVT_LINT0, at(0)), Ok(0x8041));
}

/// SDM 12.5.1.
#[test]
fn nmi_on_the_rising_edge_of_an_unmasked_pin() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT1, 0x400);
    assert!(apic.set_lint(Lint::Lint1, true));
    assert!(!apic.set_lint(Lint::Lint1, true));
    let _ = apic.set_lint(Lint::Lint1, false);
    let _ = write(&mut apic, LVT_LINT1, 0x1_0400);
    assert!(!apic.set_lint(Lint::Lint1, true));
}

/// SDM 12.5.1.
#[test]
fn external_interrupt_is_wanted_while_lint0_is_asserted_whatever_the_priority() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT0, 0x700);
    let _ = write(&mut apic, TPR, 0xff);
    assert!(!apic.extint_wanted());
    let _ = apic.set_lint(Lint::Lint0, true);
    assert!(apic.extint_wanted());
    let _ = write(&mut apic, LVT_LINT0, 0x1_0700);
    assert!(!apic.extint_wanted());
}

/// SDM 12.4.7.1.
#[test]
fn boot_processor_starts_in_virtual_wire_mode_and_others_do_not() {
    let mut apic = LocalApic::new(ApicConfig { bsp: true, ..CONFIG });
    let _ = apic.set_lint(Lint::Lint0, true);
    assert!(apic.extint_wanted(), "software-disabled, as after reset");
    let mut other = LocalApic::new(CONFIG);
    let _ = other.set_lint(Lint::Lint0, true);
    assert!(!other.extint_wanted());
}

/// SDM 12.4.3: the pins of a disabled APIC are INTR and NMI.
#[test]
fn disabled_apic_is_bypassed() {
    // Not the boot processor's, whose reset LINT0 passes external interrupts on anyway.
    let mut apic = x2apic();
    let _ = write(&mut apic, LVT_LINT0, 0x1_0000);
    apic.set_base(apic.base_msr() & !0xc00).expect("it can be disabled");
    let _ = apic.set_lint(Lint::Lint0, true);
    assert!(apic.extint_wanted());
    assert!(apic.set_lint(Lint::Lint1, true));
}

/// SDM 12.11.
#[test]
fn external_interrupt_of_an_io_apic_is_taken_once() {
    let mut apic = bsp();
    let inbox = Inbox::new();
    inbox.post_extint();
    assert!(apic.pull(&inbox).extint);
    assert!(apic.extint_wanted());
    apic.take_extint();
    assert!(!apic.extint_wanted());
}

/// SDM 12.8.5: the end of a level-triggered interrupt is broadcast, unless SVR bit 12 is set.
#[test]
fn end_of_a_level_triggered_interrupt_is_told_and_of_an_edge_triggered_one_is_not() {
    let mut apic = bsp();
    let inbox = Inbox::new();
    for (svr, level, told) in [
        (0x1ff, false, Effect::None),
        (0x1ff, true, Effect::EndOfInterrupt(0x62)),
        (0x11ff, true, Effect::None),
        (0x1ff, false, Effect::None),
    ] {
        let _ = write(&mut apic, SVR, svr);
        if level {
            inbox.post_level(0x62)
        } else {
            inbox.post(0x62)
        }
        let _ = apic.pull(&inbox);
        assert_eq!(apic.read_msr(0x81b, at(0)), Ok(if level { 1 << 2 } else { 0 }), "TMR");
        apic.acknowledge(0x62);
        assert_eq!(write(&mut apic, EOI, 0), told, "{svr:#x} {level}");
    }
}

/// SDM 18.17.3.
#[test]
fn deadline_follows_a_tsc_that_was_moved() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_TIMER, 0x4_0050);
    let now = at(1_000_000);
    let _ = apic.write_msr(TSC_DEADLINE, now.tsc + 5_000_000, now).expect("it is offered");
    let before = apic.deadline().expect("armed");
    let moved = Moment { tsc: now.tsc + 4_000_000, ..now };
    apic.tsc_changed(moved);
    let after = apic.deadline().expect("armed");
    assert!(after < before && after > now.ns, "{before} {after}");
}

#[test]
fn report_names_what_is_pending_and_in_service() {
    let mut apic = bsp();
    let inbox = Inbox::new();
    for vector in [0x41, 0x52] {
        inbox.post(vector);
    }
    let _ = apic.pull(&inbox);
    apic.acknowledge(0x52);
    let text = apic.to_string();
    assert!(text.contains("irr: 0x41; isr: 0x52; tmr: -"), "{text}");
    assert!(text.lines().count() <= 6);
}

/// SDM 12.5.1: a level that is there when its entry is unmasked is an interrupt.
#[test]
fn level_on_lint0_that_came_while_masked_requests_when_unmasked() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT0, 0x1_8041);
    let _ = apic.set_lint(Lint::Lint0, true);
    assert_eq!(apic.next_vector(), None);
    let _ = write(&mut apic, LVT_LINT0, 0x8041);
    assert_eq!(apic.next_vector(), Some(0x41));
}

/// SDM 12.5.1: an edge that came while its entry was masked is lost.
#[test]
fn edge_that_came_while_masked_is_lost() {
    let mut apic = bsp();
    for (lint, msr) in [(Lint::Lint0, LVT_LINT0), (Lint::Lint1, LVT_LINT1)] {
        for entry in [0x41, 0x400] {
            let _ = write(&mut apic, msr, entry | MASKED);
            assert!(!apic.set_lint(lint, true));
            let _ = write(&mut apic, msr, entry);
            assert!(!apic.set_lint(lint, true), "{entry:#x}");
            assert_eq!(apic.next_vector(), None, "{entry:#x}");
            let _ = apic.set_lint(lint, false);
        }
    }
}

/// SDM 12.5.1: LINT1 is edge-triggered, whatever its entry says.
#[test]
fn lint1_has_no_level() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT1, 0x8041);
    let _ = apic.set_lint(Lint::Lint1, true);
    apic.acknowledge(0x41);
    assert_eq!(write(&mut apic, EOI, 0), Effect::None);
    assert_eq!(apic.next_vector(), None);
    assert_eq!(apic.read_msr(LVT_LINT1, at(0)), Ok(0x8041));
}

/// SDM 12.5.1.
#[test]
fn illegal_vector_of_a_level_awaits_no_end() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT0, 0x8005);
    let _ = apic.set_lint(Lint::Lint0, true);
    let _ = write(&mut apic, ESR, 0);
    assert_eq!(apic.read_msr(ESR, at(0)), Ok(1 << 6));
    let _ = write(&mut apic, LVT_LINT0, 0x8041);
    assert_eq!(apic.next_vector(), Some(0x41));
}

/// SDM 12.5.1, "Remote IRR Flag": it has no meaning for edge-triggered entries.
#[test]
fn entry_made_edge_triggered_forgets_the_end_it_awaited() {
    let mut apic = bsp();
    let _ = write(&mut apic, LVT_LINT0, 0x8041);
    let _ = apic.set_lint(Lint::Lint0, true);
    apic.acknowledge(0x41);
    let _ = write(&mut apic, LVT_LINT0, 0x1_8041);
    assert_eq!(apic.read_msr(LVT_LINT0, at(0)), Ok(0x1_c041), "masking is no reason");
    let _ = write(&mut apic, LVT_LINT0, 0x41);
    assert_eq!(apic.read_msr(LVT_LINT0, at(0)), Ok(0x41));
    let _ = write(&mut apic, LVT_LINT0, 0x8051);
    assert_eq!(apic.next_vector(), Some(0x51));
}

/// SDM 12.5.1: SMI and INIT on a pin are for processors with those wired; reserved modes are nothing.
#[test]
fn other_delivery_modes_of_a_pin_do_nothing() {
    for mode in [1, 2, 3, 5, 6] {
        let mut apic = bsp();
        let _ = write(&mut apic, LVT_LINT0, mode << 8 | 0x41);
        assert!(!apic.set_lint(Lint::Lint0, true), "{mode}");
        assert_eq!((apic.next_vector(), apic.extint_wanted()), (None, false), "{mode}");
    }
}

/// SDM 12.4.7.3: INIT forgets what was sent, not what is wired.
#[test]
fn init_keeps_the_level_of_the_pins_and_forgets_messages() {
    let mut apic = bsp();
    let inbox = Inbox::new();
    inbox.post_extint();
    let _ = apic.pull(&inbox);
    apic.init_reset();
    assert!(!apic.extint_wanted());
    let _ = apic.set_lint(Lint::Lint0, true);
    apic.init_reset();
    assert!(apic.extint_wanted(), "virtual wire mode again");
}
