//! The local APIC: registers in both modes, posts, pins, acknowledgements and moves of the TSC while
//! time goes on, jumps and runs back.

use devices::apic::{ApicConfig, Inbox, Lint, LocalApic};
use devices::time::Moment;
use rand::Rng;
use rand::rngs::SmallRng;

/// Mostly a register that exists.
fn register(random: &mut SmallRng) -> u32 {
    const KNOWN: [u32; 18] = [
        0x02, 0x03, 0x08, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x28, 0x2f, 0x30, 0x31, 0x32, 0x35, 0x37,
        0x38, 0x39, 0x3e,
    ];
    match random.random_range(0..8) {
        0 => random.random_range(0..0x100),
        1 => 0x3f,
        _ => KNOWN[random.random_range(0..KNOWN.len())],
    }
}

fn value(random: &mut SmallRng) -> u64 {
    match random.random_range(0..5) {
        0 => random.random(),
        1 => 0,
        2 => u64::from(random.random::<u8>()),
        3 => 0x1ff,
        _ => u64::from(random.random::<u32>()) & 0x7_87ff,
    }
}

fn access(random: &mut SmallRng, apic: &mut LocalApic, now: Moment) {
    let register = register(random);
    let value = value(random);
    match random.random_range(0..6) {
        0 => {
            let _ = apic.write_msr(0x800 + register, value, now);
        }
        1 => {
            let _ = apic.read_msr(0x800 + register, now);
        }
        2 => {
            let (offset, len) = if random.random() {
                (u64::from(register) * 16, 4)
            } else {
                (random.random_range(0..0x1010), random.random_range(0..=8))
            };
            let _ = apic.write_mmio(offset, &value.to_le_bytes()[..len], now);
        }
        3 => apic.read_mmio(u64::from(register) * 16, &mut [0; 4], now),
        4 => {
            let deadline = now.tsc.wrapping_add(random.random_range(0..1 << 40));
            let _ = apic.write_msr(0x6e0, if random.random() { deadline } else { value }, now);
        }
        _ => {
            let base = apic.base_msr() & !0xc00 | random.random_range(0..4) << 10;
            let _ = apic.write_msr(0x1b, base, now);
        }
    }
}

fn check(apic: &mut LocalApic, now: Moment) {
    let _ = apic.advance(now);
    if let Some(at) = apic.deadline() {
        assert!(at > now.ns || now.ns == u64::MAX, "{at} {now:?}");
    }
    if let Some(vector) = apic.next_vector() {
        assert!(vector >= 16);
        if let Ok(ppr) = apic.read_msr(0x80a, now) {
            assert!(u64::from(vector >> 4) > ppr >> 4, "{vector:#x} {ppr:#x}");
        }
    }
    if apic.is_x2apic() {
        for register in 0x810..=0x827 {
            let twice = [apic.read_msr(register, now), apic.read_msr(register, now)];
            assert_eq!(twice[0], twice[1]);
        }
    }
    assert!(!apic.to_string().is_empty());
}

#[test]
fn invariants_hold_after_every_step() {
    crate::run("apic", |random| {
        let mut apic = LocalApic::new(ApicConfig {
            id: random.random_range(0..300),
            bsp: random.random(),
            tsc_khz: random.random(),
            timer_hz: [1_000_000_000, random.random()][random.random_range(0..2)],
            tsc_deadline: random.random(),
            least_period_ns: [0, 200_000][random.random_range(0..2)],
            cmci: random.random(),
            pv_eoi: random.random(),
        });
        let inbox = Inbox::new();
        let mut now = Moment::default();
        for _ in 0..200 {
            now.ns = crate::step(random, now.ns);
            now.tsc = if random.random_range(0..50) == 0 { random.random() } else { now.ns };
            match random.random_range(0..10) {
                0 => inbox.post(random.random()),
                1 => inbox.post_level(random.random()),
                2 => {
                    inbox.post_extint();
                    inbox.post_sipi(random.random());
                }
                3 => {
                    let pulled = apic.pull(&inbox);
                    if pulled.sipi.is_some() && random.random() {
                        apic.init_reset();
                    }
                }
                4 => {
                    if let Some(vector) = apic.next_vector() {
                        apic.acknowledge(vector);
                        assert_ne!(apic.next_vector(), Some(vector));
                    }
                }
                5 => {
                    let lint = if random.random() { Lint::Lint0 } else { Lint::Lint1 };
                    let _ = apic.set_lint(lint, random.random());
                    if apic.extint_wanted() {
                        apic.take_extint();
                    }
                }
                6 => {
                    apic.set_cr8(random.random());
                    apic.tsc_changed(now);
                    while apic.grant_eoi().is_some() {}
                    if random.random() {
                        apic.eoi_without_exit();
                    }
                }
                _ => access(random, &mut apic, now),
            }
            check(&mut apic, now);
        }
    });
}
