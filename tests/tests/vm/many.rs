//! Several VMs in one process.

use siesta_tests::{figures, image, needs_kvm};

#[test]
fn eight_vms_tick_at_once_in_every_mode() {
    needs_kvm!();
    for mode in ["migrate", "thread", "kernel"] {
        for share in ["host", "vm"] {
            let more = ["--timers", mode, "--count", "8", "--share", share];
            let ended = image("tick", "hz=100 secs=1", &more).expect(0);
            let ticks = figures(&ended.stdout, "ticks");
            assert_eq!(ticks.len(), 8, "{ended:#?}");
            assert!(ticks.iter().all(|t| (100.0..=150.0).contains(t)), "{ended:#?}");
            for vm in 0..8 {
                assert!(ended.stdout.contains(&format!("vm{vm}: ")), "{ended:#?}");
            }
        }
    }
}

#[test]
fn serial_files_are_one_for_each_vm() {
    needs_kvm!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("serial");
    let path = path.to_str().expect("a plain name");
    let ended = image("hello", "", &["--count", "3", "--serial", path]).expect(0);
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    for vm in 0..3 {
        let text = std::fs::read_to_string(format!("{path}.{vm}")).expect("a file");
        assert!(text.contains("hello"), "{text}");
    }
}
