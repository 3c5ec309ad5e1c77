// linear_int8_sm80: rows of 8-bit activations times weights of quantised blocks, on the integer tensor cores of sm_80 and later.
// c[m, n] = round((add[m, n] + scale * sum_k x[m, k] w[n, k]) * factor[n] + bias[n]), with x = d q as Int8Blocks has it
// q [m, k] s8, d [m, k / 32], sums [m, k / 16] f32 (of q), w blocks of B -> c [m, n] Y
// grid n / 16 / warps (of each product), m / (16 TOKENS) | block of 1, 2 or 4 warps: each for 16 rows of w | shared none
// B, Y, TOKENS, ALIGNED: from the launch
// bound by the bandwidth for w up to 16 rows. Not measured on a card.
// Order: the products of a sub-block are summed in integers, which round nothing; sub-blocks one by one along k, in f32. Whatever m, n and
// TOKENS are, a result has the same bits.
#include "blocks.cuh"
#include "mma.cuh"

typedef signed char s8;

// Of the formats that have a scale for each 16 values, sub-blocks are half as long.
constexpr bool HALVES = B == Q2_K || B == Q3_K || B == Q6_K;
constexpr bool MINIMUM = B == Q4_1 || B == Q5_1 || B == Q2_K || B == Q4_K || B == Q5_K;
// Of many rows the registers are full; of few, what is wanted is many loads at once.
constexpr int VALUES = BlockShape<B>::VALUES, SUBS = VALUES / 32, UNROLLED = TOKENS > 1 ? 1 : SUBS < 4 ? SUBS : 4;

// Four bytes from a plane, whose address is a multiple of four, or from anywhere.
__device__ __forceinline__ u32 word(const u8* p) {
    return ALIGNED ? *(const u32*)p : p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}
// `by` subtracted from each of four bytes below 128.
__device__ __forceinline__ u32 less(u32 x, u32 by) { return ((x | 0x80808080u) - by * 0x01010101u) ^ 0x80808080u; }
// Bits `bit`.. of a word to the bytes' places: bit i to bit 4 of byte i.
__device__ __forceinline__ u32 fifth(u32 bits) {
    return (bits & 1) << 4 | (bits & 2) << 11 | (bits & 4) << 18 | (bits & 8) << 25;
}

// The quants of values k .. k + 3 of a block, k a multiple of four, as signed bytes.
__device__ __forceinline__ u32 quants(const BlockAt& p, int k) {
    switch (B) {
        case Q8_0: return word(p.q + k);
        case Q4_0: return less(word(p.q + k % 16) >> (k / 16 * 4) & 0x0F0F0F0Fu, 8);
        case Q4_1: return word(p.q + k % 16) >> (k / 16 * 4) & 0x0F0F0F0Fu;
        case Q5_0: return less((word(p.q + k % 16) >> (k / 16 * 4) & 0x0F0F0F0Fu) | fifth(word(p.h) >> k), 16);
        case Q5_1: return (word(p.q + k % 16) >> (k / 16 * 4) & 0x0F0F0F0Fu) | fifth(word(p.h) >> k);
        case Q2_K: return word(p.q + k / 128 * 32 + k % 32) >> (k / 32 % 4 * 2) & 0x03030303u;
        case Q3_K: {
            const u32 low = word(p.q + k / 128 * 32 + k % 32) >> (k / 32 % 4 * 2) & 0x03030303u;
            return less(low | (word(p.h + k % 32) >> (k / 32) & 0x01010101u) << 2, 4);
        }
        case Q4_K: return word(p.q + k / 64 * 32 + k % 32) >> (k / 32 % 2 * 4) & 0x0F0F0F0Fu;
        case Q5_K: return (word(p.q + k / 64 * 32 + k % 32) >> (k / 32 % 2 * 4) & 0x0F0F0F0Fu) | (word(p.h + k % 32) >> (k / 32) & 0x01010101u) << 4;
        default: {
            const u32 low = word(p.q + k / 128 * 64 + k % 64) >> (k / 64 % 2 * 4) & 0x0F0F0F0Fu;
            return less(low | (word(p.h + k / 128 * 32 + k % 32) >> (k / 32 % 4 * 2) & 0x03030303u) << 4, 32);
        }
    }
}

// What the quants of sub-block `sub` (of 32 values, or 16) are multiplied by, and what is subtracted for each.
__device__ __forceinline__ void scales(const BlockAt& p, int sub, float& scale, float& minimum) {
    const float d = half_at(p.d);
    minimum = 0.0f;
    switch (B) {
        case Q8_0: case Q4_0: case Q5_0: scale = d; break;
        case Q4_1: case Q5_1: scale = d, minimum = -half_at(p.d + 2); break;
        case Q2_K: scale = d * (float)(p.s[sub] & 15), minimum = half_at(p.d + 2) * (float)(p.s[sub] >> 4); break;
        case Q3_K: scale = d * (float)scale_of_q3(p.s, sub); break;
        case Q6_K: scale = d * (float)(s8)p.s[sub]; break;
        default: {
            u32 s, m;
            scale_and_min(p.s, sub, s, m);
            scale = d * (float)s, minimum = half_at(p.d + 2) * (float)m;
        }
    }
}

