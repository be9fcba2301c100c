//! What guests without TSC deadlines do to learn the APIC timer's frequency: they count it against the PIT.
//! Both devices see one virtual clock, so the answer is exact but for the last tick of each.

use super::*;
use crate::pit::{self, Pit, SPEAKER_PORT};

/// Divide by 16, as Linux has it.
const DIVIDE_BY_16: u64 = 0b0011;
const DIVISOR: u64 = 16;
/// The control port, channel 0 and channel 2.
const CONTROL: u16 = 0x43;
const CHANNEL_0: u16 = 0x40;
const CHANNEL_2: u16 = 0x42;
const OUT_2: u8 = 1 << 5;

/// The APIC timer counts down from the largest count, without an interrupt.
fn counting_down(now: u64) -> LocalApic {
    let mut apic = x2apic();
    set_at(&mut apic, LVT_TIMER, MASKED | 0xec, now);
    set_at(&mut apic, TDCR, DIVIDE_BY_16, now);
    set_at(&mut apic, TMICT, 0xffff_ffff, now);
    apic
}

/// Hz of the timer, and what one of its ticks and two of the clock's nanoseconds make of an interval.
fn frequency(ticks: u64, pit_ticks: u64) -> (u64, u64) {
    let hz = ticks * DIVISOR * u64::from(pit::HZ) / pit_ticks;
    let ns = pit_ticks * 1_000_000_000 / u64::from(pit::HZ);
    (hz, 1_000_000_000 * (DIVISOR + 2) / ns + 1)
}

#[test]
fn timer_counted_over_interrupts_of_channel_0_is_exact() {
    for (hz, start) in [(100, 0), (250, 12_345), (1000, 999_999_999)] {
        let latch = pit::HZ / hz;
        let mut pit = Pit::new(0);
        pit.write(CONTROL, 0x34, start); // channel 0, both bytes, mode 2
        pit.write(CHANNEL_0, latch as u8, start);
        pit.write(CHANNEL_0, (latch >> 8) as u8, start);
        let mut apic = counting_down(start);
        // A tenth of a second, from the first interrupt on.
        let loops = u64::from(hz / 10);
        let mut interrupt = || {
            let now = pit.next_edge().expect("it is periodic");
            assert!(!pit.advance(now - 1) && pit.advance(now));
            get_at(&mut apic, TMCCT, now)
        };
        let first = interrupt();
        let last = (0..loops).map(|_| interrupt()).last().expect("some");
        let (found, exact_within) = frequency(first - last, loops * u64::from(latch));
        assert!(found.abs_diff(CONFIG.timer_hz) <= exact_within, "{hz} Hz: {found}");
        assert!(exact_within < 1_000, "a millionth");
    }
}

#[test]
fn timer_counted_until_channel_2_has_run_out_is_exact() {
    let (start, count) = (77_777, 59_659_u32); // 50 ms
    let mut pit = Pit::new(0);
    pit.write(SPEAKER_PORT, 1, start); // the gate is open, the speaker off
    pit.write(CONTROL, 0xb0, start); // channel 2, both bytes, mode 0
    pit.write(CHANNEL_2, count as u8, start);
    pit.write(CHANNEL_2, (count >> 8) as u8, start);
    let mut apic = counting_down(start);
    let first = get_at(&mut apic, TMCCT, start);
    // A guest looks again and again; between two looks passes an exit. The clock stands at the first look
    // that sees OUT, so that looks are what is not exact.
    let look = 1_000;
    let seen = (start..).step_by(look).find(|now| pit.read(SPEAKER_PORT, *now) & OUT_2 != 0);
    let seen = seen.expect("it runs out");
    let last = get_at(&mut apic, TMCCT, seen);
    let (found, exact_within) = frequency(first - last, count.into());
    // OUT rises one tick of the PIT after the count, at whatever part of a tick it was written.
    let ns = u64::from(count) * 1_000_000_000 / u64::from(pit::HZ);
    let looked = 1_000_000_000 * (look as u64 + 2 * 839) / ns;
    assert!(found.abs_diff(CONFIG.timer_hz) <= exact_within + looked, "{found}");
    assert!(exact_within + looked < 10_000_000 / 100, "a hundredth of the percent that is allowed");
}
