// Softmax and its logarithm over the last axis: a row per block.
// x [rows, n] T, rows at any distance -> y [rows, n] T
// grid rows | block 256 | shared 8 numbers              T: from the launch
// bound by bandwidth: three reads, from cache where a row fits, and a write. Order: lanes stride by 256, tree. Depends on n alone.
#include "block_reduce.cuh"

typedef Wide<T>::type A;

extern "C" __global__ void __launch_bounds__(256)
softmax(T* __restrict__ y, const T* __restrict__ x, const Layout at, i64 step, u64 n, u64 rows, int logarithm) {
    __shared__ A room[8];
    const u64 row = block_number();
    if (row >= rows) return;
    x += offset_of(at, row);
    A most = -infinity_of<A>();
    for (u64 i = threadIdx.x; i < n; i += 256) most = larger(most, (A)widen(x[(i64)i * step]));
    most = block_reduce<Largest, 256>(most, room);
    // Of nothing but -inf the difference would be NaN; the logarithm's definition gives that, a softmax zeros.
    const bool nothing = most == -infinity_of<A>() && !logarithm;
    const A shift = nothing ? (A)0 : most;
    A sum = (A)0;
    for (u64 i = threadIdx.x; i < n; i += 256) sum += exp_of(widen(x[(i64)i * step]) - shift);
    sum = block_reduce<Sum, 256>(sum, room);
    if (nothing) sum = (A)1;
    const A log_sum = logarithm ? log_of(sum) : (A)0;
    for (u64 i = threadIdx.x; i < n; i += 256) {
        const A v = widen(x[(i64)i * step]) - shift;
        y[row * n + i] = narrow<T>(logarithm ? v - log_sum : exp_of(v) / sum);
    }
}
