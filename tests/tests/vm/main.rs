//! Whole VMs on a real `/dev/kvm`.

mod bad_input;
mod boot;
mod crash;
mod density;
mod ending;
mod many;
mod oracle;
mod oracle_tables;
mod qemu;
mod simulate;
mod smp;
