//! Several cases in one kernel. `cargo test -- WORD` runs those whose name has WORD in it: cargo's
//! words arrive on the kernel's command line.

#![no_std]
#![no_main]

use core::arch::x86_64::__cpuid;

use example_kernel::{kernel, println};

kernel!(main);

const CASES: [(&str, fn()); 2] = [
    ("cpuid_names_a_vendor", cpuid_names_a_vendor),
    ("memory_keeps_its_value", memory_keeps_its_value),
];

fn main(cmdline: &str) {
    let filters = cmdline.split_whitespace().filter(|word| !word.starts_with('-'));
    let all = filters.clone().next().is_none();
    for (name, case) in CASES {
        if all || filters.clone().any(|word| name.contains(word)) {
            println!("{name}");
            case();
        }
    }
}

fn cpuid_names_a_vendor() {
    #[allow(unused_unsafe)] // safe from Rust 1.94 on
    // SAFETY: every x86-64 CPU has CPUID.
    let leaf = unsafe { __cpuid(0) };
    assert_ne!([leaf.ebx, leaf.edx, leaf.ecx], [0; 3]);
}

fn memory_keeps_its_value() {
    let mut words = [0u64; 256];
    for (i, word) in words.iter_mut().enumerate() {
        // SAFETY: a place of this array.
        unsafe { core::ptr::from_mut(word).write_volatile(i as u64 * 0x0101_0101) };
    }
    for (i, word) in words.iter().enumerate() {
        // SAFETY: as above.
        assert_eq!(unsafe { core::ptr::from_ref(word).read_volatile() }, i as u64 * 0x0101_0101);
    }
}
