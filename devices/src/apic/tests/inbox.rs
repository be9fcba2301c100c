//! The inbox, alone and under races.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

#[test]
fn everything_posted_is_pulled_once() {
    let inbox = Inbox::new();
    let mut apic = x2apic();
    inbox.post(0x10);
    inbox.post(0xff);
    inbox.post_init();
    inbox.post_nmi();
    inbox.post_sipi(0x9a);
    inbox.post_timer();
    let all = Pulled { nmis: 1, init: true, sipi: Some(0x9a), timer: true, extint: false };
    assert_eq!(apic.pull(&inbox), all);
    assert_eq!(vectors(&mut apic, IRR), [0x10, 0xff]);
    apic.init_reset();
    assert_eq!(apic.pull(&inbox), Pulled::default());
    assert!(vectors(&mut apic, IRR).is_empty());
}

#[test]
fn sipi_vector_zero_is_a_sipi() {
    let inbox = Inbox::new();
    inbox.post_sipi(0);
    assert_eq!(x2apic().pull(&inbox).sipi, Some(0));
}

/// SDM 9.4.4.1.
#[test]
fn race_1_init_withdraws_a_sipi_that_came_before() {
    let inbox = Inbox::new();
    inbox.post_sipi(0x9a);
    inbox.post_timer();
    inbox.post_init();
    let left = Pulled { nmis: 0, init: true, sipi: None, timer: true, extint: false };
    assert_eq!(x2apic().pull(&inbox), left);
}

/// A CPU that got NMI, INIT and SIPI before it looked took the NMI in real mode.
#[test]
fn race_1_init_withdraws_nmis_that_came_before() {
    let inbox = Inbox::new();
    for before in 0..=3 {
        for after in 0..=2 {
            (0..before).for_each(|_| inbox.post_nmi());
            inbox.post_init();
            (0..after).for_each(|_| inbox.post_nmi());
            inbox.post_sipi(0x9a);
            let pulled = x2apic().pull(&inbox);
            assert_eq!((pulled.nmis, pulled.init, pulled.sipi), (after, true, Some(0x9a)));
        }
    }
}

/// SDM vol. 3A, 7.7.1: of the NMIs that come while one is handled, one is remembered.
#[test]
fn two_nmis_are_kept_and_no_more() {
    let inbox = Inbox::new();
    for (posted, kept) in [(0, 0), (1, 1), (2, 2), (3, 2), (9, 2)] {
        for _ in 0..posted {
            inbox.post_nmi();
        }
        assert_eq!(x2apic().pull(&inbox).nmis, kept);
    }
}

/// SDM 9.4.4.1.
#[test]
fn race_2_first_of_two_sipis_counts() {
    let inbox = Inbox::new();
    inbox.post_sipi(0x9a);
    inbox.post_sipi(0x55);
    assert_eq!(x2apic().pull(&inbox).sipi, Some(0x9a));
}

#[test]
fn disabled_apic_drops_vectors_and_hands_on_the_rest() {
    let inbox = Inbox::new();
    let mut apic = LocalApic::new(CONFIG);
    apic.set_base(0xfee0_0000).expect("disabling");
    inbox.post(0x40);
    inbox.post_init();
    assert!(apic.pull(&inbox).init);
    apic.set_base(0xfee0_0800).expect("enabling");
    assert_eq!(peek(&mut apic, 0x220), 0);
}

/// Four posters, each with vectors of its own, and a holder that pulls all the while. Each poster
/// counts up a number before it posts; the holder, once it has the vector, must see the number.
#[test]
fn nothing_is_lost_doubled_or_seen_before_what_was_written_first() {
    const ROUNDS: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let inbox = Inbox::new();
    let stop = AtomicBool::new(false);
    let written: [AtomicU64; 4] = Default::default();
    let taken: [AtomicU64; 4] = Default::default();
    thread::scope(|s| {
        let posters: Vec<_> = (0..4_u8)
            .map(|i| {
                let (inbox, written, taken) = (&inbox, &written, &taken);
                s.spawn(move || {
                    for round in 1..=ROUNDS {
                        written[usize::from(i)].store(round, Ordering::Relaxed);
                        inbox.post(0x20 + i * 0x3c);
                        while taken[usize::from(i)].load(Ordering::Acquire) < round {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        s.spawn(|| {
            let mut apic = x2apic();
            let mut counts = [0; 4];
            while !stop.load(Ordering::Acquire) {
                let pulled = apic.pull(&inbox);
                assert_eq!(pulled, Pulled::default());
                while let Some(vector) = apic.next_vector() {
                    apic.acknowledge(vector);
                    set(&mut apic, EOI, 0);
                    let i = usize::from((vector - 0x20) / 0x3c);
                    counts[i] += 1;
                    assert_eq!(written[i].load(Ordering::Relaxed), counts[i]);
                    taken[i].store(counts[i], Ordering::Release);
                }
                thread::yield_now();
            }
            assert_eq!(counts, [ROUNDS; 4]);
        });
        let all_well = posters.into_iter().all(|poster| poster.join().is_ok());
        stop.store(true, Ordering::Release);
        assert!(all_well);
    });
}

/// One thread sends INIT then SIPI, as a bootstrap processor does; a SIPI that is pulled without its
/// INIT must come after a pull that had it.
#[test]
fn sipi_never_overtakes_its_init() {
    const ROUNDS: u8 = if cfg!(miri) { 20 } else { 200 };
    let inbox = Inbox::new();
    let seen = AtomicU64::new(0);
    thread::scope(|s| {
        s.spawn(|| {
            for round in 1..=ROUNDS {
                inbox.post_init();
                inbox.post_nmi();
                inbox.post_sipi(round);
                while seen.load(Ordering::Acquire) < u64::from(round) {
                    thread::yield_now();
                }
            }
        });
        let mut apic = x2apic();
        let (mut inits, mut nmis) = (0, 0);
        while seen.load(Ordering::Relaxed) < u64::from(ROUNDS) {
            let pulled = apic.pull(&inbox);
            inits += u64::from(pulled.init);
            nmis += u64::from(pulled.nmis);
            if let Some(vector) = pulled.sipi {
                assert_eq!((inits, nmis), (u64::from(vector), u64::from(vector)));
                seen.store(u64::from(vector), Ordering::Release);
            }
            thread::yield_now();
        }
    });
}

/// Bursts of posts into one word while the holder takes it again and again, as fast as it can: every
/// vector arrives once.
#[test]
fn post_between_the_holders_look_and_its_taking_is_not_lost() {
    const ROUNDS: u64 = if cfg!(miri) { 10 } else { 20_000 };
    const BURST: u64 = 48;
    let inbox = Inbox::new();
    let taken = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let bits = inbox.take_vectors()[1].count_ones();
                if bits > 0 {
                    taken.fetch_add(u64::from(bits), Ordering::Release);
                }
            }
        });
        let mut complete = true;
        for round in 1..=ROUNDS {
            for vector in 0..BURST as u8 {
                inbox.post(64 + vector);
            }
            let mut patience = 10_000_000_u32;
            while complete && taken.load(Ordering::Acquire) < round * BURST {
                complete = patience > 0;
                patience = patience.saturating_sub(1);
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Release);
        assert!(complete, "a post was lost");
    });
    assert_eq!(taken.load(Ordering::Relaxed), ROUNDS * BURST);
}
