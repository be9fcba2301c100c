//! The chipset as a guest and its host meet it: ports and addresses of all its devices, lines, ends of
//! interrupts and acknowledgements while time goes on, jumps and runs back.

use std::sync::Arc;

use devices::bus::BusBuilder;
use devices::chipset::{Board, ChipsetConfig, Errand};
use devices::rtc::RtcConfig;
use rand::Rng;

const PORTS: [u16; 18] = [
    0x20, 0x21, 0x40, 0x42, 0x43, 0x61, 0x70, 0x71, 0x92, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x600, 0xcf9,
    0xb000, 0xb002, 0xb008,
];

#[test]
fn errands_come_to_an_end_and_the_deadline_is_in_the_future() {
    crate::run("chipset", |random| {
        let external_controllers = random.random_range(0..8) == 0;
        let board = Arc::new(Board::new(&ChipsetConfig {
            ioapic_id: 0,
            rtc: RtcConfig {
                host_ns: 0,
                unix_ns: 1 << 60,
                memory_below_4g: 1 << 26,
                memory_above_4g: 0,
                least_period_ns: 200_000,
            },
            start_ns: 0,
            least_period_ns: 200_000,
            external_controllers,
        }));
        let bus = board.attach(BusBuilder::new()).expect("no overlap").freeze();
        let (mut now, mut latest) = (0_u64, 0);
        for _ in 0..200 {
            now = crate::step(random, now);
            latest = now.max(latest);
            let mut data = [random.random(); 8];
            let len = [1, 1, 1, 2, 4, 8, 0][random.random_range(0..7)];
            let port = PORTS[random.random_range(0..PORTS.len())];
            let address = 0xfec0_0000 + [0, 0x10, 0x40, 0x13][random.random_range(0..4)];
            match random.random_range(0..8) {
                0 => drop(bus.pio_read(port, &mut data[..len], now)),
                1..=3 => drop(bus.pio_write(port, &data[..len], now)),
                4 => {
                    let register = u32::from(random.random_range(0x10..0x40_u8));
                    let _ = bus.mmio_write(0xfec0_0000, &register.to_le_bytes(), now);
                    let entry = random.random::<u32>() & 0x1_ffff;
                    let _ = bus.mmio_write(0xfec0_0010, &entry.to_le_bytes(), now);
                }
                5 => drop(bus.mmio_read(address, &mut data[..len], now)),
                6 => {
                    let _ = board.with(now, |chipset| match random.random_range(0..3) {
                        0 => chipset.end_of_interrupt(random.random()),
                        1 => chipset.pulse(random.random_range(0..30)),
                        _ => drop(chipset.press_power_button(now)),
                    });
                }
                _ => {
                    let _ = board.with(now, |chipset| chipset.acknowledge(now));
                }
            }
            let mut errands = 0;
            while let Some(errand) = board.take_errand() {
                errands += 1;
                assert!(errands <= 64, "errands without end: {errand:?}");
                if errand == Errand::Lines {
                    assert!(external_controllers);
                    board.tell_lines(|level| assert!(level.irq < 24));
                }
            }
            let _ = board.with(latest, |_| ());
            if let Some(at) = board.deadline() {
                assert!(at > latest || latest == u64::MAX, "{at} {latest}");
            }
        }
    });
}
