//! Which model-specific registers come to user space, and the guest's TSC offset.
//!
//! Without an in-kernel APIC the x2APIC registers (0x800-0x8ff), which no filter covers, arrive as
//! "invalid"; the TSC deadline and the paravirtual EOI have to be filtered (KVM API,
//! "KVM_X86_SET_MSR_FILTER"). Owns this
//! choice. Must not know what the registers do.

#![allow(unsafe_code)] // KVM_GET_DEVICE_ATTR for vCPUs has no wrapper

use std::os::fd::AsRawFd;

use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER, KVM_MSR_EXIT_REASON_INVAL,
    KVM_MSR_EXIT_REASON_UNKNOWN, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Msrs,
    kvm_device_attr, kvm_enable_cap, kvm_msr_entry,
};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::clock;
use crate::kvm::KvmError;

use request::{KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR};

/// The macro makes public functions of no interest outside.
mod request {
    #![allow(missing_docs)]

    use super::{KVMIO, ioctl_iow_nr, kvm_device_attr};

    ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
    ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
}

/// SDM vol. 4, table 2-2.
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_ADJUST: u32 = 0x3b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
/// KVM's MSR documentation, "MSR_KVM_SYSTEM_TIME_NEW".
const KVM_SYSTEM_TIME: u32 = 0x4b56_4d01;
const KVM_SYSTEM_TIME_ON: u64 = 1;
/// KVM's MSR documentation, "MSR_KVM_PV_EOI_EN".
const KVM_PV_EOI: u32 = 0x4b56_4d04;

/// Lets the local APIC's registers, and those that KVM does not know, exit to user space.
///
/// # Errors
/// KVM refuses the capability or the filter.
pub fn enable_user_space_msrs(vm: &VmFd) -> Result<(), KvmError> {
    let reasons =
        KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
    let mut cap = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
    cap.args[0] = u64::from(reasons);
    vm.enable_cap(&cap)
        .map_err(|source| KvmError::Refused { what: "user-space MSR handling", source })?;
    let denied = [0u8];
    let both = MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE;
    // KVM answers reads of the TSC's registers; writes move the APIC's deadlines.
    let ours = [
        (IA32_TSC_DEADLINE, both),
        (KVM_PV_EOI, both),
        // KVM would keep it to itself until the next exit, and two changes could be one.
        (IA32_APIC_BASE, MsrFilterRangeFlags::WRITE),
        (IA32_TIME_STAMP_COUNTER, MsrFilterRangeFlags::WRITE),
        (IA32_TSC_ADJUST, MsrFilterRangeFlags::WRITE),
    ]
    .map(|(base, flags)| MsrFilterRange { flags, base, msr_count: 1, bitmap: &denied });
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ours)
        .map_err(|source| KvmError::Refused { what: "an MSR filter", source })
}

/// Guest TSC minus host TSC, modulo 2^64.
///
/// From the device attribute (KVM API, "KVM_VCPU_TSC_OFFSET", Linux 5.16); else from the counter
/// read between two readings of the host's, taking the tightest of several tries.
#[must_use]
pub fn tsc_offset(vcpu: &VcpuFd) -> u64 {
    let mut offset = 0u64;
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: &raw mut offset as u64,
    };
    // SAFETY: `addr` is a u64 that outlives the call, as this attribute wants it.
    let rc = unsafe { ioctl_with_ref(&vcpu.as_raw_fd(), KVM_GET_DEVICE_ATTR(), &attribute) };
    if rc == 0 { offset } else { measured_offset(vcpu) }
}

/// How a guest moves its TSC (SDM vol. 3B, 19.17.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TscMove {
    /// A write to IA32_TIME_STAMP_COUNTER: the counter goes on from this value.
    Counter(u64),
    /// A write to IA32_TSC_ADJUST: what was added to the counter since reset is this.
    Adjust(u64),
}

impl TscMove {
    /// What a write to an MSR is, if it is one of the two.
    #[must_use]
    pub fn from_msr(index: u32, value: u64) -> Option<Self> {
        match index {
            IA32_TIME_STAMP_COUNTER => Some(TscMove::Counter(value)),
            IA32_TSC_ADJUST => Some(TscMove::Adjust(value)),
            _ => None,
        }
    }

    /// The new offset and the new value of IA32_TSC_ADJUST, modulo 2^64.
    #[must_use]
    pub fn apply(self, offset: u64, adjust: u64, host_tsc: u64) -> (u64, u64) {
        let moved = match self {
            TscMove::Counter(value) => value.wrapping_sub(host_tsc).wrapping_sub(offset),
            TscMove::Adjust(value) => value.wrapping_sub(adjust),
        };
        (offset.wrapping_add(moved), adjust.wrapping_add(moved))
    }
}

