//! Ports, memory, and the registers' bits.

use super::*;

#[test]
fn index_port_selects_and_masks_nmi() {
    let mut rtc = rtc();
    assert!(!rtc.nmi_masked());
    rtc.write(0x70, 0x8f, 0);
    assert!(rtc.nmi_masked());
    assert_eq!(rtc.read(0x70, 0), 0x8f);
    rtc.write(0x71, 0x55, 0);
    assert_eq!(get(&mut rtc, 0x0f, 0), 0x55);
    assert!(!rtc.nmi_masked());
    assert_eq!(rtc.read(0x70, 0), 0x0f);
}

#[test]
fn foreign_ports_read_as_all_ones() {
    let mut rtc = rtc();
    for port in [0, 0x6f, 0x72, 0xffff] {
        rtc.write(port, 0x55, 0);
        assert_eq!(rtc.read(port, 0), 0xff);
    }
}

#[test]
fn memory_keeps_what_is_written_and_time_does_not_touch_it() {
    let mut rtc = rtc();
    let memory = (0x0e..0x80).filter(|index| *index != 0x32);
    for index in memory.clone() {
        set(&mut rtc, index, index ^ 0xa5, 0);
    }
    rtc.reset();
    for index in memory {
        assert_eq!(get(&mut rtc, index, 100 * SECOND), index ^ 0xa5);
    }
}

fn sizes(below: u64, above: u64) -> Vec<u8> {
    let config = RtcConfig { memory_below_4g: below, memory_above_4g: above, ..CONFIG };
    let mut rtc = Rtc::new(&config);
    [0x16, 0x15, 0x18, 0x17, 0x31, 0x30, 0x35, 0x34, 0x5d, 0x5c, 0x5b]
        .map(|index| get(&mut rtc, index, 0))
        .to_vec()
}

#[test]
fn memory_sizes_are_as_firmware_leaves_them() {
    // 640 KiB; 31 MiB in KiB; 16 MiB in 64 KiB; nothing.
    assert_eq!(sizes(32 << 20, 0), [0x02, 0x80, 0x7c, 0, 0x7c, 0, 0x01, 0, 0, 0, 0]);
    // 3 GiB: extended memory that does not fit; 3056 MiB; 5 GiB.
    let large = [0x02, 0x80, 0xff, 0xff, 0xff, 0xff, 0xbf, 0, 0x01, 0x40, 0];
    assert_eq!(sizes(3 << 30, 5 << 30), large);
    assert_eq!(sizes(1 << 19, 0), [0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sizes(u64::MAX, u64::MAX)[2..], [0xff; 9]);
}

#[test]
fn registers_a_to_d_start_as_firmware_leaves_them() {
    let mut rtc = rtc();
    let now = 5 * SECOND;
    assert_eq!([0x0a, 0x0b, 0x0c, 0x0d].map(|i| get(&mut rtc, i, now)), [0x26, 2, 0, 0x80]);
}

#[test]
fn flags_and_validity_cannot_be_written() {
    let mut rtc = rtc();
    let now = 5 * SECOND;
    for index in [0x0c, 0x0d] {
        set(&mut rtc, index, 0x7f, now);
    }
    assert_eq!([0x0c, 0x0d].map(|i| get(&mut rtc, i, now)), [0, 0x80]);
    set(&mut rtc, 0x0a, 0xa6, now);
    assert_eq!(get(&mut rtc, 0x0a, now), 0x26);
}

#[test]
fn update_in_progress_is_seen_244_us_before_the_date_moves_on() {
    let mut rtc = rtc();
    let next = 6 * SECOND;
    for (now, seen) in
        [(next - 244_001, 0), (next - 244_000, UIP), (next - 1, UIP), (next, 0), (next + 1, 0)]
    {
        assert_eq!(get(&mut rtc, 0x0a, now) & UIP, seen, "{now}");
    }
}

#[test]
fn no_update_is_in_progress_while_the_date_stands_still() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, SET | HOURS_24, 5 * SECOND);
    assert_eq!(get(&mut rtc, 0x0a, 6 * SECOND - 1) & UIP, 0);
}

#[test]
fn reset_disables_interrupts_and_keeps_time_and_settings() {
    let mut rtc = rtc();
    set(&mut rtc, 0x0b, PERIODIC | ALARM | UPDATE | SQUARE_WAVE | BINARY | HOURS_24, 5 * SECOND);
    rtc.write(0x70, 0xff, 6 * SECOND);
    assert!(rtc.line());
    rtc.reset();
    assert!(!rtc.line());
    assert!(!rtc.nmi_masked());
    assert_eq!(rtc.read(0x70, 6 * SECOND), 0);
    assert_eq!([0x0b, 0x0c].map(|i| get(&mut rtc, i, 6 * SECOND)), [BINARY | HOURS_24, 0]);
    assert_eq!(shown(&mut rtc, 6 * SECOND), [20, 24, 2, 28, 4, 23, 59, 59]);
}
