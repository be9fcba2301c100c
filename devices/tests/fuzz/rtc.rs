//! The CMOS clock: registers of all kinds written and read while time goes on, jumps and runs back.

use devices::rtc::{Rtc, RtcConfig};
use rand::Rng;

#[test]
fn next_event_is_later_than_an_advance_and_reading_c_lowers_the_line() {
    crate::run("rtc", |random| {
        let mut now = random.random_range(0..1 << 40);
        let mut latest = now;
        let mut rtc = Rtc::new(RtcConfig {
            host_ns: now,
            unix_ns: random.random(),
            low_memory: random.random(),
            high_memory: random.random(),
            least_period_ns: [0, 200_000][random.random_range(0..2)],
        });
        for _ in 0..200 {
            now = crate::step(random, now);
            latest = now.max(latest);
            match random.random_range(0..5) {
                0 => rtc.write(0x70, random.random(), now),
                1 => rtc.write(0x70, random.random_range(0..0x0f), now),
                2 => rtc.write(0x71, random.random(), now),
                3 => {
                    rtc.write(0x70, 0x0c, now);
                    let _ = rtc.read(0x71, now);
                    assert!(!rtc.line());
                }
                _ => {
                    rtc.advance(now);
                    assert!(!rtc.line() || rtc.next_event().is_none());
                    if let Some(at) = rtc.next_event() {
                        assert!(at > latest || latest == u64::MAX, "{at} {latest}");
                    }
                }
            }
        }
    });
}
