//! Report pages: layout, histogram arithmetic, hostile pages.

use guest_images::report::{
    BUCKETS, MAGIC, REPORT_BYTES, Report, State, VERSION, bucket_of, bucket_top,
};

type Page = [u8; REPORT_BYTES];

/// The header as the guest writes it, by offsets, not by the decoder's code.
fn page() -> Page {
    let mut page = [0; REPORT_BYTES];
    set(&mut page, 0x00, MAGIC, 8);
    set(&mut page, 0x08, u64::from(VERSION), 4);
    set(&mut page, 0x38, 2_000_000, 8);
    set(&mut page, 0x50, 976, 4);
    set(&mut page, 0x54, 4, 4);
    set(&mut page, 0x60, 1, 4);
    page
}

fn set(page: &mut Page, at: usize, value: u64, width: usize) {
    page[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// A page whose ticks were `late` cycles late.
fn page_of(late: &[u64]) -> Page {
    let mut page = page();
    set(&mut page, 0x10, late.len() as u64, 8);
    set(&mut page, 0x30, late.iter().copied().max().unwrap_or(0), 8);
    for &cycles in late {
        let at = 0x80 + 4 * bucket_of(cycles);
        let count = u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes")) + 1;
        set(&mut page, at, u64::from(count), 4);
    }
    page
}

fn report_of(late: &[u64]) -> Report {
    Report::decode(&page_of(late)).expect("a page of this layout")
}

/// xorshift64*, so that the sequence is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn each_field_is_read_from_its_offset() {
    let mut page = page();
    set(&mut page, 0x0c, 7, 4);
    for (index, at) in [0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40].into_iter().enumerate() {
        set(&mut page, at, 0x1_0000_0000 + index as u64, 8);
    }
    set(&mut page, 0x60, 2, 4);
    set(&mut page, 0x80 + 4 * 975, 0xffff_ffff, 4);
    let report = Report::decode(&page).unwrap();
    assert_eq!(report.vcpu, 7);
    let fields = [
        report.ticks,
        report.progress,
        report.early,
        report.lost,
        report.max_lateness,
        report.tsc_khz,
        report.period,
    ];
    for (index, field) in fields.into_iter().enumerate() {
        assert_eq!(field, 0x1_0000_0000 + index as u64, "field {index}");
    }
    assert_eq!(report.state, State::Done);
    assert_eq!(report.histogram[975], 0xffff_ffff);
    assert_eq!(report.samples(), 0xffff_ffff);
}

#[test]
fn a_page_of_another_layout_is_refused() {
    assert!(Report::decode(&[0; REPORT_BYTES]).is_none());
    assert!(Report::decode(&[0xff; REPORT_BYTES]).is_none());
    for at in [0x00, 0x07, 0x08, 0x50, 0x54, 0x60] {
        let mut page = page();
        page[at] ^= 0x40;
        assert!(Report::decode(&page).is_none(), "offset {at:#x}");
    }
}

#[test]
fn buckets_meet_without_gap_and_are_at_most_a_tenth_wide() {
    let mut bottom = 0;
    for index in 0..BUCKETS {
        let top = bucket_top(index);
        assert_eq!(bucket_of(bottom), index);
        assert_eq!(bucket_of(top), index);
        assert!(top - bottom <= bottom / 10, "bucket {index}: {bottom}..={top}");
        bottom = top.wrapping_add(1);
    }
    assert_eq!(bottom, 0, "the last bucket ends at 2^64 - 1");
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    assert_eq!(bucket_top(usize::MAX), u64::MAX);
}

#[test]
fn quantiles_are_within_a_tenth_and_never_below() {
    let mut random = Random(7);
    for _ in 0..50 {
        let mut late: Vec<u64> = (0..999)
            .map(|_| {
                let bits = random.next() % 40;
                random.next() >> (63 - bits)
            })
            .collect();
        let report = report_of(&late);
        late.sort_unstable();
        for q in [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((late.len() as f64 * q).ceil() as usize).max(1);
            let (exact, shown) = (late[rank - 1], report.quantile(q));
            assert!(shown >= exact && shown - exact <= exact / 10, "{q}: {shown} for {exact}");
        }
        assert_eq!(report.quantile(1.0), late[late.len() - 1]);
    }
    assert_eq!(report_of(&[]).quantile(0.5), 0);
    assert_eq!(report_of(&[5]).quantile(f64::NAN), 5);
    assert_eq!(report_of(&[1 << 50]).quantile(0.5), 1 << 50);
}

#[test]
fn a_difference_counts_only_the_interval() {
    let before = report_of(&[10, 1_000_000]);
    let after = report_of(&[10, 1_000_000, 20, 300, 300]);
    let delta = after.since(&before);
    assert_eq!((delta.ticks, delta.samples()), (3, 3));
    assert_eq!(bucket_of(delta.max_lateness), bucket_of(300));
    assert_eq!(bucket_of(delta.quantile(0.1)), bucket_of(20));
    assert_eq!(before.since(&before).max_lateness, 0);
    // The page restarted: nothing underflows.
    assert_eq!(before.since(&after).ticks, 0);
}

#[test]
fn a_bucket_that_wraps_between_two_samples_still_counts() {
    let (mut first, mut second) = (page(), page());
    set(&mut first, 0x80, 0xffff_ffff, 4);
    set(&mut second, 0x80, 4, 4);
    let delta = Report::decode(&second).unwrap().since(&Report::decode(&first).unwrap());
    assert_eq!(delta.histogram[0], 5);
}

#[test]
fn merging_adds_and_is_done_only_when_all_are() {
    let mut done = report_of(&[1, 2]);
    done.state = State::Done;
    let mut sum = done.clone();
    sum.merge(&done);
    assert_eq!((sum.ticks, sum.samples(), sum.state), (4, 4, State::Done));
    sum.merge(&report_of(&[900]));
    assert_eq!((sum.max_lateness, sum.state), (900, State::Running));
}

#[test]
fn cycles_become_nanoseconds_by_the_guests_frequency() {
    let mut report = report_of(&[]);
    assert_eq!(report.nanoseconds(3_000), 1_500);
    report.tsc_khz = 0;
    assert_eq!(report.nanoseconds(3_000), 0);
    report.tsc_khz = 1;
    assert_eq!(report.nanoseconds(u64::MAX), u64::MAX);
}

#[test]
fn no_page_panics_whatever_the_guest_wrote() {
    let mut random = Random(42);
    let mut kept = report_of(&[]);
    for _ in 0..500 {
        let mut page = page();
        for at in (0x0c..0x50).step_by(4).chain((0x80..REPORT_BYTES).step_by(4)) {
            set(&mut page, at, random.next(), 4);
        }
        let report = Report::decode(&page).unwrap();
        for q in [-1.0, 0.0, 0.5, 2.0, f64::NAN, f64::INFINITY] {
            assert!(report.quantile(q) <= report.max_lateness);
        }
        let _ = report.nanoseconds(report.max_lateness);
        let _ = report.since(&kept).since(&report);
        kept.merge(&report);
    }
}
