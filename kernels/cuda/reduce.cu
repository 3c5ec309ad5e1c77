// Sums, means, maxima, minima and their places over some axes; running sums.
// x of T, any layout: `kept` says where each result's values begin, `reduced` where they stand from there
// grid results x chunks | block 256 | shared 8 numbers              T: from the launch
// bound by bandwidth. Order: lanes stride by 256 within a chunk, tree, chunks in order. Depends on the number of values alone.
#include "block_reduce.cuh"

typedef Wide<T>::type A;

enum Kind { SUM, MEAN, MAX, MIN };

#ifdef IS_FLOAT
#define LEAST (-infinity_of<A>())
#define GREATEST infinity_of<A>()
#elif defined(IS_SIGNED)
#define LEAST ((i64)(1ull << 63))
#define GREATEST ((i64)~(1ull << 63))
#elif defined(IS_BYTE)
#define LEAST 0u
#define GREATEST 255u
#else
#define LEAST 0u
#define GREATEST 0xFFFFFFFFu
#endif

// Two values as one, by what is asked for; and what changes nothing.
struct Join {
    int kind;
    __device__ __forceinline__ A none() const { return kind == MAX ? LEAST : (kind == MIN ? GREATEST : (A)0); }
    __device__ __forceinline__ A operator()(A a, A b) const {
        if (kind == MAX) return larger(a, b);
        if (kind == MIN) return smaller(a, b);
        return a + b;
    }
};

// A chunk of one result's values to `partial[result, chunk]`.
extern "C" __global__ void __launch_bounds__(256)
reduce_chunk(A* __restrict__ partial, const T* __restrict__ x, const Layout kept, const Layout reduced, u64 count, u64 results, u64 chunk, u32 chunks, int kind) {
    __shared__ A room[8];
    const u64 result = block_number();
    if (result >= results) return;
    const T* from = x + offset_of(kept, result);
    const u64 begin = (u64)blockIdx.z * chunk, end = begin + chunk < count ? begin + chunk : count;
    const Join join = {kind};
    A v = join.none();
    for (u64 i = begin + threadIdx.x; i < end; i += 256) v = join(v, (A)widen(from[offset_of(reduced, i)]));
    v = block_reduce<256>(v, room, join);
    if (threadIdx.x == 0) partial[result * chunks + blockIdx.z] = v;
}

// Few values of each result, side by side with its neighbours': a thread forms one chunk's. The same order as above would give is not
// kept: which of the two runs depends on the layout alone.
extern "C" __global__ void __launch_bounds__(256)
reduce_columns(A* __restrict__ partial, const T* __restrict__ x, const Layout kept, const Layout reduced, u64 count, u64 results, u64 chunk, u32 chunks, int kind) {
    const u64 result = thread_number();
    if (result >= results) return;
    const T* from = x + offset_of(kept, result);
    const u64 begin = (u64)blockIdx.z * chunk, end = begin + chunk < count ? begin + chunk : count;
    const Join join = {kind};
    A v = join.none();
    for (u64 i = begin; i < end; i++) v = join(v, (A)widen(from[offset_of(reduced, i)]));
    partial[result * chunks + blockIdx.z] = v;
}

// The chunks of each result in order, and the rounding.
extern "C" __global__ void __launch_bounds__(256)
reduce_finish(Y* __restrict__ y, const A* __restrict__ partial, u32 chunks, u64 count, u64 results, int kind) {
    const u64 result = thread_number();
    if (result >= results) return;
    const Join join = {kind};
    A v = join.none();
    for (u32 c = 0; c < chunks; c++) v = join(v, partial[result * chunks + c]);
#ifdef IS_FLOAT
    if (kind == MEAN) v = v / (A)count;
#endif
    y[result] = narrow<Y>(v);
}

// The place of the largest (smallest) value: see `before`.
extern "C" __global__ void __launch_bounds__(256)
arg_reduce(u32* __restrict__ y, const T* __restrict__ x, const Layout kept, i64 step, u64 count, u64 results, int largest) {
    __shared__ A values[8];
    __shared__ u64 places[8];
    const u64 result = block_number();
    if (result >= results) return;
    const T* from = x + offset_of(kept, result);
    A v = (A)0;
    u64 at = NOWHERE;
    for (u64 i = threadIdx.x; i < count; i += 256) {
        const A w = (A)widen(from[(i64)i * step]);
        if (before(w, i, v, at, largest)) v = w, at = i;
    }
    block_choose<256>(v, at, values, places, largest);
    if (threadIdx.x == 0) y[result] = (u32)at;
}

// Running sums of each row: 256 at a time, by doubling distances, and what came before.
extern "C" __global__ void __launch_bounds__(256)
cum_sum(T* __restrict__ y, const T* __restrict__ x, const Layout rows, i64 step, u64 columns, u64 count) {
    __shared__ A sums[2][256];
    const u64 row = block_number();
    if (row >= count) return;
    const T* from = x + offset_of(rows, row);
    A before = (A)0;
    for (u64 base = 0; base < columns; base += 256) {
        const u64 i = base + threadIdx.x;
        int side = 0;
        sums[0][threadIdx.x] = i < columns ? widen(from[(i64)i * step]) : (A)0;
        __syncthreads();
        for (int distance = 1; distance < 256; distance *= 2) {
            const A v = sums[side][threadIdx.x];
            sums[side ^ 1][threadIdx.x] = (int)threadIdx.x >= distance ? sums[side][threadIdx.x - distance] + v : v;
            side ^= 1;
            __syncthreads();
        }
        if (i < columns) y[row * columns + i] = narrow<T>(before + sums[side][threadIdx.x]);
        before += sums[side][255];
        __syncthreads();
    }
}
