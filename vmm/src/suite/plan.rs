//! What is to be run: kernels, their names and expected outputs, and what is common to all.
//!
//! Owns the names. Must not know how kernels are run.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::expect::{ExpectError, Expected};
use crate::assemble::ApicTimer;
use crate::cpu_features::CpuFeatures;
use crate::domain::Policy;

/// One kernel that is to be tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// What it is called in reports; no two have the same.
    pub name: String,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// What its serial output must be, if that matters.
    pub expected: Option<Expected>,
}

/// What is to be run, and how.
pub struct Plan {
    /// The kernels, in the order of the report.
    pub tests: Vec<Test>,
    /// How many may run at the same time.
    pub jobs: usize,
    /// Longest time for each.
    pub time_limit: Duration,
    /// The exit statuses that count as success.
    pub success: Vec<u64>,
    /// vCPUs of each VM.
    pub cpus: u32,
    /// Memory of each VM, in bytes.
    pub memory: u64,
    /// The kernels' command line.
    pub cmdline: String,
    /// Timer modes offered to the guests.
    pub apic_timer: ApicTimer,
    /// CPU features beyond, or without, the default ones.
    pub cpu_features: CpuFeatures,
    /// How vCPUs are run.
    pub policy: Policy,
}

/// The tests for these kernels. Expected output is looked for beside each kernel as `FILE.expect`, or
/// in `directory` as `NAME.expect`.
///
/// # Errors
/// [`ExpectError`]: a file of expected output is there but cannot be used.
pub fn tests(kernels: &[PathBuf], directory: Option<&Path>) -> Result<Vec<Test>, ExpectError> {
    let mut count: HashMap<String, usize> = HashMap::new();
    for kernel in kernels {
        *count.entry(name(kernel)).or_default() += 1;
    }
    kernels
        .iter()
        .map(|kernel| {
            let short = name(kernel);
            let expected = Expected::read(&match directory {
                Some(directory) => directory.join(format!("{short}.expect")),
                None => beside(kernel),
            })?;
            let name = if count[&short] > 1 { kernel.display().to_string() } else { short };
            Ok(Test { name, kernel: kernel.clone(), expected })
        })
        .collect()
}

fn beside(kernel: &Path) -> PathBuf {
    let mut path = OsString::from(kernel);
    path.push(".expect");
    path.into()
}

/// A kernel's name: that of its file without `.elf`, and without the hash that cargo gives to tests.
fn name(kernel: &Path) -> String {
    let file = kernel.file_name().unwrap_or(kernel.as_os_str()).to_string_lossy();
    let name = file.strip_suffix(".elf").filter(|name| !name.is_empty()).unwrap_or(&file);
    match name.rsplit_once('-') {
        Some((name, hash))
            if !name.is_empty() && hash.len() == 16 && hash.bytes().all(is_hexadecimal) =>
        {
            name.to_owned()
        }
        _ => name.to_owned(),
    }
}

fn is_hexadecimal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_file_without_its_ending_and_without_cargos_hash() {
        for (path, expected) in [
            ("target/debug/deps/boots-0123456789abcdef", "boots"),
            ("boots-0123456789abcdef.elf", "boots"),
            ("boots-0123456789abcde", "boots-0123456789abcde"),
            ("boots-0123456789ABCDEF", "boots-0123456789ABCDEF"),
            ("-0123456789abcdef", "-0123456789abcdef"),
            ("kernels/page-faults.elf", "page-faults"),
            ("vmlinux", "vmlinux"),
            (".elf", ".elf"),
            ("/", "/"),
        ] {
            assert_eq!(name(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn kernels_of_the_same_name_are_told_apart_by_their_paths() {
        let kernels = ["a/boot.elf", "b/boot.elf", "c/other.elf"].map(PathBuf::from);
        let tests = super::tests(&kernels, None).expect("no expected output");
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["a/boot.elf", "b/boot.elf", "other"]);
    }

    #[test]
    fn expected_output_is_beside_the_kernel_or_in_its_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = folder.path().join("boots-0123456789abcdef");
        std::fs::write(beside(&kernel), "beside").expect("a file");
        let other = folder.path().join("expected");
        std::fs::create_dir(&other).expect("a folder");
        std::fs::write(other.join("boots.expect"), "elsewhere").expect("a file");
        let kernels = [kernel];
        let expected =
            |directory| super::tests(&kernels, directory).expect("readable").remove(0).expected;
        assert_eq!(expected(None), Some(Expected::new(b"beside")));
        assert_eq!(expected(Some(other.as_path())), Some(Expected::new(b"elsewhere")));
        assert_eq!(expected(Some(Path::new("/nonexistent"))), None);
    }
}
