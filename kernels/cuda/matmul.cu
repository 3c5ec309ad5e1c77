// matmul: the plain product, right for every shape, layout, dtype and architecture; what the fast paths are measured against.
// c[z, m, n] = round((add[m, n] + scale * sum_k a[z, m, k] * b[z, k, n]) * factor[n] + bias[n])
// a X, any strides; b W, any strides, or blocks of B in rows along k (or along n, where `by_rows`) -> c Y, contiguous; add, factor, bias in the
// accumulating dtype, or absent
// grid n / TILE, m / TILE, z | block 256 | shared TILE x 16 of each              X, W or B, Y, TILE: from the launch
// bound by fused multiply-adds; two blocks a multiprocessor, 16 KiB of shared memory each (TILE 128). Order: one chain over k for each result, in f32 (f64 for f64), whatever m, n, z and TILE are.
#include "blocks.cuh"

typedef Wide<X>::type A;

#define DEPTH 16
// A thread's results: EACH x EACH, in groups of four that lie half a tile apart (so that a quarter of a warp reads 128 bytes side by side).
#define EACH (TILE / 16)

__device__ __forceinline__ int place(int thread, int i) { return i / 4 * (TILE / 2) + thread * 4 + i % 4; }

#ifdef B
typedef Blocks Operand;
__device__ __forceinline__ Operand shifted(const Operand& b, i64) { return b; }
__device__ __forceinline__ A value_of(const Operand& b, i64 row, i64 column, i64, i64) { return (A)value_at<B>(b, row, column); }
#else
typedef const W* Operand;
__device__ __forceinline__ Operand shifted(Operand b, i64 by) { return b + by; }
__device__ __forceinline__ A value_of(Operand b, i64 row, i64 column, i64 sb0, i64 sb1) { return (A)widen(b[row * sb0 + column * sb1]); }
#endif

// Element (row, column) of b is `row * sb0 + column * sb1` from its beginning; rows are k where `by_rows`, else n.
extern "C" __global__ void __launch_bounds__(256, 2)
matmul(Y* __restrict__ c, const X* __restrict__ a, const Layout batch_a, i64 sa_m, i64 sa_k, const Operand first, const Layout batch_b,
       i64 sb0, i64 sb1, int by_rows, u32 m, u32 n, u32 k, u32 batches, const A* __restrict__ add, double scale, const A* __restrict__ factor,
       const A* __restrict__ bias) {
    __shared__ A as[DEPTH][TILE + 4];
    __shared__ A bs[DEPTH][TILE + 4];
    const int tid = threadIdx.x, tx = tid % 16, ty = tid / 16;
    const u32 m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    for (u32 z = blockIdx.z; z < batches; z += gridDim.z) {
        const X* az = a + offset_of(batch_a, z);
        const Operand b = shifted(first, offset_of(batch_b, z));
        A acc[EACH][EACH] = {};
        for (u32 k0 = 0; k0 < k; k0 += DEPTH) {
            // Neighbouring lanes read along the axis whose elements lie side by side.
            for (int i = tid; i < TILE * DEPTH; i += 256) {
                const int kk = sa_k == 1 ? i % DEPTH : i / TILE, r = sa_k == 1 ? i / DEPTH : i % TILE;
                as[kk][r] = m0 + r < m && k0 + kk < k ? widen(az[(i64)(m0 + r) * sa_m + (i64)(k0 + kk) * sa_k]) : (A)0;
            }
            for (int i = tid; i < TILE * DEPTH; i += 256) {
                const int kk = by_rows ? i / TILE : i % DEPTH, r = by_rows ? i % TILE : i / DEPTH;
                const i64 row = by_rows ? (i64)(k0 + kk) : (i64)(n0 + r), column = by_rows ? (i64)(n0 + r) : (i64)(k0 + kk);
                bs[kk][r] = n0 + r < n && k0 + kk < k ? value_of(b, row, column, sb0, sb1) : (A)0;
            }
            __syncthreads();
#pragma unroll
            for (int kk = 0; kk < DEPTH; kk++) {
                A x[EACH], y[EACH];
#pragma unroll
                for (int i = 0; i < EACH; i++) x[i] = as[kk][place(ty, i)], y[i] = bs[kk][place(tx, i)];
#pragma unroll
                for (int i = 0; i < EACH; i++)
#pragma unroll
                    for (int j = 0; j < EACH; j++) acc[i][j] = fma_of(x[i], y[j], acc[i][j]);
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const u32 row = m0 + place(ty, i), column = n0 + place(tx, j);
                if (row >= m || column >= n) continue;
                A v = acc[i][j] * (A)scale;
                if (add) v = add[(u64)row * n + column] + v;
                if (factor) v *= factor[column];
                if (bias) v += bias[column];
                c[((u64)z * m + row) * n + column] = narrow<Y>(v);
            }
    }
}
