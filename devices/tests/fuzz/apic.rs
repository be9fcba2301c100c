//! The local APIC: registers in both modes, posts, pins, acknowledgements and moves of the TSC while
//! time goes on, jumps and runs back.

use devices::apic::{ApicConfig, Inbox, Lint, LocalApic};
use devices::time::Moment;
use rand::Rng;
use rand::rngs::SmallRng;

/// Mostly a register that exists.
fn register(random: &mut SmallRng) -> u32 {
    const KNOWN: [u32; 21] = [
        0x02, 0x03, 0x08, 0x0a, 0x0b, 0x0d, 0x0e, 0x0f, 0x28, 0x2f, 0x30, 0x31, 0x32, 0x33, 0x34,
        0x35, 0x36, 0x37, 0x38, 0x39, 0x3e,
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

/// The registers and everything else, in words.
fn all(apic: &LocalApic) -> String {
    format!("{apic:?}")
}

fn write_msr(apic: &mut LocalApic, msr: u32, value: u64, now: Moment) {
    let before = all(apic);
    if apic.write_msr(msr, value, now).is_err() {
        assert_eq!(all(apic), before, "#GP changes nothing: {msr:#x} <- {value:#x}");
    }
}

fn access(random: &mut SmallRng, apic: &mut LocalApic, now: Moment) {
    let register = register(random);
    let value = value(random);
    match random.random_range(0..7) {
        0 => write_msr(apic, 0x800 + register, value, now),
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
        3 => {
            let offset = u64::from(register) * 16 + random.random_range(0..5);
            apic.read_mmio(offset, &mut [0; 9][..random.random_range(0..10)], now);
        }
        4 => {
            let deadline = now.tsc.wrapping_add(random.random_range(0..1 << 40));
            write_msr(apic, 0x6e0, if random.random() { deadline } else { value }, now);
        }
        5 => write_msr(apic, 0x4b56_4d04, value, now),
        _ => {
            let base = apic.base_msr() & !0xc00 | random.random_range(0..4) << 10;
            let moved = random.random_range(0..1 << 36) << 12;
            let wrong = u64::from(random.random_range(0..8) == 0) << random.random_range(0..64);
            write_msr(apic, 0x1b, if random.random() { base } else { moved | base ^ wrong }, now);
        }
    }
}

/// Reading shows what is there and changes nothing, once the timer is where it should be.
fn read_everything(apic: &mut LocalApic, now: Moment) {
    let before = all(apic);
    for msr in (0x800..0x900).chain([0x1b, 0x6e0, 0x4b56_4d04]) {
        assert_eq!(apic.read_msr(msr, now), apic.read_msr(msr, now), "{msr:#x}");
    }
    // In xAPIC mode an access to what is reserved is noted.
    for register in (0x02..0x04).chain(0x08..0x29).chain(0x30..0x3a).chain([0x3e]) {
        apic.read_mmio(register * 16, &mut [0; 4], now);
    }
    let _ = (apic.deadline(), apic.extint_wanted(), apic.granted_eoi(), apic.mmio_base());
    assert_eq!(all(apic), before);
}

fn check(random: &mut SmallRng, apic: &mut LocalApic, now: Moment) {
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
    let enabled = 1 << 11;
    if apic.base_msr() & enabled == 0 {
        assert_eq!((apic.next_vector(), apic.deadline()), (None, None), "a disabled APIC is quiet");
    }
    if random.random_range(0..8) == 0 {
        read_everything(apic, now);
        assert!(apic.to_string().lines().count() <= 12);
    }
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
            physical_bits: 40,
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
            check(random, &mut apic, now);
        }
    });
}
