//! Random guests against the timer.

use rand::Rng;
use rand::rngs::SmallRng;

use devices::pit::Pit;

use crate::{run, step};

const MODES_2_AND_3: [u8; 4] = [0x34, 0x36, 0x14, 0x16];

fn port(rng: &mut SmallRng) -> u16 {
    match rng.random_range(0..20) {
        0 => rng.random(),
        1..=3 => 0x61,
        4..=8 => 0x43,
        _ => rng.random_range(0x40..0x43),
    }
}

fn value(rng: &mut SmallRng) -> u8 {
    match rng.random_range(0..6) {
        0 => 0,
        1 => rng.random_range(0..4),
        2 => MODES_2_AND_3[rng.random_range(0..4)],
        _ => rng.random(),
    }
}

/// What holds after every step, with a timer that is brought to `now`.
fn check(pit: &mut Pit, seen: u64, least: u64) {
    let _ = pit.advance(seen);
    assert!(!pit.advance(seen), "one edge is reported once");
    let Some(edge) = pit.next_edge() else {
        return;
    };
    assert!(edge > seen, "{edge} is not after {seen}");
    let mut later = pit.clone();
    assert!(!later.advance(edge - 1), "early");
    assert!(later.advance(edge), "late");
    assert!(later.line());
    // The first edge may be one of the count before, and the next that of a count just written.
    if let Some(second) = later.next_edge() {
        assert!(later.advance(second));
        if let Some(third) = later.next_edge() {
            assert!(third - second >= least, "{second} and {third} are closer than {least}");
        }
    }
}

fn once(rng: &mut SmallRng) {
    let least = if rng.random() { 0 } else { rng.random_range(0..10_000_000) };
    let mut pit = Pit::new(least);
    let (mut now, mut seen) = (0, 0);
    for _ in 0..300 {
        now = step(rng, now);
        seen = seen.max(now);
        match rng.random_range(0..10) {
            0..=4 => pit.write(port(rng), value(rng), now),
            5..=7 => {
                let port = port(rng);
                let byte = pit.read(port, now);
                match port {
                    0x61 => assert_eq!(byte & 0xcc, 0),
                    0x40..=0x42 => {}
                    _ => assert_eq!(byte, 0xff),
                }
            }
            8 => {
                let _ = pit.advance(now);
            }
            _ if rng.random_range(0..20) == 0 => pit.reset(),
            _ => {}
        }
        check(&mut pit, seen, least);
    }
}

/// A count that is latched at two times differs by the ticks between them.
fn counts(rng: &mut SmallRng) {
    let mut pit = Pit::new(rng.random_range(0..1_000_000));
    let mut now = rng.random_range(0..u64::MAX / 2);
    let latch = |pit: &mut Pit, now: u64| {
        pit.write(0x43, 0, now);
        u64::from(u16::from_le_bytes([pit.read(0x40, now), pit.read(0x40, now)]))
    };
    let count = rng.random_range(2..=0xffff_u16);
    pit.write(0x43, 0x34, now);
    count.to_le_bytes().into_iter().for_each(|byte| pit.write(0x40, byte, now));
    // Into the counting element.
    now += 2_000;
    let count = u64::from(count);
    let (start, first) = (now, latch(&mut pit, now));
    for _ in 0..50 {
        let bits = rng.random_range(1..40);
        now += rng.random_range(0..1 << bits);
        let value = latch(&mut pit, now);
        assert!((1..=count).contains(&value), "{value} of {count}");
        // Both reads may be anywhere within their tick.
        let ticks = u128::from(now - start) * 1_193_182 / 1_000_000_000;
        let down = u128::from((first + count - value) % count);
        let expected = [ticks, ticks + 1].map(|ticks| ticks % u128::from(count));
        assert!(expected.contains(&down), "{down} ticks, not {expected:?}");
    }
}

#[test]
fn pit_survives_random_guests() {
    run("pit", once);
}

#[test]
fn pit_counts_as_time_goes() {
    run("pit counts", counts);
}
