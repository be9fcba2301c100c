//! Registers one by one: reset values, writable and reserved bits, ESR, access widths.

use super::*;

#[test]
fn reset_values_are_those_of_the_manual() {
    let mut apic = LocalApic::new(CONFIG);
    let expected = [
        (0x20, 3 << 24),
        (0x30, 0x0106_0014),
        (0x80, 0),
        (0xa0, 0),
        (0xd0, 0),
        (0xe0, u32::MAX),
        (0xf0, 0xff),
        (0x280, 0),
        (0x300, 0),
        (0x310, 0),
        (0x380, 0),
        (0x390, 0),
        (0x3e0, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(peek(&mut apic, offset), value, "{offset:#x}");
    }
    for offset in (0x320..=0x370).step_by(16) {
        assert_eq!(peek(&mut apic, offset), 0x0001_0000, "{offset:#x}");
    }
    for offset in (0x100..0x280).step_by(16) {
        assert_eq!(peek(&mut apic, offset), 0, "{offset:#x}");
    }
}

/// Register offset, bits that a write of all ones leaves set.
const WRITABLE: [(u64, u32); 13] = [
    (0x80, 0xff),
    (0xd0, 0xff00_0000),
    (0xe0, u32::MAX),
    (0xf0, 0x13ff),
    (0x310, 0xff00_0000),
    (0x2f0, 0x0001_07ff),
    (0x330, 0x0001_07ff),
    (0x340, 0x0001_07ff),
    (0x350, 0x0001_a7ff),
    (0x360, 0x0001_a7ff),
    (0x370, 0x0001_00ff),
    (0x380, u32::MAX),
    (0x3e0, 0xb),
];

#[test]
fn xapic_drops_reserved_bits() {
    for (offset, writable) in WRITABLE {
        let mut apic = xapic();
        let _ = poke(&mut apic, offset, u32::MAX);
        assert_eq!(peek(&mut apic, offset), writable, "{offset:#x}");
    }
}

#[test]
fn x2apic_refuses_each_reserved_bit_and_takes_each_writable_one() {
    for (offset, writable) in WRITABLE {
        if matches!(offset, 0xd0 | 0xe0 | 0x310) {
            continue;
        }
        let msr = 0x800 + (offset / 16) as u32;
        // Delivery status and remote IRR can be read only, which is no reason for #GP.
        let read_only = if (0x2f0..=0x370).contains(&offset) && offset != 0x310 && offset != 0x300 {
            0x5000
        } else {
            0
        };
        for bit in 0..64 {
            let value = 1 << bit;
            let legal = value & u64::from(writable | read_only) != 0;
            assert_eq!(refused(&mut x2apic(), msr, value), !legal, "{msr:#x} bit {bit}");
        }
    }
}

#[test]
fn lvt_timer_has_its_second_mode_bit_only_with_tsc_deadline() {
    let without = ApicConfig { tsc_deadline: false, ..CONFIG };
    assert!(refused(&mut x2apic_of(without), LVT_TIMER, DEADLINE_MODE));
    assert!(!refused(&mut x2apic(), LVT_TIMER, DEADLINE_MODE));
    assert!(refused(&mut x2apic(), LVT_TIMER, DEADLINE_MODE | PERIODIC));
    let mut apic = LocalApic::new(without);
    let _ = poke(&mut apic, 0x320, u32::MAX);
    assert_eq!(peek(&mut apic, 0x320), 0x0003_00ff);
    let mut apic = xapic();
    let _ = poke(&mut apic, 0x320, u32::MAX);
    assert_eq!(peek(&mut apic, 0x320), 0x0003_00ff);
}

#[test]
fn x2apic_read_only_and_absent_registers_raise_gp() {
    let mut apic = x2apic();
    let readable = |r: u32| matches!(r, 0x02 | 0x03 | 0x08 | 0x0a | 0x0d | 0x0f..=0x28 | 0x2f | 0x30 | 0x32..=0x39 | 0x3e);
    let writable =
        |r: u32| matches!(r, 0x08 | 0x0b | 0x0f | 0x28 | 0x2f | 0x30 | 0x32..=0x38 | 0x3e | 0x3f);
    for register in 0..=0xff {
        let read = apic.read_msr(0x800 + register, at(0));
        assert_eq!(read.is_ok(), readable(register), "read {register:#x}");
        // Zero is legal everywhere; as a self IPI it is an illegal vector, which is no #GP.
        let write = apic.write_msr(0x800 + register, 0, at(0));
        assert_eq!(write.is_ok(), writable(register), "write {register:#x}");
    }
}

#[test]
fn other_msrs_are_not_the_apics() {
    let mut apic = x2apic();
    for msr in [0, 0x1a, 0x6df, 0x6e1, 0x7ff, 0x900, u32::MAX] {
        assert!(apic.read_msr(msr, at(0)).is_err());
        assert!(refused(&mut apic, msr, 0));
    }
}

#[test]
fn eoi_takes_zero_alone_in_x2apic_and_anything_in_xapic() {
    assert!(refused(&mut x2apic(), EOI, 1));
    let mut apic = xapic();
    request(&mut apic, &[0x55]);
    apic.acknowledge(0x55);
    assert_eq!(peek(&mut apic, 0x120), 1 << 21);
    assert_eq!(poke(&mut apic, 0xb0, 0xdead_beef), Effect::None);
    assert_eq!(peek(&mut apic, 0x120), 0);
}

#[test]
fn x2apic_shows_all_of_the_id_and_the_derived_ldr() {
    let mut apic = x2apic_of(ApicConfig { id: 0x0001_0123, ..CONFIG });
    assert_eq!(get(&mut apic, 0x802), 0x0001_0123);
    assert_eq!(get(&mut apic, LDR), 0x1012_0008);
    assert_eq!(u64::from(apic.ldr()), get(&mut apic, LDR));
}

#[test]
fn xapic_id_cannot_be_changed() {
    let mut apic = xapic();
    assert_eq!(poke(&mut apic, 0x20, 7 << 24), Effect::None);
    assert_eq!(peek(&mut apic, 0x20), 3 << 24);
}

#[test]
fn esr_shows_errors_only_after_a_write() {
    let mut apic = xapic();
    assert_eq!(peek(&mut apic, 0x3f0), 0);
    assert_eq!(peek(&mut apic, 0x280), 0);
    let _ = poke(&mut apic, 0x280, 0);
    assert_eq!(peek(&mut apic, 0x280), 1 << 7);
    let _ = poke(&mut apic, 0x280, 0);
    assert_eq!(peek(&mut apic, 0x280), 0);
}

#[test]
fn existing_read_only_registers_are_no_illegal_address() {
    let mut apic = xapic();
    for offset in [0x20, 0x30, 0x90, 0xa0, 0xb0, 0xc0, 0x100, 0x180, 0x270, 0x390] {
        let _ = poke(&mut apic, offset, 0);
        let _ = peek(&mut apic, offset);
    }
    let _ = poke(&mut apic, 0x280, 0);
    assert_eq!(peek(&mut apic, 0x280), 0);
}

#[test]
fn error_raises_its_interrupt_once_until_esr_is_written() {
    let mut apic = x2apic();
    set(&mut apic, LVT_ERROR, 0xfe);
    request(&mut apic, &[5]);
    assert_eq!(apic.next_vector(), Some(0xfe));
    apic.acknowledge(0xfe);
    set(&mut apic, EOI, 0);
    request(&mut apic, &[6]);
    assert_eq!(apic.next_vector(), None);
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 1 << 6);
    request(&mut apic, &[7]);
    assert_eq!(apic.next_vector(), Some(0xfe));
}

