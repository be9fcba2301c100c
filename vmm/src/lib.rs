//! The Siesta virtual machine monitor.
//!
//! Owns everything that touches KVM, memory, threads and clocks. Start with `docs/architecture.md`,
//! which names the file for each question; in code, [`vcpu`] runs vCPUs, [`domain`] is what those
//! that look after each other's timers share, [`fleet`] is several VMs in a process, [`assemble`]
//! builds one, [`mod@bench`] measures, [`mod@simulate`] computes from [`costs`] what a larger host would
//! do, [`mod@top`] watches a running process, [`cli`] is the command.

pub mod assemble;
pub mod backstop;
pub mod bench;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod console;
pub mod control;
pub mod costs;
pub mod cpu_features;
pub mod cpuid;
pub mod descriptors;
pub mod domain;
pub mod event_loop;
pub mod fleet;
pub mod gdb;
pub mod guest_faults;
pub mod in_kernel_lines;
pub mod kvm;
pub mod limits;
pub mod load;
pub mod memory;
pub mod msr;
pub mod placement;
pub mod probe;
pub mod seats;
pub mod shared_image;
pub mod signals;
pub mod simulate;
pub mod suite;
pub mod tiny_guests;
pub mod top;
pub mod trail;
pub mod vcpu;
pub mod virtio;
pub mod vm;
