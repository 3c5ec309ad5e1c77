// Sorts rows, stably: runs of 256 by rank, then runs merged in pairs, each element finding its place in the other run by bisection.
// x [rows, n] T, any layout -> values [rows, n] T, places [rows, n] u32
// grid elements / 256, rows in y | block 256 | shared one run              T: from the launch
// bound by latency: log2(n / 256) passes. NaN is larger than every number, -0 equal to 0.
#include "number.cuh"

#define RUN 256

typedef Wide<T>::type A;

// Whether a comes before b where they are not equal.
__device__ __forceinline__ bool less(A a, A b, int descending) {
    const bool an = a != a, bn = b != b;
    if (an || bn) return descending ? an && !bn : bn && !an;
    return descending ? b < a : a < b;
}

extern "C" __global__ void __launch_bounds__(RUN)
sort_runs(T* __restrict__ values, u32* __restrict__ places, const T* __restrict__ x, const Layout at, i64 step, u32 n, u64 rows, int descending) {
    __shared__ T run[RUN];
    const u64 row = blockIdx.y + (u64)blockIdx.z * gridDim.y;
    const u32 begin = blockIdx.x * RUN, count = n - begin < RUN ? n - begin : RUN, me = threadIdx.x;
    if (row >= rows) return;
    const T* from = x + offset_of(at, row);
    if (me < count) run[me] = from[(i64)(begin + me) * step];
    __syncthreads();
    if (me >= count) return;
    const A v = widen(run[me]);
    u32 rank = 0;
    for (u32 j = 0; j < count; j++) {
        const A w = widen(run[j]);
        rank += less(w, v, descending) || (j < me && !less(v, w, descending));
    }
    values[row * n + begin + rank] = run[me];
    places[row * n + begin + rank] = begin + me;
}

// Runs of `length` become runs of twice that.
extern "C" __global__ void __launch_bounds__(RUN)
merge_runs(T* __restrict__ values, u32* __restrict__ places, const T* __restrict__ from, const u32* __restrict__ at, u32 n, u64 rows, u64 length, int descending) {
    const u64 row = blockIdx.y + (u64)blockIdx.z * gridDim.y, i = (u64)blockIdx.x * RUN + threadIdx.x;
    if (i >= n || row >= rows) return;
    from += row * n;
    at += row * n;
    const u64 pair = i / (2 * length) * (2 * length), middle = pair + length;
    const bool left = i < middle;
    const u64 begin = left ? (middle < n ? middle : n) : pair, end = left ? (middle + length < n ? middle + length : n) : middle;
    const A v = widen(from[i]);
    // How many of the other run come before: of equal ones, those of the left run.
    u64 low = begin, high = end;
    while (low < high) {
        const u64 half = (low + high) / 2;
        const A w = widen(from[half]);
        const bool first = left ? less(w, v, descending) : !less(v, w, descending);
        if (first) low = half + 1;
        else high = half;
    }
    const u64 to = pair + (i - (left ? pair : middle)) + (low - begin);
    values[row * n + to] = from[i];
    places[row * n + to] = at[i];
}
