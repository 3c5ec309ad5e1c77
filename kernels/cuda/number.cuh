// Elements of every dtype as the number that is computed with: f64 for f64, f32 for f32, f16 and bf16; and back, rounded once.
#pragma once
#include "ptx.cuh"

template <class T> struct Wide { typedef float type; };
template <> struct Wide<f64> { typedef double type; };
template <> struct Wide<i64> { typedef i64 type; };
template <> struct Wide<u32> { typedef u32 type; };
template <> struct Wide<u8> { typedef u32 type; };

__device__ __forceinline__ float widen(f32 x) { return x; }
__device__ __forceinline__ double widen(f64 x) { return x; }
__device__ __forceinline__ float widen(f16 x) { return ptx::f16_to_f32(x); }
__device__ __forceinline__ float widen(bf16 x) { return bits_float((u32)x.bits << 16); }
__device__ __forceinline__ i64 widen(i64 x) { return x; }
__device__ __forceinline__ u32 widen(u32 x) { return x; }
__device__ __forceinline__ u32 widen(u8 x) { return x; }

template <class T> struct Narrow;
template <> struct Narrow<f64> {
    static __device__ __forceinline__ f64 of(double x) { return x; }
};
template <> struct Narrow<f32> {
    static __device__ __forceinline__ f32 of(float x) { return x; }
    static __device__ __forceinline__ f32 of(double x) { return (float)x; }
};
template <> struct Narrow<f16> {
    static __device__ __forceinline__ f16 of(float x) { return ptx::f32_to_f16(x); }
};
template <> struct Narrow<bf16> {
    static __device__ __forceinline__ bf16 of(float x) { return ptx::f32_to_bf16(x); }
};
template <> struct Narrow<i64> {
    static __device__ __forceinline__ i64 of(i64 x) { return x; }
};
template <> struct Narrow<u32> {
    static __device__ __forceinline__ u32 of(u32 x) { return x; }
};
template <> struct Narrow<u8> {
    static __device__ __forceinline__ u8 of(u32 x) { return (u8)x; }
};
template <class T> __device__ __forceinline__ T narrow(float x) { return Narrow<T>::of(x); }
template <class T> __device__ __forceinline__ T narrow(double x) { return Narrow<T>::of(x); }
template <class T> __device__ __forceinline__ T narrow(i64 x) { return Narrow<T>::of(x); }
template <class T> __device__ __forceinline__ T narrow(u32 x) { return Narrow<T>::of(x); }

// To f32 toward odd: what lies between two floats becomes the one whose last bit is set, so that a second rounding, to fewer bits,
// gives what one rounding would have given. Boldo and Melquiond 2008.
__device__ __forceinline__ float odd_f32(double x) {
    float r = (float)x;
    if (r != r || (double)r == x) return r;
    u32 bits = float_bits(r);
    const bool away = x < 0.0 ? (double)r < x : (double)r > x;
    if (away) bits--;  // toward zero; from infinity, to the largest
    return bits_float(bits | 1u);
}
__device__ __forceinline__ float odd_f32(i64 x) {
    // The magnitude's 64 bits, cut to 24 with a sticky last one.
    const bool negative = x < 0;
    u64 m = negative ? 0ull - (u64)x : (u64)x;
    int shift = 0;
    u64 sticky = 0;
    while (m >> 24) {
        sticky |= m & 1;
        m >>= 1;
        shift++;
    }
    float r = (float)(u32)(m | sticky);
    for (; shift > 0; shift--) r *= 2.0f;
    return negative ? -r : r;
}

// A function of one number or two, by one name for f32 and f64.
#define OF_BOTH(name, single, wide)                                                 \
    __device__ __forceinline__ float name(float x) { return single(x); }            \
    __device__ __forceinline__ double name(double x) { return wide(x); }
OF_BOTH(exp_of, expf, exp)
OF_BOTH(log_of, logf, log)
OF_BOTH(sqrt_of, sqrtf, sqrt)
__device__ __forceinline__ float fma_of(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fma_of(double a, double b, double c) { return fma(a, b, c); }
template <class A> __device__ __forceinline__ A infinity_of() { return (A)INF; }

// 1 / (1 + exp(-x)) of either sign without overflow of what is divided by.
template <class A> __device__ __forceinline__ A sigmoid(A x) {
    const A e = exp_of(x < (A)0 ? x : -x), r = (A)1 / ((A)1 + e);
    return x < (A)0 ? e * r : r;
}

// The larger, or NaN where one is.
template <class A> __device__ __forceinline__ A larger(A a, A b) { return a != a ? a : (b != b ? b : (a < b ? b : a)); }
template <class A> __device__ __forceinline__ A smaller(A a, A b) { return a != a ? a : (b != b ? b : (b < a ? b : a)); }
