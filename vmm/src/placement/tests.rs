//! Tests of what can be asked for.

use super::*;

fn list(text: &str) -> Numbers {
    text.parse().expect(text)
}

#[track_caller]
fn refused(placement: &Placement, parts: &[&str]) {
    let text = placement.check(2).expect_err("it is wrong").to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "'{part}' is missing: {text}");
    }
}

#[test]
fn nothing_is_asked_for_unless_it_is_said() {
    let nothing = Placement::default();
    nothing.check(1).expect("nothing is wrong with it");
    assert!(!nothing.concerns_threads() && !nothing.is_pinned_loosely(1));
}

#[test]
fn what_the_host_has_not_is_named_with_what_it_has() {
    let placement = |text: &str| Placement { pin: Some(list(text)), ..Placement::default() };
    let allowed = sched::cpus().expect("a mask");
    refused(&placement("65535"), &["--pin 65535", &format!("CPUs {allowed},")]);
    placement(&allowed.to_string()).check(1).expect("these are the process's");
    let numa = |text: &str| Placement { numa: Some(list(text)), ..Placement::default() };
    refused(&numa("0,9999"), &["--numa 9999", &format!("nodes {},", nodes())]);
    numa(&nodes().to_string()).check(1).expect("these are the process's");
}

#[test]
fn nice_values_have_a_range_and_no_use_for_real_time_threads() {
    for nice in [-21, 20, i32::MIN] {
        refused(&Placement { nice: Some(nice), ..Placement::default() }, &["--nice", "-20", "19"]);
    }
    let (nice, sched) = (Some(5), Some(Sched::Fifo(3)));
    refused(&Placement { nice, sched, ..Placement::default() }, &["--nice 5", "--sched fifo:3"]);
    let sched = Some(Sched::Batch);
    Placement { nice, sched, ..Placement::default() }.check(1).expect("they go together");
}

#[test]
fn permissions_that_are_missing_are_named() {
    let error = |error: PlacementError| error.to_string();
    let fifo = error(PlacementError::SchedDenied { sched: Sched::Fifo(7) });
    assert!(
        fifo.contains("CAP_SYS_NICE") && fifo.contains("RLIMIT_RTPRIO (ulimit -r) of 7"),
        "{fifo}"
    );
    let nice = error(PlacementError::NiceDenied { nice: -5 });
    assert!(
        nice.contains("CAP_SYS_NICE") && nice.contains("RLIMIT_NICE (ulimit -e) of 25"),
        "{nice}"
    );
}

#[test]
fn isolated_vcpus_are_all_or_those_of_a_list_that_there_are() {
    let isolate = |text: &str| text.parse::<Isolated>().expect(text);
    assert!(isolate("all").contains(1000) && !Isolated::None.contains(0));
    assert!(isolate("0,2-3").contains(2) && !isolate("0,2-3").contains(1));
    let placement = |text: &str| Placement { isolate: isolate(text), ..Placement::default() };
    placement("1").check(2).expect("it has that one");
    refused(&placement("0,2"), &["--isolate 2", "the VM has 2"]);
    assert!("some".parse::<Isolated>().is_err());
    for (json, isolated) in [(r#""all""#, Isolated::All), ("[0,2]", isolate("0,2"))] {
        assert_eq!(serde_json::from_str::<Isolated>(json).expect(json), isolated);
        let again = serde_json::to_string(&isolated).expect(json);
        assert_eq!(serde_json::from_str::<Isolated>(&again).expect(json), isolated);
    }
    for wrong in ["[]", "true", r#""some""#] {
        let error = serde_json::from_str::<Isolated>(wrong).expect_err(wrong).to_string();
        assert!(error.contains("write \"all\""), "{error}");
    }
}

#[test]
fn pinned_vcpus_are_loose_unless_all_are_isolated() {
    let placement = |isolate: &str| Placement {
        pin: Some(list("0")),
        isolate: isolate.parse().expect(isolate),
        ..Placement::default()
    };
    assert!(placement("1").is_pinned_loosely(2));
    assert!(!placement("0-1").is_pinned_loosely(2) && !placement("all").is_pinned_loosely(2));
}

#[test]
fn huge_pages_have_one_of_two_sizes() {
    for size in [HugePages::Size2M, HugePages::Size1G] {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    assert_eq!((HugePages::Size2M.bytes(), HugePages::Size1G.bytes()), (2 << 20, 1 << 30));
    assert!("4K".parse::<HugePages>().is_err());
    let read = |json: &str| hugepages(&mut serde_json::Deserializer::from_str(json)).ok();
    assert_eq!(read("true"), Some(Some(HugePages::Size2M)));
    assert_eq!(read("false"), Some(None));
    assert_eq!(read(r#""1G""#), Some(Some(HugePages::Size1G)));
    assert_eq!((read("2"), read(r#""4K""#)), (None, None));
}
