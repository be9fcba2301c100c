//! Modes, enabling and disabling, reset.

use super::*;

const EN: u64 = 1 << 11;
const EXTD: u64 = 1 << 10;
const ADDRESS: u64 = 0xfee0_0000;

fn in_mode(bits: u64) -> LocalApic {
    let mut apic = LocalApic::new(CONFIG);
    match bits {
        0 => apic.set_base(ADDRESS).expect("disabling"),
        EN => {}
        _ => apic.set_base(ADDRESS | EN | EXTD).expect("enabling x2APIC"),
    }
    apic
}

/// SDM 12.12.5, figure 12-27.
#[test]
fn mode_transitions_are_those_of_the_manual() {
    let legal = |from: u64, to: u64| {
        from == to || to == 0 || matches!((from, to), (0, EN)) || (from == EN && to == EN | EXTD)
    };
    for from in [0, EN, EN | EXTD] {
        for to in [0, EN, EN | EXTD, EXTD] {
            let mut apic = in_mode(from);
            let before = apic.base_msr();
            let result = apic.set_base(ADDRESS | to);
            assert_eq!(result.is_ok(), legal(from, to), "{from:#x} -> {to:#x}");
            let after = if result.is_ok() { ADDRESS | to } else { before };
            assert_eq!(apic.base_msr(), after);
        }
    }
}

/// SDM 12.12.5, figure 12-27.
#[test]
fn reserved_bits_of_the_base_raise_gp_and_change_nothing() {
    let mut apic = LocalApic::new(CONFIG);
    let base = apic.base_msr();
    for bit in (0..8).chain([9]).chain(52..64) {
        assert!(refused(&mut apic, APIC_BASE, base | 1 << bit), "bit {bit}");
        assert_eq!(apic.base_msr(), base);
    }
}

/// SDM 12.4.3, 12.4.4.
#[test]
fn bootstrap_processor_is_marked() {
    assert_eq!(LocalApic::new(CONFIG).base_msr(), 0xfee0_0800);
    assert_eq!(LocalApic::new(ApicConfig { bsp: true, ..CONFIG }).base_msr(), 0xfee0_0900);
}

/// SDM 12.12.5.
#[test]
fn change_of_mode_is_reported_for_routing() {
    let mut apic = LocalApic::new(CONFIG);
    let x2apic = ADDRESS | EN | EXTD;
    assert_eq!(apic.write_msr(APIC_BASE, x2apic, at(0)), Ok(Effect::Routing));
    assert_eq!(apic.write_msr(APIC_BASE, x2apic, at(0)), Ok(Effect::None));
    assert_eq!(apic.write_msr(APIC_BASE, ADDRESS, at(0)), Ok(Effect::Routing));
}

/// SDM 12.4.3, 12.4.4.
#[test]
fn register_page_exists_in_xapic_mode_alone_and_moves() {
    assert_eq!(in_mode(0).mmio_base(), None);
    assert_eq!(in_mode(EN | EXTD).mmio_base(), None);
    let mut apic = in_mode(EN);
    assert_eq!(apic.mmio_base(), Some(ADDRESS));
    apic.set_base(0x000f_ffff_ffff_f000 | EN).expect("a legal address");
    assert_eq!(apic.mmio_base(), Some(0x000f_ffff_ffff_f000));
}

/// SDM 12.4.4: bits from MAXPHYADDR on are reserved.
#[test]
fn register_page_stays_within_the_physical_address_bits() {
    for physical_bits in [36, 48, 51] {
        let mut apic = LocalApic::new(ApicConfig { physical_bits, ..CONFIG });
        let beyond = 1 << physical_bits | ADDRESS | EN;
        assert_eq!(apic.write_msr(APIC_BASE, beyond, at(0)), Err(GeneralProtection));
        assert_eq!(apic.base_msr(), ADDRESS | EN);
        let last = (1 << physical_bits) - 0x1000;
        assert_eq!(apic.write_msr(APIC_BASE, last | EN, at(0)), Ok(Effect::None));
        assert_eq!(apic.mmio_base(), Some(last));
    }
}

/// SDM 12.12.1.2.
#[test]
fn x2apic_registers_raise_gp_outside_x2apic_mode() {
    for mode in [0, EN] {
        let mut apic = in_mode(mode);
        for msr in 0x800..=0x8ff {
            assert!(apic.read_msr(msr, at(0)).is_err());
            assert!(refused(&mut apic, msr, 0));
        }
    }
}

/// SDM 12.12.2.
#[test]
fn register_page_is_dead_in_x2apic_mode() {
    let mut apic = x2apic();
    set(&mut apic, TPR, 0x20);
    assert_eq!(poke(&mut apic, 0x80, 0x30), Effect::None);
    assert_eq!(peek(&mut apic, 0x80), 0);
    assert_eq!(apic.tpr(), 0x20);
}

