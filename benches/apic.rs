//! What one tick costs in the local APIC, beside the clock reading that no tick can do without.

#![allow(missing_docs)] // criterion's macros make public items
#![allow(clippy::disallowed_methods)] // the baseline is a reading of the clock

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use devices::apic::{ApicConfig, Inbox, LocalApic};
use devices::time::Moment;

const TSC_DEADLINE: u32 = 0x6e0;
const SVR: u32 = 0x80f;
const LVT_TIMER: u32 = 0x832;
const EOI: u32 = 0x80b;
const VECTOR: u8 = 0x40;

fn apic() -> LocalApic {
    let config = ApicConfig {
        id: 0,
        bsp: true,
        physical_bits: 48,
        tsc_khz: 1_000_000,
        timer_hz: 1_000_000_000,
        tsc_deadline: true,
        least_period_ns: 0,
        cmci: false,
        pv_eoi: true,
    };
    let mut apic = LocalApic::new(config);
    let start = Moment { ns: 0, tsc: 0 };
    apic.set_base(apic.base_msr() | 1 << 10).expect("x2APIC can be enabled");
    let _ = apic.write_msr(SVR, 0x1ff, start).expect("a legal value");
    let _ = apic.write_msr(LVT_TIMER, 1 << 18 | u64::from(VECTOR), start).expect("a legal value");
    apic
}

/// Arm, expire, deliver, end of interrupt: what a guest's tick does to its APIC.
fn tick(c: &mut Criterion) {
    let mut group = c.benchmark_group("tick");
    let mut apic = apic();
    let mut now = 1_000;
    group.bench_function("local APIC", |b| {
        b.iter(|| {
            let armed = Moment { ns: now, tsc: now };
            let _ = apic.write_msr(TSC_DEADLINE, now + 500, armed);
            now += 1_000;
            let fired = apic.advance(Moment { ns: now, tsc: now });
            let vector = apic.next_vector().unwrap_or(0);
            apic.acknowledge(vector);
            let _ = apic.write_msr(EOI, 0, Moment { ns: now, tsc: now });
            black_box((fired, vector))
        });
    });
    group.bench_function("reading the clock", |b| b.iter(Instant::now));
    group.finish();
}

/// What an interrupt costs where most of them are: nothing to do, and somebody else's inbox.
fn interrupts(c: &mut Criterion) {
    let mut group = c.benchmark_group("interrupts");
    let mut apic = apic();
    let inbox = Inbox::new();
    group.bench_function("post into an inbox (goal: 25 ns)", |b| {
        b.iter(|| inbox.post(black_box(VECTOR)));
    });
    group.bench_function("post level-triggered", |b| {
        b.iter(|| inbox.post_level(black_box(VECTOR)));
    });
    let _ = apic.pull(&inbox);
    apic.acknowledge(VECTOR);
    let _ = apic.write_msr(EOI, 0, Moment::default());
    group.bench_function("what to inject, nothing pending (goal: 10 ns)", |b| {
        b.iter(|| black_box(&apic).next_vector());
    });
    group.bench_function("pull of an empty inbox", |b| b.iter(|| apic.pull(black_box(&inbox))));
    group.finish();
}

criterion_group!(benches, tick, interrupts);
criterion_main!(benches);
