// linear_sm80: the product of up to 16 rows with a layer's weight, of halves, on the tensor cores of sm_80 and later: decoding.
// c[m, n] = round((add[m, n] + scale * sum_k a[m, k] * b[n, k]) * factor[n] + bias[n])
// a [m, k], b [n, k] T, rows at multiples of 16 bytes -> c [m, n] Y
// grid n / 64 | block 128: a warp for 16 rows of b | shared 4 x STAGES x 2 KiB              T, Y: from the launch
// bound by bandwidth: n k sizeof(T) bytes; each warp keeps 14 KiB of b in flight. Not measured on a card.
// Order: one chain over k in steps of 16, as matmul_sm80, so that a row has the same bits alone and among many.
#include "mma.cuh"

constexpr int STAGES = 8, DEPTH = 64, ROWS = 16, STAGE = ROWS * DEPTH * 2;

__device__ __forceinline__ u32 offset(int row, int piece) { return row * (DEPTH * 2) + ((piece ^ (row & 7)) * 16); }

extern "C" __global__ void __launch_bounds__(128)
linear_sm80(Y* __restrict__ c, const T* __restrict__ a, i64 stride_a, const T* __restrict__ b, i64 stride_b, u32 m, u32 n, u32 k, const After after) {
    DYN_SHARED(u8, shared);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane / 4, t = lane % 4;
    const u32 ring = ptx::smem_addr(shared) + warp * (STAGES * STAGE), n0 = blockIdx.x * 64 + warp * ROWS;
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
    // Two elements of a's row `row` from k `at` on; zeros beyond.
    auto pair = [&](u32 row, u32 at) -> u32 { return row < m && at < k ? *(const u32*)(a + (i64)row * stride_a + at) : 0; };
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
            const u32 fa[4] = {pair(g, at), pair(g + 8, at), pair(g, at + 8), pair(g + 8, at + 8)};
            u32 fb[4];
            ptx::ldmatrix_x4(fb, stage + offset(lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
            mma(acc[0], fa, fb[0], fb[1], T());
            mma(acc[1], fa, fb[2], fb[3], T());
        }
    }
    ptx::cp_async_wait<0>();
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const u32 row = g + e / 2 * 8, column = n0 + j * 8 + t * 2 + e % 2;
            if (row >= m || column >= n) continue;
            const u64 at = (u64)row * n + column;
            c[at] = narrow<Y>(finish(acc[j][e], after, at, column));
        }
}
