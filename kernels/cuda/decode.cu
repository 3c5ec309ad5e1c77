// Blocks decoded: to a tensor, or rows of them by number. Each value is formed in f32 as puna-quant says and rounded once.
// x [rows, n] blocks of B, rows at any distance -> y [rows, n] Y, contiguous
// grid values / 256 | block 256 | shared none              B, Y: from the launch
// bound by bandwidth: reads each block's bytes once for every 32 lanes, from cache.
#include "blocks.cuh"

typedef BlockShape<B> S;

__device__ __forceinline__ Y value(const u8* row, u64 k) {
    const float v = block_value<B>(row + k / S::VALUES * S::BYTES, (int)(k % S::VALUES));
    return narrow<Y>((Wide<Y>::type)v);
}

// `rows`: where each row of blocks begins, in bytes.
extern "C" __global__ void __launch_bounds__(256) decode(Y* __restrict__ y, const u8* __restrict__ x, const Layout rows, u64 columns, u64 n) {
    const u64 i = thread_number();
    if (i < n) y[i] = value(x + offset_of(rows, i / columns), i % columns);
}

// y[i] = row index[i]; of a row that is not there zeros.
extern "C" __global__ void __launch_bounds__(256)
gather_blocks(Y* __restrict__ y, const u8* __restrict__ table, const Layout inner, i64 row_bytes, u64 rows, const u32* __restrict__ index,
              const Layout at, u64 row_values, u64 columns, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const u32 row = index[offset_of(at, i / row_values)];
    const u64 k = i % row_values;
    y[i] = row < rows ? value(table + (i64)row * row_bytes + offset_of(inner, k / columns), k % columns) : narrow<Y>((Wide<Y>::type)0);
}
