//! Palang.
fn main() {}
