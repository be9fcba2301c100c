//! Random guests against the clocked channel.

use proptest::prelude::*;

use super::oracle::Oracle;
use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Control(u8),
    /// The first byte alone, then the other.
    FirstByte(u8),
    Count(u16),
    Gate(bool),
    Ticks(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0_u8..6).prop_map(Step::Control),
        1 => (0_u8..12).prop_map(Step::FirstByte),
        4 => (1_u16..14).prop_map(Step::Count),
        3 => any::<bool>().prop_map(Step::Gate),
        4 => (0_u64..4).prop_map(Step::Ticks),
        4 => (0_u64..60).prop_map(Step::Ticks),
    ];
    prop::collection::vec(step, 1..60)
}

/// A timer and the oracle of one of its channels.
struct Pair {
    pit: Pit,
    oracle: Oracle,
    channel: u8,
    tick: u64,
    half: Option<u8>,
}

impl Pair {
    fn new(channel: u8, start: u64) -> Self {
        let mut pit = Pit::new(0);
        assert!(!pit.advance(at(start)));
        Pair { pit, oracle: Oracle::new(channel != 2), channel, tick: start, half: None }
    }

    fn byte(&mut self, byte: u8) {
        self.pit.write(0x40 + u16::from(self.channel), byte, at(self.tick));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Control(mode) => {
                control(&mut self.pit, self.channel, mode, self.tick);
                self.oracle.control(mode);
                self.half = None;
            }
            Step::FirstByte(low) => {
                if self.half.is_none() {
                    self.byte(low);
                    self.oracle.first_byte();
                    self.half = Some(low);
                }
            }
            Step::Count(count) => {
                let low = self.half.take().unwrap_or_else(|| {
                    self.byte(count as u8);
                    self.oracle.first_byte();
                    count as u8
                });
                self.byte(0);
                self.oracle.count(low.into());
            }
            Step::Gate(gate) if self.channel == 2 => {
                gate_2(&mut self.pit, gate, self.tick);
                self.oracle.gate(gate);
            }
            Step::Gate(_) => {}
            Step::Ticks(ticks) => {
                self.tick += ticks;
                (0..ticks).for_each(|_| self.oracle.tick());
            }
        }
    }

    fn agree(&mut self) {
        let channel = u16::from(self.channel);
        let status = status(&mut self.pit, channel, self.tick);
        assert_eq!(status & OUT != 0, self.oracle.out, "OUT");
        assert_eq!(status & NULL != 0, self.oracle.null, "null count");
        assert_eq!(status >> 1 & 7, self.oracle.mode);
        assert_eq!(get(&mut self.pit, channel, self.tick), self.oracle.element);
    }

    /// What `next_edge` promised comes true: the clocked channel rises then and not before.
    fn edges_agree(&mut self) {
        let rose = std::mem::take(&mut self.oracle.rises) > 0;
        assert_eq!(self.pit.advance(at(self.tick)), rose, "edge");
        assert_eq!(self.pit.line(), self.oracle.out);
    }
}

/// Ticks to the next rise if nothing is written.
fn clocked_rise(steps: &[Step], channel: u8) -> Option<u64> {
    let mut pair = Pair::new(channel, 0);
    steps.iter().for_each(|step| pair.take(*step));
    pair.oracle.rises = 0;
    // Longer than twice a period, and than the wait for a count of 256 after its half.
    (1..600).find(|_| {
        pair.oracle.tick();
        pair.oracle.rises > 0
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn channel_agrees_with_one_that_is_clocked(
        steps in steps(), channel in 0_u8..3, start in 0_u64..1 << 50,
    ) {
        let mut pair = Pair::new(channel, start);
        for step in steps {
            pair.take(step);
            pair.agree();
            if channel == 0 {
                pair.edges_agree();
            }
        }
    }

    #[test]
    fn jump_to_the_end_agrees_with_one_that_is_clocked(steps in steps(), channel in 0_u8..3) {
        let mut pair = Pair::new(channel, 0);
        steps.into_iter().for_each(|step| pair.take(step));
        pair.agree();
        if channel == 0 {
            pair.edges_agree();
        }
    }

    #[test]
    fn next_edge_is_where_the_clocked_channel_rises(steps in steps()) {
        let mut pair = Pair::new(0, 0);
        steps.iter().for_each(|step| pair.take(*step));
        pair.edges_agree();
        let short = clocked_rise(&steps, 0).map(|ticks| at(pair.tick + ticks));
        // A count of 0 is a long one, which the oracle is too slow for.
        if short.is_some() || pair.pit.next_edge() < Some(at(pair.tick + 600)) {
            prop_assert_eq!(pair.pit.next_edge(), short);
        }
    }

    #[test]
    fn reported_edges_are_the_least_period_apart(
        count in 0_u16..2000, periodic_mode in 2_u8..4, least in 0_u64..3_000_000,
    ) {
        let mut pit = Pit::new(least);
        control(&mut pit, 0, periodic_mode, 0);
        super::count(&mut pit, 0, count, 0);
        let period = if count == 0 { 65_536 } else { u64::from(count.max(2)) };
        let mut last = None;
        for _ in 0..5 {
            let edge = pit.next_edge().unwrap();
            prop_assert!(!pit.advance(edge - 1));
            prop_assert!(pit.advance(edge));
            prop_assert!(pit.line());
            if let Some(last) = last {
                prop_assert!(edge - last >= least);
                // And no more than one period longer than must be, give or take the rounding.
                prop_assert!(edge - last <= at(period) + least + 1000);
            }
            last = Some(edge);
        }
    }
}
