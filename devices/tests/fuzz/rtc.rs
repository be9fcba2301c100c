//! Random guests against the clock.

use rand::Rng;
use rand::rngs::SmallRng;

use devices::rtc::{Rtc, RtcConfig};

use crate::{run, step};

fn index(rng: &mut SmallRng) -> u8 {
    match rng.random_range(0..8) {
        0 => rng.random(),
        1 => 0x32,
        2 => 0x0a,
        3 | 4 => 0x0b,
        5 => 0x0c,
        _ => rng.random_range(0..0x10),
    }
}

fn value(rng: &mut SmallRng) -> u8 {
    match rng.random_range(0..5) {
        0 => 0xff,
        1 => rng.random_range(0..0x24),
        2 => 1 << rng.random_range(0..8),
        _ => rng.random(),
    }
}

/// What holds after every step, with a clock that is brought to `seen`.
fn check(rtc: &mut Rtc, seen: u64) {
    rtc.advance(seen);
    let Some(event) = rtc.next_event() else {
        return;
    };
    assert!(!rtc.line());
    assert!(event > seen, "{event} is not after {seen}");
    let mut later = rtc.clone();
    later.advance(event - 1);
    assert!(!later.line(), "early");
    later.advance(event);
    assert!(later.line(), "late");
}

fn get(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
    rtc.write(0x70, index, now);
    rtc.read(0x71, now)
}

/// A date that is running exists, whatever was written.
fn check_date(rtc: &mut Rtc, now: u64) {
    let (a, b) = (get(rtc, 0x0a, now), get(rtc, 0x0b, now));
    if b & 0x80 != 0 || a & 0x60 == 0x60 {
        return;
    }
    let mut number = |index: u8| {
        let byte = get(rtc, index, now);
        let byte = if index == 4 { byte & 0x7f } else { byte };
        if b & 4 != 0 {
            return byte;
        }
        assert!(byte & 0xf < 10 && byte >> 4 < 10, "{byte:#x}");
        (byte >> 4) * 10 + (byte & 0xf)
    };
    let hours = if b & 2 != 0 { 0..24 } else { 1..13 };
    assert!(number(0) < 60 && number(2) < 60 && hours.contains(&number(4)));
    assert!((1..8).contains(&number(6)) && number(9) < 100 && number(0x32) < 100);
    let month = number(8);
    let days = match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    assert!((1..13).contains(&month) && (1..=days).contains(&number(7)));
}

fn once(rng: &mut SmallRng) {
    let mut now = if rng.random() { rng.random() } else { 0 };
    let mut seen = now;
    let mut rtc = Rtc::new(&RtcConfig {
        host_ns: now,
        unix_ns: rng.random(),
        memory_below_4g: rng.random(),
        memory_above_4g: rng.random(),
        least_period_ns: if rng.random() { 0 } else { rng.random() },
    });
    for _ in 0..300 {
        now = step(rng, now);
        seen = seen.max(now);
        match rng.random_range(0..10) {
            0..=4 => {
                rtc.write(0x70, index(rng), now);
                rtc.write(0x71, value(rng), now);
            }
            5..=7 => {
                let _ = get(&mut rtc, index(rng), now);
            }
            8 if rng.random_range(0..20) == 0 => rtc.reset(),
            8 => {
                rtc.write(rng.random(), rng.random(), now);
                let _ = rtc.read(rng.random(), now);
            }
            _ => check_date(&mut rtc, now),
        }
        check(&mut rtc, seen);
    }
}

#[test]
fn rtc_survives_random_guests() {
    run("rtc", once);
}
