//! `siesta test`: kernels that pass, fail, crash and hang, and what is written about them.

#![allow(clippy::disallowed_methods)] // a harness has to know when a child hangs

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use siesta_tests::{Ended, Running, command, elf32, needs_kvm, siesta};

/// Code that writes `text` to the serial port: 32-bit.
fn say(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Code that writes `value` to the debug-exit port.
fn exit(value: u8) -> Vec<u8> {
    vec![0xb0, value, 0xe6, 0xf4, 0xf4] // mov al, value; out 0xf4, al; hlt
}

/// Halts for ever.
const HANG: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd]; // cli; hlt; jmp back
/// Loads an empty IDT and raises #UD.
const CRASH: [u8; 9] = [0x0f, 0x01, 0x1d, 0, 0, 0, 0, 0x0f, 0x0b]; // lidt [0]; ud2

/// Kernels in a folder of their own.
struct Kernels(tempfile::TempDir);

impl Kernels {
    fn new() -> Self {
        Kernels(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a kernel; its path.
    fn add(&self, name: &str, code: &[&[u8]]) -> String {
        let path = self.path(name);
        fs::write(&path, elf32(&code.concat(), true)).expect("a file");
        text(&path)
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a plain name").to_owned()
}

fn run(arguments: &[&str]) -> Ended {
    siesta(&[&["test"], arguments].concat())
}

/// The YAML block of a test point.
#[track_caller]
fn block<'a>(ended: &'a Ended, point: &str) -> &'a str {
    let start = ended.stdout.find(&format!("{point}\n  ---\n"));
    let rest = &ended.stdout[start.unwrap_or_else(|| panic!("no '{point}' in {ended:#?}"))..];
    &rest[..rest.find("\n  ...\n").unwrap_or_else(|| panic!("no end in {ended:#?}"))]
}

#[test]
fn each_kernel_is_judged_alone_and_reported_in_order() {
    needs_kvm!();
    let kernels = Kernels::new();
    let passes = kernels.add("passes.elf", &[&say("fine\n"), &exit(0)]);
    let fails = kernels.add("fails.elf", &[&say("assertion failed\n"), &exit(5)]);
    let crashes = kernels.add("crashes.elf", &[&say("so far\n"), &CRASH]);
    let hangs = kernels.add("hangs.elf", &[&say("waiting\n"), &HANG]);
    let again = kernels.add("again.elf", &[&exit(0)]);
    let junk = text(&kernels.path("junk.elf"));
    fs::write(&junk, "no kernel, though long enough to be taken for a header of some kind\n")
        .expect("a file");
    let junit = text(&kernels.path("junit.xml"));
    for jobs in ["1", "6"] {
        let ended = run(&[
            "--timeout",
            "3",
            "--jobs",
            jobs,
            "--junit",
            &junit,
            &hangs,
            &passes,
            &fails,
            &crashes,
            &junk,
            &again,
        ])
        .expect(1);
        assert!(ended.stdout.starts_with("TAP version 14\n1..6\nnot ok 1 - hangs\n"), "{ended:#?}");
        for part in ["\nok 2 - passes\n", "\nok 6 - again\n"] {
            assert!(ended.stdout.contains(part), "{ended:#?}");
        }
        for (point, parts) in [
            ("not ok 1 - hangs", vec!["reason: timeout", "vcpus: |2\n    vCPU 0", "    waiting"]),
            (
                "not ok 3 - fails",
                vec!["reason: status", "status 11, expected 0 or 1", "    assertion failed"],
            ),
            (
                "not ok 4 - crashes",
                vec![
                    "reason: crash",
                    "triple fault",
                    "    rip 00000000002000",
                    "last_exits: |2",
                    "    so far",
                ],
            ),
            ("not ok 5 - junk", vec!["reason: not-loaded", "junk.elf"]),
        ] {
            let block = block(&ended, point);
            for part in parts {
                assert!(block.contains(part), "'{part}' is missing in {block}");
            }
        }
        let xml = fs::read_to_string(&junit).expect("a report");
        for part in [
            "tests=\"6\"",
            "failures=\"3\"",
            "errors=\"1\"",
            "name=\"passes\"",
            "<system-out>fine\n</system-out>",
            "type=\"status\"",
            "type=\"timeout\"",
            "type=\"crash\">registers:",
            "type=\"not-loaded\"",
        ] {
            assert!(xml.contains(part), "'{part}' is missing in {xml}");
        }
    }
}

/// Asks again and again, for half a minute at most.
fn until(mut condition: impl FnMut() -> bool) -> bool {
    (0..3000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        condition()
    })
}

/// The vCPU threads of a process.
fn vcpu_threads(process: i32) -> usize {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "vm0/0")
        .count()
}

