//! The guests whose timers are looked at, all booted on one emulated host.
//!
//! Owns that boot, which is for all tests: two guests at a time, each with a time limit of its own. Must
//! not know what is expected of them.

use std::sync::OnceLock;

use siesta_tests::binary;

use crate::host::{self, Host};

/// Longest time for all guests once, in seconds of this machine. Not a figure that is asserted.
const HOST_LIMIT: u32 = 400;
/// The same for one guest, in seconds of the emulated host.
const GUEST_LIMIT: u32 = 100;
/// How often a guest is booted that the emulator loses; what is wrong with `siesta` shows again.
const ATTEMPTS: u32 = 3;
/// What a kernel says that multi-threaded TCG has lost, the emulated host's own as well as a guest's: its
/// page fault handler faults at its first access by GS, until the stack is full.
const LOST: &str = "BUG: TASK stack guard page was hit";
/// What timeout(1) ends with when it had to.
const CUT: i32 = 124;

/// One guest: its name, whether it is booted from `vmlinux` or `vmlinuz`, and what else `siesta run`
/// is told.
struct Wanted {
    name: &'static str,
    kernel: &'static str,
    script: &'static str,
    arguments: &'static str,
    cmdline: &'static str,
}

const GUESTS: [Wanted; 5] = [
    Wanted {
        name: "kernel",
        kernel: "vmlinux",
        script: "timers",
        arguments: "--timers kernel",
        cmdline: "",
    },
    Wanted {
        name: "thread",
        kernel: "vmlinuz",
        script: "timers",
        arguments: "--timers thread --cpu-features -aes,-pclmulqdq",
        cmdline: "",
    },
    Wanted {
        name: "migrate",
        kernel: "vmlinux",
        script: "timers",
        arguments: "--timers migrate",
        cmdline: "",
    },
    Wanted {
        name: "oneshot",
        kernel: "vmlinux",
        script: "timers",
        arguments: "--timers migrate --apic-timer oneshot",
        cmdline: "apic=verbose",
    },
    Wanted {
        name: "smp",
        kernel: "vmlinux",
        script: "smp",
        arguments: "--timers migrate --inline force --cpus 2",
        cmdline: "",
    },
];

/// A guest that was booted.
#[derive(Debug)]
pub(super) struct Guest {
    name: &'static str,
    /// Exit status of `siesta run`.
    pub status: i32,
    /// Its serial output and the messages of `siesta`.
    pub output: String,
}

impl Guest {
    /// A figure that the guest printed, as `fact NAME VALUE`.
    #[track_caller]
    pub(super) fn fact(&self, name: &str) -> &str {
        let key = format!("fact {name} ");
        let value = self.output.lines().find_map(|line| line.strip_prefix(key.as_str()));
        value
            .unwrap_or_else(|| panic!("{}: no fact '{name}' in\n{}", self.name, self.output))
            .trim()
    }

    /// When the kernel said that it powers down, in seconds of the guest.
    #[track_caller]
    pub(super) fn power_down_at(&self) -> f64 {
        let line = self.output.lines().find(|line| line.contains("reboot: Power down"));
        let stamp =
            line.and_then(|line| line.strip_prefix('[')?.split_once(']')?.0.trim().parse().ok());
        stamp.unwrap_or_else(|| panic!("{}: it did not power down\n{}", self.name, self.output))
    }

    /// Interrupts of a vCPU's APIC timer, as `siesta` counted them.
    #[track_caller]
    pub(super) fn timer_interrupts(&self, vcpu: u32) -> u64 {
        self.figure(vcpu, " timer interrupts")
    }

    /// Timers of a vCPU that other vCPUs' threads served.
    #[track_caller]
    pub(super) fn served(&self, vcpu: u32) -> u64 {
        self.figure(vcpu, " served by others")
    }

    #[track_caller]
    fn figure(&self, vcpu: u32, name: &str) -> u64 {
        let key = format!("vCPU {vcpu}: ");
        let figures = self.output.lines().find_map(|line| line.split_once(key.as_str()));
        let figure = figures.and_then(|(_, figures)| {
            let (before, _) = figures.split_once(name)?;
            before.rsplit(' ').next()?.parse().ok()
        });
        figure.unwrap_or_else(|| panic!("{}: no figures in\n{}", self.name, self.output))
    }

    /// It did not come to its end, of itself.
    fn was_lost(&self) -> bool {
        self.status == CUT || self.output.contains(LOST)
    }

