// matmul_sm80: products of halves on the tensor cores of sm_80 and later.
// c[z, m, n] = round((add[m, n] + scale * sum_k a[z, m, k] * b[z, n, k]) * factor[n] + bias[n])
// a, b T; lines along k, or (A_TURNED, B_TURNED) along m, n; lines at multiples of 16 bytes -> c Y, contiguous
// grid n / BN, m / BM, z | block 32 WARPS_M WARPS_N | shared STAGES (BM + BN) 64 bytes      T, Y, A_TURNED, B_TURNED, SIZE: from the launch
// bound by the tensor cores from 300 rows on, by the bandwidth for b below. Not measured on a card.
// Order: one chain over k in steps of 16 for each result, whatever m, n, z and the tile are: rows do not depend on their neighbours.
#include "mma.cuh"

#if SIZE == 2
constexpr int BM = 128, BN = 128, WARPS_M = 2, WARPS_N = 4;
#else
constexpr int BM = 64, BN = 64, WARPS_M = 2, WARPS_N = 2;
#endif
constexpr int STAGES = 4, THREADS = 32 * WARPS_M * WARPS_N, WM = BM / WARPS_M, WN = BN / WARPS_N;

typedef Tile<BM, A_TURNED> Left;
typedef Tile<BN, B_TURNED> Right;

// Two results side by side, the first at an even column of `n`.
__device__ __forceinline__ void store(Y* c, u64 row, u32 column, u32 n, const After& after, float first, float second) {
    const u64 at = row * n + column;
    if (column < n) c[at] = narrow<Y>(finish(first, after, at, column));
    if (column + 1 < n) c[at + 1] = narrow<Y>(finish(second, after, at + 1, column + 1));
}

extern "C" __global__ void __launch_bounds__(THREADS)
matmul_sm80(Y* __restrict__ c, const T* __restrict__ a, const Layout batch_a, i64 stride_a, const T* __restrict__ b, const Layout batch_b,
            i64 stride_b, u32 m, u32 n, u32 k, u32 batches, const After after) {
    DYN_SHARED(u8, shared);
    const u32 base = ptx::smem_addr(shared);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, wm = warp / WARPS_N, wn = warp % WARPS_N;
    const u32 m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
    const int steps = (int)((k + 31) / 32);
    for (u32 z = blockIdx.z; z < batches; z += gridDim.z) {
        const T *az = a + offset_of(batch_a, z), *bz = b + offset_of(batch_b, z);
        auto load_stage = [&](int step) {
            if (step < steps) {
                const u32 to = base + step % STAGES * (Left::BYTES + Right::BYTES);
                Left::load<T, THREADS>(to, az, stride_a, m, k, m0, step * 32);
                Right::load<T, THREADS>(to + Left::BYTES, bz, stride_b, n, k, n0, step * 32);
            }
            ptx::cp_async_commit();  // an empty group keeps the count
        };
        float acc[WM / 16][WN / 8][4] = {};
        for (int s = 0; s < STAGES - 1; s++) load_stage(s);
        for (int step = 0; step < steps; step++) {
            ptx::cp_async_wait<STAGES - 2>();
            __syncthreads();  // the stage is there for all, and the one to fill again is read by none
            load_stage(step + STAGES - 1);
            const u32 sa = base + step % STAGES * (Left::BYTES + Right::BYTES), sb = sa + Left::BYTES;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                u32 fa[WM / 16][4], fb[WN / 16][4];
#pragma unroll
                for (int i = 0; i < WM / 16; i++) Left::left(fa[i], sa, wm * WM + i * 16, half);
#pragma unroll
                for (int j = 0; j < WN / 16; j++) Right::right(fb[j], sb, wn * WN + j * 16, half);
#pragma unroll
                for (int i = 0; i < WM / 16; i++)
#pragma unroll
                    for (int j = 0; j < WN / 8; j++) mma(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1], T());
            }
        }
        ptx::cp_async_wait<0>();
        __syncthreads();  // before the next product's tiles come
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
#pragma unroll
            for (int j = 0; j < WN / 8; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const u32 row = m0 + wm * WM + i * 16 + lane / 4 + h * 8, column = n0 + wn * WN + j * 8 + lane % 4 * 2;
                    if (row < m) store(c + (u64)z * m * n, row, column, n, after, acc[i][j][h * 2], acc[i][j][h * 2 + 1]);
                }
    }
}
