//! The ACPI registers: accesses of any width at any offset while time goes on, jumps and runs back.

use devices::acpi_pm::AcpiPm;
use rand::Rng;

#[test]
fn timer_never_runs_back_and_its_event_is_in_the_future() {
    crate::run("acpi_pm", |random| {
        let mut now = random.random_range(0..1 << 40);
        let mut latest = now;
        let mut pm = AcpiPm::new(now);
        for _ in 0..200 {
            now = crate::step(random, now);
            latest = now.max(latest);
            let offset = if random.random() { random.random_range(0..16) } else { random.random() };
            let mut data = [random.random(); 8];
            let len = random.random_range(0..=8);
            match random.random_range(0..4) {
                0 => pm.read(offset, &mut data[..len], now),
                1 => {
                    let _ = pm.write(offset, &data[..len], now);
                }
                2 => pm.press_power_button(),
                _ => pm.advance(now),
            }
            pm.advance(now);
            if let Some(at) = pm.next_event() {
                assert!(at > latest || latest == u64::MAX, "{at} {latest}");
                assert!(!pm.line());
            }
        }
    });
}
