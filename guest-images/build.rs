//! Builds the guest kernels from `guest/` with the system C compiler.
//!
//! Each image is linked twice into `OUT_DIR`: `NAME.elf`, stripped, is what the
//! library embeds; `NAME.sym.elf` keeps the symbols, for disassembly.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// In every image.
const SHARED: &[&str] =
    &["boot.S", "boot.c", "serial.c", "cmdline.c", "clock.c", "apic.c", "smp.c", "power.c"];

/// Name and own sources.
const IMAGES: &[(&str, &[&str])] = &[
    ("hello", &["hello.c", "user.c", "user.S"]),
    ("tick", &["tick.c", "tick_entry.S"]),
    ("busy", &["busy.c", "user.c", "user.S"]),
    ("ipi", &["ipi.c"]),
    ("halt", &["halt.c", "halt_entry.S"]),
    ("apic-modes", &["apic_modes.c", "check.c", "irq.c", "trap.S"]),
    ("ipis", &["ipis.c", "check.c", "irq.c", "trap.S"]),
    ("pit", &["pit.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    ("pic", &["pic.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    ("echo", &["echo.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    ("virtio", &["virtio.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    ("rtc", &["rtc.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    ("ioapic", &["ioapic.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    ("smp-start", &["smp_start.c", "probe.c", "smp_probe.S", "check.c", "irq.c", "trap.S"]),
    ("start", &["start.c", "probe.c", "smp_probe.S", "check.c", "irq.c", "trap.S"]),
    ("x2apic", &["x2apic.c", "check.c", "irq.c", "trap.S"]),
    ("pv-eoi", &["pv_eoi.c", "check.c", "irq.c", "trap.S"]),
    ("clock", &["kvmclock.c", "tsc_moves.c", "legacy.c", "check.c", "irq.c", "trap.S"]),
    (
        "storm",
        &[
            "storm.c",
            "storm_cpus.c",
            "storm_apic.c",
            "storm_board.c",
            "probe.c",
            "smp_probe.S",
            "legacy.c",
            "check.c",
            "irq.c",
            "trap.S",
        ],
    ),
    ("nmi", &["nmi.c", "nmi_entry.S", "check.c", "irq.c", "trap.S"]),
];

const HEADERS: &[&str] = &[
    "abi.h",
    "kernel.h",
    "user.h",
    "tick.h",
    "check.h",
    "legacy.h",
    "probe.h",
    "kvmclock.h",
    "storm.h",
    "link.ld",
];

const COMPILE: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-m64",
    "-march=x86-64",
    "-ffreestanding",
    "-fno-pic",
    "-fno-pie",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-fno-strict-aliasing",
    "-ffunction-sections",
    "-fcf-protection=none",
    "-mgeneral-regs-only",
    "-mno-red-zone",
];

const LINK: &[&str] = &[
    "-m64",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
];

/// The compiler of `CC` (which may carry arguments) or `cc`.
struct Compiler {
    words: Vec<String>,
}

impl Compiler {
    fn find() -> Self {
        let text = env::var("CC").unwrap_or_default();
        let mut words: Vec<String> = text.split_whitespace().map(String::from).collect();
        if words.is_empty() {
            words.push("cc".into());
        }
        Self { words }
    }

    fn run(&self, what: &str, fill: impl FnOnce(&mut Command)) {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        fill(&mut command);
        let Ok(output) = command.output() else {
            stop("a C compiler is needed: install gcc, or set CC");
        };
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            stop(&format!("{what} failed\n{command:?}\n{said}"));
        }
        for line in said.lines() {
            println!("cargo::warning={line}");
        }
    }
}

fn stop(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(1)
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| stop(&format!("cargo did not set {name}")))
}

fn main() {
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=guest");
    if variable("CARGO_CFG_TARGET_ARCH") != "x86_64" {
        stop("the guest images are x86-64 only");
    }
    let source = Path::new(&variable("CARGO_MANIFEST_DIR")).join("guest");
    let out = PathBuf::from(variable("OUT_DIR"));
    for header in HEADERS {
        if !source.join(header).is_file() {
            stop(&format!("guest/{header} is missing"));
        }
    }

    let compiler = Compiler::find();
    let mut files: Vec<&str> = SHARED.to_vec();
    files.extend(IMAGES.iter().flat_map(|(_, own)| own.iter()));
    files.sort_unstable();
    files.dedup();
    for file in files {
        compiler.run(&format!("compiling guest/{file}"), |command| {
            command.args(COMPILE).arg("-c").arg(source.join(file));
            command.arg("-o").arg(object(&out, file));
        });
    }
    for (name, own) in IMAGES {
        for (suffix, strip) in [("elf", true), ("sym.elf", false)] {
            compiler.run(&format!("linking {name}"), |command| {
                command.args(LINK).args(strip.then_some("-s"));
                command.arg("-T").arg(source.join("link.ld"));
                command.arg("-o").arg(out.join(format!("{name}.{suffix}")));
                command.args(SHARED.iter().chain(*own).map(|file| object(&out, file)));
            });
        }
    }
}

fn object(out: &Path, file: &str) -> PathBuf {
    out.join(format!("{file}.o"))
}
