// linear_sm80: products of few rows with the weights of a layer, of halves, on the tensor cores of sm_80 and later: decoding.
// c[m, n] = round((add[m, n] + scale * sum_k a[m, k] * b[n, k]) * factor[n] + bias[n])
// a [m, k] X, b [n, k] T, rows at multiples of 16 bytes -> c [m, n] Y; X is T, or f32 beside bf16: then each of a's numbers is three of bf16,
// which sum to it, and nothing is rounded away
// grid n / 16 / warps (of each product), m / 16 | block of 1, 2 or 4 warps: each for 16 rows of b | shared warps x STAGES x 2 KiB    X, T, Y: from the launch
// bound by bandwidth: n k sizeof(T) bytes; each warp keeps 14 KiB of b in flight. Not measured on a card.
// Order: one chain over k in steps of 16, with X = T as matmul_sm80, so that a row has the same bits alone and among many.
#include "mma.cuh"

constexpr int STAGES = 8, DEPTH = 64, ROWS = 16, STAGE = ROWS * DEPTH * 2;

__device__ __forceinline__ u32 offset(int row, int piece) { return row * (DEPTH * 2) + ((piece ^ (row & 7)) * 16); }

// Two numbers side by side, as the parts that the tensor cores take.
template <class N> struct Pair;
template <> struct Pair<T> {
    static constexpr int PARTS = 1;
    static __device__ __forceinline__ void read(u32 (&parts)[1], const T* p, bool there) { parts[0] = there ? *(const u32*)p : 0; }
};
template <> struct Pair<f32> {
    static constexpr int PARTS = 3;
    static __device__ __forceinline__ void read(u32 (&parts)[3], const f32* p, bool there) {
        const float2 both = there ? *(const float2*)p : make_float2(0.0f, 0.0f);
        float low = both.x, high = both.y;
#pragma unroll
        for (int i = 0; i < 3; i++) {
            parts[i] = ptx::pack_bf16x2(low, high);
            const float taken_low = low_of(parts[i], bf16()), taken_high = high_of(parts[i], bf16());
            // Of what is not finite there is no rest.
            low = taken_low - taken_low == 0.0f ? low - taken_low : 0.0f;
            high = taken_high - taken_high == 0.0f ? high - taken_high : 0.0f;
        }
    }
};

extern "C" __global__ void __launch_bounds__(128, 1)
linear_sm80(const Three<Y*> cs, const Three<const T*> weights, const Three<i64> strides, const Three<After> afters, const Three<u32> ns,
            const Three<u32> begin, const X* __restrict__ a, i64 stride_a, u32 m, u32 k) {
    DYN_SHARED(u8, shared);
    Y* __restrict__ c = mine(cs, begin);
    const T* __restrict__ b = mine(weights, begin);
    const i64 stride_b = mine(strides, begin);
    const After after = mine(afters, begin);
    const u32 n = mine(ns, begin), block = blockIdx.x - mine(begin, begin);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane / 4, t = lane % 4;
    const u32 ring = ptx::smem_addr(shared) + warp * (STAGES * STAGE), n0 = (block * (blockDim.x / 32) + warp) * ROWS, m0 = blockIdx.y * 16;
    const int steps = (int)((k + DEPTH - 1) / DEPTH);
    auto load_stage = [&](int step) {
        if (step < steps) {
            const u32 to = ring + step % STAGES * STAGE, k0 = step * DEPTH;
#pragma unroll
            for (int i = lane; i < ROWS * DEPTH / 8; i += 32) {
                const int row = i / (DEPTH / 8), piece = i % (DEPTH / 8);
                const u32 at = k0 + piece * 8, left = n0 + row < n && at < k ? (k - at < 8 ? k - at : 8) : 0;
                ptx::cp_async_16(to + offset(row, piece), left ? b + (i64)(n0 + row) * stride_b + at : b, left * 2);
            }
        }
        ptx::cp_async_commit();
    };
    float acc[2][4] = {};
    for (int s = 0; s < STAGES - 1; s++) load_stage(s);
    for (int step = 0; step < steps; step++) {
        ptx::cp_async_wait<STAGES - 2>();
        __syncwarp();  // the stage is there for the whole warp, and the one to fill again is read by none of it
        load_stage(step + STAGES - 1);
        const u32 stage = ring + step % STAGES * STAGE;
#pragma unroll
        for (int i = 0; i < DEPTH / 16; i++) {
            const u32 at = step * DEPTH + i * 16 + t * 2;
            // The pairs of two rows, at two places of k; zeros beyond.
            u32 pairs[4][Pair<X>::PARTS], fb[4];
#pragma unroll
            for (int p = 0; p < 4; p++) {
                const u32 row = m0 + g + p % 2 * 8, column = at + p / 2 * 8;
                Pair<X>::read(pairs[p], a + (i64)row * stride_a + column, row < m && column < k);
            }
            ptx::ldmatrix_x4(fb, stage + offset(lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
#pragma unroll
            for (int part = 0; part < Pair<X>::PARTS; part++) {
                const u32 fa[4] = {pairs[0][part], pairs[1][part], pairs[2][part], pairs[3][part]};
                mma(acc[0], fa, fb[0], fb[1], T());
                mma(acc[1], fa, fb[2], fb[3], T());
            }
        }
    }
    ptx::cp_async_wait<0>();
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const u32 row = m0 + g + e / 2 * 8, column = n0 + j * 8 + t * 2 + e % 2;
            if (row >= m || column >= n) continue;
            const u64 at = (u64)row * n + column;
            c[at] = narrow<Y>(finish(acc[j][e], after, at, column));
        }
}