// `sums` of a sub-block's products, added to a result: rounded where it says so, so that it is the same in every kernel.
__device__ __forceinline__ float added(float acc, int sum, float scale, float minimum, float d, float of_q) {
    float v = __fmul_rn(scale, (float)sum);
    if (MINIMUM) v = __fmaf_rn(-minimum, of_q, v);
    return __fmaf_rn(d, v, acc);
}

extern "C" __global__ void __launch_bounds__(128, 2)
linear_int8_sm80(const Three<Y*> cs, const Three<Blocks> weights, const Three<After> afters, const Three<u32> ns, const Three<u32> begin,
                 const s8* __restrict__ q, const float* __restrict__ d, const float* __restrict__ sums, u32 m, u32 k) {
    Y* __restrict__ c = mine(cs, begin);
    const Blocks w = mine(weights, begin);
    const After after = mine(afters, begin);
    const u32 n = mine(ns, begin), place = blockIdx.x - mine(begin, begin);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane / 4, t = lane % 4;
    const u32 n0 = (place * (blockDim.x / 32) + warp) * 16, m0 = blockIdx.y * (16 * TOKENS);
    if (n0 >= n) return;
    // Rows that are not there are read as the last one and not written.
    i64 read[2], meets[2][2];
#pragma unroll
    for (int j = 0; j < 2; j++) {
        read[j] = (i64)(n0 + j * 8 + g < n ? n0 + j * 8 + g : n - 1) * w.row;
#pragma unroll
        for (int e = 0; e < 2; e++) meets[j][e] = (i64)(n0 + j * 8 + t * 2 + e < n ? n0 + j * 8 + t * 2 + e : n - 1) * w.row;
    }
    u32 rows[TOKENS][2];
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) rows[i][h] = m0 + i * 16 + g + h * 8 < m ? m0 + i * 16 + g + h * 8 : m - 1;
    float acc[TOKENS][2][4] = {};
    const u32 subs = k / 32;
    for (u32 block = 0; block < k / VALUES; block++) {
#pragma unroll UNROLLED
        for (int sub = 0; sub < SUBS; sub++) {
            const u32 step = block * SUBS + sub;
            u32 fb[2][2];
            float scale[2][2][2], minimum[2][2][2];  // tile, column, half
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const BlockAt at = block_at(w, read[j] + block);
                // Which of 32 values a lane holds is free, as long as both sides agree; of halves each is a product by itself.
                fb[j][0] = quants(at, sub * 32 + (HALVES ? t * 4 : t * 8));
                fb[j][1] = quants(at, sub * 32 + (HALVES ? 16 + t * 4 : t * 8 + 4));
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const BlockAt met = block_at(w, meets[j][e] + block);
                    if (HALVES) {
                        scales(met, sub * 2, scale[j][e][0], minimum[j][e][0]);
                        scales(met, sub * 2 + 1, scale[j][e][1], minimum[j][e][1]);
                    } else {
                        scales(met, sub, scale[j][e][0], minimum[j][e][0]);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < TOKENS; i++) {
                u32 fa[2][2];
                float dx[2], of_q[2][2];
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const s8* x = q + (u64)rows[i][h] * k + step * 32;
                    fa[h][0] = *(const u32*)(x + (HALVES ? t * 4 : t * 8));
                    fa[h][1] = *(const u32*)(x + (HALVES ? 16 + t * 4 : t * 8 + 4));
                    dx[h] = d[(u64)rows[i][h] * subs + step];
                    if (MINIMUM) {
                        const float2 both = *(const float2*)(sums + ((u64)rows[i][h] * subs + step) * 2);
                        of_q[h][0] = HALVES ? both.x : both.x + both.y;
                        of_q[h][1] = both.y;
                    }
                }
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    int sum[4] = {0, 0, 0, 0};
                    if (HALVES) {
                        int other[4] = {0, 0, 0, 0};
                        ptx::mma_m16n8k16_s8(sum, fa[0][0], fa[1][0], fb[j][0]);
                        ptx::mma_m16n8k16_s8(other, fa[0][1], fa[1][1], fb[j][1]);
#pragma unroll
                        for (int e = 0; e < 4; e++) {
                            acc[i][j][e] = added(acc[i][j][e], sum[e], scale[j][e % 2][0], minimum[j][e % 2][0], dx[e / 2], of_q[e / 2][0]);
                            acc[i][j][e] = added(acc[i][j][e], other[e], scale[j][e % 2][1], minimum[j][e % 2][1], dx[e / 2], of_q[e / 2][1]);
                        }
                    } else {
                        const u32 a[4] = {fa[0][0], fa[1][0], fa[0][1], fa[1][1]};
                        ptx::mma_m16n8k32_s8(sum, a, fb[j][0], fb[j][1]);
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            acc[i][j][e] = added(acc[i][j][e], sum[e], scale[j][e % 2][0], minimum[j][e % 2][0], dx[e / 2], of_q[e / 2][0]);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const u32 row = m0 + i * 16 + g + e / 2 * 8, column = n0 + j * 8 + t * 2 + e % 2;
                if (row >= m || column >= n) continue;
                const u64 at = (u64)row * n + column;
                c[at] = narrow<Y>(finish(acc[i][j][e], after, at, column));
            }
}
