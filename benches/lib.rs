//! Benchmarks of Siesta: see the `[[bench]]` targets.
