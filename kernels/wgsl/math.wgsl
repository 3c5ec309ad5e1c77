// Functions of f32 by polynomials of our own: WGSL's built-in ones promise little, and drivers keep no more. Coefficients and bounds as in
// puna-cpu's simd/vector/real.rs, written so that fused multiply-adds change nothing that matters.

// 2^n, -126 <= n <= 127.
fn power_of_2(n: i32) -> f32 { return bitcast<f32>(u32(n + 127) << 23u); }

// e^x within 2 ulp; 0 at -inf, infinity above 88.73.
fn exp_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    if (x > 88.8) { return infinity(); }
    if (x < -104.0) { return 0.0; }
    // x = n ln 2 + r, |r| <= ln 2 / 2. The larger part of ln 2 has 10 bits, so that n times it is exact.
    let n = floor(x * 1.4426950408889634 + 0.5);
    let exact = x - n * 0.693359375;
    let rest = n * 2.1219444005469058e-4;
    let r = exact + rest;
    var s = 0.0013926176;
    s = s * r + 0.008363173;
    s = s * r + 0.041666556;
    s = s * r + 0.16666578;
    s = s * r + 0.5;
    let y = 1.0 + (exact + (s * (r * r) + rest));
    // 2^n in two factors, as one may be beyond what a float holds.
    let half = i32(n) >> 1u;
    return y * power_of_2(half) * power_of_2(i32(n) - half);
}

// The natural logarithm within 2 ulp, of subnormal numbers too; -inf of 0, NaN below.
fn log_of(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let size = bits & 0x7fffffffu;
    if (size == 0u) { return -infinity(); }
    if ((bits >> 31u) == 1u) { return not_a_number(); }
    if (bits >= 0x7f800000u) { return x; }
    // x = m 2^e, sqrt(1/2) <= m < sqrt(2). A subnormal number is an integer of its bits.
    let small = size < 0x00800000u;
    let scaled = select(bits, bitcast<u32>(f32(size)), small);
    let begun = scaled - 0x3f3504f3u;
    let e = f32(i32(begun) >> 23u) - select(0.0, 149.0, small);
    let f = bitcast<f32>((begun & 0x7fffffu) + 0x3f3504f3u) - 1.0;
    var s = 0.06971612;
    s = s * f - 0.11479734;
    s = s * f + 0.1168542;
    s = s * f - 0.12425687;
    s = s * f + 0.14249058;
    s = s * f - 0.16667803;
    s = s * f + 0.20000716;
    s = s * f - 0.24999997;
    s = s * f + 0.3333333;
    let square = f * f;
    let low = e * -2.1219444e-4 + s * (square * f);
    return e * 0.6933594 + ((low - 0.5 * square) + f);
}

// ln(1 + x), x >= 0.
fn log1p_of(x: f32) -> f32 {
    if (!is_finite(x)) { return x; }
    if (x < 0.5) {
        // 2 atanh(x / (2 + x)).
        let s = x / (2.0 + x);
        let square = s * s;
        var t = 0.22222222;
        t = t * square + 0.28571430;
        t = t * square + 0.4;
        t = t * square + 0.66666667;
        return 2.0 * s + t * square * s;
    }
    // What 1 + x loses is added to first order.
    let sum = 1.0 + x;
    let lost = x - (sum - 1.0);
    return log_of(sum) + lost / sum;
}

fn sign_of(x: f32, y: f32) -> f32 { return bitcast<f32>((bitcast<u32>(y) & 0x80000000u) | (bitcast<u32>(x) & 0x7fffffffu)); }

fn tanh_of(v: f32) -> f32 {
    if (is_nan(v)) { return v; }
    let x = abs(v);
    if (x < 0.625) {
        let square = x * x;
        var s = 0.0022927448;
        s = s * square - 0.008343945;
        s = s * square + 0.021768918;
        s = s * square - 0.053959258;
        s = s * square + 0.13333304;
        s = s * square - 0.33333334;
        return sign_of(s * square * x + x, v);
    }
    return sign_of(1.0 - 2.0 / (exp_of(2.0 * x) + 1.0), v);
}

fn erf_of(v: f32) -> f32 {
    if (is_nan(v)) { return v; }
    let x = abs(v);
    if (x < 0.92) {
        let square = x * x;
        var s = 8.399778e-5;
        s = s * square - 8.15005e-4;
        s = s * square + 0.005201715;
        s = s * square - 0.026859691;
        s = s * square + 0.11283701;
        s = s * square - 0.37612635;
        s = s * square + 0.12837917;
        return sign_of(s * x + x, v);
    }
    // The logarithm of what is missing to 1.
    let c = min(x, 4.0);
    var q = 1.6435697e-6;
    q = q * c - 4.6177914e-5;
    q = q * c + 5.977435e-4;
    q = q * c - 0.0047635755;
    q = q * c + 0.026431018;
    q = q * c - 0.11009448;
    q = q * c - 0.63181454;
    q = q * c - 1.1302376;
    q = q * c + 3.2044153e-4;
    return sign_of(1.0 - exp_of(q), v);
}

