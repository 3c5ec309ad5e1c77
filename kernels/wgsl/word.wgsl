// Unsigned integers of 32 bits and of 8 as numbers of a family that takes floats too; they wrap.

fn zero() -> u32 { return 0u; }
fn least() -> u32 { return 0u; }
fn greatest() -> u32 { return 0xffffffffu; }
fn plus(a: u32, b: u32) -> u32 { return a + b; }
fn is_none(a: u32) -> bool { return false; }
fn less(a: u32, b: u32) -> bool { return a < b; }
fn equal(a: u32, b: u32) -> bool { return a == b; }
fn larger(a: u32, b: u32) -> u32 { return max(a, b); }
fn smaller(a: u32, b: u32) -> u32 { return min(a, b); }
