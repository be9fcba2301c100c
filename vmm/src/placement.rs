//! Where on the host a VM is: CPUs and scheduling of its vCPUs' threads, nodes and pages of its memory,
//! and which of its vCPUs stay with their own threads.
//!
//! Owns what can be asked for, and whether this host and this process can give it. Must not know how
//! memory is mapped or threads are run. How threads tell that they are placed is in [`gate`].

pub mod error;
pub mod gate;
pub mod numbers;
pub mod sched;

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use error::PlacementError;
use numbers::{NotNumbers, Numbers};
use sched::Sched;

/// Lowest and highest nice value.
pub const NICE: std::ops::RangeInclusive<i32> = -20..=19;

/// Where a VM is. The default is wherever the host puts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The CPUs that the vCPUs' home threads run on.
    pub pin: Option<Numbers>,
    /// Their scheduling policy.
    pub sched: Option<Sched>,
    /// Their nice value, one of [`NICE`].
    pub nice: Option<i32>,
    /// The NUMA nodes of guest memory.
    pub numa: Option<Numbers>,
    /// Guest memory is made of such pages.
    pub hugepages: Option<HugePages>,
    /// vCPUs that neither serve others nor are served.
    pub isolate: Isolated,
}

impl Placement {
    /// Whether the host and the process have what a VM of `cpus` vCPUs asks for. Permissions show only
    /// when a thread is placed, the number of huge pages only when memory is mapped.
    ///
    /// # Errors
    /// [`PlacementError`].
    pub fn check(&self, cpus: u32) -> Result<(), PlacementError> {
        if let Some(pin) = &self.pin {
            let allowed =
                sched::cpus().map_err(|fault| PlacementError::Pin { pin: pin.clone(), fault })?;
            if let Some(cpu) = pin.first_missing_in(&allowed) {
                return Err(PlacementError::Cpu { cpu, allowed });
            }
        }
        if let Some(nice) = self.nice {
            if !NICE.contains(&nice) {
                return Err(PlacementError::NiceRange { nice });
            }
            if let Some(sched) = self.sched.filter(|sched| sched.priority() > 0) {
                return Err(PlacementError::NiceUseless { nice, sched });
            }
        }
        if let Some(numa) = &self.numa {
            let allowed = nodes();
            if let Some(node) = numa.first_missing_in(&allowed) {
                return Err(PlacementError::Node { node, allowed });
            }
        }
        match &self.isolate {
            Isolated::These(vcpus) => match vcpus.iter().find(|vcpu| *vcpu >= cpus) {
                Some(vcpu) => Err(PlacementError::NoVcpu { vcpu, cpus }),
                None => Ok(()),
            },
            Isolated::None | Isolated::All => Ok(()),
        }
    }

    /// Something is asked for that a thread has to do itself.
    #[must_use]
    pub fn concerns_threads(&self) -> bool {
        self.pin.is_some() || self.sched.is_some() || self.nice.is_some()
    }

