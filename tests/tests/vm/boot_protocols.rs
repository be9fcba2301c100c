//! Kernels of every kind find what their protocol promises, and the machine that the tables describe.

use std::path::{Path, PathBuf};

use siesta_tests::{Ended, kernels, needs_kvm, siesta};

const MODES: [&str; 3] = ["migrate", "thread", "kernel"];

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// Runs a kernel with the command line "hello " and the initrd "module".
fn run(kernel: &[u8], more: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = file(folder.path(), "kernel", kernel);
    let initrd = file(folder.path(), "initrd", b"module");
    let mut arguments = vec!["run", "--cmdline", "hello ", "--timeout", "60"];
    for (option, path) in [("--kernel", &kernel), ("--initrd", &initrd)] {
        arguments.extend([option, path.to_str().expect("a plain name")]);
    }
    arguments.extend(more);
    siesta(&arguments)
}

/// Checks the magic number and that port 0xe9 is there; writes the command line to port 0xe9 and the
/// only module, page-aligned, to the serial port; ends with 16, or with 1. 32-bit code.
const MULTIBOOT: [u8; 81] = [
    0x3d, 0x02, 0xb0, 0xad, 0x2b, 0x75, 0x3f, // cmp eax, 0x2badb002; jne bad
    0xe4, 0xe9, 0x3c, 0xe9, 0x75, 0x39, // in al, 0xe9; cmp al, 0xe9; jne bad
    0x8b, 0x73, 0x10, // mov esi, [ebx+16]
    0x8a, 0x06, 0x84, 0xc0, 0x74, 0x07, // line: mov al, [esi]; test al, al; je module
    0xe6, 0xe9, 0x83, 0xc6, 0x01, 0xeb, 0xf3, // out 0xe9, al; add esi, 1; jmp line
    0x83, 0x7b, 0x14, 0x01, 0x75, 0x23, // module: cmp dword [ebx+20], 1; jne bad
    0x8b, 0x7b, 0x18, 0x8b, 0x37, 0x8b, 0x4f,
    0x04, // mov edi, [ebx+24]; esi, [edi]; ecx, [edi+4]
    0xf7, 0xc6, 0xff, 0x0f, 0x00, 0x00, 0x75, 0x13, // test esi, 0xfff; jne bad
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x39, 0xce, 0x73, 0x0f, // byte: cmp esi, ecx; jae done
    0x8a, 0x06, 0xee, 0x83, 0xc6, 0x01, 0xeb,
    0xf4, // mov al, [esi]; out dx, al; add esi, 1; jmp byte
    0x90, 0x90, 0x90, // nop
    0xb0, 0x01, 0xeb, 0x02, // bad: mov al, 1; jmp leave
    0xb0, 0x10, 0xe6, 0xf4, // done: mov al, 16; leave: out 0xf4, al
    0xf4, 0xeb, 0xfd, // stop: hlt; jmp stop
];

#[test]
fn multiboot_kernel_gets_its_command_line_and_module() {
    needs_kvm!();
    for mode in MODES {
        for kernel in [kernels::multiboot(&MULTIBOOT), kernels::multiboot_elf(&MULTIBOOT)] {
            let ended = run(&kernel, &["--timers", mode]).expect(33);
            assert_eq!(ended.stdout, "hello module", "{ended:#?}");
        }
    }
}

/// Writes '1' in 64-bit mode and '0' in 32-bit mode, then the command line and the RAM disk that the
/// zero page names; ends with 16. The same code in both modes.
const LINUX: [u8; 62] = [
    0x31, 0xc0, 0x48, 0xff, 0xc0, 0x04,
    0x30, // xor eax, eax; inc rax | dec eax, inc eax; add al, '0'
    0x66, 0xba, 0xf8, 0x03, 0xee, // mov dx, 0x3f8; out dx, al
    0x8b, 0x9e, 0x28, 0x02, 0x00, 0x00, // mov ebx, [rsi+0x228]
    0x8a, 0x03, 0x84, 0xc0, 0x74, 0x06, // line: mov al, [rbx]; test al, al; je disk
    0xee, 0x83, 0xc3, 0x01, 0xeb, 0xf4, // out dx, al; add ebx, 1; jmp line
    0x8b, 0x9e, 0x18, 0x02, 0x00, 0x00, // disk: mov ebx, [rsi+0x218]
    0x8b, 0x8e, 0x1c, 0x02, 0x00, 0x00, // mov ecx, [rsi+0x21c]
    0x85, 0xc9, 0x74, 0x0b, // byte: test ecx, ecx; je done
    0x8a, 0x03, 0xee, 0x83, 0xc3, 0x01, // mov al, [rbx]; out dx, al; add ebx, 1
    0x83, 0xe9, 0x01, 0xeb, 0xf1, // sub ecx, 1; jmp byte
    0xb0, 0x10, 0xe6, 0xf4, 0xf4, // done: mov al, 16; out 0xf4, al; hlt
];

#[test]
fn bzimage_is_entered_at_64_bits_if_it_can_be_and_else_at_32() {
    needs_kvm!();
    for mode in MODES {
        for (entry64, output) in [(true, "1hello module"), (false, "0hello module")] {
            let kernel = kernels::bzimage(&LINUX, entry64);
            let ended = run(&kernel, &["--timers", mode]).expect(33);
            assert_eq!(ended.stdout, output, "{ended:#?}");
        }
    }
}

