//! Benchmarks, each beside its baseline in the same run.
//!
//! `cargo bench -p siesta-benches` runs `hierarchy` (what halts and wakes cost in `tmigr`) and `apic`
//! (what a tick costs in `devices`). What guests cost a host is `siesta bench density`'s to measure.
