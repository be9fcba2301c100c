//! Bytes, latches, edges of channel 0, port 0x61, and time.

use super::*;

#[test]
fn low_and_high_byte_access() {
    let mut pit = Pit::new(0);
    pit.write(0x43, 0x10, 0);
    pit.write(0x40, 7, 0);
    assert_eq!(pit.read(0x40, at(1)), 7);
    assert_eq!(pit.read(0x40, at(2)), 6);
    pit.write(0x43, 0x20, at(9));
    pit.write(0x40, 7, at(9));
    assert_eq!(pit.read(0x40, at(10)), 7);
    assert_eq!(pit.read(0x40, at(11)), 6, "0x6ff");
}

#[test]
fn both_bytes_are_read_in_turn_from_the_running_count() {
    let mut pit = counting(0, 0, 0x0200);
    assert_eq!(pit.read(0x40, at(1)), 0x00);
    assert_eq!(pit.read(0x40, at(2)), 0x01, "0x1ff");
    assert_eq!(pit.read(0x40, at(3)), 0xfe);
}

#[test]
fn latched_count_stays_until_it_is_read_and_a_second_latch_is_ignored() {
    let mut pit = counting(0, 0, 0x0203);
    pit.write(0x43, 0x00, at(3));
    pit.write(0x43, 0x00, at(50));
    assert_eq!((pit.read(0x40, at(99)), pit.read(0x40, at(100))), (0x01, 0x02));
    assert_eq!(pit.read(0x40, at(101)), 0x9f);
}

#[test]
fn control_word_undoes_latches_and_half_written_counts() {
    let mut pit = counting(0, 0, 0x0203);
    pit.write(0x43, 0x00, at(3));
    pit.write(0x43, LATCH_STATUS | 2, at(3));
    pit.write(0x40, 0x55, at(3));
    assert_eq!(pit.read(0x40, at(3)) & 0x3f, BOTH);
    assert_eq!(pit.read(0x40, at(3)), 0x01);
    control(&mut pit, 0, 0, 4);
    count(&mut pit, 0, 0x1234, 4);
    assert_eq!((pit.read(0x40, at(5)), pit.read(0x40, at(5))), (0x34, 0x12));
}

#[test]
fn read_back_gives_status_first_and_the_count_then() {
    let mut pit = counting(0, 0, 0x0203);
    pit.write(0x43, 0xc0 | 2, at(2));
    pit.write(0x43, 0xc0 | 2, at(3));
    let bytes = [(); 4].map(|()| pit.read(0x40, at(4)));
    assert_eq!(bytes, [BOTH, 0x02, 0x02, 0x00]);
}

#[test]
fn read_back_latches_the_channels_that_are_named() {
    let mut pit = counting(0, 0, 0x0203);
    control(&mut pit, 1, 2, 0);
    pit.write(0x43, LATCH_STATUS | 2 << 1 | 2 << 2, at(1));
    assert_eq!(pit.read(0x40, at(1)), 0x03, "count");
    assert_eq!(pit.read(0x41, at(1)), OUT | NULL | BOTH | 2 << 1);
    assert_eq!(pit.read(0x42, at(1)) & 0x3f, 0x36);
}

#[test]
fn read_back_of_one_of_count_and_status_leaves_the_other() {
    let mut pit = counting(0, 0, 0x0203);
    pit.write(0x43, LATCH_COUNT | 2, at(3));
    assert_eq!((pit.read(0x40, at(90)), pit.read(0x40, at(90))), (0x01, 0x02), "count");
    pit.write(0x43, LATCH_STATUS | 2, at(3));
    assert_eq!(pit.read(0x40, at(90)), BOTH, "status");
    assert_eq!(pit.read(0x40, at(0x104)), 0x00, "the count as it is, 0x100");
}

#[test]
fn null_count_lasts_until_the_count_is_counted_from() {
    let mut pit = counting(0, 2, 5);
    assert_eq!(status(&mut pit, 0, 0), OUT | NULL | BOTH | 2 << 1);
    assert_eq!(status(&mut pit, 0, 1), OUT | BOTH | 2 << 1);
    pit.write(0x40, 6, at(2));
    assert_eq!(status(&mut pit, 0, 2) & NULL, 0, "half a count");
    pit.write(0x40, 0, at(2));
    assert_eq!(status(&mut pit, 0, 5), NULL | BOTH | 2 << 1);
    assert_eq!(status(&mut pit, 0, 6), OUT | BOTH | 2 << 1);
}

#[test]
fn control_port_and_foreign_ports_read_as_all_ones() {
    let mut pit = Pit::new(0);
    for port in [0x43, 0, 0x3f, 0x44, 0x60, 0x62, 0xffff] {
        pit.write(port, 0x55, 0);
        assert_eq!(pit.read(port, 0), 0xff, "{port:#x}");
    }
}

#[test]
fn port_61_keeps_two_bits_and_shows_the_output_of_channel_2() {
    let mut pit = counting(2, 0, 3);
    pit.write(0x61, 0xff, 0);
    assert_eq!(pit.read(0x61, at(3)), 0x03);
    assert_eq!(pit.read(0x61, at(4)), 0x23);
    pit.write(0x61, 0xfe, at(4));
    assert_eq!(pit.read(0x61, at(4)), 0x22);
}

