//! Behaviour of the local APIC, register by register.
