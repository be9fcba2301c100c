//! Files that are given as kernels and are none that can be booted, but of a known kind.
//!
//! Pure. Owns the marks by which they are told, and what their owner is advised. Must not know what
//! kernels look like. Sources: the formats' specifications (RFC 1952, RFC 8878, and others), Linux's
//! `Documentation/arch/arm64/booting.rst` and `arch/riscv/boot-image-header.rst`.

/// What a file is instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// A compressed file.
    #[error(
        "is compressed with {format}; unpack it first: {command} FILE > vmlinux (a bzImage unpacks itself)"
    )]
    Compressed {
        /// By what.
        format: &'static str,
        /// What writes it unpacked to standard output.
        command: &'static str,
    },
    /// A kernel for another CPU.
    #[error("is a kernel for {cpu}, not for x86; give an x86-64 kernel")]
    Cpu {
        /// Its kind.
        cpu: &'static str,
    },
    /// Something else.
    #[error("is {what}; {advice}")]
    Other {
        /// A noun.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
}

/// A mark, where it stands in the file, and what it says.
type Mark = (usize, &'static [u8], Foreign);

const fn compressed(format: &'static str, command: &'static str) -> Foreign {
    Foreign::Compressed { format, command }
}

const fn other(what: &'static str, advice: &'static str) -> Foreign {
    Foreign::Other { what, advice }
}

/// In the order in which they are looked for: the surest first.
const MARKS: &[Mark] = &[
    (0, b"\x1f\x8b", compressed("gzip", "gzip -dc")),
    (0, b"\x28\xb5\x2f\xfd", compressed("zstd", "zstd -dc")),
    (0, b"\xfd7zXZ\0", compressed("xz", "xz -dc")),
    (0, b"BZh", compressed("bzip2", "bzip2 -dc")),
    (0, b"\x04\x22\x4d\x18", compressed("lz4", "lz4 -dc")),
    (0, b"\x02\x21\x4c\x18", compressed("lz4", "lz4 -dc")),
    (0, b"\x89LZO", compressed("lzop", "lzop -dc")),
    (0, b"\x5d\0\0", compressed("lzma", "xz -dc --format=lzma")),
    (0x38, b"ARM\x64", Foreign::Cpu { cpu: "aarch64" }),
    (0x38, b"RSC\x05", Foreign::Cpu { cpu: "RISC-V" }),
    (0x24, b"\x18\x28\x6f\x01", Foreign::Cpu { cpu: "arm" }),
    (0, b"070701", other("a cpio archive", "give it as --initrd, and a kernel as --kernel")),
    (0, b"\x27\x05\x19\x56", other("a U-Boot image", "take the kernel out of it: dumpimage")),
    (
        0,
        b"MZ",
        other("an EFI application without a Linux setup header", "take the kernel out of it"),
    ),
];

/// What a file is, if that is known.
#[must_use]
pub fn of(file: &[u8]) -> Option<Foreign> {
    let is = |(at, mark, _): &&Mark| file.get(*at..).is_some_and(|rest| rest.starts_with(mark));
    MARKS.iter().find(is).map(|(_, _, what)| *what)
}

/// What an ELF file's `e_machine` is called (ELF specification, and its registry), if it is one that
/// kernels are built for.
#[must_use]
pub fn cpu(machine: u16) -> &'static str {
    match machine {
        3 => "32-bit x86",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "s390",
        40 => "arm",
        62 => "x86-64",
        183 => "aarch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "another CPU",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_found_in_its_place_alone() {
        for (at, mark, what) in MARKS {
            let mut file = vec![0xee; 0x60];
            file[*at..*at + mark.len()].copy_from_slice(mark);
            assert_eq!(of(&file), Some(*what));
            assert_eq!(of(&file[..at + mark.len() - 1]), None, "cut");
            file.insert(0, 0xee);
            assert_eq!(of(&file), None);
            let text = what.to_string();
            assert!(
                text.starts_with("is ") && text.contains(';') && !text.contains('\n'),
                "{text}"
            );
        }
        assert_eq!(of(b""), None);
    }

    #[test]
    fn stub_of_another_cpu_is_not_taken_for_any_efi_application() {
        let mut file = vec![0; 0x60];
        file[..2].copy_from_slice(b"MZ");
        file[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(of(&file), Some(Foreign::Cpu { cpu: "aarch64" }));
    }
}
