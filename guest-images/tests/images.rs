//! Promises about the image files: format, size, instructions.

use std::path::{Path, PathBuf};
use std::process::Command;

use guest_images::Image;
use guest_images::report::{MAX_VCPUS, REPORT_BASE, report_address};

const BASE: u64 = 0x20_0000;
const LARGEST: usize = 24 * 1024;
const LONGEST_TICK: usize = 40;

fn word(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes[at..at + width].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

struct Segment {
    kind: u64,
    offset: usize,
    address: u64,
    file_bytes: usize,
    memory_bytes: u64,
}

fn segments(elf: &[u8]) -> Vec<Segment> {
    let (table, width, count) = (word(elf, 32, 8), word(elf, 54, 2), word(elf, 56, 2));
    (0..count)
        .map(|index| {
            let at = (table + index * width) as usize;
            assert_eq!(word(elf, at + 16, 8), word(elf, at + 24, 8), "virtual is physical");
            Segment {
                kind: word(elf, at, 4),
                offset: word(elf, at + 8, 8) as usize,
                address: word(elf, at + 24, 8),
                file_bytes: word(elf, at + 32, 8) as usize,
                memory_bytes: word(elf, at + 40, 8),
            }
        })
        .collect()
}

fn loaded(elf: &[u8]) -> Vec<Segment> {
    segments(elf).into_iter().filter(|segment| segment.kind == 1).collect()
}

/// Descriptor of the PVH note (type 18, owner "Xen").
fn pvh_entry(elf: &[u8]) -> Option<u64> {
    let note = segments(elf).into_iter().find(|segment| segment.kind == 4)?;
    let bytes = &elf[note.offset..note.offset + note.file_bytes];
    let is_pvh = word(bytes, 0, 4) == 4 && word(bytes, 8, 4) == 18 && &bytes[12..16] == b"Xen\0";
    is_pvh.then(|| word(bytes, 16, 4))
}

fn with_symbols(image: &Image) -> PathBuf {
    Path::new(env!("OUT_DIR")).join(format!("{}.sym.elf", image.name))
}

/// The disassembly, or `None` with a line that says so where there is no
/// objdump.
fn disassemble(test: &str, image: &Image) -> Option<String> {
    let mut command = Command::new("objdump");
    command.args(["-d", "--no-show-raw-insn"]).arg(with_symbols(image));
    let Ok(output) = command.output() else {
        eprintln!("skipped: no objdump: {test}");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("objdump writes ASCII"))
}

#[test]
fn every_image_is_found_by_its_name() {
    for name in [
        "hello",
        "tick",
        "busy",
        "ipi",
        "halt",
        "echo",
        "apic-modes",
        "ipis",
        "nmi",
        "pit",
        "pic",
        "ioapic",
        "virtio",
        "rtc",
        "start",
        "smp-start",
        "x2apic",
        "pv-eoi",
    ] {
        assert_eq!(guest_images::find(name).unwrap().name, name);
    }
    assert!(guest_images::find("").is_none());
    assert!(guest_images::find("tic").is_none());
}

#[test]
fn images_are_small_elf64_executables_for_x86_64() {
    for image in guest_images::all() {
        assert_eq!(&image.elf[..6], b"\x7fELF\x02\x01", "{}", image.name);
        assert_eq!((word(image.elf, 16, 2), word(image.elf, 18, 2)), (2, 62), "{}", image.name);
        assert!(image.elf.len() < LARGEST, "{}: {} bytes", image.name, image.elf.len());
    }
}

#[test]
fn segments_lie_between_two_mib_and_the_report_pages() {
    for image in guest_images::all() {
        let loaded = loaded(image.elf);
        assert!(!loaded.is_empty());
        for segment in loaded {
            assert!(segment.address >= BASE, "{}", image.name);
            assert!(segment.address + segment.memory_bytes <= REPORT_BASE, "{}", image.name);
            assert!(segment.file_bytes as u64 <= segment.memory_bytes);
        }
    }
    assert_eq!(report_address(MAX_VCPUS - 1), REPORT_BASE + 63 * 4096);
}

#[test]
fn both_entries_are_in_code() {
    for image in guest_images::all() {
        let code = &loaded(image.elf)[0];
        let range = code.address..code.address + code.memory_bytes;
        let linux = word(image.elf, 24, 8);
        let pvh = pvh_entry(image.elf).expect("a PVH note");
        assert!(range.contains(&linux) && range.contains(&pvh), "{}", image.name);
        assert_ne!(linux, pvh, "one is 64-bit code, the other 32-bit");
    }
}

#[test]
fn no_vector_or_fpu_instruction() {
    for image in guest_images::all() {
        let Some(text) = disassemble("no_vector_or_fpu_instruction", image) else {
            return;
        };
        for line in text.lines() {
            let banned = ["%xmm", "%ymm", "%zmm", "%mm", "%st"];
            assert!(!banned.iter().any(|register| line.contains(register)), "{line}");
        }
    }
}

/// One instruction of a disassembly.
#[derive(Debug)]
struct Instruction {
    address: u64,
    mnemonic: String,
    operands: String,
}

fn function(text: &str, name: &str) -> Vec<Instruction> {
    let (start, end) = (format!("<{name}>:"), format!("<{name}_end>:"));
    let body = text.lines().skip_while(|line| !line.ends_with(&start)).skip(1);
    body.take_while(|line| !line.ends_with(&end))
        .filter_map(|line| {
            let (address, rest) = line.trim().split_once(":\t")?;
            let (mnemonic, operands) = rest.split_once(' ').unwrap_or((rest, ""));
            Some(Instruction {
                address: u64::from_str_radix(address, 16).ok()?,
                mnemonic: mnemonic.trim().into(),
                operands: operands.trim().into(),
            })
        })
        .collect()
}

/// Most instructions on any way from `at` to IRETQ that takes no loop twice.
fn longest(code: &[Instruction], at: usize, path: &mut Vec<usize>) -> Option<usize> {
    if path.contains(&at) {
        return None;
    }
    let instruction = &code[at];
    let jump = || {
        let target = instruction.operands.split(' ').next().expect("split is never empty");
        let target = u64::from_str_radix(target, 16).expect("a hexadecimal target");
        code.iter().position(|other| other.address == target).expect("a jump inside")
    };
    let next = match instruction.mnemonic.as_str() {
        "iretq" => return Some(1),
        "jmp" => vec![jump()],
        name if name.starts_with('j') => vec![at + 1, jump()],
        "call" | "div" | "idiv" => panic!("{instruction:?} in a tick handler"),
        _ => vec![at + 1],
    };
    path.push(at);
    let rest = next.into_iter().filter_map(|next| longest(code, next, path)).max();
    path.pop();
    rest.map(|rest| rest + 1)
}

#[test]
fn a_tick_takes_at_most_forty_instructions() {
    let image = guest_images::find("tick").unwrap();
    let Some(text) = disassemble("a_tick_takes_at_most_forty_instructions", image) else {
        return;
    };
    for mode in ["deadline", "oneshot", "periodic"] {
        for apic in ["x2apic", "xapic"] {
            let name = format!("tick_{mode}_{apic}");
            let code = function(&text, &name);
            assert!(code.len() > 20, "{name}: {} instructions found", code.len());
            let length = longest(&code, 0, &mut Vec::new()).expect("an IRETQ");
            println!("{name}: {length}");
            // A way over 20 or so shows that the walk did not end early.
            assert!((20..=LONGEST_TICK).contains(&length), "{name}: {length} instructions");
        }
    }
}
