// Values of a quantised block of B, four at a time, as puna-quant's `Fields` defines them. `w_at(i)`: byte `i`; `w_word(i)`: four of them.
// Products are exact in f32 (a scale of 11 bits, another of 6 or 8, a quant), so that fusing them with a sum changes no bit.

fn half_at(i: u32) -> f32 { return of_f16(w_at(i) | (w_at(i + 1u) << 8u)); }
fn signed_at(i: u32) -> f32 { return f32(i32(w_at(i) << 24u) >> 24u); }
// The bytes of a word, each with what is set in `mask` only.
fn bytes_of(word: u32, mask: u32) -> vec4<u32> { return (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(mask); }
// Of numbers of `bits` bits in runs of `stride` bytes, each run holding 8 / bits runs of numbers, the first in the lowest bits, those from `i` on.
fn bits_at(q: u32, stride: u32, bits: u32, i: u32) -> vec4<u32> {
    let levels = 8u / bits;
    let level = i / stride % levels;
    let byte = i / (stride * levels) * stride + i % stride;
    return bytes_of(w_word(q + byte) >> (level * bits), (1u << bits) - 1u);
}
// The four bits from bit `i` of some on, each as the fifth of a quant.
fn fifths_at(h: u32, i: u32) -> vec4<u32> {
    return ((vec4<u32>(w_at(h + i / 8u) >> (i % 8u)) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u)) << vec4<u32>(4u);
}
// The 6-bit scale and minimum of sub-block `sub` of eight, from 12 bytes.
fn scale_and_min(s: u32, sub: u32) -> vec2<f32> {
    if (sub < 4u) { return vec2<f32>(vec2<u32>(w_at(s + sub) & 63u, w_at(s + sub + 4u) & 63u)); }
    let both = w_at(s + sub + 4u);
    return vec2<f32>(vec2<u32>((both & 15u) | ((w_at(s + sub - 4u) >> 6u) << 4u), (both >> 4u) | ((w_at(s + sub) >> 6u) << 4u)));
}

// Values `i`, a multiple of 4, and three more of the block whose bytes begin at `b`.
fn block_four(b: u32, i: u32) -> vec4<f32> {
//@ if Q8_0
    return half_at(b) * vec4<f32>(vec4<i32>(bytes_of(w_word(b + 2u + i), 255u) << vec4<u32>(24u)) >> vec4<u32>(24u));
//@ end
//@ if Q4_0
    return half_at(b) * (vec4<f32>(bits_at(b + 2u, 16u, 4u, i)) - 8.0);
//@ end
//@ if Q4_1
    return half_at(b) * vec4<f32>(bits_at(b + 4u, 16u, 4u, i)) + half_at(b + 2u);
//@ end
//@ if Q5_0
    return half_at(b) * (vec4<f32>(bits_at(b + 6u, 16u, 4u, i) | fifths_at(b + 2u, i)) - 16.0);
//@ end
//@ if Q5_1
    return half_at(b) * vec4<f32>(bits_at(b + 8u, 16u, 4u, i) | fifths_at(b + 4u, i)) + half_at(b + 2u);
//@ end
//@ if Q2_K
    let s = w_at(b + i / 16u);
    return (half_at(b + 80u) * f32(s & 15u)) * vec4<f32>(bits_at(b + 16u, 32u, 2u, i)) - half_at(b + 82u) * f32(s >> 4u);
//@ end
//@ if Q3_K
    let sub = i / 16u;
    let s = b + 96u;
    let low = (w_at(s + sub % 8u) >> (4u * (sub / 8u))) & 15u;
    let scale = f32(low | (((w_at(s + 8u + sub % 4u) >> (2u * (sub / 4u))) & 3u) << 4u)) - 32.0;
    let q = vec4<f32>(bits_at(b + 32u, 32u, 2u, i) | (bits_at(b, 32u, 1u, i) << vec4<u32>(2u))) - 4.0;
    return (half_at(b + 108u) * scale) * q;
//@ end
//@ if Q4_K
    let s = scale_and_min(b + 4u, i / 32u);
    return (half_at(b) * s.x) * vec4<f32>(bits_at(b + 16u, 32u, 4u, i)) - half_at(b + 2u) * s.y;
//@ end
//@ if Q5_K
    let s = scale_and_min(b + 4u, i / 32u);
    return (half_at(b) * s.x) * vec4<f32>(bits_at(b + 48u, 32u, 4u, i) | (bits_at(b + 16u, 32u, 1u, i) << vec4<u32>(4u))) - half_at(b + 2u) * s.y;
//@ end
//@ if Q6_K
    let q = vec4<f32>(bits_at(b, 64u, 4u, i) | (bits_at(b + 128u, 32u, 2u, i) << vec4<u32>(4u))) - 32.0;
    return (half_at(b + 208u) * signed_at(b + 192u + i / 16u)) * q;
//@ end
//@ if NF4
    let pairs = vec2<u32>(w_at(b + 4u + i / 2u), w_at(b + 5u + i / 2u));
    let largest = bitcast<f32>(w_at(b) | (w_at(b + 1u) << 8u) | (w_at(b + 2u) << 16u) | (w_at(b + 3u) << 24u));
    return largest * vec4<f32>(nf4_level(pairs.x >> 4u), nf4_level(pairs.x & 15u), nf4_level(pairs.y >> 4u), nf4_level(pairs.y & 15u));
//@ end
}
//@ if NF4
// The levels of NF4: quantiles of the normal distribution. Dettmers and others 2023, arXiv 2305.14314.
const NF4_LEVELS = array<f32, 16>(
    -1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
);
fn nf4_level(i: u32) -> f32 {
    var levels = NF4_LEVELS;
    return levels[i];
}
//@ end

// Value `i` of a block.
fn block_value(b: u32, i: u32) -> f32 {
    let four = block_four(b, i & ~3u);
    return four[i & 3u];
}
