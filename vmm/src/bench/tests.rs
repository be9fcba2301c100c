//! A host and guests in virtual time.
