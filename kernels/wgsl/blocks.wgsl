// Values of a quantised block of B, four at a time, as puna-quant's `Fields` defines them: a quant times a scale, and an offset. `w_at(i)`: byte
// `i`; `w_pair(i)`, `w_word(i)`: two of them, four. Where there is an offset the product is exact in f32 (a scale of 11 bits, another of 6, a
// quant), so that fusing it with the sum changes no bit.

// Halves begin at even bytes, in one word each.
fn half_at(i: u32) -> f32 { return of_f16(w_pair(i)); }
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

// Scale and offset of value `i` of the block whose bytes begin at `b`: the same for 16 values from a multiple of 16 on.
fn block_scale(b: u32, i: u32) -> vec2<f32> {
//@ if Q8_0
    return vec2<f32>(half_at(b), 0.0);
//@ end
//@ if Q4_0
    return vec2<f32>(half_at(b), 0.0);
//@ end
//@ if Q4_1
    return vec2<f32>(half_at(b), half_at(b + 2u));
//@ end
//@ if Q5_0
    return vec2<f32>(half_at(b), 0.0);
//@ end
//@ if Q5_1
    return vec2<f32>(half_at(b), half_at(b + 2u));
//@ end
//@ if Q2_K
    let s = w_at(b + i / 16u);
    return vec2<f32>(half_at(b + 80u) * f32(s & 15u), -(half_at(b + 82u) * f32(s >> 4u)));
//@ end
//@ if Q3_K
    let sub = i / 16u;
    let s = b + 96u;
    let low = (w_at(s + sub % 8u) >> (4u * (sub / 8u))) & 15u;
    let high = (w_at(s + 8u + sub % 4u) >> (2u * (sub / 4u))) & 3u;
    return vec2<f32>(half_at(b + 108u) * (f32(low | (high << 4u)) - 32.0), 0.0);
//@ end
//@ if Q4_K
    let s = scale_and_min(b + 4u, i / 32u);
    return vec2<f32>(half_at(b) * s.x, -(half_at(b + 2u) * s.y));
//@ end
//@ if Q5_K
    let s = scale_and_min(b + 4u, i / 32u);
    return vec2<f32>(half_at(b) * s.x, -(half_at(b + 2u) * s.y));
//@ end
//@ if Q6_K
    return vec2<f32>(half_at(b + 208u) * signed_at(b + 192u + i / 16u), 0.0);
//@ end
//@ if NF4
    return vec2<f32>(bitcast<f32>(w_word(b)), 0.0);
//@ end
}

// The quants of values `i`, a multiple of 4, and three more.
fn block_quants(b: u32, i: u32) -> vec4<f32> {
//@ if Q8_0
    return vec4<f32>(vec4<i32>(bytes_of(w_word(b + 2u + i), 255u) << vec4<u32>(24u)) >> vec4<u32>(24u));
//@ end
//@ if Q4_0
    return vec4<f32>(bits_at(b + 2u, 16u, 4u, i)) - 8.0;
//@ end
//@ if Q4_1
    return vec4<f32>(bits_at(b + 4u, 16u, 4u, i));
//@ end
//@ if Q5_0
    return vec4<f32>(bits_at(b + 6u, 16u, 4u, i) | fifths_at(b + 2u, i)) - 16.0;
//@ end
//@ if Q5_1
    return vec4<f32>(bits_at(b + 8u, 16u, 4u, i) | fifths_at(b + 4u, i));
//@ end
//@ if Q2_K
    return vec4<f32>(bits_at(b + 16u, 32u, 2u, i));
//@ end
//@ if Q3_K
    return vec4<f32>(bits_at(b + 32u, 32u, 2u, i) | (bits_at(b, 32u, 1u, i) << vec4<u32>(2u))) - 4.0;
//@ end
//@ if Q4_K
    return vec4<f32>(bits_at(b + 16u, 32u, 4u, i));
//@ end
//@ if Q5_K
    return vec4<f32>(bits_at(b + 48u, 32u, 4u, i) | (bits_at(b + 16u, 32u, 1u, i) << vec4<u32>(4u)));
//@ end
//@ if Q6_K
    return vec4<f32>(bits_at(b, 64u, 4u, i) | (bits_at(b + 128u, 32u, 2u, i) << vec4<u32>(4u))) - 32.0;
//@ end
//@ if NF4
    let pairs = w_pair(b + 4u + i / 2u);
    return vec4<f32>(nf4_level((pairs >> 4u) & 15u), nf4_level(pairs & 15u), nf4_level(pairs >> 12u), nf4_level((pairs >> 8u) & 15u));
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

// The four values.
fn block_four(b: u32, i: u32) -> vec4<f32> {
    let s = block_scale(b, i);
    return s.x * block_quants(b, i) + s.y;
}
// Value `i` of a block.
fn block_value(b: u32, i: u32) -> f32 {
    let four = block_four(b, i & ~3u);
    return four[i & 3u];
}
