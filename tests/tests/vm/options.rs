//! Options that change how vCPUs are run, or what they are: `--inline` and `--cpu-features`.

use siesta_tests::{image, needs_kvm, siesta};

#[test]
fn inline_service_that_is_turned_off_serves_nobody_and_loses_no_tick() {
    needs_kvm!();
    for (inline, served) in [("off", false), ("force", true)] {
        let more = ["--count", "8", "--inline", inline, "--log-level", "info"];
        let ended = image("tick", "hz=100 secs=1 exit=0", &more).expect(1);
        let counts: Vec<u64> = ended
            .stderr
            .lines()
            .filter_map(|line| line.strip_suffix(" served by others")?.rsplit(' ').next())
            .map(|count| count.parse().expect("a number"))
            .collect();
        assert_eq!(counts.len(), 8, "{ended:#?}");
        assert_eq!(counts.iter().any(|count| *count > 0), served, "{inline}: {ended:#?}");
        let ticks = siesta_tests::figures(&ended.stdout, "ticks");
        assert_eq!(ticks.len(), 8, "{ended:#?}");
        assert!(ticks.iter().all(|ticks| *ticks >= 99.0), "{ended:#?}");
    }
}

#[test]
fn cpu_features_that_cannot_be_are_one_line_and_status_2() {
    needs_kvm!();
    let refused = |features: &str, mode: &str, parts: &[&str]| {
        let arguments = ["run", "--image", "hello", "--timers", mode, "--cpu-features", features];
        siesta(&arguments).expect(2).one_line(parts);
    };
    refused("+avx512ff", "migrate", &["--cpu-features", "avx512ff", "did you mean 'avx512f'?"]);
    refused("avx2", "migrate", &["--cpu-features", "+NAME", "-NAME"]);
    refused("-hypervisor", "kernel", &["--cpu-features", "-hypervisor", "Siesta decides"]);
    refused("-x2apic", "thread", &["--cpu-features", "-x2apic", "--timers kernel"]);
    // No processor has both; KVM offers neither that the host's lacks.
    let both = siesta(&["run", "--image", "hello", "--cpu-features", "+amx_tile,+xop"]).expect(2);
    both.one_line(&["--cpu-features", "this host's KVM does not support it"]);
}

#[test]
fn guest_runs_without_a_feature_in_every_mode() {
    needs_kvm!();
    for mode in ["kernel", "thread", "migrate"] {
        image("hello", "", &["--timers", mode, "--cpu-features", "-rdrand,-avx2"]).expect(0);
    }
    image("hello", "", &["--timers", "kernel", "--cpu-features", "-kvm_steal_time"]).expect(0);
}