    /// Fails unless the guest went through its script, found everything right, and powered off.
    #[track_caller]
    pub(super) fn expect_success(&self) {
        let all = || format!("{}\n{}", self.name, self.output);
        assert!(!self.output.contains("not ok "), "{}", all());
        assert!(self.output.contains("\nok "), "no check was made: {}", all());
        assert!(self.output.contains("siesta-guest: status 0"), "{}", all());
        assert_eq!(self.status, 0, "{}", all());
    }
}

/// The guest of this name. `None`: there is no emulated host, which was said.
///
/// # Panics
/// With `REQUIRE_NESTED=1`, where it is missing. The emulated host failed.
#[track_caller]
pub(super) fn guest(name: &str) -> Option<&'static Guest> {
    static BOOTED: OnceLock<Result<Vec<Guest>, String>> = OnceLock::new();
    match BOOTED.get_or_init(boot_all) {
        Ok(guests) => {
            let guest = guests.iter().find(|guest| guest.name == name);
            Some(guest.unwrap_or_else(|| panic!("there is no guest '{name}'")))
        }
        Err(missing) => {
            host::skip(name, missing);
            None
        }
    }
}

fn boot_all() -> Result<Vec<Guest>, String> {
    let host = Host::take()?;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path of text");
    let made = host.run("make-root.sh", &["-r", path], HOST_LIMIT);
    if made.status != 0 {
        return Err(format!("make-root.sh failed: {}", made.stderr.trim()));
    }
    let kernel = made.stdout.trim();
    let limit = HOST_LIMIT.to_string();
    let mut guests = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let booted =
            |wanted: &&Wanted| guests.iter().any(|guest: &Guest| guest.name == wanted.name);
        let left: Vec<_> = GUESTS.iter().filter(|wanted| !booted(wanted)).collect();
        if left.is_empty() {
            break;
        }
        let ended = host.run(
            "nested-host.sh",
            &["-t", &limit, "-s", &script(&left, kernel, path)],
            HOST_LIMIT,
        );
        for Wanted { name, .. } in left {
            match result(name, &ended.stdout) {
                Some(guest) if attempt < ATTEMPTS && guest.was_lost() => {
                    eprintln!("attempt {attempt}: lost or cut short: {guest:#?}");
                }
                Some(guest) => guests.push(guest),
                None if attempt < ATTEMPTS => {
                    eprintln!("attempt {attempt}: the emulated host lost {name}: {ended:#?}");
                }
                None => panic!("{name}: the emulated host did not come to it: {ended:#?}"),
            }
        }
    }
    Ok(guests)
}

/// What became of a guest, if the emulated host came to tell.
fn result(name: &'static str, told: &str) -> Option<Guest> {
    let begin = format!("== guest {name} status ");
    let (_, rest) = told.split_once(begin.as_str())?;
    let (status, output) = rest.split_once('\n')?;
    let (output, _) = output.split_once("\n== end")?;
    Some(Guest { name, status: status.parse().ok()?, output: output.replace('\r', "") })
}

/// What the emulated host runs: the guests in two rows side by side, then their output.
fn script(wanted: &[&Wanted], kernel: &str, root: &str) -> String {
    let siesta = binary();
    let boot = |wanted: &&Wanted| {
        let Wanted { name, kernel: file, script, arguments, cmdline } = wanted;
        format!(
            "timeout -k 5 {GUEST_LIMIT} '{}' run --kernel '{kernel}/{file}' \
             --initrd '{root}/root-rt.cpio' --memory 256M --log-level debug {arguments} --cmdline \
             'console=ttyS0 quiet pci=off mitigations=off nokaslr cryptomgr.notests=1 {cmdline} \
             siesta.run=/tests/{script}.sh' >/tmp/{name}.out 2>&1; echo $? >/tmp/{name}.status\n",
            siesta.display()
        )
    };
    let row = |which: usize| wanted.iter().skip(which).step_by(2).map(boot).collect::<String>();
    let show: String = wanted
        .iter()
        .map(|Wanted { name, .. }| {
            format!(
                "echo '== guest {name} status '$(cat /tmp/{name}.status); cat /tmp/{name}.out; \
                 echo; echo '== end'\n"
            )
        })
        .collect();
    // One of them may be empty.
    format!("( :\n{} ) &\n( :\n{} ) &\nwait\n{show}", row(0), row(1))
}
