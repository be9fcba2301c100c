//! Destinations.

use super::*;

const FIXED: DeliveryMode = DeliveryMode::Fixed;

fn to(mode: DeliveryMode, target: Target) -> Ipi {
    Ipi { mode, vector: 0x40, target, level: false }
}

fn resolved(routing: &Routing, sender: usize, target: Target) -> Vec<usize> {
    routing.resolve(sender, &to(FIXED, target)).collect()
}

fn physical(destination: u32, x2apic: bool) -> Target {
    Target::Physical { destination, x2apic }
}

fn logical(destination: u32, x2apic: bool) -> Target {
    Target::Logical { destination, x2apic }
}

/// `n` vCPUs in x2APIC mode.
fn x2apic_routing(n: u32) -> Routing {
    let routing = Routing::new(n as usize);
    for id in 0..n {
        routing.update(id as usize, &x2apic_of(ApicConfig { id, ..CONFIG }));
    }
    routing
}

/// vCPUs in xAPIC mode with these LDRs and this DFR.
fn xapic_routing(ldrs: &[u8], dfr: u32) -> Routing {
    let routing = Routing::new(ldrs.len());
    for (id, ldr) in (0..).zip(ldrs) {
        let mut apic = LocalApic::new(ApicConfig { id, ..CONFIG });
        let _ = poke(&mut apic, 0xf0, 0x1ff);
        assert_eq!(poke(&mut apic, 0xe0, dfr), Effect::Routing);
        assert_eq!(poke(&mut apic, 0xd0, u32::from(*ldr) << 24), Effect::Routing);
        routing.update(id as usize, &apic);
    }
    routing
}

/// SDM 12.6.1.
#[test]
fn shorthands_are_relative_to_the_sender() {
    let routing = Routing::new(4);
    assert_eq!(resolved(&routing, 2, Target::OnlySelf), [2]);
    assert_eq!(resolved(&routing, 2, Target::All), [0, 1, 2, 3]);
    assert_eq!(resolved(&routing, 2, Target::AllButSelf), [0, 1, 3]);
}

/// SDM 12.6.2.1.
#[test]
fn physical_destination_is_an_id() {
    for routing in [Routing::new(4), x2apic_routing(4)] {
        for x2apic in [false, true] {
            assert_eq!(resolved(&routing, 0, physical(3, x2apic)), [3]);
            assert!(resolved(&routing, 0, physical(4, x2apic)).is_empty());
        }
    }
    assert_eq!(resolved(&x2apic_routing(300), 0, physical(299, true)), [299]);
}

#[test]
fn id_need_not_be_the_index() {
    let routing = Routing::new(2);
    routing.update(0, &x2apic_of(ApicConfig { id: 9, ..CONFIG }));
    assert_eq!(resolved(&routing, 1, physical(9, true)), [0]);
    assert!(resolved(&routing, 1, physical(0, true)).is_empty());
}

/// SDM 12.6.2.1.
#[test]
fn broadcast_is_all_ones_in_the_width_of_the_senders_mode() {
    for target in [physical(0xff, false), physical(u32::MAX, true), logical(u32::MAX, true)] {
        assert_eq!(resolved(&x2apic_routing(3), 0, target), [0, 1, 2]);
        assert_eq!(resolved(&Routing::new(3), 0, target), [0, 1, 2]);
    }
    assert_eq!(resolved(&Routing::new(3), 0, logical(0xff, false)), [0, 1, 2]);
    assert_eq!(resolved(&x2apic_routing(300), 0, physical(0xff, true)), [255]);
    assert_eq!(resolved(&xapic_routing(&[0x11, 0x25], 0), 0, logical(0xff, false)), [0, 1]);
}

/// SDM 12.6.2.2.
#[test]
fn flat_logical_destination_is_a_set_of_bits() {
    let routing = xapic_routing(&[1, 2, 4, 0x80, 0], u32::MAX);
    assert_eq!(resolved(&routing, 0, logical(0x86, false)), [1, 2, 3]);
    assert_eq!(resolved(&routing, 0, logical(0x04, false)), [2]);
    assert!(resolved(&routing, 0, logical(0x40, false)).is_empty());
    assert!(resolved(&routing, 0, logical(0, false)).is_empty());
}

/// SDM 12.6.2.2.
#[test]
fn cluster_logical_destination_is_a_cluster_and_bits_within_it() {
    let routing = xapic_routing(&[0x11, 0x12, 0x21, 0x28, 0x18], 0);
    assert_eq!(resolved(&routing, 0, logical(0x13, false)), [0, 1]);
    assert_eq!(resolved(&routing, 0, logical(0x2f, false)), [2, 3]);
    assert_eq!(resolved(&routing, 0, logical(0x18, false)), [4]);
    assert!(resolved(&routing, 0, logical(0x3f, false)).is_empty());
}