/// Writes fw_cfg's signature and the command line in it to port 0xe9, and ends with its number of
/// CPUs. 32-bit code.
const FW_CFG: [u8; 66] = [
    0x66, 0xba, 0x10, 0x05, 0x66, 0xb8, 0x00, 0x00, 0x66,
    0xef, // mov dx, 0x510; ax, 0; out dx, ax
    0xb9, 0x04, 0x00, 0x00, 0x00, 0x66, 0xba, 0x11, 0x05, // mov ecx, 4; next: mov dx, 0x511
    0xec, 0xe6, 0xe9, 0x83, 0xe9, 0x01, 0x75,
    0xf4, // in al, dx; out 0xe9, al; sub ecx, 1; jnz next
    0x66, 0xba, 0x10, 0x05, 0x66, 0xb8, 0x15, 0x00, 0x66, 0xef, // key 0x15
    0x66, 0xba, 0x11, 0x05, 0xec, 0x84, 0xc0, 0x74,
    0x04, // line: in al, 0x511; test al, al; je cpus
    0xe6, 0xe9, 0xeb, 0xf3, // out 0xe9, al; jmp line
    0x66, 0xba, 0x10, 0x05, 0x66, 0xb8, 0x05, 0x00, 0x66, 0xef, // cpus: key 5
    0x66, 0xba, 0x11, 0x05, 0xec, 0xe6, // mov dx, 0x511; in al, dx; out ..
];

#[test]
fn fw_cfg_tells_the_command_line_and_the_number_of_cpus() {
    needs_kvm!();
    let code = [FW_CFG.as_slice(), &[0xf4, 0xf4]].concat(); // .. 0xf4, al; hlt
    for mode in MODES {
        let more = ["--timers", mode, "--cpus", "3"];
        let ended = run(&siesta_tests::elf32(&code, true), &more).expect(7);
        assert_eq!(ended.stdout, "QEMUhello ", "{ended:#?}");
    }
}

/// Searches for the RSDP, compares its place with the start info's, checks its sum, and ends with the
/// number of local APICs in the MADT that the RSDT lists, or with 0. 32-bit code.
const ACPI: [u8; 124] = [
    0xbe, 0x00, 0x00, 0x0e, 0x00, // mov esi, 0xe0000
    0x81, 0x3e, b'R', b'S', b'D', b' ', 0x75, 0x09, // scan: cmp dword [esi], "RSD "; jne next
    0x81, 0x7e, 0x04, b'P', b'T', b'R', b' ', 0x74,
    0x0d, // cmp dword [esi+4], "PTR "; je found
    0x83, 0xc6, 0x10, 0x81, 0xfe, 0x00, 0x00, 0x10,
    0x00, // next: add esi, 16; cmp esi, 0x100000
    0x72, 0xe4, 0xeb, 0x52, // jb scan; jmp bad
    0x3b, 0x73, 0x20, 0x75, 0x4d, // found: cmp esi, [ebx+32]; jne bad
    0x31, 0xc0, 0x31, 0xdb, // xor eax, eax; xor ebx, ebx
    0x02, 0x04, 0x1e, 0x83, 0xc3, 0x01, // sum: add al, [esi+ebx]; add ebx, 1
    0x83, 0xfb, 0x14, 0x72, 0xf5, // cmp ebx, 20; jb sum
    0x84, 0xc0, 0x75, 0x3a, // test al, al; jne bad
    0x8b, 0x7e, 0x10, 0x8b, 0x4f, 0x04, // mov edi, [esi+16]; mov ecx, [edi+4]
    0x01, 0xf9, 0x83, 0xc7, 0x24, // add ecx, edi; add edi, 36
    0x39, 0xcf, 0x73, 0x2b, // tables: cmp edi, ecx; jae bad
    0x8b, 0x37, 0x83, 0xc7, 0x04, // mov esi, [edi]; add edi, 4
    0x81, 0x3e, b'A', b'P', b'I', b'C', 0x75, 0xef, // cmp dword [esi], "APIC"; jne tables
    0x8b, 0x4e, 0x04, 0x01, 0xf1, // mov ecx, [esi+4]; add ecx, esi
    0x83, 0xc6, 0x2c, 0x31, 0xc0, // add esi, 44; xor eax, eax
    0x39, 0xce, 0x73, 0x12, // entries: cmp esi, ecx; jae done
    0x80, 0x3e, 0x00, 0x75, 0x03, 0x83, 0xc0, 0x01, // cmp byte [esi], 0; jne skip; add eax, 1
    0x0f, 0xb6, 0x5e, 0x01, 0x01, 0xde, 0xeb,
    0xec, // skip: add esi, byte [esi+1]; jmp entries
    0xb0, 0x00, 0xe6, 0xf4, // bad: mov al, 0; done: out 0xf4, al
    0xf4, 0xeb, 0xfd, // stop: hlt; jmp stop
];

#[test]
fn acpi_tables_are_found_and_list_every_cpu() {
    needs_kvm!();
    for (cpus, status) in [("1", 3), ("3", 7), ("60", 121)] {
        let ended = run(&siesta_tests::elf32(&ACPI, true), &["--cpus", cpus]);
        assert_eq!(ended.status, status, "{cpus} CPUs: {ended:#?}");
    }
}
