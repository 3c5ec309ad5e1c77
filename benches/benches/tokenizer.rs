//! Encoding.
fn main() {}