/// SDM 12.12.10.2.
#[test]
fn x2apic_logical_destination_is_a_cluster_of_16_and_bits_within_it() {
    let routing = x2apic_routing(40);
    assert_eq!(resolved(&routing, 0, logical(0x0001_8003, true)), [16, 17, 31]);
    assert_eq!(resolved(&routing, 0, logical(0x0000_0001, true)), [0]);
    assert_eq!(resolved(&routing, 0, logical(0x0002_ffff, true)), (32..40).collect::<Vec<_>>());
    assert!(resolved(&routing, 0, logical(0x0003_ffff, true)).is_empty());
    assert!(resolved(&routing, 0, logical(0x0001_0000, true)).is_empty());
}

#[test]
fn wide_logical_destination_means_nothing_to_an_xapic_receiver() {
    let routing = xapic_routing(&[1, 2], u32::MAX);
    assert!(resolved(&routing, 0, logical(0x0001_0003, true)).is_empty());
    assert_eq!(resolved(&routing, 0, logical(0x3, true)), [0, 1]);
}

/// SDM 12.4.3.
#[test]
fn apic_disabled_by_its_base_receives_nothing_until_enabled() {
    let routing = Routing::new(3);
    let mut apic = LocalApic::new(ApicConfig { id: 1, ..CONFIG });
    apic.set_base(0xfee0_0000).expect("disabling");
    routing.update(1, &apic);
    assert_eq!(resolved(&routing, 0, Target::All), [0, 2]);
    assert!(resolved(&routing, 0, physical(1, false)).is_empty());
    apic.set_base(0xfee0_0800).expect("enabling");
    routing.update(1, &apic);
    assert_eq!(resolved(&routing, 0, Target::All), [0, 1, 2]);
}

/// SDM 12.4.7.2: a software-disabled APIC would lose the interrupt, so it takes no part in the choice.
#[test]
fn lowest_priority_passes_over_a_software_disabled_apic() {
    let routing = Routing::new(2);
    let lowest = to(DeliveryMode::LowestPriority, physical(0xff, false));
    let fixed = to(FIXED, physical(0xff, false));
    assert_eq!(routing.resolve(0, &lowest).count(), 0, "fresh from reset");
    let mut apic = LocalApic::new(ApicConfig { id: 1, ..CONFIG });
    assert_eq!(poke(&mut apic, 0xf0, 0x1ff), Effect::Routing);
    routing.update(1, &apic);
    for _ in 0..4 {
        assert_eq!(routing.resolve(0, &lowest).collect::<Vec<_>>(), [1]);
        assert_eq!(routing.resolve(0, &fixed).collect::<Vec<_>>(), [0, 1]);
    }
    assert_eq!(poke(&mut apic, 0xf0, 0x1fe), Effect::None, "only the enable bit matters");
    assert_eq!(poke(&mut apic, 0xf0, 0xfe), Effect::Routing);
    routing.update(1, &apic);
    assert_eq!(routing.resolve(0, &lowest).count(), 0);
}

/// SDM 12.6.2.4.
#[test]
fn lowest_priority_goes_to_one_destination_and_takes_turns() {
    let routing = xapic_routing(&[1, 2, 4, 8], u32::MAX);
    let ipi = to(DeliveryMode::LowestPriority, logical(0x0e, false));
    let mut counts = [0; 4];
    for _ in 0..40 {
        let targets: Vec<_> = routing.resolve(0, &ipi).collect();
        assert_eq!(targets.len(), 1);
        counts[targets[0]] += 1;
    }
    assert_eq!(counts[0], 0);
    assert!(counts[1..].iter().all(|n| *n > 0), "{counts:?}");
    let nobody = to(DeliveryMode::LowestPriority, logical(0x40, false));
    assert_eq!(routing.resolve(0, &nobody).count(), 0);
}

#[test]
fn sender_or_index_outside_the_table_is_harmless() {
    let routing = Routing::new(2);
    routing.update(2, &x2apic());
    assert!(resolved(&routing, 7, Target::OnlySelf).is_empty());
    assert_eq!(resolved(&routing, 7, Target::AllButSelf), [0, 1]);
    let empty = Routing::new(0);
    for mode in [FIXED, DeliveryMode::LowestPriority] {
        for target in [Target::OnlySelf, Target::All, physical(0, true), logical(1, false)] {
            assert_eq!(empty.resolve(0, &to(mode, target)).count(), 0);
        }
    }
}
