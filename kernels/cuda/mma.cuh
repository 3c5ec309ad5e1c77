// Tiles of half-precision operands in shared memory, and the tensor cores of sm_80 over them.
#pragma once
#include "number.cuh"

// The product of two halves' fragments, added to `d`: m16n8k16, f32 sums.
__device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, bf16) { ptx::mma_m16n8k16_bf16(d, a, b0, b1); }
__device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, f16) { ptx::mma_m16n8k16_f16(d, a, b0, b1); }

__device__ __forceinline__ u32 pack(float low, float high, bf16) { return ptx::pack_bf16x2(low, high); }
__device__ __forceinline__ u32 pack(float low, float high, f16) { return ptx::pack_f16x2(low, high); }

// What follows a sum before it is rounded: (add + scale * sum) * factor + bias; what is absent is null.
struct After {
    const float* add;     // [m, n]
    const float* factor;  // [n]
    const float* bias;    // [n]
    float scale;
    u32 unused;
};

// `at`: the result's place, `column` its n.
__device__ __forceinline__ float finish(float sum, const After& after, u64 at, u32 column) {
    // Rounded one by one, so that it is the same in every kernel.
    float v = __fmul_rn(sum, after.scale);
    if (after.add) v = __fadd_rn(after.add[at], v);
    if (after.factor) v = __fmul_rn(v, after.factor[column]);
    if (after.bias) v = __fadd_rn(v, after.bias[column]);
    return v;
}

// Products of one x with up to three weights, in one launch: each has its own blocks, those of the first come first. What there is of each:
template <class V> struct Three { V of[3]; };

// What belongs to the product of this block; `begin`: its first block, beyond all blocks where there is no such product. Chosen, not indexed:
// parameters that are indexed go to local memory.
template <class V> __device__ __forceinline__ V mine(const Three<V>& all, const Three<u32>& begin) {
    return blockIdx.x >= begin.of[2] ? all.of[2] : blockIdx.x >= begin.of[1] ? all.of[1] : all.of[0];
}

// An operand of ROWS x 32 (k), from memory whose rows lie along k, or (TURNED) whose columns do: then the tile is kept as 32 x ROWS.
// A row of the tile is cut into pieces of 16 bytes, which change places so that the eight rows of an ldmatrix meet all banks once.
template <int ROWS, bool TURNED> struct Tile {
    static constexpr int DEPTH = 32, LINES = TURNED ? DEPTH : ROWS, PIECES = TURNED ? ROWS / 8 : DEPTH / 8, BYTES = ROWS * DEPTH * 2;

    static __device__ __forceinline__ u32 offset(int line, int piece) {
        return TURNED ? line * (PIECES * 16) + ((piece ^ (line & 7)) * 16) : line * 64 + ((piece ^ ((line >> 1) & 3)) * 16);
    }

    // Loads rows from `row0` on and k from `k0` on; zeros beyond `rows` and `k`. `stride`: from a line in memory to the next, in elements.
    template <class T, int THREADS>
    static __device__ __forceinline__ void load(u32 to, const T* __restrict__ from, i64 stride, u32 rows, u32 k, u32 row0, u32 k0) {
        const u32 line0 = TURNED ? k0 : row0, lines = TURNED ? k : rows, first = TURNED ? row0 : k0, length = TURNED ? rows : k;
#pragma unroll
        for (int i = threadIdx.x; i < LINES * PIECES; i += THREADS) {
            const int line = i / PIECES, piece = i % PIECES;
            const u32 at = first + piece * 8;
            const u32 left = line0 + line < lines && at < length ? (length - at < 8 ? length - at : 8) : 0;
            ptx::cp_async_16(to + offset(line, piece), left ? from + (i64)(line0 + line) * stride + at : from, left * 2);
        }
    }

    // The fragment of 16 rows from `row` on and 16 of k from 16 `step` on, as the left operand takes it.
    static __device__ __forceinline__ void left(u32 (&f)[4], u32 tile, int row, int step) {
        const int lane = threadIdx.x & 31;
        if (TURNED) ptx::ldmatrix_x4_trans(f, tile + offset(step * 16 + lane % 8 + lane / 16 * 8, row / 8 + lane / 8 % 2));
        else ptx::ldmatrix_x4(f, tile + offset(row + lane % 16, step * 2 + lane / 16));
    }

    // The same as two right operands, of 8 rows each: f[0], f[1] and f[2], f[3].
    static __device__ __forceinline__ void right(u32 (&f)[4], u32 tile, int row, int step) {
        const int lane = threadIdx.x & 31;
        if (TURNED) ptx::ldmatrix_x4_trans(f, tile + offset(step * 16 + lane / 8 % 2 * 8 + lane % 8, row / 8 + lane / 16));
        else ptx::ldmatrix_x4(f, tile + offset(row + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
    }
};

// The parts of a number that halves hold, the largest first.
template <class H> struct Parts;
template <> struct Parts<bf16> { static constexpr int COUNT = 3; };
template <> struct Parts<f16> { static constexpr int COUNT = 2; };
__device__ __forceinline__ float low_of(u32 pair, bf16) { return bits_float(pair << 16); }
__device__ __forceinline__ float high_of(u32 pair, bf16) { return bits_float(pair & 0xFFFF0000u); }
__device__ __forceinline__ float low_of(u32 pair, f16) { f16 h; h.bits = (u16)pair; return widen(h); }
__device__ __forceinline__ float high_of(u32 pair, f16) { f16 h; h.bits = (u16)(pair >> 16); return widen(h); }

// The results of two tiles side by side, as a left operand of halves for each part of what they hold.
template <class H>
__device__ __forceinline__ void parts_of(u32 (&parts)[Parts<H>::COUNT][4], const float (&first)[4], const float (&second)[4], H) {
#pragma unroll
    for (int w = 0; w < 4; w++) {
        float low = w / 2 ? second[w % 2 * 2] : first[w % 2 * 2], high = w / 2 ? second[w % 2 * 2 + 1] : first[w % 2 * 2 + 1];
#pragma unroll
        for (int part = 0; part < Parts<H>::COUNT; part++) {
            parts[part][w] = pack(low, high, H());
            low -= low_of(parts[part][w], H());
            high -= high_of(parts[part][w], H());
        }
    }
}
