//! Where serial output goes, and where input comes from.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use siesta_tests::{Running, command, elf32, needs_kvm, siesta};

/// Says `>`, then writes back whatever it is told, until `q`: 32-bit code.
const ECHO: [u8; 29] = [
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'>', 0xee, // mov dx, 0x3f8; mov al, '>'; out dx, al
    0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74,
    0xfb, // 7: mov dx, 0x3fd; 11: in al, dx; test al, 1; jz 11
    0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, // mov dx, 0x3f8; in al, dx; out dx, al
    0x3c, b'q', 0x75, 0xed, // cmp al, 'q'; jnz 7
    0xe6, 0xf4, 0xf4, // out 0xf4, al; hlt
];

#[test]
fn socket_carries_both_ways_and_is_removed() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("echo.elf");
    fs::write(&kernel, elf32(&ECHO, true)).expect("a file");
    let kernel = kernel.to_str().expect("a plain name");
    for mode in ["migrate", "thread", "kernel"] {
        let socket = folder.path().join("serial");
        let serial = format!("unix:{}", socket.display());
        let arguments = ["run", "--kernel", kernel, "--timers", mode, "--serial", &serial];
        let running = Running::start(command(&[&arguments[..], &["--timeout", "60"]].concat()));
        let mut client = loop {
            match UnixStream::connect(&socket) {
                Ok(client) => break client,
                Err(_) => std::thread::yield_now(),
            }
        };
        // More than the UART's FIFO holds, at once.
        let said = "0123456789".repeat(20) + "q";
        client.write_all(said.as_bytes()).expect("it is connected");
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("text, until the guest ends");
        assert_eq!(heard, format!(">{said}"));
        let ended = running.wait().expect(i32::from((b'q' << 1) | 1));
        assert!(ended.stdout.is_empty() && ended.stderr.is_empty(), "{ended:#?}");
        assert!(!socket.exists());
    }
}

/// Says `x` 4096 times: 32-bit code.
const CHATTER: [u8; 20] = [
    0xb9, 0x00, 0x10, 0x00, 0x00, // mov ecx, 4096
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', // mov dx, 0x3f8; mov al, 'x'
    0xee, 0xe2, 0xfd, // 11: out dx, al; loop 11
    0x31, 0xc0, 0xe7, 0xf4, // xor eax, eax; out 0xf4, eax
    0xf4, 0xf4, // hlt
];

#[test]
fn output_that_cannot_be_written_is_not_logged_byte_by_byte() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("chatter.elf");
    fs::write(&kernel, elf32(&CHATTER, true)).expect("a file");
    let kernel = kernel.to_str().expect("a plain name");
    let ended = siesta(&["run", "--kernel", kernel, "--serial", "/dev/full", "--timeout", "60"]);
    let lines = ended.expect(1).stderr;
    assert_eq!(lines.matches("console output lost").count(), 1, "{lines}");
    assert!(lines.lines().count() <= 3, "{lines}");
}

/// The guest halts between two words: the port's interrupt has to wake it.
#[test]
fn input_interrupts_a_halted_guest() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    for mode in ["migrate", "thread", "kernel"] {
        let socket = folder.path().join("serial");
        let serial = format!("unix:{}", socket.display());
        let arguments = ["run", "--image", "echo", "--timers", mode, "--serial", &serial];
        let running = Running::start(command(&[&arguments[..], &["--timeout", "60"]].concat()));
        let mut client = loop {
            match UnixStream::connect(&socket) {
                Ok(client) => break client,
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut heard = vec![0];
        client.read_exact(&mut heard).expect("it is ready");
        assert_eq!(heard, b">");
        for said in ["a", "bc", &"0123456789".repeat(30), "d"] {
            client.write_all(said.as_bytes()).expect("it is connected");
            heard.resize(said.len(), 0);
            client.read_exact(&mut heard).expect("it answers");
            assert_eq!(String::from_utf8_lossy(&heard), said, "{mode}");
        }
        client.write_all(b"q").expect("it is connected");
        let _ = running.wait().expect(i32::from((b'q' << 1) | 1));
    }
}

#[test]
fn guest_does_not_wait_for_a_client() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let serial = format!("unix:{}", folder.path().join("serial").display());
    let arguments = ["run", "--image", "hello", "--count", "2", "--serial", &serial];
    let _ = siesta(&arguments).expect(0);
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn sockets_that_cannot_be_created_are_refused() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let taken = folder.path().join("taken");
    fs::write(&taken, "precious").expect("a file");
    for (path, part) in [
        (taken.clone(), "remove it"),
        (folder.path().join("no/such"), "directory"),
        (folder.path().join("x".repeat(200)), "108"),
    ] {
        let serial = format!("unix:{}", path.display());
        let ended = siesta(&["run", "--image", "hello", "--serial", &serial]).expect(2);
        ended.one_line(&["--serial", part]);
    }
    assert_eq!(fs::read_to_string(&taken).expect("it is still there"), "precious");
}
