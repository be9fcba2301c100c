//! Replays the traces and compares the answers byte by byte with what a reference answers.
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

#[path = "../examples/replay/interpreter.rs"]
mod interpreter;

use std::fs;
use std::path::Path;

use interpreter::Interpreter;

fn replay(commands: &[u8]) -> Result<String, String> {
    let mut interpreter = Interpreter::new();
    let mut answers = String::new();
    for line in commands.split_inclusive(|&byte| byte == b'\n') {
        answers.push_str(&interpreter.line(line).map_err(|error| error.to_string())?);
    }
    Ok(answers)
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
        let answered = replay(&fs::read(&path).unwrap()).unwrap();
        if answered != expected {
            let line = answered.lines().zip(expected.lines()).position(|(a, b)| a != b);
            wrong.push((path, line.map(|at| at + 1)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(count >= 21, "only {count} traces found");
}

#[track_caller]
fn refused(commands: &str, complaint: &str) {
    assert_eq!(replay(commands.as_bytes()), Err(complaint.to_owned()), "{commands}");
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
    for command in ["unavailable", "activate", "deactivate", "new_timer", "quick_check"] {
        let line = format!("topology 2 1\n{command}\n");
        assert!(replay(line.as_bytes()).is_err(), "{command}");
    }
    assert_eq!(replay(b"topology \xFF 1\n"), Err("error: line 1: not UTF-8".to_owned()));
}

#[test]
fn commands_that_fail_say_so_and_go_on() {
    let answers = replay(
        b"topology 2 1\navailable 0 idle\nunavailable 0\nrequires 0 5\ncancel 0 7\ntimer 0 7\n\
          cancel 0 7\nhandle 1 9",
    );
    let expected = "levels 1 crossnode 1\nerror not prepared\nnone\nfalse\nerror not armed\nok\n\
                    ok\nexpired wakeup never\n";
    assert_eq!(answers.as_deref(), Ok(expected));
}

#[test]
fn the_largest_number_means_never() {
    let answers = replay(
        b"topology 2 1\nprepare 0 0\navailable 0 active\ndeactivate 0 18446744073709551615\n\
          new_timer 0 never\nhandle 0 never\n",
    );
    let expected = "levels 1 crossnode 1\nok\nok\nfirst never\nfirst never\n\
                    expired wakeup never\n";
    assert_eq!(answers.as_deref(), Ok(expected));
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
    let before = replay(commands.as_bytes()).unwrap();
    assert!(before.ends_with("end\nerror no room\n"), "{before}");
    commands.push_str("groups\nprepare 20 6\nprepare 20 7\n");
    let after = replay(commands.as_bytes()).unwrap();
    let groups = |text: &str| text.lines().filter(|line| line.starts_with('g')).count();
    assert_eq!((groups(&before), groups(&after)), (9, 18));
    assert!(after.ends_with("end\nok\nok\n"), "{after}");
}