#[test]
fn illegal_vector_of_the_error_interrupt_does_not_recurse() {
    let mut apic = x2apic();
    set(&mut apic, LVT_ERROR, 3);
    set(&mut apic, SELF_IPI, 0);
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 1 << 5 | 1 << 6);
    assert_eq!(apic.next_vector(), None);
}

#[test]
fn mmio_of_other_widths_and_alignments_reads_zero_and_changes_nothing() {
    let mut apic = xapic();
    let _ = poke(&mut apic, 0x80, 0x40);
    for offset in [0x80, 0x81, 0x82, 0x84, 0x88, 0x8c, 0x7d, 0xfff, 0x1000, u64::MAX] {
        for len in [0, 1, 2, 3, 4, 5, 8, 16] {
            if (offset, len) == (0x80, 4) {
                continue;
            }
            let mut data = vec![0xaa; len];
            apic.read_mmio(offset, &mut data, at(0));
            assert!(data.iter().all(|byte| *byte == 0), "{offset:#x} {len}");
            assert_eq!(apic.write_mmio(offset, &data, at(0)), Effect::None);
            assert_eq!(apic.tpr(), 0x40, "{offset:#x} {len}");
        }
    }
}

/// SDM 12.5.1: the entry for corrected machine checks is there where IA32_MCG_CAP says so.
#[test]
fn without_corrected_machine_checks_there_are_six_entries() {
    let without = ApicConfig { cmci: false, ..CONFIG };
    let mut apic = x2apic_of(without);
    assert_eq!(get(&mut apic, 0x803), 0x0105_0014);
    assert!(refused(&mut apic, 0x82f, 0));
    assert_eq!(apic.read_msr(0x82f, at(0)), Err(GeneralProtection));
    assert_eq!(get(&mut x2apic(), 0x803), 0x0106_0014);
}
