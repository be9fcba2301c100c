//! What the kernels of this crate share: the way in, the serial port and the way out.
//!
//! A kernel is entered in 64-bit mode with its memory mapped one to one, as Linux's 64-bit boot
//! protocol says, on the first CPU, with interrupts off. It says how it went by its exit status: 1
//! (value 0) when `main` returns, 3 (value 1) when it panics.

#![no_std]

use core::arch::{asm, global_asm};
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

/// Data register of the first serial port.
const SERIAL: u16 = 0x3f8;
/// The debug-exit device: a value written here ends the VM with status `(value << 1) | 1`.
const DEBUG_EXIT: u16 = 0xf4;
/// Offset of the command line's address in the zero page (`boot_params.hdr.cmd_line_ptr`).
const CMDLINE: usize = 0x228;

global_asm!(
    ".section .text.entry, \"ax\"",
    ".global _start",
    "_start:",
    "lea rsp, [rip + {stack} + {size}]",
    "mov rdi, rsi", // the zero page
    "call {enter}",
    "ud2",
    stack = sym STACK,
    size = const STACK_BYTES,
    enter = sym enter,
);

const STACK_BYTES: usize = 64 << 10;

#[repr(align(16))]
struct Stack(#[allow(dead_code)] [u8; STACK_BYTES]);

static mut STACK: Stack = Stack([0; STACK_BYTES]);

unsafe extern "Rust" {
    /// The kernel itself: see [`kernel!`].
    safe fn kernel_main(cmdline: &str);
}

/// Names the function that is the kernel. It is given the command line, and has passed its test when
/// it returns.
#[macro_export]
macro_rules! kernel {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn kernel_main(cmdline: &str) {
            let main: fn(&str) = $main;
            main(cmdline);
        }
    };
}

extern "C" fn enter(zero_page: *const u8) -> ! {
    // SAFETY: the boot loader hands over the zero page, which holds the address of a string that ends
    // in a zero and lies below 4 GiB.
    let cmdline = unsafe {
        let at = zero_page.add(CMDLINE).cast::<u32>().read_unaligned();
        if at == 0 { c"" } else { CStr::from_ptr(at as usize as *const _) }
    };
    kernel_main(cmdline.to_str().unwrap_or(""));
    exit(0)
}

fn out(port: u16, value: u8) {
    // SAFETY: the ports of this crate do not touch memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Ends the VM with status `(value << 1) | 1`.
pub fn exit(value: u8) -> ! {
    out(DEBUG_EXIT, value);
    loop {
        // SAFETY: with interrupts off nothing comes after it.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// The serial port as a writer.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            out(SERIAL, byte);
        }
        Ok(())
    }
}

/// Writes a line to the serial port.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {{
        use core::fmt::Write;
        let _ = writeln!($crate::Serial, $($text)*);
    }};
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    exit(1)
}
