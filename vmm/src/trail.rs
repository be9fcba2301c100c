//! The last exits of a vCPU, for reports of crashes.
//!
//! A ring of plain values: noting an exit costs a few stores. Owns nothing else and must not know
//! what the exits lead to.

use std::fmt;

/// How many exits are kept.
pub const LENGTH: usize = 32;

/// The kind of an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// None yet.
    #[default]
    None,
    /// HLT.
    Hlt,
    /// Write of a model-specific register: index, value.
    Wrmsr,
    /// Read of a model-specific register: index.
    Rdmsr,
    /// OUT: port, value.
    Out,
    /// IN: port, size in bytes.
    In,
    /// Write to an address without memory: address, value.
    MmioWrite,
    /// Read from an address without memory: address, size in bytes.
    MmioRead,
    /// The guest can take an interrupt.
    Window,
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    kind: Kind,
    what: u64,
    value: u64,
}

/// The ring.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    steps: [Step; LENGTH],
    next: usize,
}

impl Trail {
    /// Notes an exit.
    pub fn note(&mut self, kind: Kind, what: u64, value: u64) {
        self.steps[self.next % LENGTH] = Step { kind, what, value };
        self.next = self.next.wrapping_add(1);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Trail::default();
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ordered = (0..LENGTH).map(|i| self.steps[(self.next.wrapping_add(i)) % LENGTH]);
        let mut any = false;
        for step in ordered.filter(|s| s.kind != Kind::None) {
            if any {
                writeln!(f)?;
            }
            any = true;
            match step.kind {
                Kind::None => {}
                Kind::Hlt => write!(f, "hlt")?,
                Kind::Wrmsr => write!(f, "wrmsr {:#x} <- {:#x}", step.what, step.value)?,
                Kind::Rdmsr => write!(f, "rdmsr {:#x}", step.what)?,
                Kind::Out => write!(f, "out {:#x} <- {:#x}", step.what, step.value)?,
                Kind::In => write!(f, "in {:#x} ({} bytes)", step.what, step.value)?,
                Kind::MmioWrite => write!(f, "mmio {:#x} <- {:#x}", step.what, step.value)?,
                Kind::MmioRead => write!(f, "mmio {:#x} ({} bytes)", step.what, step.value)?,
                Kind::Window => write!(f, "interrupt window")?,
                Kind::Other => write!(f, "failed")?,
            }
        }
        if any { Ok(()) } else { write!(f, "(none)") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_exits_in_order() {
        let mut trail = Trail::default();
        assert_eq!(trail.to_string(), "(none)");
        for i in 0..40 {
            trail.note(Kind::Out, 0x3f8, i);
        }
        let text = trail.to_string();
        assert_eq!(text.lines().count(), LENGTH);
        assert_eq!(text.lines().next(), Some("out 0x3f8 <- 0x8"));
        assert_eq!(text.lines().last(), Some("out 0x3f8 <- 0x27"));
    }
}
