//! IRR, ISR, and the priorities between them.

use super::*;

/// SDM 12.8.3.
#[test]
fn highest_vector_is_delivered_first() {
    let mut apic = x2apic();
    request(&mut apic, &[0x31, 0xef, 0x80, 0x10, 0xff]);
    let mut order = Vec::new();
    while let Some(vector) = apic.next_vector() {
        apic.acknowledge(vector);
        set(&mut apic, EOI, 0);
        order.push(vector);
    }
    assert_eq!(order, [0xff, 0xef, 0x80, 0x31, 0x10]);
}

/// SDM 12.8.3.1.
#[test]
fn tpr_blocks_its_class_and_those_below() {
    let mut apic = x2apic();
    request(&mut apic, &[0x5f]);
    set(&mut apic, TPR, 0x4f);
    assert_eq!(apic.next_vector(), Some(0x5f));
    set(&mut apic, TPR, 0x50);
    assert_eq!(apic.next_vector(), None);
    set(&mut apic, TPR, 0xff);
    assert_eq!(apic.next_vector(), None);
    set(&mut apic, TPR, 0);
    assert_eq!(apic.next_vector(), Some(0x5f));
}

/// SDM 12.8.3.
#[test]
fn vector_in_service_blocks_its_class_and_higher_ones_nest() {
    let mut apic = x2apic();
    request(&mut apic, &[0x52]);
    apic.acknowledge(0x52);
    request(&mut apic, &[0x5f]);
    assert_eq!(apic.next_vector(), None);
    request(&mut apic, &[0x60]);
    assert_eq!(apic.next_vector(), Some(0x60));
    apic.acknowledge(0x60);
    assert_eq!(vectors(&mut apic, ISR), [0x52, 0x60]);
    set(&mut apic, EOI, 0);
    assert_eq!(vectors(&mut apic, ISR), [0x52]);
    assert_eq!(apic.next_vector(), None);
    set(&mut apic, EOI, 0);
    assert_eq!(apic.next_vector(), Some(0x5f));
}

/// SDM 12.8.3.1.
#[test]
fn ppr_is_the_higher_of_tpr_and_the_class_in_service() {
    let mut apic = x2apic();
    set(&mut apic, TPR, 0x35);
    assert_eq!(get(&mut apic, PPR), 0x35);
    request(&mut apic, &[0x47]);
    apic.acknowledge(0x47);
    assert_eq!(get(&mut apic, PPR), 0x40);
    set(&mut apic, TPR, 0x43);
    assert_eq!(get(&mut apic, PPR), 0x43);
}

/// SDM 12.8.4.
#[test]
fn vector_can_be_requested_again_while_in_service() {
    let mut apic = x2apic();
    request(&mut apic, &[0x52, 0x52]);
    apic.acknowledge(0x52);
    assert!(vectors(&mut apic, IRR).is_empty());
    request(&mut apic, &[0x52]);
    assert_eq!(apic.next_vector(), None);
    set(&mut apic, EOI, 0);
    assert_eq!(apic.next_vector(), Some(0x52));
}

#[test]
fn acknowledging_what_was_not_requested_does_nothing() {
    let mut apic = x2apic();
    apic.acknowledge(0x52);
    assert!(vectors(&mut apic, ISR).is_empty());
}

#[test]
fn eoi_with_nothing_in_service_does_nothing() {
    let mut apic = x2apic();
    request(&mut apic, &[0x52]);
    set(&mut apic, EOI, 0);
    assert_eq!(apic.next_vector(), Some(0x52));
}

/// SDM 12.8.4.
#[test]
fn edge_triggered_vector_is_clear_in_tmr() {
    let mut apic = x2apic();
    request(&mut apic, &[0x52]);
    assert!(vectors(&mut apic, 0x818).is_empty());
}

/// SDM 12.5.2.
#[test]
fn every_vector_from_16_on_has_its_bit_and_none_below() {
    for vector in 0..=255 {
        let mut apic = x2apic();
        request(&mut apic, &[vector]);
        let expected: &[u8] = if vector < 16 { &[] } else { &[vector] };
        assert_eq!(vectors(&mut apic, IRR), expected);
        apic.acknowledge(vector);
        assert_eq!(vectors(&mut apic, ISR), expected);
    }
}

/// SDM 12.8.6.
#[test]
fn cr8_is_the_class_of_tpr() {
    let mut apic = x2apic();
    set(&mut apic, TPR, 0xa7);
    assert_eq!(apic.cr8(), 0xa);
    apic.set_cr8(0xa);
    assert_eq!(apic.tpr(), 0xa7, "unchanged class keeps the sub-class");
    apic.set_cr8(0x3);
    assert_eq!(apic.tpr(), 0x30);
    apic.set_cr8(0xf5);
    assert_eq!(apic.tpr(), 0x50);
}

#[test]
fn timer_vector_is_deliverable_only_above_ppr_unmasked_and_enabled() {
    let mut apic = x2apic();
    assert!(!apic.timer_vector_deliverable());
    set(&mut apic, LVT_TIMER, 0x52);
    assert!(apic.timer_vector_deliverable());
    set(&mut apic, TPR, 0x50);
    assert!(!apic.timer_vector_deliverable());
    set(&mut apic, TPR, 0);
    request(&mut apic, &[0x51]);
    apic.acknowledge(0x51);
    assert!(!apic.timer_vector_deliverable());
    set(&mut apic, EOI, 0);
    assert!(apic.timer_vector_deliverable());
    set(&mut apic, LVT_TIMER, 0x52 | MASKED);
    assert!(!apic.timer_vector_deliverable());
    set(&mut apic, LVT_TIMER, 0x0f);
    assert!(!apic.timer_vector_deliverable());
    set(&mut apic, LVT_TIMER, 0x52);
    set(&mut apic, SVR, 0xff);
    assert!(!apic.timer_vector_deliverable());
}
