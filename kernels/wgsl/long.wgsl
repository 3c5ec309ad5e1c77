// Signed integers of 64 bits, the lower half first, as numbers of a family that takes floats too; they wrap.

fn zero() -> vec2<u32> { return vec2<u32>(0u, 0u); }
fn least() -> vec2<u32> { return vec2<u32>(0u, 0x80000000u); }
fn greatest() -> vec2<u32> { return vec2<u32>(0xffffffffu, 0x7fffffffu); }
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
fn negative(a: vec2<u32>) -> vec2<u32> { return plus(~a, vec2<u32>(1u, 0u)); }
fn is_negative(a: vec2<u32>) -> bool { return (a.y >> 31u) == 1u; }
fn magnitude(a: vec2<u32>) -> vec2<u32> { if (is_negative(a)) { return negative(a); } return a; }
fn is_none(a: vec2<u32>) -> bool { return false; }
fn equal(a: vec2<u32>, b: vec2<u32>) -> bool { return a.x == b.x && a.y == b.y; }
fn less_unsigned(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }
fn less(a: vec2<u32>, b: vec2<u32>) -> bool {
    return less_unsigned(vec2<u32>(a.x, a.y ^ 0x80000000u), vec2<u32>(b.x, b.y ^ 0x80000000u));
}
fn larger(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> { if (less(a, b)) { return b; } return a; }
fn smaller(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> { if (less(b, a)) { return b; } return a; }
fn product(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = wide_product(a.x, b.x);
    return vec2<u32>(low.x, low.y + a.x * b.y + a.y * b.x);
}
// Rounded toward zero; 0 where the divisor is. Bit by bit.
fn quotient(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (b.x == 0u && b.y == 0u) { return b; }
    let n = magnitude(a);
    let d = magnitude(b);
    var q = vec2<u32>(0u, 0u);
    var r = vec2<u32>(0u, 0u);
    for (var i = 64u; i > 0u; i--) {
        let bit = i - 1u;
        let out = r.y >> 31u;
        r = vec2<u32>((r.x << 1u) | ((select(n.x, n.y, bit >= 32u) >> (bit & 31u)) & 1u), (r.y << 1u) | (r.x >> 31u));
        if (out == 1u || !less_unsigned(r, d)) {
            r = plus(r, negative(d));
            if (bit >= 32u) { q.y |= 1u << (bit & 31u); } else { q.x |= 1u << bit; }
        }
    }
    if (is_negative(a) != is_negative(b)) { return negative(q); }
    return q;
}