#[test]
fn several_run_at_a_time() {
    needs_kvm!();
    let kernels = Kernels::new();
    let names: Vec<_> = (0..8).map(|i| kernels.add(&format!("hangs{i}.elf"), &[&HANG])).collect();
    let mut arguments = vec!["test", "--timeout", "100", "--jobs", "6"];
    arguments.extend(names.iter().map(String::as_str));
    let running = Running::start(command(&arguments));
    let six = until(|| vcpu_threads(running.pid()) == 6);
    running.signal(libc::SIGINT);
    let _ = running.wait().expect(130);
    assert!(six, "there were never six VMs at a time");
}

#[test]
fn statuses_of_success_can_be_chosen_in_every_mode() {
    needs_kvm!();
    let kernels = Kernels::new();
    let sixteen = kernels.add("sixteen.elf", &[&exit(16)]);
    let zero = kernels.add("zero.elf", &[&exit(0)]);
    // Cut to a byte it would be 1.
    let wraps = kernels.add("wraps.elf", &[&exit(128)]);
    for mode in ["migrate", "thread", "kernel"] {
        let _ = run(&["--timers", mode, &zero]).expect(0);
        let _ = run(&["--timers", mode, &wraps]).expect(1);
        let _ = run(&["--timers", mode, &sixteen]).expect(1);
        let _ = run(&["--timers", mode, "--success", "33", &sixteen]).expect(0);
        let _ = run(&["--timers", mode, "--success", "33", "--success", "1", &sixteen, &zero])
            .expect(0);
        let _ = run(&["--timers", mode, "--success", "33", &zero]).expect(1);
    }
}

#[test]
fn serial_output_must_be_what_is_expected() {
    needs_kvm!();
    let kernels = Kernels::new();
    let kernel = kernels.add("says.elf", &[&say("one\r\ntwo\n"), &exit(0)]);
    let beside = kernels.path("says.elf.expect");
    fs::write(&beside, "one\ntwo\n").expect("a file");
    let _ = run(&[&kernel]).expect(0);
    fs::write(&beside, "one\nthree\n").expect("a file");
    let ended = run(&[&kernel]).expect(1);
    let text = block(&ended, "not ok 1 - says");
    for part in ["reason: output", r#"line 2: expected \"three\\n\", got \"two\\n\""#] {
        assert!(text.contains(part), "'{part}' is missing in {text}");
    }
    let folder = kernels.path("expected");
    fs::create_dir(&folder).expect("a folder");
    let directory = folder.to_str().expect("a plain name");
    let _ = run(&["--expect-dir", directory, &kernel]).expect(0);
    fs::write(folder.join("says.expect"), "").expect("a file");
    let _ = run(&["--expect-dir", directory, &kernel]).expect(1);
}

#[test]
fn guest_that_writes_without_end_is_kept_within_bounds() {
    needs_kvm!();
    let kernels = Kernels::new();
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; jmp back
    let code = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd];
    let floods = kernels.add("floods.elf", &[&code]);
    let junit = text(&kernels.path("junit.xml"));
    let ended = run(&["--timeout", "2", "--junit", &junit, &floods]).expect(1);
    assert!(ended.stdout.len() < 2000, "{}", ended.stdout.len());
    assert!(fs::metadata(&junit).expect("a report").len() < 80 << 10);
}

#[test]
fn cargo_runs_it_and_its_words_reach_the_kernels_command_line() {
    needs_kvm!();
    let kernels = Kernels::new();
    let image = guest_images::find("hello").expect("an image").elf;
    let path = kernels.path("boots-0123456789abcdef");
    fs::write(&path, image).expect("a file");
    let arguments =
        ["--show-output", "--cmdline", "exit=0", "--runner", &text(&path), "a_test", "--nocapture"];
    let ended = run(&arguments).expect(0);
    assert!(ended.stdout.contains("\nok 1 - boots\n"), "{ended:#?}");
    assert!(
        ended.stdout.contains("# hello from hello \"exit=0 a_test --nocapture\"\n"),
        "{ended:#?}"
    );
}

#[test]
fn embedded_images_pass() {
    needs_kvm!();
    let kernels = Kernels::new();
    let names = ["ipi", "halt", "hello"].map(|name| {
        let path = kernels.path(&format!("{name}.elf"));
        fs::write(&path, guest_images::find(name).expect("an image").elf).expect("a file");
        text(&path)
    });
    let mut arguments = vec!["--cpus", "2", "--cmdline", "cpus=2", "--jobs", "3"];
    arguments.extend(names.iter().map(String::as_str));
    let _ = run(&arguments).expect(0);
}

