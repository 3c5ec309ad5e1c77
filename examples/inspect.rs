//! inspect.
fn main() {}
