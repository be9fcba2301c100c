//! Stock Linux guests, booted by `siesta` on an emulated KVM host.
//!
//! The host is `tests/nested/nested-host.sh`, so `/dev/kvm` is not needed. It is started once, for all
//! tests of this binary. What it lacks is said by name, and is a failure with `REQUIRE_NESTED=1`.

mod host;
mod timers;
