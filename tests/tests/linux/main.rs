//! Stock Linux guests, booted by `siesta` on an emulated KVM host.
//!
//! The host is `tests/nested/nested-host.sh`, so `/dev/kvm` is not needed. It is started once for all
//! tests of timers, and once for each of the others. What it lacks is said by name, and is a failure with `REQUIRE_NESTED=1`.

mod devices;
mod guests;
mod host;
mod timers;