// 1 / (1 + exp(-x)) of either sign without overflow of what is divided by.
fn sigmoid(x: f32) -> f32 {
    let e = exp_of(-abs(x));
    let r = 1.0 / (1.0 + e);
    return select(r, e * r, x < 0.0);
}

// e^x - 1 within some ulp, x <= 0.
fn expm1_of(x: f32) -> f32 {
    if (x < -0.3) { return exp_of(x) - 1.0; }
    var s = 2.4801587e-5;
    s = s * x + 1.9841270e-4;
    s = s * x + 0.0013888889;
    s = s * x + 0.008333333;
    s = s * x + 0.041666667;
    s = s * x + 0.16666667;
    s = s * x + 0.5;
    return s * (x * x) + x;
}

// The upper 12 bits of a float, whose products with such are exact.
fn upper(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u); }

// The logarithm of x > 0, finite, as a sum of two floats, within 2^-30 of it.
fn log_pair(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let small = bits < 0x00800000u;
    let scaled = select(bits, bitcast<u32>(f32(bits)), small);
    let begun = scaled - 0x3f3504f3u;
    let e = f32(i32(begun) >> 23u) - select(0.0, 149.0, small);
    let f = bitcast<f32>((begun & 0x7fffffu) + 0x3f3504f3u) - 1.0;
    // ln m = 2 atanh(s), s = f / (2 + f), in two parts: what the quotient leaves over is exact in halves.
    let d = 2.0 + f;
    let d_rest = f - (d - 2.0);
    let s = upper(f / d);
    let d_upper = upper(d);
    let left = ((f - s * d_upper) - s * (d - d_upper)) - s * d_rest;
    let s_rest = left / d;
    let all = s + s_rest;
    let square = all * all;
    var t = 0.22222222;
    t = t * square + 0.28571430;
    t = t * square + 0.4;
    t = t * square + 0.66666667;
    let tail = t * square * all;
    // Larger parts have few bits, so that their sum is exact, or is put right.
    let high = e * 0.693359375;
    let sum = high + 2.0 * s;
    let back = sum - high;
    let error = (high - (sum - back)) + (2.0 * s - back);
    return vec2<f32>(sum, error + (2.0 * s_rest + (tail - e * 2.1219444005469058e-4)));
}

// Whether a float is a whole number, and an odd one.
fn is_whole(y: f32) -> bool { return floor(y) == y; }
fn is_odd(y: f32) -> bool { return abs(y) < 16777216.0 && (u32(abs(y)) & 1u) == 1u; }

fn pow_of(x: f32, y: f32) -> f32 {
    if (x == 1.0 || y == 0.0) { return 1.0; }
    if (is_nan(x) || is_nan(y)) { return not_a_number(); }
    let size = abs(x);
    let negative = (bitcast<u32>(x) >> 31u) == 1u;
    let turned = negative && is_finite(y) && is_whole(y) && is_odd(y);
    let sign = select(1.0, -1.0, turned);
    let up = y > 0.0;
    if ((bitcast<u32>(x) & 0x7fffffffu) == 0u) { return sign * select(infinity(), 0.0, up); }
    if (!is_finite(y)) {
        if (size == 1.0) { return 1.0; }
        return select(0.0, infinity(), (size > 1.0) == up);
    }
    if (!is_finite(x)) { return sign * select(0.0, infinity(), up); }
    if (negative && !is_whole(y)) { return not_a_number(); }
    // y ln |x| in two parts; far beyond what e^ is of, y alone decides.
    let most = clamp(y, -1e30, 1e30);
    let l = log_pair(size);
    let l_upper = upper(l.x);
    let y_upper = upper(most);
    let product = most * l.x;
    if (!(abs(product) < 200.0)) { return sign * select(0.0, infinity(), product > 0.0); }
    let error = ((y_upper * l_upper - product) + y_upper * (l.x - l_upper) + (most - y_upper) * l_upper) + (most - y_upper) * (l.x - l_upper);
    let rest = error + most * l.y;
    return sign * exp_pair(product, rest);
}

// e^(x + rest) for a small rest.
fn exp_pair(x: f32, rest: f32) -> f32 {
    if (x > 89.0) { return infinity(); }
    if (x < -104.5) { return 0.0; }
    let n = floor(x * 1.4426950408889634 + 0.5);
    let exact = x - n * 0.693359375;
    let low = n * 2.1219444005469058e-4 + rest;
    let r = exact + low;
    var s = 0.0013926176;
    s = s * r + 0.008363173;
    s = s * r + 0.041666556;
    s = s * r + 0.16666578;
    s = s * r + 0.5;
    let y = 1.0 + (exact + (s * (r * r) + low));
    let half = i32(n) >> 1u;
    return y * power_of_2(half) * power_of_2(i32(n) - half);
}
