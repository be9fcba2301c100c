//! CPU features that a VM has beyond, or without, what it has by default (`--cpu-features`).
//!
//! Owns how they are written, and who may change which. Where each stands in CPUID is in `table`.
//! Must not know KVM.

mod table;

use std::fmt;
use std::str::FromStr;

use kvm_bindings::kvm_cpuid_entry2;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::cli::values;
use table::{Feature, Register, Rule, TABLE};

/// Changes of a VM's CPU features, each feature at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuFeatures {
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    feature: &'static Feature,
    on: bool,
}

/// Why features cannot be as they are wanted. The text names the feature.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FeatureError {
    /// Neither `+` nor `-` in front.
    #[error("'{0}': write +NAME to add a feature, -NAME to take it away, as +rdrand,-avx2")]
    NoSign(String),
    /// No such name.
    #[error("no CPU feature '{name}'; {advice}")]
    Unknown {
        /// What was written.
        name: String,
        /// The name that may have been meant, or where names are found.
        advice: String,
    },
    /// It is there twice.
    #[error("{0} is there twice; leave one out")]
    Twice(&'static str),
    /// It is not for the user to say.
    #[error("{change}: Siesta decides about it: {why}")]
    Fixed {
        /// As it was written.
        change: String,
        /// Whom or what it follows.
        why: &'static str,
    },
    /// KVM, or the CPU, does not have it.
    #[error("+{0}: this host's KVM does not support it; leave it out")]
    Unsupported(&'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.on { '+' } else { '-' }, self.feature.name)
    }
}

impl fmt::Display for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.changes.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{change}")?;
        }
        Ok(())
    }
}

impl FromStr for CpuFeatures {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let mut changes: Vec<Change> = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (on, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => (true, name),
                (_, Some(name)) => (false, name),
                _ => return Err(FeatureError::NoSign(word.into())),
            };
            let feature = find(name)?;
            if changes.iter().any(|change| change.feature == feature) {
                return Err(FeatureError::Twice(feature.name));
            }
            let change = Change { feature, on };
            change.allowed(false)?;
            changes.push(change);
        }
        Ok(CpuFeatures { changes })
    }
}

fn find(name: &str) -> Result<&'static Feature, FeatureError> {
    TABLE.iter().find(|feature| feature.name == name).ok_or_else(|| FeatureError::Unknown {
        name: name.into(),
        advice: match values::closest(name, TABLE.iter().map(|feature| feature.name)) {
            Some(closest) => format!("did you mean '{closest}'?"),
            None => "names are those of the flags in Linux's /proc/cpuinfo".into(),
        },
    })
}

impl Change {
    /// Whether this is for the user to say in a VM with that kind of APIC. What is refused in one kind
    /// alone is let pass while the kind is not known yet (`user_apic` false).
    fn allowed(self, user_apic: bool) -> Result<(), FeatureError> {
        let refused = match self.feature.rule {
            Rule::Free => None,
            Rule::Fixed(why) => Some(why),
            Rule::KernelApic(why) => Some(why).filter(|_| user_apic),
            Rule::RemoveOnly(why) => Some(why).filter(|_| self.on),
        };
        match refused {
            Some(why) => Err(FeatureError::Fixed { change: self.to_string(), why }),
            None => Ok(()),
        }
    }
}

impl CpuFeatures {
    /// Whether the VM has what it has by default.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes the changes in a vCPU's table. `supported` is what KVM says that it supports;
    /// `user_apic`: the local APIC is not in KVM.
    ///
    /// # Errors
    /// [`FeatureError`]: one that KVM does not support, or that such a VM cannot do without or with.
    pub fn apply(
        &self,
        entries: &mut [kvm_cpuid_entry2],
        supported: &[kvm_cpuid_entry2],
        user_apic: bool,
    ) -> Result<(), FeatureError> {
        for change in &self.changes {
            change.allowed(user_apic)?;
            let feature = change.feature;
            let mask = 1 << feature.bit;
            if change.on && !supported.iter().any(|entry| feature.of(entry) & mask != 0) {
                return Err(FeatureError::Unsupported(feature.name));
            }
            for entry in entries.iter_mut().filter(|entry| feature.is_in(entry)) {
                let register = feature.register.of_mut(entry);
                *register = if change.on { *register | mask } else { *register & !mask };
            }
        }
        Ok(())
    }
}

impl Feature {
    fn is_in(&self, entry: &kvm_cpuid_entry2) -> bool {
        (entry.function, entry.index) == (self.leaf, self.subleaf)
    }

    /// The register that it is a bit of; 0 if that is in another entry.
    fn of(&self, entry: &kvm_cpuid_entry2) -> u32 {
        let mut copy = *entry;
        if self.is_in(entry) { *self.register.of_mut(&mut copy) } else { 0 }
    }
}

impl Register {
    fn of_mut(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Register::Eax => &mut entry.eax,
            Register::Ebx => &mut entry.ebx,
            Register::Ecx => &mut entry.ecx,
            Register::Edx => &mut entry.edx,
        }
    }
}

