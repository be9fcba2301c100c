//! Random guests against the power-management registers and the ports that end the machine.

use rand::Rng;
use rand::rngs::SmallRng;

use devices::acpi_pm::ports::{Port92, ResetControl, write_shutdown};
use devices::acpi_pm::{AcpiPm, Action, SLP_TYP_S5};

use crate::{run, step};

fn offset(rng: &mut SmallRng) -> u64 {
    match rng.random_range(0..10) {
        0 => rng.random(),
        1 => u64::MAX - rng.random_range(0..8),
        _ => rng.random_range(0..14),
    }
}

fn bytes(rng: &mut SmallRng) -> Vec<u8> {
    (0..rng.random_range(0..9)).map(|_| rng.random()).collect()
}

/// What holds after every step, with registers that are brought to `seen`.
fn check(pm: &mut AcpiPm, seen: u64) {
    pm.advance(seen);
    let Some(event) = pm.next_event() else {
        return;
    };
    assert!(!pm.line());
    assert!(event > seen, "{event} is not after {seen}");
    let mut later = pm.clone();
    later.advance(event - 1);
    assert!(!later.line(), "early");
    later.advance(event);
    assert!(later.line(), "late");
}

/// Whether a write reaches the byte that can power off with the bits that do.
fn powers_off(offset: u64, data: &[u8]) -> bool {
    let at = 5_u64.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
    let byte = at.and_then(|at| data.get(at)).copied().unwrap_or(0);
    byte & 0x20 != 0 && byte >> 2 & 7 == SLP_TYP_S5
}

fn once(rng: &mut SmallRng) {
    let start = if rng.random() { rng.random() } else { 0 };
    let mut pm = AcpiPm::new(start);
    let (mut now, mut seen) = (start, start);
    let (mut reset, mut port_92) = (ResetControl::default(), Port92::default());
    for _ in 0..300 {
        now = step(rng, now);
        seen = seen.max(now);
        match rng.random_range(0..20) {
            0..=7 => {
                let (offset, data) = (offset(rng), bytes(rng));
                let off = pm.write(offset, &data, now);
                assert_eq!(off == Action::PowerOff, powers_off(offset, &data));
                assert_ne!(off, Action::Reset);
            }
            8..=15 => {
                let mut data = bytes(rng);
                pm.read(offset(rng), &mut data, now);
            }
            16 => pm.press_power_button(now),
            17 if rng.random_range(0..10) == 0 => pm.reset(),
            _ => {
                let value = rng.random();
                assert_eq!(reset.write(value) == Action::Reset, value & 4 != 0);
                assert_eq!(port_92.write(value) == Action::Reset, value & 1 != 0);
                assert_eq!((reset.read() & !10, port_92.read() & !2), (0, 0));
                let _ = write_shutdown(rng.random_range(0x600..0x606), &bytes(rng));
            }
        }
        check(&mut pm, seen);
        timer(&mut pm, seen - start, now);
    }
}

fn timer(pm: &mut AcpiPm, passed: u64, now: u64) {
    let mut data = [0; 4];
    pm.read(8, &mut data, now);
    let ticks = u128::from(passed) * 3_579_545 / 1_000_000_000;
    assert_eq!(u128::from(u32::from_le_bytes(data)), ticks & 0xffff_ffff);
}

#[test]
fn acpi_pm_survives_random_guests() {
    run("acpi_pm", once);
}
