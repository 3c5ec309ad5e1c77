// Blocks decoded: to a tensor, or rows of them by number. Each value is formed in f32 as puna-quant says and rounded once.
// x blocks of B, rows at any distance -> y [rows, n] Y, contiguous
// grid values / 256 | block 256 | shared none              B, Y: from the launch
// bound by bandwidth: reads each block's bytes once for every 32 lanes, from cache.
#include "blocks.cuh"

typedef BlockShape<B> S;

__device__ __forceinline__ Y value(const Blocks& x, i64 first, u64 k) {
    return narrow<Y>((Wide<Y>::type)block_value<B>(block_at(x, first + (i64)(k / S::VALUES)), (int)(k % S::VALUES)));
}

// `rows`: where each row begins, in blocks.
extern "C" __global__ void __launch_bounds__(256) decode(Y* __restrict__ y, const Blocks x, const Layout rows, u64 columns, u64 n) {
    const u64 i = thread_number();
    if (i < n) y[i] = value(x, offset_of(rows, i / columns), i % columns);
}

// y[i] = row index[i]; of a row that is not there zeros. `inner`: where the rows of a row of the table begin, in blocks.
extern "C" __global__ void __launch_bounds__(256)
gather_blocks(Y* __restrict__ y, const Blocks table, const Layout inner, u64 rows, const u32* __restrict__ index, const Layout at,
              u64 row_values, u64 columns, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const u32 row = index[offset_of(at, i / row_values)];
    const u64 k = i % row_values;
    y[i] = row < rows ? value(table, (i64)row * table.row + offset_of(inner, k / columns), k % columns) : narrow<Y>((Wide<Y>::type)0);
}
