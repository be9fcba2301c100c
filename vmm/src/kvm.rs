//! The host's KVM: opening it, and what it must be able to do.
//!
//! Owns the `/dev/kvm` descriptor and the list of required capabilities. Must not know VMs.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};
use thiserror::Error;

/// Where KVM usually is.
pub const DEVICE: &str = "/dev/kvm";

/// The only version there has been since 2007 (KVM API 4.1, "KVM_GET_API_VERSION").
const API_VERSION: i32 = 12;

/// Which bit of `KVM_CAP_SYNC_REGS` stands for event state (KVM API, "KVM_CAP_SYNC_REGS").
const SYNC_EVENTS: i32 = kvm_bindings::KVM_SYNC_X86_EVENTS as i32;

/// Why KVM cannot be used.
#[derive(Debug, Error)]
pub enum KvmError {
    /// There is no such device.
    #[error(
        "{}: there is no KVM here; load the module (modprobe kvm_intel or kvm_amd), or, inside a \
         virtual machine, switch nested virtualisation on in its host", .0.display()
    )]
    Missing(PathBuf),
    /// The device may not be opened.
    #[error(
        "{}: permission denied; join the group that owns it (usermod -aG kvm USER, then log in \
         again) or run as root", .0.display()
    )]
    Permission(PathBuf),
    /// Opening it failed otherwise.
    #[error("{}: cannot open KVM: {source}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// It is something else than KVM.
    #[error("{}: is not the KVM device; name it with --kvm-device", .0.display())]
    NotKvm(PathBuf),
    /// An API version that nobody knows.
    #[error(
        "KVM speaks API version {0}, Siesta needs version {API_VERSION}; update the host's kernel"
    )]
    Version(i32),
    /// Something that is needed is missing.
    #[error("KVM lacks the capability {0}; a Linux kernel of version 5.10 or later has it")]
    Capability(&'static str),
    /// A VM-wide setting was refused.
    #[error("KVM refused {what}: {source}")]
    Refused {
        /// The setting.
        what: &'static str,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// An open KVM that can do what is needed.
pub struct Host {
    /// The descriptor.
    pub kvm: Kvm,
    supported_cpuid: OnceLock<CpuId>,
}

impl Host {
    /// Most vCPUs that a VM may have: KVM's limit, and [`LARGEST_VM`].
    #[must_use]
    pub fn max_vcpus(&self) -> u32 {
        u32::try_from(self.kvm.get_max_vcpus()).unwrap_or(u32::MAX).min(LARGEST_VM)
    }

    /// What KVM can offer of CPUID (KVM API, "KVM_GET_SUPPORTED_CPUID"). Asked once: KVM executes CPUID for each
    /// leaf, which traps where it is a guest itself, and took a tenth of a small VM's start.
    ///
    /// # Errors
    /// KVM does not tell.
    pub fn supported_cpuid(&self) -> Result<&CpuId, kvm_ioctls::Error> {
        if let Some(known) = self.supported_cpuid.get() {
            return Ok(known);
        }
        let supported = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
        Ok(self.supported_cpuid.get_or_init(|| supported))
    }
}

/// Most vCPUs of a VM: what KVM allows on common hosts (KVM API, "KVM_CAP_MAX_VCPUS"). From 255 on, IDs
/// fit x2APIC mode alone, and the ACPI tables name what the MP table cannot.
pub const LARGEST_VM: u32 = 1024;

/// Opens `/dev/kvm`.
///
/// # Errors
/// [`KvmError`], each of one line with what to do.
pub fn open() -> Result<Host, KvmError> {
    open_at(Path::new(DEVICE))
}

/// Opens KVM at another path.
///
/// # Errors
/// As [`open`].
pub fn open_at(path: &Path) -> Result<Host, KvmError> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| KvmError::Missing(path.to_path_buf()))?;
    let kvm = Kvm::new_with_path(name).map_err(|source| match source.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR => {
            KvmError::Missing(path.to_path_buf())
        }
        libc::EACCES | libc::EPERM => KvmError::Permission(path.to_path_buf()),
        libc::EISDIR => KvmError::NotKvm(path.to_path_buf()),
        _ => KvmError::Open { path: path.to_path_buf(), source },
    })?;
    let version = kvm.get_api_version();
    if version < 0 {
        return Err(KvmError::NotKvm(path.to_path_buf()));
    }
    check(version, |cap| kvm.check_extension_int(cap))?;
    Ok(Host { kvm, supported_cpuid: OnceLock::new() })
}

/// The capabilities that every mode or the comparison between modes needs.
const NEEDED: [(Cap, &str); 11] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::GetTscKhz, "KVM_CAP_GET_TSC_KHZ"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::UserNmi, "KVM_CAP_USER_NMI"),
    (Cap::X86UserSpaceMsr, "KVM_CAP_X86_USER_SPACE_MSR"),
    (Cap::X86MsrFilter, "KVM_CAP_X86_MSR_FILTER"),
    (Cap::SyncRegs, "KVM_CAP_SYNC_REGS"),
];

fn check(version: i32, extension: impl Fn(Cap) -> i32) -> Result<(), KvmError> {
    if version != API_VERSION {
        return Err(KvmError::Version(version));
    }
    for (cap, name) in NEEDED {
        let value = extension(cap);
        let lacks = match cap {
            Cap::SyncRegs => value & SYNC_EVENTS == 0,
            _ => value <= 0,
        };
        if lacks {
            return Err(KvmError::Capability(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &str) -> String {
        open_at(Path::new(path)).err().expect("no KVM there").to_string()
    }

    #[test]
    fn missing_device_says_what_can_be_done() {
        let text = message("/nonexistent/kvm");
        assert!(text.starts_with("/nonexistent/kvm: "), "{text}");
        for hint in ["modprobe", "nested virtualisation"] {
            assert!(text.contains(hint), "{text}");
        }
    }

    #[test]
    fn something_else_than_kvm_is_refused() {
        assert!(message("/dev/null").contains("is not the KVM device"));
        assert!(message("/").contains("is not the KVM device"));
    }

    #[test]
    fn other_api_version_is_refused() {
        let error = check(11, |_| i32::MAX).expect_err("an unknown version");
        assert!(error.to_string().contains("version 11"), "{error}");
    }

    #[test]
    fn each_missing_capability_is_named() {
        check(12, |_| i32::MAX).expect("everything is there");
        for (missing, name) in NEEDED {
            let without = |cap: Cap| if cap as u32 == missing as u32 { 0 } else { i32::MAX };
            let error = check(12, without).expect_err("something is missing");
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn sync_regs_without_event_state_are_not_enough() {
        let registers_only = |cap: Cap| if matches!(cap, Cap::SyncRegs) { 3 } else { 1 };
        assert!(matches!(
            check(12, registers_only),
            Err(KvmError::Capability("KVM_CAP_SYNC_REGS"))
        ));
    }
}
