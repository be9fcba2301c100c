//! The emulated host of `tests/nested`.
//!
//! Owns the scripts' surroundings, and that one test at a time uses them: a host takes all of the CPUs
//! of a small machine. Must not know what runs there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siesta_tests::{Ended, Running, binary};

/// Held by whoever runs a script.
static ALONE: Mutex<()> = Mutex::new(());

/// The scripts, for one caller.
pub(super) struct Host {
    scripts: PathBuf,
    state: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Host {
    /// Waits until nobody else uses it.
    ///
    /// # Errors
    /// What it needs and this machine lacks.
    pub(super) fn take() -> Result<Self, String> {
        if let Some(what) = missing() {
            return Err(what);
        }
        let state = match env::var_os("NESTED_HOST_DIR") {
            Some(folder) => PathBuf::from(folder),
            // target/PROFILE/siesta-tested
            None => binary().ancestors().nth(2).expect("target").join("nested-host"),
        };
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("nested");
        // A test that failed has left nothing half done.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Host { scripts, state, _alone })
    }

    /// Runs a script to its end, for so many seconds of this machine at most.
    pub(super) fn run(&self, script: &str, arguments: &[&str], limit: u32) -> Ended {
        let mut command = Command::new(self.scripts.join(script));
        command.args(arguments).env("NESTED_HOST_DIR", &self.state);
        Running::start(command).wait_for(Duration::from_secs(limit.into()))
    }
}

/// Says why a test passes without having tested anything.
///
/// # Panics
/// With `REQUIRE_NESTED=1`.
#[track_caller]
pub(super) fn skip(test: &str, missing: &str) {
    let required = env::var("REQUIRE_NESTED").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: REQUIRE_NESTED=1, but {missing}");
    eprintln!("{test}: skipped: {missing}");
}

/// What the emulated host needs and this machine lacks.
fn missing() -> Option<String> {
    let found = |program: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
        folders.into_iter().any(|folder| folder.join(program).is_file())
    };
    let programs = [
        "qemu-system-x86_64",
        "busybox",
        "cc",
        "cpio",
        "xz",
        "zstd",
        "apt-get",
        "ip",
        "mke2fs",
        "e2fsck",
    ];
    if let Some(program) = programs.into_iter().find(|program| !found(program)) {
        return Some(format!("there is no {program}"));
    }
    let daemons = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
    if !daemons.iter().any(|daemon| Path::new(daemon).is_file()) {
        return Some("there is no virtiofsd".into());
    }
    // SAFETY: a plain system call.
    #[allow(unsafe_code)]
    let root = unsafe { libc::geteuid() } == 0;
    (!root).then(|| "virtiofsd needs root".into())
}
