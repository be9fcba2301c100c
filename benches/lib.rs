//! Benchmarks, each beside its baseline in the same run.
//!
//! `cargo bench -p siesta-benches` runs `hierarchy` (what halts and wakes cost in `tmigr`, and what a
//! slot takes of memory; it ends with a table of goals and what was reached) and `apic`
//! (what a tick costs in `devices`); with KVM also `interrupts` (between vCPUs), `vm_costs` (to start,
//! stop and hold a VM, beside KVM's calls alone) and `beside_qemu`. What guests cost a host is
//! `siesta bench density`'s to measure.
