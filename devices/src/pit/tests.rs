use proptest::prelude::*;

use super::*;

/// Host ns in which tick `n` has begun.
fn at(n: u64) -> u64 {
    ns_of(n)
}

fn started(channel: u8, mode: u8, count: u16) -> Pit {
    let mut pit = Pit::new(0);
    if channel == 2 {
        pit.write(0x61, 1, 0);
    }
    program(&mut pit, channel, mode, count, 0);
    pit
}

fn program(pit: &mut Pit, channel: u8, mode: u8, count: u16, now: u64) {
    pit.write(CONTROL, channel << 6 | 0x30 | mode << 1, now);
    let [low, high] = count.to_le_bytes();
    pit.write(CHANNEL_0 + u16::from(channel), low, now);
    pit.write(CHANNEL_0 + u16::from(channel), high, now);
}

fn count(pit: &mut Pit, channel: u8, now: u64) -> u16 {
    pit.write(CONTROL, channel << 6, now);
    let port = CHANNEL_0 + u16::from(channel);
    u16::from_le_bytes([pit.read(port, now), pit.read(port, now)])
}

fn status(pit: &mut Pit, channel: u8, now: u64) -> u8 {
    pit.write(CONTROL, 0xe0 | 2 << channel, now);
    pit.read(CHANNEL_0 + u16::from(channel), now)
}

/// Output and count of a counter, tick by tick, by the datasheet's words: a machine that is clocked.
struct Clocked {
    mode: u8,
    reload: u32,
    value: u32,
    out: bool,
    strobed: bool,
}

impl Clocked {
    fn new(mode: u8, reload: u32) -> Self {
        Clocked { mode, reload, value: reload, out: mode != 0, strobed: false }
    }

    fn clock(&mut self) {
        match self.mode {
            0 => {
                self.value = (self.value + 0xffff) % 0x1_0000;
                self.out |= self.value == 0;
            }
            2 => {
                self.value -= 1;
                if self.value == 0 {
                    self.value = self.reload;
                }
                self.out = self.value != 1;
            }
            _ => {
                self.value = (self.value + 0xffff) % 0x1_0000;
                self.out = self.strobed || self.value != 0;
                self.strobed |= self.value == 0;
            }
        }
    }
}

proptest! {
    #[test]
    fn output_rises_and_counts_are_those_of_a_machine_that_is_clocked(
        mode in prop::sample::select(vec![0_u8, 2, 4]),
        reload in 2_u32..40,
        ticks in 1_u64..200,
    ) {
        let mut pit = started(0, mode, reload as u16);
        let mut model = Clocked::new(mode, reload);
        let mut before = model.out;
        for tick in 1..=ticks {
            model.clock();
            let rises = model.out && !before;
            before = model.out;
            prop_assert_eq!(pit.advance(at(tick)), rises, "tick {}", tick);
            prop_assert_eq!(pit.line(), model.out, "tick {}", tick);
            prop_assert_eq!(u32::from(count(&mut pit, 0, at(tick))), model.value);
        }
    }

    #[test]
    fn square_wave_is_high_for_the_larger_half_and_rises_once_a_period(
        reload in 2_u32..60, ticks in 1_u64..300,
    ) {
        let mut pit = started(0, 3, reload as u16);
        for tick in 1..=ticks {
            let within = tick % u64::from(reload);
            prop_assert_eq!(pit.advance(at(tick)), within == 0);
            prop_assert_eq!(pit.line(), within < u64::from(reload.div_ceil(2)));
            let shown = u32::from(count(&mut pit, 0, at(tick)));
            prop_assert!(shown <= reload && shown % 2 == 0, "{}", shown);
        }
    }

    #[test]
    fn next_edge_is_when_the_output_rises_and_never_before(
        mode in prop::sample::select(vec![0_u8, 2, 3, 4]),
        reload in 2_u16..,
        start in 0_u64..1 << 40,
    ) {
        let mut pit = Pit::new(0);
        program(&mut pit, 0, mode, reload, start);
        let due = pit.next_edge().expect("it counts");
        prop_assert!(!pit.advance(due - 1));
        prop_assert!(pit.advance(due));
        if mode == 0 || mode == 4 {
            prop_assert_eq!(pit.next_edge(), None);
        } else {
            let period = pit.next_edge().expect("it goes on") - due;
            let exact = u64::from(reload) * 1_000_000_000 / HZ;
            prop_assert!((exact..=exact + 1).contains(&period), "{} {}", period, exact);
        }
    }
}

#[test]
fn periods_that_were_missed_are_one_and_the_grid_stays() {
    let mut pit = started(0, 2, 11_932);
    assert!(pit.advance(at(11_932 * 50 + 7)));
    assert!(!pit.advance(at(11_932 * 50 + 8)));
    assert_eq!(pit.next_edge(), Some(at(11_932 * 51)));
}

#[test]
fn rises_that_are_too_close_are_reported_together_and_the_counter_runs_on() {
    let mut pit = Pit::new(200_000);
    program(&mut pit, 0, 2, 12, 0);
    let first = pit.next_edge().expect("it counts");
    assert!(pit.advance(first));
    let second = pit.next_edge().expect("it counts");
    assert_eq!(second, first + 200_000);
    assert!(!pit.advance(second - 1));
    assert!(pit.advance(second));
    assert!((1..=12).contains(&count(&mut pit, 0, second)));
}

#[test]
fn count_of_zero_is_65536() {
    let pit = started(0, 2, 0);
    assert_eq!(pit.next_edge(), Some(at(65_536)));
}

