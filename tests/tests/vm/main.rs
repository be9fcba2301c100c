//! Whole VMs on a real `/dev/kvm`.

mod backends;
mod backstop;
mod bad_input;
mod boot;
mod boot_protocols;
mod control;
mod crash;
mod density;
mod disks;
mod ending;
mod gdb;
mod lifecycle;
mod limits;
mod many;
mod observe;
mod oracle;
mod oracle_tables;
mod placement;
mod qemu;
mod serial;
mod shared_images;
mod simulate;
mod smp;
mod soak;
mod storm;
mod suite;
