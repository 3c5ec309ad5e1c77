// Sine and cosine of any f32, within 2 ulp. Payne and Hanek 1983: of x times 2 / pi only the two bits above the point and what is behind
// it matter, and those are had in integers.

// The bits of 2 / pi behind the point.
const TWO_OVER_PI = array<u32, 7>(0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu);

// Word `i` of them, zeros before the first.
fn word_of(i: i32) -> u32 {
    if (i < 0 || i > 6) { return 0u; }
    var words = TWO_OVER_PI;
    return words[i];
}
// 32 bits from bit `at` on.
fn bits_from(at: i32) -> u32 {
    let word = at >> 5u;
    let shift = u32(at & 31);
    let first = word_of(word);
    if (shift == 0u) { return first; }
    return (first << shift) | (word_of(word + 1) >> (32u - shift));
}

// |x| = (4 a + quadrant) pi / 2 + rest, |rest| <= pi / 4; x finite.
struct Turn { quadrant: u32, rest: f32 }
fn turn_of(size: f32) -> Turn {
    if (size < 0.78539816) { return Turn(0u, size); }
    let bits = bitcast<u32>(size);
    // size = m 2^e, m of 32 bits whose first is set.
    let m = (bits << 8u) | 0x80000000u;
    let e = i32(bits >> 23u) - 127 - 31;
    // Bits of 2 / pi from 2^-(e - 2) on: what is above them gives whole turns.
    let first = e - 2;
    let a = bits_from(first);
    let b = bits_from(first + 32);
    let c = bits_from(first + 64);
    // The upper 64 bits of the product's last 96: a point behind the first two.
    let low = wide_product(m, c);
    let middle = wide_product(m, b);
    let p0 = middle.x + low.y;
    var p1 = m * a + middle.y + select(0u, 1u, p0 < middle.x);
    var q = p1 >> 30u;
    // What is behind the point, in 62 bits; of more than a half the rest to the next quadrant.
    var high = (p1 << 2u) | (p0 >> 30u);
    var tail = p0 << 2u;
    let over = (high >> 31u) == 1u;
    if (over) {
        q += 1u;
        tail = ~tail + 1u;
        high = ~high + select(0u, 1u, tail == 0u);
    }
    // Normalised, so that its 24 bits are its own.
    var exponent = -32;
    if (high == 0u) {
        high = tail;
        tail = 0u;
        exponent = -64;
    }
    if (high == 0u) { return Turn(q & 3u, 0.0); }
    let zeros = countLeadingZeros(high);
    let whole = select((high << zeros) | (tail >> (32u - zeros)), high, zeros == 0u);
    let rest = f32(whole >> 8u) * power_of_2(exponent - i32(zeros) + 8) * 1.5707963267948966;
    return Turn(q & 3u, select(rest, -rest, over));
}

fn sin_near(x: f32) -> f32 {
    let s = x * x;
    var t = 2.7525562e-6;
    t = t * s - 1.9840874e-4;
    t = t * s + 8.3333310e-3;
    t = t * s - 0.16666667;
    return t * s * x + x;
}
fn cos_near(x: f32) -> f32 {
    let s = x * x;
    var t = -2.6051615e-7;
    t = t * s + 2.4760495e-5;
    t = t * s - 1.3888378e-3;
    t = t * s + 4.1666638e-2;
    t = t * s - 0.5;
    return t * s + 1.0;
}

fn sin_of(x: f32) -> f32 {
    if (!is_finite(x)) { return not_a_number(); }
    let t = turn_of(abs(x));
    var y = sin_near(t.rest);
    if ((t.quadrant & 1u) == 1u) { y = cos_near(t.rest); }
    if (t.quadrant >= 2u) { y = -y; }
    return select(y, -y, (bitcast<u32>(x) >> 31u) == 1u);
}
fn cos_of(x: f32) -> f32 {
    if (!is_finite(x)) { return not_a_number(); }
    let t = turn_of(abs(x));
    var y = cos_near(t.rest);
    if ((t.quadrant & 1u) == 1u) { y = sin_near(t.rest); }
    return select(y, -y, t.quadrant == 1u || t.quadrant == 2u);
}
