// Reductions over a block, in a fixed order: a tree over the lanes of a warp, then the warps in order.
#pragma once
#include "number.cuh"

#define FULL_WARP 0xFFFFFFFFu

struct Sum {
    template <class A> __device__ __forceinline__ A operator()(A a, A b) const { return a + b; }
};
struct Largest {
    template <class A> __device__ __forceinline__ A operator()(A a, A b) const { return larger(a, b); }
};

// What `join` makes of one number of each of THREADS, a multiple of 32; all get it. `room`: THREADS / 32 numbers of shared memory, free
// again after it.
template <int THREADS, class A, class F> __device__ __forceinline__ A block_reduce(A v, A* room, F join) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = join(v, __shfl_xor_sync(FULL_WARP, v, o));
    if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = v;
    __syncthreads();
    A all = room[0];
#pragma unroll
    for (int w = 1; w < THREADS / 32; w++) all = join(all, room[w]);
    __syncthreads();
    return all;
}

// No place: what has it comes after everything.
#define NOWHERE (~0ull)

// Whether `a`, at place `at`, is chosen before `b`: the larger (smaller); of equal ones the lower place; a NaN, the first, before all.
template <class A> __device__ __forceinline__ bool before(A a, u64 at, A b, u64 bt, bool largest) {
    if (at == NOWHERE) return false;
    if (bt == NOWHERE) return true;
    const bool an = a != a, bn = b != b;
    if (an || bn) return an && bn ? at < bt : an;
    if (a == b) return at < bt;
    return largest ? b < a : a < b;
}

// Of one number of each of THREADS and its place, what is chosen before all others; all get it. `values`, `places`: rooms as above.
template <int THREADS, class A> __device__ __forceinline__ void block_choose(A& v, u64& at, A* values, u64* places, bool largest) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
        const A w = __shfl_xor_sync(FULL_WARP, v, o);
        const u64 wt = __shfl_xor_sync(FULL_WARP, at, o);
        if (before(w, wt, v, at, largest)) v = w, at = wt;
    }
    if ((threadIdx.x & 31) == 0) values[threadIdx.x >> 5] = v, places[threadIdx.x >> 5] = at;
    __syncthreads();
    for (int w = 0; w < THREADS / 32; w++)
        if (before(values[w], places[w], v, at, largest)) v = values[w], at = places[w];
    __syncthreads();
}
