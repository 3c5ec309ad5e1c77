// The same values in another dtype: rounded once, to nearest, ties to even; floats to integers truncate and saturate, NaN to 0; integers wrap.
// x of X, any layout -> y of Y, contiguous
// grid words of the result / 256 | workgroup 256 | shared none              X, Y: from the launch
// bound by bandwidth. All in integers: what drivers' conversions do at the edges is theirs to choose.

//@ entry cast_elements
//@ parameters lx: Layout, n: u32
//@ output y: Y
//@ input x: X
//@ if X f64
// A double as a float, rounded to nearest, ties to even; or toward odd, where a rounding follows.
fn converted(x: X) -> Y {
    let odd = ODD != 0u;
    let sign = x.y & 0x80000000u;
    let e = i32((x.y >> 20u) & 0x7ffu) - 1023;
    // 23 bits of 52, and what is behind them.
    let m = ((x.y & 0xfffffu) << 3u) | (x.x >> 29u);
    let rest = x.x & 0x1fffffffu;
    if (e == 1024) { return bitcast<f32>(sign | 0x7f800000u | m | select(0u, 0x400000u, (m | rest) != 0u)); }
    var size = 0u;
    var half = rest > 0x10000000u;
    var tie = rest == 0x10000000u;
    var lost = rest != 0u;
    if (e > 127) {
        size = 0x7f7fffffu;
        half = true;
        lost = true;
    } else if (e >= -126) {
        size = (u32(e + 127) << 23u) | m;
    } else if (e >= -151) {
        // A subnormal float: 24 bits, some of them behind its last.
        let down = u32(-126 - e);
        let whole = m | 0x800000u;
        let behind = whole & ((1u << down) - 1u);
        size = whole >> down;
        half = behind > (1u << (down - 1u)) || (behind == (1u << (down - 1u)) && rest != 0u);
        tie = behind == (1u << (down - 1u)) && rest == 0u;
        lost = behind != 0u || rest != 0u;
    } else {
        half = false;
        tie = false;
        lost = (x.y & 0x7fffffffu) != 0u || x.x != 0u;
    }
    if (odd) { size |= select(0u, 1u, lost); } else { size += select(0u, 1u, half || (tie && (size & 1u) == 1u)); }
    return bitcast<f32>(sign | size);
}
//@ else
//@ if Y f64
fn converted(x: X) -> Y {
    let bits = bitcast<u32>(x);
    var e = i32((bits >> 23u) & 0xffu);
    var m = bits & 0x7fffffu;
    if (e == 255) { e = 2047 - 896; }
    if (e == 0) {
        if (m == 0u) { return vec2<u32>(0u, bits); }
        let up = countLeadingZeros(m) - 8u;
        m = (m << up) & 0x7fffffu;
        e = 1 - i32(up);
    }
    return vec2<u32>(m << 29u, (bits & 0x80000000u) | (u32(e + 896) << 20u) | (m >> 3u));
}
//@ else
//@ if X f32 f16 bf16
// The integer part of a number's size, as 64 bits; all ones where it has more.
fn size_of(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let e = i32((bits >> 23u) & 0xffu) - 150;
    let m = (bits & 0x7fffffu) | 0x800000u;
    if (e < -23) { return vec2<u32>(0u, 0u); }
    if (e <= 0) { return vec2<u32>(m >> u32(-e), 0u); }
    if (e >= 41) { return vec2<u32>(0xffffffffu, 0xffffffffu); }
    if (e >= 32) { return vec2<u32>(0u, m << u32(e - 32)); }
    return vec2<u32>(m << u32(e), m >> u32(32 - e));
}
fn converted(x: f32) -> Y {
//@ if Y f32 f16 bf16
    return x;
//@ else
    let below = (bitcast<u32>(x) >> 31u) == 1u;
    let size = size_of(x);
//@ if Y i64
    if (is_nan(x)) { return vec2<u32>(0u, 0u); }
    if ((size.y >> 31u) == 1u) { return select(vec2<u32>(0xffffffffu, 0x7fffffffu), vec2<u32>(0u, 0x80000000u), below); }
    if (!below) { return size; }
    let low = ~size.x + 1u;
    return vec2<u32>(low, ~size.y + select(0u, 1u, low == 0u));
//@ else
    if (is_nan(x) || below) { return 0u; }
//@ if Y u8
    return select(min(size.x, 255u), 255u, size.y != 0u);
//@ else
    return select(size.x, 0xffffffffu, size.y != 0u);
//@ end
//@ end
//@ end
}
//@ else
// An integer of 64 bits as a float: its upper 24 bits, rounded; or, where a rounding follows, with the last one set where others were, so
// that both give what one would (Boldo and Melquiond 2008).
fn float_of(m: vec2<u32>, odd: bool) -> f32 {
    var high = m.y;
    var low = m.x;
    var e = 32;
    if (high == 0u) {
        high = low;
        low = 0u;
        e = 0;
    }
    if (high == 0u) { return 0.0; }
    let zeros = countLeadingZeros(high);
    if (zeros > 0u) {
        high = (high << zeros) | (low >> (32u - zeros));
        low = low << zeros;
    }
    // 24 bits, and what is behind them.
    let behind = high & 0xffu;
    let rest = behind | select(0u, 1u, low != 0u);
    var bits = high >> 8u;
    if (odd) {
        bits |= select(0u, 1u, rest != 0u);
    } else if (behind > 128u || (behind == 128u && (low != 0u || (bits & 1u) == 1u))) {
        bits += 1u;
    }
    return f32(bits) * bitcast<f32>(u32(e + 8 - i32(zeros) + 127) << 23u);
}
fn converted(x: X) -> Y {
//@ if Y f32 f16 bf16
//@ if Y f32
    let odd = false;
//@ else
    let odd = true;
//@ end
//@ if X i64
    let below = (x.y >> 31u) == 1u;
    let low = ~x.x + 1u;
    let y = float_of(select(x, vec2<u32>(low, ~x.y + select(0u, 1u, low == 0u)), below), odd);
    return select(y, -y, below);
//@ else
    return float_of(vec2<u32>(x, 0u), odd);
//@ end
//@ else
//@ if X i64
//@ if Y i64
    return x;
//@ else
    return x.x;
//@ end
//@ else
//@ if Y i64
    return vec2<u32>(x, 0u);
//@ else
    return x;
//@ end
//@ end
//@ end
}
//@ end
//@ end
//@ end
fn element(i: u32) -> Y { return converted(x_at(lx_of(i))); }
//@ elements y
