//! A kernel whose serial output must be that of `expect/hello.expect`.

#![no_std]
#![no_main]

use example_kernel::{kernel, println};

kernel!(main);

fn main(_cmdline: &str) {
    println!("hello from a kernel");
    println!("6 * 7 = {}", 6 * 7);
}