    /// Places the calling thread.
    ///
    /// # Errors
    /// [`PlacementError`]: the process may not, or has other CPUs by now.
    pub fn apply_to_current_thread(&self) -> Result<(), PlacementError> {
        if let Some(pin) = &self.pin {
            sched::set_cpus(pin)
                .map_err(|fault| PlacementError::Pin { pin: pin.clone(), fault })?;
        }
        let denied =
            |fault: &io::Error| matches!(fault.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        if let Some(nice) = self.nice {
            sched::set_nice(nice).map_err(|fault| match denied(&fault) {
                true => PlacementError::NiceDenied { nice },
                false => PlacementError::Nice { nice, fault },
            })?;
        }
        if let Some(sched) = self.sched {
            sched::set_policy(sched).map_err(|fault| match denied(&fault) {
                true => PlacementError::SchedDenied { sched },
                false => PlacementError::Sched { sched, fault },
            })?;
        }
        Ok(())
    }

    /// Memory is of ordinary pages wherever the host has them, so it may share some with other VMs.
    #[must_use]
    pub fn allows_shared_pages(&self) -> bool {
        self.hugepages.is_none() && self.numa.is_none()
    }

    /// Some vCPU that is pinned may be run by other VMs' threads, where they are.
    #[must_use]
    pub fn is_pinned_loosely(&self, cpus: u32) -> bool {
        self.pin.is_some() && (0..cpus).any(|vcpu| !self.isolate.contains(vcpu))
    }
}

/// The nodes whose memory this process may use; node 0 alone where the kernel knows no nodes.
fn nodes() -> Numbers {
    let list = |text: &str| text.trim().parse::<Numbers>().ok();
    let with_memory = ["has_memory", "online"].into_iter().find_map(|name| {
        list(&fs::read_to_string(format!("/sys/devices/system/node/{name}")).ok()?)
    });
    let allowed = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        list(status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?)
    });
    match (with_memory, allowed) {
        (Some(nodes), Some(allowed)) => nodes.common(&allowed),
        (Some(nodes), None) => nodes,
        (None, _) => Numbers::of([0]),
    }
}

/// Which vCPUs of a VM neither serve others nor are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Isolated {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these numbers.
    These(Numbers),
}

impl Isolated {
    /// Whether vCPU `index` is one of them.
    #[must_use]
    pub fn contains(&self, index: u32) -> bool {
        match self {
            Isolated::None => false,
            Isolated::All => true,
            Isolated::These(numbers) => numbers.contains(index),
        }
    }

    /// For serde: leaves the field out.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Isolated::None
    }
}

impl FromStr for Isolated {
    type Err = NotNumbers;

    fn from_str(text: &str) -> Result<Self, NotNumbers> {
        match text {
            "all" => Ok(Isolated::All),
            _ => text.parse().map(Isolated::These),
        }
    }
}

impl Serialize for Isolated {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Isolated::None => to.serialize_none(),
            Isolated::All => to.serialize_str("all"),
            Isolated::These(numbers) => numbers.serialize(to),
        }
    }
}

impl<'d> Deserialize<'d> for Isolated {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        enum All {
            #[serde(rename = "all")]
            All,
        }
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write \"all\", 0, [0, 2] or \"0-1,4\"")]
        enum Written {
            All(All),
            These(Numbers),
        }
        Ok(match Written::deserialize(from)? {
            Written::All(All::All) => Isolated::All,
            Written::These(numbers) => Isolated::These(numbers),
        })
    }
}

/// Sizes of the processor's large pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl HugePages {
    /// Size of a page, in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The size's logarithm to base 2, as mmap(2) takes it.
    #[must_use]
    pub fn shift(self) -> u32 {
        match self {
            HugePages::Size2M => 21,
            HugePages::Size1G => 30,
        }
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HugePages::Size2M => "2M",
            HugePages::Size1G => "1G",
        })
    }
}

/// A text that is no size of a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write 2M or 1G")]
pub struct NotHugePages;

impl FromStr for HugePages {
    type Err = NotHugePages;

    fn from_str(text: &str) -> Result<Self, NotHugePages> {
        match text {
            "2M" => Ok(HugePages::Size2M),
            "1G" => Ok(HugePages::Size1G),
            _ => Err(NotHugePages),
        }
    }
}

impl Serialize for HugePages {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Reads `true`, which means 2 MiB, `false`, or a size.
///
/// # Errors
/// It is something else.
pub fn hugepages<'d, D: Deserializer<'d>>(from: D) -> Result<Option<HugePages>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "write true, \"2M\" or \"1G\"")]
    enum Written {
        Wanted(bool),
        Size(String),
    }
    match Written::deserialize(from)? {
        Written::Wanted(wanted) => Ok(wanted.then_some(HugePages::Size2M)),
        Written::Size(size) => size.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
#[path = "placement/tests.rs"]
mod tests;
