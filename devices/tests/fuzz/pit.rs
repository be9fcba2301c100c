//! The PIT: counters programmed, latched, read and gated while time goes on, jumps and runs back.

use devices::pit::Pit;
use rand::Rng;

#[test]
fn next_edge_is_later_than_an_advance_whatever_the_guest_does() {
    crate::run("pit", |random| {
        let least = [0, 200_000][random.random_range(0..2)];
        let mut pit = Pit::new(least);
        let mut now = 0_u64;
        let mut latest = 0;
        for _ in 0..200 {
            now = crate::step(random, now);
            latest = now.max(latest);
            let port = [0x40, 0x41, 0x42, 0x43, 0x61][random.random_range(0..5)];
            match random.random_range(0..4) {
                0 => {
                    let _ = pit.read(port, now);
                }
                1 | 2 => pit.write(port, random.random(), now),
                _ => {
                    let rose = pit.advance(now);
                    assert!(!pit.advance(now), "a rise is reported once");
                    if let Some(at) = pit.next_edge() {
                        assert!(at > latest || latest == u64::MAX, "{at} {latest}");
                        assert!(!rose || at - latest.min(at) >= 1);
                    }
                }
            }
        }
    });
}