#[test]
fn refresh_bit_changes_every_fifteen_microseconds() {
    let mut pit = Pit::new(0);
    for toggle in 0..10 {
        for tick in [18 * toggle, 18 * toggle + 17] {
            let bit = pit.read(0x61, at(tick)) & 0x10 != 0;
            assert_eq!(bit, toggle % 2 == 1, "tick {tick}");
        }
    }
}

#[test]
fn edge_is_reported_in_its_nanosecond_and_once() {
    let mut pit = counting(0, 0, 1000);
    let due = pit.next_edge().unwrap();
    assert_eq!(due, at(1001));
    assert!(!pit.advance(due - 1));
    assert!(!pit.line());
    assert!(pit.advance(due));
    assert!(pit.line());
    assert_eq!(pit.next_edge(), None);
    assert!(!pit.advance(due));
}

#[test]
fn periodic_edges_stay_on_their_grid_for_years() {
    for mode in [2, 3] {
        let mut pit = counting(0, mode, 11_932);
        for period in [1, 2, 3, 1000, 1001, 3_000_000_000, 3_000_000_001] {
            let due = at(1 + period * 11_932);
            assert!(!pit.advance(due - 1) || period > 3, "mode {mode}, {period}");
            assert_eq!(pit.next_edge(), Some(due), "mode {mode}, {period}");
            assert!(pit.advance(due));
            assert!(pit.line());
        }
    }
}

#[test]
fn lost_periods_are_one_edge() {
    let mut pit = counting(0, 2, 100);
    assert!(pit.advance(at(100_050)));
    assert_eq!(pit.next_edge(), Some(at(100_101)));
    assert!(!pit.advance(at(100_050)));
}

#[test]
fn edge_that_an_access_came_across_is_still_reported() {
    let mut pit = counting(0, 0, 10);
    assert_eq!(status(&mut pit, 0, 20) & OUT, OUT);
    assert_eq!(pit.next_edge(), Some(at(20)));
    assert!(pit.advance(at(20)));
    assert_eq!(pit.next_edge(), None);
}

#[test]
fn least_period_thins_the_edges_and_not_the_count() {
    let mut pit = Pit::new(200_000);
    control(&mut pit, 0, 2, 0);
    count(&mut pit, 0, 100, 0);
    // 200 us are 238.6 ticks.
    for due in [301, 601, 901] {
        assert_eq!(pit.next_edge(), Some(at(due)));
        assert!(!pit.advance(at(due) - 1));
        assert!(pit.advance(at(due)));
    }
    assert_eq!(get(&mut pit, 0, 1001), 100);
    assert_eq!(get(&mut pit, 0, 1100), 1);
}

#[test]
fn least_period_does_not_touch_a_longer_one_nor_one_shots() {
    let mut pit = Pit::new(200_000);
    control(&mut pit, 0, 3, 0);
    count(&mut pit, 0, 240, 0);
    assert_eq!(pit.next_edge(), Some(at(241)));
    control(&mut pit, 0, 0, 10);
    count(&mut pit, 0, 5, 10);
    assert_eq!(pit.next_edge(), Some(at(16)));
}

#[test]
fn control_word_that_raises_out_is_an_edge() {
    let mut pit = counting(0, 0, 1000);
    assert!(!pit.advance(at(5)));
    control(&mut pit, 0, 2, 6);
    assert!(pit.advance(at(6)));
    assert_eq!(pit.next_edge(), None);
}

#[test]
fn time_that_goes_backwards_is_the_latest_seen() {
    let mut pit = counting(0, 0, 1000);
    assert_eq!(get(&mut pit, 0, 501), 500);
    assert_eq!(get(&mut pit, 0, 499), 500);
    assert_eq!(get(&mut pit, 0, 0), 500);
    count(&mut pit, 0, 10, 3);
    assert_eq!(pit.next_edge(), Some(at(512)));
    assert_eq!(pit.read(0x61, at(522)), pit.read(0x61, at(504)), "refresh");
    pit.write(0x43, 0, at(3));
    assert_eq!(pit.next_edge(), Some(at(522)), "not reported yet");
}

#[test]
fn edge_beyond_the_end_of_time_is_none() {
    let mut pit = Pit::new(u64::MAX);
    for mode in 0..6 {
        pit.write(0x43, BOTH | mode << 1, u64::MAX);
        pit.write(0x40, 0, u64::MAX);
        pit.write(0x40, 0, u64::MAX);
        let _ = pit.advance(u64::MAX);
        assert_eq!(pit.next_edge(), None);
    }
}

#[test]
fn reset_stops_all_channels_and_lowers_the_gate() {
    let mut pit = counting(0, 2, 100);
    assert!(pit.advance(at(150)));
    count(&mut pit, 0, 7, 150);
    pit.reset();
    assert_eq!(pit.next_edge(), None);
    assert_eq!(pit.read(0x61, at(180)) & 3, 0);
    assert_eq!(status(&mut pit, 0, 180), OUT | NULL | 0x36);
    assert!(!pit.advance(at(1000)));
}
