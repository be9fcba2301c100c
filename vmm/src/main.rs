//! The `siesta` command.
fn main() {}
