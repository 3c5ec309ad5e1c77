// One value of a quantised block, as puna-quant's `Fields` defines them: the plain way, byte by byte.
#pragma once
#include "number.cuh"

enum Block { Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, NF4 };

// How many values a block has.
template <int B> struct BlockShape { static constexpr int VALUES = B == NF4 ? 64 : B < Q2_K ? 32 : 256; };

// Where the blocks of a matrix lie: as files have them, or each part (quants, their upper bits, scales of sub-blocks, what is of the whole
// block) in a plane of its own, aligned, which is how weights are packed. A part of block `i` is at its pointer plus `i` steps.
struct Blocks {
    const u8 *q, *h, *s, *d;
    i64 q_step, h_step, s_step, d_step;
    i64 row;  // from a row to the next, in blocks
};

// The parts of one block.
struct BlockAt {
    const u8 *q, *h, *s, *d;
};
__device__ __forceinline__ BlockAt block_at(const Blocks& b, i64 i) {
    return {b.q + i * b.q_step, b.h + i * b.h_step, b.s + i * b.s_step, b.d + i * b.d_step};
}

// The levels of NF4: quantiles of the normal distribution. Dettmers and others 2023, arXiv 2305.14314.
__constant__ const float NF4_LEVELS[16] = {
    -1.0f,       -0.6961928f, -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f, -0.091050036f, 0.0f,
    0.0795803f,  0.1609302f,  0.2461123f,   0.33791524f, 0.44070983f,  0.562617f,    0.72295684f,   1.0f,
};

__device__ __forceinline__ float half_at(const u8* p) {
    f16 h;
    h.bits = (u16)(p[0] | p[1] << 8);
    return widen(h);
}
// Numbers of `bits` bits in runs of `stride` bytes, each run holding 8 / bits runs of numbers, the first in the lowest bits.
__device__ __forceinline__ u32 bits_at(const u8* p, int stride, int bits, int i) {
    const int level = i / stride % (8 / bits), byte = i / (stride * (8 / bits)) * stride + i % stride;
    return p[byte] >> (level * bits) & ((1u << bits) - 1);
}
// The 6-bit scale and minimum of sub-block `sub` of eight, from 12 bytes.
__device__ __forceinline__ void scale_and_min(const u8* p, int sub, u32& scale, u32& minimum) {
    if (sub < 4) {
        scale = p[sub] & 63;
        minimum = p[sub + 4] & 63;
    } else {
        scale = (p[sub + 4] & 15) | (p[sub - 4] >> 6) << 4;
        minimum = p[sub + 4] >> 4 | (p[sub] >> 6) << 4;
    }
}

// The scale of sub-block `sub` of sixteen of Q3_K, from 12 bytes.
__device__ __forceinline__ int scale_of_q3(const u8* s, int sub) {
    const u32 low = sub < 8 ? s[sub] & 15 : s[sub - 8] >> 4;
    return (int)(low | (s[8 + sub % 4] >> (2 * (sub / 4)) & 3) << 4) - 32;
}

// Products and differences are rounded one by one, as the definition says: a fused one would give another last bit.
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }

// Value `i` of a block.
template <int B> __device__ __forceinline__ float block_value(const BlockAt& p, int i) {
    switch (B) {
        case Q8_0: return times(half_at(p.d), (float)(signed char)p.q[i]);
        case Q4_0: return times(half_at(p.d), (float)((int)bits_at(p.q, 16, 4, i) - 8));
        case Q4_1: return plus(times(half_at(p.d), (float)bits_at(p.q, 16, 4, i)), half_at(p.d + 2));
        case Q5_0: return times(half_at(p.d), (float)((int)(bits_at(p.q, 16, 4, i) | (p.h[i / 8] >> i % 8 & 1) << 4) - 16));
        case Q5_1: return plus(times(half_at(p.d), (float)(bits_at(p.q, 16, 4, i) | (p.h[i / 8] >> i % 8 & 1) << 4)), half_at(p.d + 2));
        case Q2_K: {
            const u8 s = p.s[i / 16];
            const float q = (float)bits_at(p.q, 32, 2, i);
            return plus(times(times(half_at(p.d), (float)(s & 15)), q), -times(half_at(p.d + 2), (float)(s >> 4)));
        }
        case Q3_K: {
            const int q = (int)(bits_at(p.q, 32, 2, i) | bits_at(p.h, 32, 1, i) << 2) - 4;
            return times(times(half_at(p.d), (float)scale_of_q3(p.s, i / 16)), (float)q);
        }
        case Q4_K: {
            u32 scale, minimum;
            scale_and_min(p.s, i / 32, scale, minimum);
            const float q = (float)bits_at(p.q, 32, 4, i);
            return plus(times(times(half_at(p.d), (float)scale), q), -times(half_at(p.d + 2), (float)minimum));
        }
        case Q5_K: {
            u32 scale, minimum;
            scale_and_min(p.s, i / 32, scale, minimum);
            const float q = (float)(bits_at(p.q, 32, 4, i) | bits_at(p.h, 32, 1, i) << 4);
            return plus(times(times(half_at(p.d), (float)scale), q), -times(half_at(p.d + 2), (float)minimum));
        }
        case Q6_K: {
            const int q = (int)(bits_at(p.q, 64, 4, i) | bits_at(p.h, 32, 2, i) << 4) - 32;
            return times(times(half_at(p.d), (float)(signed char)p.s[i / 16]), (float)q);
        }
        default: {
            const u8 pair = p.q[i / 2];
            const float largest = bits_float(p.d[0] | (u32)p.d[1] << 8 | (u32)p.d[2] << 16 | (u32)p.d[3] << 24);
            return times(largest, NF4_LEVELS[i % 2 ? pair & 15 : pair >> 4]);
        }
    }
}

// Value `column` of a row of blocks.
template <int B> __device__ __forceinline__ float value_at(const Blocks& b, i64 row, i64 column) {
    constexpr int VALUES = BlockShape<B>::VALUES;
    return block_value<B>(block_at(b, row * b.row + column / VALUES), (int)(column % VALUES));
}
