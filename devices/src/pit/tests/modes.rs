//! The modes one by one: the datasheet's wave forms.

use super::*;

#[test]
fn mode_0_rises_once_one_tick_after_the_count_and_counts_on() {
    let mut pit = counting(2, 0, 4);
    assert_eq!(wave(&mut pit, 0..10), "_____-----");
    let mut pit = counting(2, 0, 4);
    assert_eq!(counts(&mut pit, 1..8), [4, 3, 2, 1, 0, 0xffff, 0xfffe]);
}

#[test]
fn mode_0_new_count_restarts_and_lowers_out() {
    let mut pit = counting(2, 0, 4);
    count(&mut pit, 2, 3, 2);
    assert_eq!(counts(&mut pit, 3..7), [3, 2, 1, 0]);
    assert!(out_2(&mut pit, 6));
    count(&mut pit, 2, 3, 8);
    assert_eq!(wave(&mut pit, 8..14), "____--");
}

#[test]
fn mode_0_first_byte_stops_the_count_and_lowers_out() {
    let mut pit = counting(2, 0, 4);
    assert!(out_2(&mut pit, 6));
    pit.write(0x42, 9, at(7));
    assert_eq!(wave(&mut pit, 7..9), "__");
    assert_eq!(counts(&mut pit, 8..11), [0xfffe; 3]);
    pit.write(0x42, 0, at(20));
    assert_eq!(counts(&mut pit, 21..24), [9, 8, 7]);
}

#[test]
fn mode_0_gate_stops_the_count_but_not_its_loading() {
    let mut pit = counting(2, 0, 9);
    gate_2(&mut pit, false, 3);
    assert_eq!(counts(&mut pit, 3..6), [7; 3]);
    count(&mut pit, 2, 5, 6);
    assert_eq!(counts(&mut pit, 7..9), [5; 2]);
    gate_2(&mut pit, true, 10);
    assert_eq!(counts(&mut pit, 10..15), [5, 4, 3, 2, 1]);
    assert_eq!(wave(&mut pit, 14..16), "_-");
}

#[test]
fn mode_1_pulses_from_the_gates_edge_and_again_from_the_next() {
    let mut pit = counting(2, 1, 3);
    assert_eq!(wave(&mut pit, 0..9), "---------");
    gate_2(&mut pit, false, 9);
    gate_2(&mut pit, true, 10);
    gate_2(&mut pit, false, 11);
    assert_eq!(wave(&mut pit, 11..16), "___--");
    gate_2(&mut pit, true, 20);
    assert_eq!(wave(&mut pit, 21..23), "__");
    gate_2(&mut pit, false, 22);
    gate_2(&mut pit, true, 22);
    assert_eq!(wave(&mut pit, 22..28), "____--");
}

#[test]
fn mode_2_is_low_for_the_last_tick_of_each_period() {
    let mut pit = counting(2, 2, 3);
    assert_eq!(wave(&mut pit, 0..11), "---_--_--_-");
    let mut pit = counting(2, 2, 3);
    assert_eq!(counts(&mut pit, 1..9), [3, 2, 1, 3, 2, 1, 3, 2]);
}

#[test]
fn mode_2_new_count_waits_for_the_end_of_the_period() {
    let mut pit = counting(2, 2, 4);
    count(&mut pit, 2, 2, 2);
    assert_eq!(counts(&mut pit, 2..10), [3, 2, 1, 2, 1, 2, 1, 2]);
}

#[test]
fn mode_2_gate_stops_raises_and_starts_anew() {
    let mut pit = counting(2, 2, 3);
    assert!(!out_2(&mut pit, 3));
    gate_2(&mut pit, false, 3);
    assert_eq!(wave(&mut pit, 3..9), "------");
    assert_eq!(counts(&mut pit, 9..11), [1, 1]);
    gate_2(&mut pit, true, 11);
    assert_eq!(counts(&mut pit, 12..16), [3, 2, 1, 3]);
}

#[test]
fn mode_3_even_count_halves_the_period_and_counts_by_two() {
    let mut pit = counting(2, 3, 4);
    assert_eq!(wave(&mut pit, 1..10), "--__--__-");
    let mut pit = counting(2, 3, 4);
    assert_eq!(counts(&mut pit, 1..7), [4, 2, 4, 2, 4, 2]);
}

