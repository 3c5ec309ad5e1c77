// Floats as numbers of a family that takes integers too: see word.wgsl, long.wgsl.

fn zero() -> f32 { return 0.0; }
fn least() -> f32 { return -infinity(); }
fn greatest() -> f32 { return infinity(); }
fn plus(a: f32, b: f32) -> f32 { return a + b; }
fn is_none(a: f32) -> bool { return is_nan(a); }
fn less(a: f32, b: f32) -> bool { return a < b; }
fn equal(a: f32, b: f32) -> bool { return a == b; }
// The larger, or NaN where one is.
fn larger(a: f32, b: f32) -> f32 { return select(select(select(a, b, a < b), b, is_nan(b)), a, is_nan(a)); }
fn smaller(a: f32, b: f32) -> f32 { return select(select(select(a, b, b < a), b, is_nan(b)), a, is_nan(a)); }
