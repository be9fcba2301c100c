//! Replays the traces and compares the answers byte by byte with what a reference answers.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

#[path = "../examples/replay/interpreter.rs"]
mod interpreter;
#[path = "../examples/replay/stream.rs"]
mod stream;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The status, what is printed, and what is complained of.
fn replayed(commands: &[u8]) -> (u8, String, String) {
    let (mut output, mut complaints) = (Vec::new(), Vec::new());
    let status = stream::serve(commands, &mut output, &mut complaints);
    let [output, complaints] = [output, complaints].map(|text| String::from_utf8(text).unwrap());
    (status, output, complaints)
}

fn replay(commands: &[u8]) -> String {
    let (status, output, complaints) = replayed(commands);
    assert_eq!((status, complaints.as_str()), (0, ""));
    output
}

#[test]
fn every_trace_is_answered_as_by_the_reference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "trace") {
            continue;
        }
        count += 1;
        let expected = fs::read_to_string(path.with_extension("expect")).unwrap();
        let answered = replay(&fs::read(&path).unwrap());
        if answered != expected {
            let line = answered.lines().zip(expected.lines()).position(|(a, b)| a != b);
            wrong.push((path, line.map(|at| at + 1)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(count >= 21, "only {count} traces found");
}

/// The last line is refused, and what comes after it is not run.
#[track_caller]
fn refused(commands: &str, complaint: &str) {
    let (before, _last) = commands.trim_end().rsplit_once('\n').unwrap_or(("", commands));
    let answers = replay(before.as_bytes());
    let more = format!("{commands}topology 9 1\ngroups\n");
    let expected = (2, answers, format!("{complaint}\n"));
    assert_eq!(replayed(more.as_bytes()), expected, "{commands}");
}

/// Printed for the last line, and the replay goes on.
#[track_caller]
fn answered(commands: &str, answer: &str) {
    let answers = replay(format!("{commands}groups\n").as_bytes());
    let before = replay(commands.as_bytes());
    assert_eq!(before.lines().last(), Some(answer), "{commands}");
    assert!(answers.starts_with(&before) && answers.ends_with("end\n"), "{commands}: {answers}");
}

#[test]
fn a_malformed_line_is_named_with_its_number() {
    refused("# nothing\n\nprepare 0 0\n", "error: line 3: prepare before topology");
    refused("topology 2 1\ntopology 2 1\n", "error: line 2: a second topology");
    refused("topology 2 1\ngroups\nfly 1\n", "error: line 3: unknown command fly");
    refused("topology 2 1\nprepare 2 0\n", "error: line 2: there is no CPU 2");
    refused("topology 2 1\nprepare 0 1\n", "error: line 2: there is no node 1");
    refused("topology 2 1\nprepare 0\n", "error: line 2: 2 arguments expected, 1 given");
    refused("topology 2 1\ngroups 1\n", "error: line 2: 0 arguments expected, 1 given");
    refused("topology 2\n", "error: line 1: 2 arguments expected, 1 given");
    refused("topology 0 1\n", "error: line 1: a hierarchy cannot have 0 slots");
    refused("topology 1 0\n", "error: line 1: a hierarchy needs at least one node");
    refused("topology 4294967296 1\n", "error: line 1: 4294967296 is out of range");
    refused("topology 2 1\ntimer 0 +5\n", "error: line 2: +5 is not a number in range");
    refused("topology 2 1\ntimer 0 -5\n", "error: line 2: -5 is not a number in range");
    let beyond = "topology 2 1\ntimer 0 18446744073709551616\n";
    refused(beyond, "error: line 2: 18446744073709551616 is not a number in range");
    refused("topology 2 1\ntimer 0 soon\n", "error: line 2: soon is not a number in range");
    refused("topology 2 1\navailable 0 busy\n", "error: line 2: busy is neither idle nor active");
    let not_text = (2, String::new(), "error: line 1: not UTF-8\n".to_owned());
    assert_eq!(replayed(b"topology \xFF 1\n"), not_text);
}

/// The commands, with the arguments behind the slot that they need.
const OF_A_SLOT: [(&str, &str); 11] = [
    ("prepare", "0"),
    ("available", "idle"),
    ("unavailable", ""),
    ("timer", "5"),
    ("cancel", "5"),
    ("deactivate", "5"),
    ("activate", ""),
    ("new_timer", "5"),
    ("quick_check", "5"),
    ("requires", "5"),
    ("handle", "5"),
];

#[test]
fn every_command_about_a_slot_refuses_one_that_does_not_exist() {
    for (command, rest) in OF_A_SLOT {
        let line = |slot: &str| format!("topology 2 3\n{command} {slot} {rest}\n");
        for slot in ["2", "4294967295"] {
            refused(&line(slot), &format!("error: line 2: there is no CPU {slot}"));
        }
        refused(&line("4294967296"), "error: line 2: 4294967296 is out of range");
        refused(&line("-1"), "error: line 2: -1 is not a number in range");
        refused(&line("x"), "error: line 2: x is not a number in range");
    }
    for node in ["3", "4294967295"] {
        let line = format!("topology 2 3\nprepare 1 {node}\n");
        refused(&line, &format!("error: line 2: there is no node {node}"));
    }
}

#[test]
fn every_command_counts_its_arguments() {
    for (command, rest) in OF_A_SLOT {
        let right = 1 + rest.split_whitespace().count();
        for given in (0..4).filter(|given| *given != right) {
            let line = format!("topology 2 1\n{command}{}\n", " 0".repeat(given));
            let why = format!("error: line 2: {right} arguments expected, {given} given");
            refused(&line, &why);
        }
    }
}

#[test]
fn every_command_needs_a_topology_and_only_one() {
    for (command, rest) in OF_A_SLOT {
        let line = format!("{command} 0 {rest}\n");
        refused(&line, &format!("error: line 1: {command} before topology"));
    }
    refused("groups\n", "error: line 1: groups before topology");
    refused("fly\n", "error: line 1: fly before topology");
    // A malformed one does not count, but ends the replay as well.
    refused("topology 2\n", "error: line 1: 2 arguments expected, 1 given");
    refused("topology 1048577 1\n", "error: line 1: a hierarchy cannot have 1048577 slots");
    let second = "topology 2 1 # the first\n\nprepare 0 0\ntopology 9 9\n";
    refused(second, "error: line 4: a second topology");
}

#[test]
fn a_slot_in_another_state_is_an_answer_and_no_complaint() {
    let two = "topology 2 1\nprepare 0 0\nprepare 1 0\navailable 0 active\navailable 1 idle\n";
    for (command, answer) in [
        ("activate 0", "error slot 0 is active, the call needs an idle one"),
        ("new_timer 0 5", "error slot 0 is active, the call needs an idle one"),
        ("deactivate 1 5", "error slot 1 is idle, the call needs an active one"),
        ("quick_check 1 5", "error slot 1 is idle, the call needs an active one"),
        ("cancel 0 5", "error not armed"),
        ("available 0 idle", "ok"),
        ("prepare 1 0", "ok"),
    ] {
        answered(&format!("{two}{command}\n"), answer);
        let [before, after] = [two.to_owned(), format!("{two}{command}\n")]
            .map(|commands| replay(format!("{commands}groups\n").as_bytes()));
        let groups = |text: &str| text[text.find("g0").unwrap()..].to_owned();
        assert_eq!(groups(&before), groups(&after), "{command}");
    }
    answered("topology 2 1\navailable 1 active\n", "error not prepared");
    answered(&format!("{two}deactivate 0 5\nprepare 1 0\n"), "ok");
    let idle = "topology 9 1\nprepare 0 0\navailable 0 idle\n";
    answered(&format!("{idle}prepare 1 0\n"), "error no active cpu");
}

/// The example as it was built beside this test.
fn example() -> Option<PathBuf> {
    let tests = std::env::current_exe().ok()?;
    let built = tests.parent()?.parent()?.join("examples/replay");
    built.exists().then_some(built)
}

#[test]
fn the_process_ends_with_the_status_of_its_commands() {
    let Some(example) = example() else {
        println!("skipped: no example built: cargo build -p tmigr --example replay");
        return;
    };
    for (commands, status, output, complaints) in [
        ("topology 2 1\ncancel 0 5\n", 0, "levels 1 crossnode 1\nerror not armed\n", ""),
        (
            "topology 2 1\nfly\n",
            2,
            "levels 1 crossnode 1\n",
            "error: line 2: unknown command fly\n",
        ),
        ("prepare 0 0\n", 2, "", "error: line 1: prepare before topology\n"),
    ] {
        let mut child = Command::new(&example)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(status), "{commands}");
        assert_eq!(String::from_utf8_lossy(&ended.stdout), output, "{commands}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), complaints, "{commands}");
    }
}

#[test]
fn commands_that_fail_say_so_and_go_on() {
    let answers = replay(
        b"topology 2 1\navailable 0 idle\nunavailable 0\nrequires 0 5\ncancel 0 7\ntimer 0 7\n\
          cancel 0 7\nhandle 1 9",
    );
    let expected = "levels 1 crossnode 1\nerror not prepared\nnone\nfalse\nerror not armed\nok\n\
                    ok\nexpired wakeup never\n";
    assert_eq!(answers, expected);
}

#[test]
fn the_largest_number_means_never() {
    let answers = replay(
        b"topology 2 1\nprepare 0 0\navailable 0 active\ndeactivate 0 18446744073709551615\n\
          new_timer 0 never\nhandle 0 never\n",
    );
    let expected = "levels 1 crossnode 1\nok\nok\nfirst never\nfirst never\n\
                    expired wakeup never\n";
    assert_eq!(answers, expected);
}

#[test]
fn a_node_beyond_its_share_leaves_no_room_and_no_trace() {
    let mut commands = String::from("topology 64 8\nprepare 0 0\navailable 0 active\n");
    for slot in 1..9 {
        commands.push_str(&format!("prepare {slot} 0\n"));
    }
    for node in 1..7 {
        commands.push_str(&format!("prepare {} {node}\n", 8 + node));
    }
    commands.push_str("groups\nprepare 20 7\n");
    let before = replay(commands.as_bytes());
    assert!(before.ends_with("end\nerror no room\n"), "{before}");
    commands.push_str("groups\nprepare 20 6\nprepare 20 7\n");
    let after = replay(commands.as_bytes());
    let groups = |text: &str| text.lines().filter(|line| line.starts_with('g')).count();
    assert_eq!((groups(&before), groups(&after)), (9, 18));
    assert!(after.ends_with("end\nok\nok\n"), "{after}");
}
