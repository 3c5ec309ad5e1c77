// Sums and maxima over a block, in a fixed order: a tree over the lanes of a warp, then one over the warps.
#pragma once
#include "number.cuh"

#define FULL_WARP 0xFFFFFFFFu

template <class A> struct Sum {
    static __device__ __forceinline__ A none() { return (A)0; }
    static __device__ __forceinline__ A join(A a, A b) { return a + b; }
};
template <class A> struct Largest {
    static __device__ __forceinline__ A none() { return -infinity_of<A>(); }
    static __device__ __forceinline__ A join(A a, A b) { return larger(a, b); }
};

// Over the 32 lanes of a warp; all get the result.
template <template <class> class F, class A> __device__ __forceinline__ A warp_reduce(A v) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) v = F<A>::join(v, __shfl_xor_sync(FULL_WARP, v, o));
    return v;
}

// Over a block of THREADS, a multiple of 32; all get the result. `room`: THREADS / 32 numbers of shared memory, free again after it.
template <template <class> class F, int THREADS, class A> __device__ __forceinline__ A block_reduce(A v, A* room) {
    v = warp_reduce<F>(v);
    if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = v;
    __syncthreads();
    A all = room[0];
#pragma unroll
    for (int w = 1; w < THREADS / 32; w++) all = F<A>::join(all, room[w]);
    __syncthreads();
    return all;
}