#[test]
fn mode_3_odd_count_is_high_for_one_tick_more() {
    let mut pit = counting(2, 3, 5);
    assert_eq!(wave(&mut pit, 1..13), "---__---__--");
    let mut pit = counting(2, 3, 5);
    assert_eq!(counts(&mut pit, 1..9), [4, 2, 0, 4, 2, 4, 2, 0]);
}

#[test]
fn mode_3_new_count_waits_for_the_end_of_the_half_period() {
    let mut pit = counting(2, 3, 8);
    count(&mut pit, 2, 4, 2);
    assert_eq!(wave(&mut pit, 1..12), "----__--__-");
    let mut pit = counting(2, 3, 8);
    count(&mut pit, 2, 4, 6);
    assert_eq!(wave(&mut pit, 6..14), "___--__-");
}

#[test]
fn mode_3_gate_stops_raises_and_starts_anew() {
    let mut pit = counting(2, 3, 4);
    assert!(!out_2(&mut pit, 3));
    gate_2(&mut pit, false, 3);
    assert_eq!(wave(&mut pit, 3..8), "-----");
    gate_2(&mut pit, true, 8);
    assert_eq!(wave(&mut pit, 8..14), "---__-");
}

#[test]
fn mode_4_strobes_for_one_tick_and_only_once() {
    let mut pit = counting(2, 4, 3);
    assert_eq!(wave(&mut pit, 0..8), "----_---");
    let mut pit = counting(2, 4, 3);
    assert_eq!(counts(&mut pit, 1..7), [3, 2, 1, 0, 0xffff, 0xfffe]);
    assert!(out_2(&mut pit, 4 + 65_536));
}

#[test]
fn mode_4_gate_delays_the_strobe() {
    let mut pit = counting(2, 4, 3);
    gate_2(&mut pit, false, 2);
    gate_2(&mut pit, true, 10);
    assert_eq!(wave(&mut pit, 10..14), "--_-");
}

#[test]
fn mode_4_new_count_starts_over() {
    let mut pit = counting(2, 4, 3);
    count(&mut pit, 2, 3, 2);
    assert_eq!(wave(&mut pit, 2..8), "----_-");
}

#[test]
fn mode_5_strobes_after_the_gates_edge() {
    let mut pit = counting(2, 5, 3);
    assert_eq!(wave(&mut pit, 0..9), "---------");
    gate_2(&mut pit, false, 9);
    gate_2(&mut pit, true, 10);
    gate_2(&mut pit, false, 12);
    assert_eq!(wave(&mut pit, 12..17), "--_--");
}

#[test]
fn count_of_zero_is_the_largest() {
    let mut pit = counting(2, 0, 0);
    assert_eq!(get(&mut pit, 2, 1), 0);
    assert_eq!(get(&mut pit, 2, 2), 0xffff);
    assert_eq!(wave(&mut pit, 65_536..65_538), "_-");
}

#[test]
fn forbidden_count_of_one_is_two() {
    for mode in [2, 3] {
        let mut pit = counting(2, mode, 1);
        assert_eq!(wave(&mut pit, 1..7), "-_-_-_", "mode {mode}");
    }
}

#[test]
fn mode_bits_six_and_seven_are_modes_two_and_three() {
    let mut pit = counting(2, 6, 3);
    assert_eq!(wave(&mut pit, 1..7), "--_--_");
    let mut pit = counting(2, 7, 4);
    assert_eq!(wave(&mut pit, 1..7), "--__--");
    assert_eq!(status(&mut pit, 2, 7) & 0x3f, 0x3e, "as written");
}

#[test]
fn decimal_counts_by_tens() {
    let mut pit = Pit::new(0);
    pit.write(0x43, BOTH | 1, 0);
    count(&mut pit, 0, 0x1000, 0);
    assert_eq!(get(&mut pit, 0, 1), 0x1000);
    assert_eq!(get(&mut pit, 0, 2), 0x0999);
    assert_eq!(get(&mut pit, 0, 1001), 0);
    assert_eq!(get(&mut pit, 0, 1002), 0x9999);
    assert_eq!(status(&mut pit, 0, 1002) & 0x3f, 0x31);
}

#[test]
fn decimal_zero_is_ten_thousand() {
    let mut pit = Pit::new(0);
    pit.write(0x43, BOTH | 2 << 1 | 1, 0);
    count(&mut pit, 0, 0, 0);
    assert_eq!(pit.next_edge(), Some(at(10_001)));
}
