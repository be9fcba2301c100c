//! Builds the images.
fn main() {}
