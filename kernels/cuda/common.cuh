// Types and arithmetic that every kernel uses, on the card and in the emulator alike. No CUDA header is needed at run time: the compiler
// is given this file and ptx.cuh by name.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef float f32;
typedef double f64;

struct bf16 { u16 bits; };
struct f16 { u16 bits; };

// The most axes of a tensor.
#define MAX_RANK 6

// Where a view's elements lie: shape and strides, in elements, of its axes; merged where they form one run.
struct Layout {
    u32 rank;
    u32 wide;  // whether there are more elements than fit 32 bits
    u64 shape[MAX_RANK];
    i64 strides[MAX_RANK];
};

__device__ __forceinline__ u32 float_bits(float x) { union { float f; u32 u; } c; c.f = x; return c.u; }
__device__ __forceinline__ float bits_float(u32 x) { union { float f; u32 u; } c; c.u = x; return c.f; }

#define INF bits_float(0x7F800000u)
#define NOT_A_NUMBER bits_float(0x7FC00000u)

// Rounds to nearest, ties to even, in integers.
__device__ __forceinline__ u16 round_bf16(float x) {
    const u32 u = float_bits(x);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
    return (u16)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

// The offset of element `i`, counted in row-major order.
__device__ __forceinline__ i64 offset_of(const Layout& l, u64 i) {
    if (l.rank == 1) return (i64)i * l.strides[0];
    i64 offset = 0;
    if (!l.wide) {
        u32 left = (u32)i;
        for (int axis = (int)l.rank - 1; axis > 0; axis--) {
            const u32 length = (u32)l.shape[axis], next = left / length;
            offset += (i64)(left - next * length) * l.strides[axis];
            left = next;
        }
        return l.rank ? offset + (i64)left * l.strides[0] : 0;
    }
    for (int axis = (int)l.rank - 1; axis > 0; axis--) {
        const u64 next = i / l.shape[axis];
        offset += (i64)(i - next * l.shape[axis]) * l.strides[axis];
        i = next;
    }
    return l.rank ? offset + (i64)i * l.strides[0] : 0;
}

// The number of this thread in a grid of one axis.
__device__ __forceinline__ u64 thread_number() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
// The number of this block where blocks fill two axes: the first holds at most 2^31 - 1, and tables of rows may be longer.
__device__ __forceinline__ u64 block_number() { return (u64)blockIdx.y * gridDim.x + blockIdx.x; }
