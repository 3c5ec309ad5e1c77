//! convert.
fn main() {}
