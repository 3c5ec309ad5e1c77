// Elementwise functions of one argument or two; what is computed is a parameter too, the same for a whole grid.
// x, z of X, any layouts -> contiguous X (compare: u8)
// grid words of the result / 256 | workgroup 256 | shared none              X: from the launch
// bound by bandwidth. Floats are computed in f32 and rounded once; integers wrap.
//@ include number X
//@ if X f32 f16 bf16
//@ include math
//@ end

//@ entry unary
//@ parameters lx: Layout, n: u32, op: u32
//@ output y: X
//@ input x: X
//@ if X f32 f16 bf16
//@ include trigonometry
fn apply(op: u32, x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    switch (op) {
        case 0u: { return bitcast<f32>(bits ^ 0x80000000u); }
        case 1u: { return bitcast<f32>(bits & 0x7fffffffu); }
        case 2u: {
            if (is_nan(x)) { return x; }
            return select(select(1.0, -1.0, (bits >> 31u) == 1u), 0.0, (bits & 0x7fffffffu) == 0u);
        }
        case 3u: { return exp_of(x); }
        case 4u: { return log_of(x); }
        case 5u: { return sqrt_of(x); }
        case 6u: { return 1.0 / sqrt_of(x); }
        case 7u: { return 1.0 / x; }
        case 8u: { return x * x; }
        case 9u: { return sin_of(x); }
        case 10u: { return cos_of(x); }
        case 11u: { return tanh_of(x); }
        case 12u: { return sigmoid(x); }
        case 13u: { return x * sigmoid(x); }
        case 14u: { return select(x, 0.0, (bits >> 31u) == 1u && !is_nan(x)); }
        case 15u: {
            if (is_nan(x)) { return x; }
            return max(x, 0.0) + log1p_of(exp_of(-abs(x)));
        }
        case 16u: { return x * 0.5 * (1.0 + erf_of(x * 0.70710678)); }
        default: {
            // 1 + tanh(u) = 2 sigmoid(2 u), which does not cancel.
            let u = 0.79788456 * (x + 0.044715 * x * x * x);
            return x * sigmoid(u + u);
        }
    }
}
fn sqrt_of(x: f32) -> f32 {
    if (x < 0.0) { return not_a_number(); }
    return sqrt(x);
}
//@ else
fn apply(op: u32, x: X) -> X {
//@ if X i64
    if (op == 0u) { return negative(x); }
    if (op == 1u) { return magnitude(x); }
    if (is_negative(x)) { return vec2<u32>(0xffffffffu, 0xffffffffu); }
    return vec2<u32>(select(0u, 1u, (x.x | x.y) != 0u), 0u);
//@ else
    return x;
//@ end
}
//@ end
fn element(i: u32) -> X { return apply(p.op, x_at(lx_of(i))); }
//@ elements y

//@ entry affine
//@ parameters lx: Layout, n: u32, mul: f32, add: f32
//@ output y: X
//@ input x: X
fn element(i: u32) -> f32 { return x_at(lx_of(i)) * p.mul + p.add; }
//@ elements y

//@ entry binary
//@ parameters lx: Layout, lz: Layout, n: u32, op: u32
//@ output y: X
//@ input x: X
//@ input z: X
fn apply(op: u32, a: X, b: X) -> X {
    switch (op) {
        case 0u: { return plus(a, b); }
//@ if X i64
        case 1u: { return plus(a, negative(b)); }
        case 2u: { return product(a, b); }
        case 3u: { return quotient(a, b); }
//@ else
        case 1u: { return a - b; }
        case 2u: { return a * b; }
//@ if X f32 f16 bf16
        case 3u: { return a / b; }
//@ else
        case 3u: { return select(a / max(b, 1u), 0u, b == 0u); }
//@ end
//@ end
        case 4u: { return larger(a, b); }
//@ if X f32 f16 bf16
        case 5u: { return smaller(a, b); }
        default: { return pow_of(a, b); }
//@ else
        default: { return smaller(a, b); }
//@ end
    }
}
fn element(i: u32) -> X { return apply(p.op, x_at(lx_of(i)), z_at(lz_of(i))); }
//@ elements y

//@ entry compare
//@ parameters lx: Layout, lz: Layout, n: u32, op: u32
//@ output y: u8
//@ input x: X
//@ input z: X
fn holds(op: u32, a: X, b: X) -> bool {
    if (is_none(a) || is_none(b)) { return op == 1u; }
    switch (op) {
        case 0u: { return equal(a, b); }
        case 1u: { return !equal(a, b); }
        case 2u: { return less(a, b); }
        case 3u: { return !less(b, a); }
        case 4u: { return less(b, a); }
        default: { return !less(a, b); }
    }
}
fn element(i: u32) -> u32 { return select(0u, 1u, holds(p.op, x_at(lx_of(i)), z_at(lz_of(i)))); }
//@ elements y