#[test]
fn new_count_of_a_periodic_mode_waits_for_the_end_of_the_period() {
    let mut pit = started(0, 2, 1000);
    let _ = pit.advance(at(300));
    pit.write(CHANNEL_0, 100, at(300));
    pit.write(CHANNEL_0, 0, at(300));
    assert_eq!(status(&mut pit, 0, at(300)) & 0x40, 0x40, "null count");
    assert_eq!(pit.next_edge(), Some(at(1000)));
    assert!(pit.advance(at(1000)));
    assert_eq!(status(&mut pit, 0, at(1000)) & 0x40, 0);
    assert_eq!(pit.next_edge(), Some(at(1100)));
}

#[test]
fn latched_count_stays_until_it_is_read_whole() {
    let mut pit = started(0, 2, 0x1234);
    pit.write(CONTROL, 0, at(0x10));
    pit.write(CONTROL, 0, at(0x400));
    assert_eq!(pit.read(CHANNEL_0, at(0x500)), 0x24);
    assert_eq!(pit.read(CHANNEL_0, at(0x600)), 0x12);
    assert_eq!(pit.read(CHANNEL_0, at(0x600)), (0x1234 - 0x600) as u8);
}

#[test]
fn status_shows_output_access_and_mode() {
    let mut pit = started(0, 2, 100);
    assert_eq!(status(&mut pit, 0, at(1)), 0x80 | 0x30 | 2 << 1);
    assert_eq!(status(&mut pit, 0, at(99)), 0x30 | 2 << 1);
    assert_eq!(status(&mut pit, 1, at(99)) & 0x40, 0x40, "nothing was written");
}

#[test]
fn control_word_of_mode_0_lowers_the_output_and_half_a_count_stops_it() {
    let mut pit = started(0, 0, 10);
    assert!(pit.advance(at(10)));
    pit.write(CONTROL, 0x30, at(11));
    assert!(!pit.line());
    assert_eq!(pit.next_edge(), None);
    pit.write(CHANNEL_0, 5, at(12));
    assert_eq!(pit.next_edge(), None);
    pit.write(CHANNEL_0, 0, at(13));
    assert_eq!(pit.next_edge(), Some(at(18)));
}

#[test]
fn counting_in_decimal() {
    let mut pit = Pit::new(0);
    pit.write(CONTROL, 0x35, 0);
    pit.write(CHANNEL_0, 0x00, 0);
    pit.write(CHANNEL_0, 0x10, 0);
    assert_eq!(pit.next_edge(), Some(at(1000)));
    assert_eq!(count(&mut pit, 0, at(1)), 0x0999);
}

#[test]
fn single_byte_accesses() {
    let mut pit = Pit::new(0);
    pit.write(CONTROL, 0x14, 0);
    pit.write(CHANNEL_0, 0x20, 0);
    assert_eq!(pit.next_edge(), Some(at(0x20)));
    pit.write(CONTROL, 0x24, 0);
    pit.write(CHANNEL_0, 0x02, 0);
    assert_eq!(pit.next_edge(), Some(at(0x200)));
    assert_eq!(pit.read(CHANNEL_0, at(0x100)), 0x01);
    assert_eq!(pit.read(CHANNEL_0, at(0x100)), 0x01);
}

#[test]
fn gate_of_counter_2_holds_a_count_and_restarts_a_period() {
    let mut pit = started(2, 0, 100);
    assert_eq!(pit.read(0x61, at(50)) & 0x21, 0x01);
    pit.write(0x61, 0, at(50));
    assert_eq!(pit.read(0x61, at(500)) & 0x21, 0);
    pit.write(0x61, 1, at(500));
    assert_eq!(pit.read(0x61, at(549)) & 0x20, 0);
    assert_eq!(pit.read(0x61, at(550)) & 0x20, 0x20);

    let mut pit = started(2, 3, 100);
    assert_eq!(pit.read(0x61, at(60)) & 0x20, 0);
    pit.write(0x61, 0, at(60));
    assert_eq!(pit.read(0x61, at(61)) & 0x20, 0x20, "without its gate it is high");
    pit.write(0x61, 1, at(70));
    assert_eq!(pit.read(0x61, at(119)) & 0x20, 0x20);
    assert_eq!(pit.read(0x61, at(120)) & 0x20, 0);
}

#[test]
fn gate_starts_the_one_shot() {
    let mut pit = Pit::new(0);
    program(&mut pit, 2, 1, 100, 0);
    assert_eq!(pit.read(0x61, at(500)) & 0x20, 0x20);
    pit.write(0x61, 1, at(1000));
    assert_eq!(pit.read(0x61, at(1099)) & 0x20, 0);
    assert_eq!(pit.read(0x61, at(1100)) & 0x20, 0x20);
}

#[test]
fn refresh_bit_toggles() {
    let mut pit = Pit::new(0);
    let bits: Vec<_> = (0..4).map(|i| pit.read(0x61, at(18 * i)) >> 4 & 1).collect();
    assert_eq!(bits, [0, 1, 0, 1]);
}

#[test]
fn time_that_runs_backwards_or_ends_harms_nobody() {
    let mut pit = started(0, 2, 1);
    assert!(pit.advance(u64::MAX));
    assert!(!pit.advance(5));
    let _ = (count(&mut pit, 0, 7), status(&mut pit, 0, 7), pit.next_edge());
    program(&mut pit, 0, 4, 0, u64::MAX);
    assert!(pit.next_edge().is_some());
}