/// Tells KVM the IA32_APIC_BASE that the guest wrote: CPUID and the way of x2APIC accesses follow it.
///
/// # Errors
/// KVM refuses the value.
pub fn set_apic_base(vcpu: &VcpuFd, value: u64) -> Result<(), kvm_ioctls::Error> {
    write(vcpu, IA32_APIC_BASE, value)
}

/// Gives a vCPU another TSC offset and value of IA32_TSC_ADJUST. Answers whether its counter moves
/// with it: KVM of the PVM type has its guests read the host's counter, and takes the offset without
/// an error. Nothing has changed then.
///
/// # Errors
/// KVM has no attribute for the offset (before Linux 5.16), or refuses it.
pub fn set_tsc(vcpu: &VcpuFd, offset: u64, adjust: u64) -> Result<bool, kvm_ioctls::Error> {
    let attribute = kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: &raw const offset as u64,
    };
    // SAFETY: `addr` is a u64 that outlives the call, as this attribute wants it.
    let rc = unsafe { ioctl_with_ref(&vcpu.as_raw_fd(), KVM_SET_DEVICE_ATTR(), &attribute) };
    if rc != 0 {
        return Err(kvm_ioctls::Error::last());
    }
    if tsc_offset(vcpu) != offset {
        return Ok(false);
    }
    // Written from here it is what the guest reads, and moves nothing. A guest without this register
    // (CPUID.7:EBX[1]) cannot read it either.
    let _ = write(vcpu, IA32_TSC_ADJUST, adjust);
    // Of several vCPUs that differ KVM leaves the clocks as they are, unless it is told of their pages
    // again.
    let page = read(vcpu, KVM_SYSTEM_TIME).ok().flatten();
    if let Some(page) = page.filter(|page| page & KVM_SYSTEM_TIME_ON != 0) {
        let _ = write(vcpu, KVM_SYSTEM_TIME, page);
    }
    Ok(true)
}

/// Reads one register; `None` where there is no such.
fn read(vcpu: &VcpuFd, index: u32) -> Result<Option<u64>, kvm_ioctls::Error> {
    let entry = kvm_msr_entry { index, ..Default::default() };
    let mut msrs =
        Msrs::from_entries(&[entry]).map_err(|_| kvm_ioctls::Error::new(libc::EINVAL))?;
    let count = vcpu.get_msrs(&mut msrs)?;
    Ok(msrs.as_slice().first().filter(|_| count == 1).map(|entry| entry.data))
}

/// Writes one register, as if the machine did.
fn write(vcpu: &VcpuFd, index: u32, data: u64) -> Result<(), kvm_ioctls::Error> {
    let entry = kvm_msr_entry { index, data, ..Default::default() };
    let msrs = Msrs::from_entries(&[entry]).map_err(|_| kvm_ioctls::Error::new(libc::EINVAL))?;
    match vcpu.set_msrs(&msrs)? {
        1 => Ok(()),
        _ => Err(kvm_ioctls::Error::new(libc::EINVAL)),
    }
}

/// Whether the TSC of a vCPU that nobody needs any more can be moved.
#[must_use]
pub fn tsc_moves(vcpu: &VcpuFd) -> bool {
    const FAR: u64 = 1 << 40;
    set_tsc(vcpu, tsc_offset(vcpu).wrapping_add(FAR), FAR).unwrap_or(false)
}

fn measured_offset(vcpu: &VcpuFd) -> u64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..8 {
        let before = clock::tsc();
        let guest = read(vcpu, IA32_TIME_STAMP_COUNTER);
        let after = clock::tsc();
        let Ok(Some(guest)) = guest else { continue };
        let width = after.wrapping_sub(before);
        if width < best.0 {
            best = (width, guest.wrapping_sub(before + width / 2));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_and_adjust_move_together() {
        let moved = TscMove::Counter(5_000).apply(100, 7, 1_000);
        assert_eq!(moved, (4_000, 7 + 3_900));
        assert_eq!(TscMove::Adjust(7).apply(moved.0, moved.1, 2_000), (100, 7));
    }

    #[test]
    fn moves_wrap() {
        let (offset, adjust) = TscMove::Counter(0).apply(0, 0, 10);
        assert_eq!((offset, adjust), (10_u64.wrapping_neg(), 10_u64.wrapping_neg()));
    }
}