impl Serialize for CpuFeatures {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'d> Deserialize<'d> for CpuFeatures {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |error| serde::de::Error::custom(format!("cpu-features: {error}"));
        text.parse().map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CpuFeatures, FeatureError> {
        text.parse()
    }

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ..Default::default() }
    }

    #[test]
    fn features_are_written_and_read_back() {
        let features = parse("+rdrand, -avx2,-3dnow").expect("names of Linux");
        assert_eq!(features.to_string(), "+rdrand,-avx2,-3dnow");
        assert_eq!(parse(&features.to_string()), Ok(features));
        assert!(parse("").expect("nothing to change").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_what_to_do() {
        for (text, part) in [
            ("avx", "'avx': write +NAME"),
            ("+", "no CPU feature ''"),
            ("+avx512ff", "did you mean 'avx512f'?"),
            ("-xsavess", "did you mean 'xsaves'?"),
            ("+frobnication_engine", "/proc/cpuinfo"),
            ("+avx,-avx", "avx is there twice"),
            ("-hypervisor", "-hypervisor: Siesta decides"),
            ("+monitor", "+monitor: Siesta decides"),
            ("-tsc_deadline_timer", "--apic-timer"),
            ("+tsc_adjust", "+tsc_adjust: Siesta decides"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
        }
        assert!(parse("-tsc_adjust").is_ok());
    }

    #[test]
    fn bits_change_where_the_table_says_and_nowhere_else() {
        let supported = [kvm_cpuid_entry2 { ebx: 1 << 5, ..entry(7, 0) }];
        let mut entries = [entry(1, 0), entry(7, 0), entry(7, 1)];
        for entry in &mut entries {
            entry.ecx = 1 << 30;
        }
        let features = parse("+avx2,-rdrand").expect("names of Linux");
        features.apply(&mut entries, &supported, true).expect("KVM supports AVX2");
        assert_eq!((entries[0].ebx, entries[0].ecx), (0, 0), "RDRAND is bit 30 of leaf 1, ECX");
        assert_eq!((entries[1].ebx, entries[1].ecx), (1 << 5, 1 << 30));
        assert_eq!((entries[2].ebx, entries[2].ecx), (0, 1 << 30), "of another subleaf");
    }

    #[test]
    fn feature_that_kvm_lacks_is_refused_and_one_to_remove_is_not() {
        let supported = [entry(7, 0)];
        let mut entries = [kvm_cpuid_entry2 { ebx: 1 << 5, ..entry(7, 0) }];
        let add = parse("+avx2").expect("a name").apply(&mut entries, &supported, true);
        assert_eq!(add, Err(FeatureError::Unsupported("avx2")));
        let remove = parse("-avx2").expect("a name").apply(&mut entries, &supported, true);
        assert_eq!((remove, entries[0].ebx), (Ok(()), 0));
        let absent = parse("-amx_tile,-sse4a").expect("names").apply(&mut [], &[], true);
        assert_eq!(absent, Ok(()));
    }

    #[test]
    fn what_needs_an_apic_in_the_kernel_is_refused_without_one() {
        let supported = [kvm_cpuid_entry2 { eax: u32::MAX, ..entry(0x4000_0001, 0) }];
        for text in ["+kvm_pv_unhalt", "-x2apic"] {
            let features = parse(text).expect("a name");
            let mut entries = [entry(1, 0), entry(0x4000_0001, 0)];
            let refused = features.apply(&mut entries, &supported, true).expect_err(text);
            assert!(refused.to_string().contains("--timers kernel"), "{refused}");
            features.apply(&mut entries, &supported, false).expect(text);
        }
    }

    #[test]
    fn table_has_each_name_and_each_bit_once() {
        for (index, feature) in TABLE.iter().enumerate() {
            assert!(feature.bit < 32, "{}", feature.name);
            for other in &TABLE[index + 1..] {
                assert_ne!(feature.name, other.name);
                let place = |f: &Feature| (f.leaf, f.subleaf, f.register, f.bit);
                assert_ne!(place(feature), place(other), "{} {}", feature.name, other.name);
            }
        }
    }

    /// This host's own flags against its own CPUID: a bit that stands in the wrong place would differ
    /// on some host. What the kernel hides, or shows under several bits, is left out.
    #[test]
    fn this_hosts_flags_are_those_of_its_cpuid() {
        let Ok(cpuinfo) = std::fs::read_to_string("/proc/cpuinfo") else { return };
        let Some(line) = cpuinfo.lines().find(|line| line.starts_with("flags")) else { return };
        let flags: Vec<_> = line.split_ascii_whitespace().skip(2).collect();
        for feature in TABLE.iter().filter(|f| f.leaf >> 16 != 0x4000 && flags.contains(&f.name)) {
            #[allow(unused_unsafe, unsafe_code)]
            // SAFETY: CPUID may be executed anywhere on this architecture.
            let r = unsafe { std::arch::x86_64::__cpuid_count(feature.leaf, feature.subleaf) };
            let (eax, ebx, ecx, edx) = (r.eax, r.ebx, r.ecx, r.edx);
            let here = kvm_cpuid_entry2 {
                function: feature.leaf,
                index: feature.subleaf,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            };
            assert_ne!(feature.of(&here) & 1 << feature.bit, 0, "{}", feature.name);
        }
    }
}
