//! Pages of an image that VMs of one process share until they write to them.

#![allow(clippy::disallowed_methods)] // a test has to know when a guest stands still

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use siesta_tests::{PATIENCE, Running, command, kernels, needs_kvm, siesta};

const MODES: [&str; 3] = ["migrate", "thread", "kernel"];
const PAGE: usize = 4096;

/// Checks that the module's pages begin with their numbers, writes -1 there, and reads that back; ends
/// with 16, or with 1. 32-bit code.
const WRITES: [u8; 52] = [
    0x8b, 0x7b, 0x18, 0x8b, 0x37, 0x8b, 0x4f,
    0x04, // mov edi, [ebx+24]; esi, [edi]; ecx, [edi+4]
    0x31, 0xd2, // xor edx, edx
    0x39, 0xce, 0x73, 0x1f, // page: cmp esi, ecx; jae done
    0x3b, 0x16, 0x75, 0x17, // cmp edx, [esi]; jne bad
    0xc7, 0x06, 0xff, 0xff, 0xff, 0xff, // mov dword [esi], -1
    0x83, 0x3e, 0xff, 0x75, 0x0c, // cmp dword [esi], -1; jne bad
    0x83, 0xc2, 0x01, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, // add edx, 1; add esi, 4096
    0xeb, 0xe2, 0x90, // jmp page; nop
    0xb0, 0x01, 0xeb, 0x02, // bad: mov al, 1; jmp leave
    0xb0, 0x10, 0xe6, 0xf4, // done: mov al, 16; leave: out 0xf4, al
    0xf4, 0xeb, 0xfd, // stop: hlt; jmp stop
];

/// Reads all of the module's pages, writes 'r' to the serial port, and halts for ever. 32-bit code.
const READS: [u8; 33] = [
    0x8b, 0x7b, 0x18, 0x8b, 0x37, 0x8b, 0x4f,
    0x04, // mov edi, [ebx+24]; esi, [edi]; ecx, [edi+4]
    0x39, 0xce, 0x73, 0x0a, // page: cmp esi, ecx; jae done
    0x8b, 0x06, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, // mov eax, [esi]; add esi, 4096
    0xeb, 0xf2, // jmp page
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x72, 0xee, // done: mov dx, 0x3f8; mov al, 'r'; out dx, al
    0xfa, 0xf4, 0xeb, 0xfd, // cli; stop: hlt; jmp stop
];

/// Pages that begin with their numbers, and a last one that is not whole.
fn numbered(pages: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..pages as u32)
        .flat_map(|page| {
            let mut bytes = vec![page as u8 | 1; PAGE];
            bytes[..4].copy_from_slice(&page.to_le_bytes());
            bytes
        })
        .collect();
    bytes.truncate(pages * PAGE - 100);
    bytes
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(code: &[u8], pages: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("kernel"), kernels::multiboot(code)).expect("a file");
        fs::write(folder.path().join("initrd"), numbered(pages)).expect("a file");
        Files { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain name").to_owned()
    }

    fn run(&self, more: &[&str]) -> Vec<String> {
        let (kernel, initrd) = (self.path("kernel"), self.path("initrd"));
        let run = ["run", "--kernel", &kernel, "--initrd", &initrd, "--timeout", "60"];
        run.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn guests_write_to_their_own_copies() {
    needs_kvm!();
    let files = Files::new(&WRITES, 300);
    for mode in MODES {
        for more in [&["--count", "4"][..], &["--numa", "0"]] {
            let run = files.run(&[&["--timers", mode, "--memory", "16M"], more].concat());
            let _ = siesta(&words(&run)).expect(33);
        }
    }
}

/// Figure of a process's `smaps_rollup`, in KiB.
fn memory_of(process: &Running, key: &str) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid())).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn initrd_of_many_vms_is_in_memory_once() {
    needs_kvm!();
    const VMS: usize = 12;
    const PAGES: usize = 1024;
    let files = Files::new(&READS, PAGES);
    let serial = files.path("serial");
    let count = VMS.to_string();
    let running = Running::start(command(&words(
        &files.run(&["--count", &count, "--serial", &serial, "--memory", "16M"]),
    )));
    let began = Instant::now();
    let has_read = |vm: &usize| {
        fs::read(Path::new(&format!("{serial}.{vm}"))).is_ok_and(|output| output == b"r")
    };
    while !(0..VMS).all(|vm| has_read(&vm)) {
        assert!(began.elapsed() < PATIENCE, "they do not read");
        std::thread::sleep(Duration::from_millis(20));
    }
    let Some(pss) = memory_of(&running, "Pss") else {
        return eprintln!("skipped: the kernel does not tell the memory of a process");
    };
    let initrd = (PAGES * PAGE) as u64 >> 10;
    assert!(pss < initrd * VMS as u64 / 2, "{pss} KiB for {VMS} times {initrd} KiB");
}