#[test]
fn bad_input_is_one_line_and_status_2() {
    needs_kvm!();
    let kernels = Kernels::new();
    let good = kernels.add("good.elf", &[&exit(0)]);
    let junit = text(&kernels.path("no/such/junit.xml"));
    let long = "x".repeat(5000);
    fs::create_dir(kernels.path("odd.elf.expect")).expect("a folder");
    let odd = kernels.add("odd.elf", &[&exit(0)]);
    for (arguments, part) in [
        (vec![], "FILE"),
        (vec!["/nonexistent/kernel"], "/nonexistent/kernel"),
        (vec![&*good, "/nonexistent/kernel"], "/nonexistent/kernel"),
        (vec!["--success", "2", &good], "--success"),
        (vec!["--jobs", "0", &good], "--jobs"),
        (vec!["--timeout", "0", &good], "--timeout"),
        (vec!["--junit", &junit, &good], "--junit"),
        (vec!["--expect-dir", "/nonexistent", &good], "--expect-dir"),
        (vec!["--cmdline", &long, &good], "command line"),
        (vec!["--memory", "8000000G", &good], "memory"),
        (vec![&*odd], "odd.elf.expect"),
        (vec!["--runner", "/nonexistent/kernel", "--exact"], "/nonexistent/kernel"),
    ] {
        let ended = run(&arguments).expect(2);
        ended.one_line(&[part]);
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
}

#[test]
fn interrupt_ends_all_kernels_and_reports_what_there_is() {
    needs_kvm!();
    let kernels = Kernels::new();
    let quick = kernels.add("quick.elf", &[&exit(0)]);
    let hangs = kernels.add("hangs.elf", &[&HANG]);
    let never = kernels.add("never.elf", &[&exit(0)]);
    let junit = text(&kernels.path("junit.xml"));
    let out = kernels.path("out");
    let siesta = siesta_tests::binary();
    let script = format!(
        "exec {} test --timeout 100 --jobs 1 --junit {junit} {quick} {hangs} {never} >{}",
        siesta.display(),
        out.display()
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &script]);
    let running = Running::start(bash);
    let printed = || fs::read_to_string(&out).unwrap_or_default();
    let quick_passed = until(|| printed().contains("ok 1 - quick\n"));
    running.signal(libc::SIGINT);
    let _ = running.wait().expect(130);
    assert!(quick_passed);
    assert_eq!(printed(), "TAP version 14\n1..3\nok 1 - quick\nBail out! interrupted\n");
    let xml = fs::read_to_string(&junit).expect("a report");
    assert!(xml.contains("tests=\"3\""), "{xml}");
    assert_eq!(xml.matches("<skipped/>").count(), 2, "{xml}");
}

#[test]
fn reader_of_the_results_that_goes_ends_the_run() {
    needs_kvm!();
    let kernels = Kernels::new();
    let quick = kernels.add("quick.elf", &[&exit(0)]);
    let hangs = kernels.add("hangs.elf", &[&HANG]);
    let script = format!(
        "{} test --timeout 1000 --jobs 2 {quick} {hangs} | true; echo ${{PIPESTATUS[0]}}",
        siesta_tests::binary().display()
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", &script]);
    let ended = Running::start(bash).wait().expect(0);
    assert_eq!(ended.stdout, "2\n", "{ended:#?}");
}

/// Runs the tests of the example kernel by cargo, with expected output in this directory. `None`:
/// there is no toolchain for it, which is said.
fn cargo_test(expected: &str, words: &[&str]) -> Option<Ended> {
    let target = "x86_64-unknown-none";
    let libraries = std::process::Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output();
    let there = libraries.is_ok_and(|found| {
        found.status.success() && Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_dir()
    });
    if !there {
        eprintln!("skipped: no rustup target {target}");
        return None;
    }
    let binary = siesta_tests::binary();
    let runner =
        format!("{} test --show-output --expect-dir {expected} --runner", binary.display());
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-images/example-kernel"))
        .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/example-kernel"))
        .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUNNER", runner)
        .env_remove("RUSTFLAGS")
        .args(["test", "--offline", "--locked", "--quiet", "--no-fail-fast"])
        .args(words);
    Some(Running::start(cargo).wait())
}

#[test]
fn example_kernel_is_tested_by_cargo() {
    needs_kvm!();
    let Some(ended) = cargo_test("expect", &[]) else { return };
    let ended = ended.expect(0);
    for part in ["ok 1 - hello\n", "ok 1 - cases\n", "# memory_keeps_its_value\n", "# cpuid_"] {
        assert!(ended.stdout.contains(part), "'{part}' is missing in {ended:#?}");
    }
    let words = ["--test", "cases", "--", "memory", "--nocapture"];
    let ended = cargo_test("expect", &words).expect("a toolchain").expect(0);
    assert!(ended.stdout.contains("# memory_keeps_its_value\n"), "{ended:#?}");
    assert!(!ended.stdout.contains("# cpuid_"), "{ended:#?}");
    let kernels = Kernels::new();
    fs::write(kernels.path("hello.expect"), "something else\n").expect("a file");
    let ended = cargo_test(&text(kernels.0.path()), &[]).expect("a toolchain").expect(101);
    assert!(ended.stdout.contains("not ok 1 - hello\n"), "{ended:#?}");
    assert!(ended.stdout.contains("\nok 1 - cases\n"), "{ended:#?}");
}