/// SDM 12.12.5.1.
#[test]
fn enabling_x2apic_keeps_the_registers_but_icr() {
    let mut apic = xapic();
    let _ = poke(&mut apic, 0x80, 0x40);
    let _ = poke(&mut apic, 0x350, 0x0001_0700);
    let _ = poke(&mut apic, 0x310, 0xff00_0000);
    let _ = poke(&mut apic, 0x300, 0x0004_0056);
    request(&mut apic, &[0x55]);
    apic.set_base(apic.base_msr() | EXTD).expect("a legal transition");
    assert_eq!(get(&mut apic, SVR), 0x1ff);
    assert_eq!(get(&mut apic, TPR), 0x40);
    assert_eq!(get(&mut apic, 0x835), 0x0001_0700);
    assert_eq!(get(&mut apic, ICR), 0x0004_0056, "the high half is not preserved");
    assert_eq!(vectors(&mut apic, IRR), [0x55]);
}

/// SDM 12.4.3.
#[test]
fn disabling_by_the_base_loses_everything() {
    let mut apic = x2apic();
    request(&mut apic, &[0x55]);
    set(&mut apic, LVT_TIMER, 0x40);
    set(&mut apic, TMICT, 1000);
    apic.set_base(ADDRESS).expect("disabling");
    assert_eq!(apic.deadline(), None);
    assert_eq!(apic.next_vector(), None);
    apic.set_base(ADDRESS | EN).expect("enabling");
    assert_eq!(peek(&mut apic, 0xf0), 0xff);
    assert_eq!(peek(&mut apic, 0x220), 0);
    assert_eq!(peek(&mut apic, 0x320), 0x1_0000);
    assert_eq!(peek(&mut apic, 0x380), 0);
}

/// SDM 12.4.7.3, 12.12.5.1.
#[test]
fn init_resets_all_but_id_base_and_mode() {
    let mut apic = x2apic();
    request(&mut apic, &[0x55, 0x66]);
    apic.acknowledge(0x66);
    for (msr, value) in [(TPR, 0x20), (LVT_TIMER, 0x40), (TDCR, DIVIDE_BY_1), (TMICT, 1000)] {
        set(&mut apic, msr, value);
    }
    let base = apic.base_msr();
    apic.init_reset();
    let mut fresh = LocalApic::new(CONFIG);
    fresh.set_base(base).expect("enabling x2APIC");
    assert_eq!(format!("{apic:?}"), format!("{fresh:?}"));
    assert!(apic.is_x2apic());
    assert_eq!(apic.id(), 3);
}

/// SDM 12.4.7.2.
#[test]
fn software_disabling_masks_the_lvt_and_keeps_it_masked() {
    let mut apic = x2apic();
    for msr in LVT_TIMER..=LVT_ERROR {
        set(&mut apic, msr, 0x40);
    }
    set(&mut apic, SVR, 0xff);
    for msr in LVT_TIMER..=LVT_ERROR {
        assert_eq!(get(&mut apic, msr), 0x40 | MASKED);
        set(&mut apic, msr, 0x41);
        assert_eq!(get(&mut apic, msr), 0x41 | MASKED);
    }
    set(&mut apic, SVR, 0x1ff);
    assert_eq!(get(&mut apic, LVT_TIMER), 0x41 | MASKED);
    set(&mut apic, LVT_TIMER, 0x41);
    assert_eq!(get(&mut apic, LVT_TIMER), 0x41);
}

/// SDM 12.4.7.2: requests are held, and it is for the processor to mask or to handle them.
#[test]
fn software_disabled_apic_delivers_what_it_holds_and_drops_what_arrives() {
    let mut apic = x2apic();
    request(&mut apic, &[0x55, 0x66]);
    apic.acknowledge(0x66);
    set(&mut apic, SVR, 0xff);
    request(&mut apic, &[0x77]);
    assert_eq!(vectors(&mut apic, IRR), [0x55]);
    assert_eq!(vectors(&mut apic, ISR), [0x66]);
    assert_eq!(apic.next_vector(), None, "0x66 is in service");
    set(&mut apic, EOI, 0);
    assert_eq!(apic.next_vector(), Some(0x55));
    apic.acknowledge(0x55);
    set(&mut apic, EOI, 0);
    set(&mut apic, SVR, 0x1ff);
    assert_eq!(apic.next_vector(), None);
}

/// SDM 12.4.7.2: NMI, INIT and SIPI arrive all the same.
#[test]
fn software_disabled_apic_takes_messages_without_a_vector() {
    let mut apic = x2apic();
    set(&mut apic, SVR, 0xff);
    let inbox = Inbox::new();
    inbox.post_init();
    inbox.post_nmi();
    inbox.post_sipi(9);
    let pulled = apic.pull(&inbox);
    assert!(pulled.nmis == 1 && pulled.init && pulled.sipi == Some(9));
}
