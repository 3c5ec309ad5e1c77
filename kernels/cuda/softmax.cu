// Softmax and its logarithm over the last axis: a row per block.
// x [rows, n] T, rows at any distance -> y [rows, n] T
// grid rows | block 256 | shared 8 numbers              T: from the launch
// bound by bandwidth: three reads, from cache where a row fits, and a write. Order: lanes take 16 bytes each, stride by 256 of
// them, tree. Depends on n alone.
#include "block_reduce.cuh"
#include "rows.cuh"

typedef Wide<T>::type A;

extern "C" __global__ void __launch_bounds__(256)
softmax(T* __restrict__ y, const T* __restrict__ x, const Layout at, i64 step, u64 n, u64 rows, int logarithm) {
    __shared__ A room[8];
    const u64 row = block_number();
    if (row >= rows) return;
    x += offset_of(at, row);
    constexpr int COUNT = Lane<T>::COUNT;
    const bool aligned = step == 1 && is_aligned(x), aligned_y = is_aligned(y + row * n);
    A most = -infinity_of<A>();
    for (u64 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A v[COUNT];
        read<T>(v, x, i, n, step, aligned, -infinity_of<A>());
#pragma unroll
        for (int j = 0; j < COUNT; j++) most = larger(most, v[j]);
    }
    most = block_reduce<256>(most, room, Largest());
    // Of nothing but -inf the difference would be NaN; the logarithm's definition gives that, a softmax zeros.
    const bool nothing = most == -infinity_of<A>() && !logarithm;
    const A shift = nothing ? (A)0 : most;
    A sum = (A)0;
    for (u64 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A v[COUNT];
        read<T>(v, x, i, n, step, aligned, -infinity_of<A>());
#pragma unroll
        for (int j = 0; j < COUNT; j++)
            if (i + j < n) sum += exp_of(v[j] - shift);
    }
    sum = block_reduce<256>(sum, room, Sum());
    if (nothing) sum = (A)1;
    const A log_sum = logarithm ? log_of(sum) : (A)0;
    for (u64 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A v[COUNT];
        read<T>(v, x, i, n, step, aligned, (A)0);
#pragma unroll
        for (int j = 0; j < COUNT; j++) v[j] = logarithm ? v[j] - shift - log_sum : exp_of(v[j] - shift) / sum;
        write<T>(y + row * n, i, n, aligned_y, v);
    }
}
