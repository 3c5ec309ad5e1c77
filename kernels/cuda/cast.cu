// The same values in another dtype: rounded once, to nearest, ties to even; floats to integers truncate and saturate, NaN to 0; integers wrap.
// x of X, any layout -> y of Y, contiguous
// grid elements / 256 | block 256 | shared none              X, Y: from the launch
// bound by bandwidth.
#include "number.cuh"

template <class To> struct Cast;
template <> struct Cast<f64> {
    template <class W> static __device__ __forceinline__ f64 of(W x) { return (double)x; }
};
template <> struct Cast<f32> {
    template <class W> static __device__ __forceinline__ f32 of(W x) { return (float)x; }
};
// To a half of what f32 may not hold exactly: toward odd first.
__device__ __forceinline__ float ready(float x) { return x; }
__device__ __forceinline__ float ready(double x) { return odd_f32(x); }
__device__ __forceinline__ float ready(i64 x) { return odd_f32(x); }
__device__ __forceinline__ float ready(u32 x) { return odd_f32((i64)x); }
template <> struct Cast<f16> {
    template <class W> static __device__ __forceinline__ f16 of(W x) { return ptx::f32_to_f16(ready(x)); }
};
template <> struct Cast<bf16> {
    template <class W> static __device__ __forceinline__ bf16 of(W x) { return ptx::f32_to_bf16(ready(x)); }
};
template <class I> __device__ __forceinline__ I truncate(double x, double least, double beyond, I lowest, I highest) {
    if (x != x) return (I)0;
    if (x <= least) return lowest;
    if (x >= beyond) return highest;
    return (I)x;
}
template <> struct Cast<i64> {
    static __device__ __forceinline__ i64 of(float x) { return of((double)x); }
    static __device__ __forceinline__ i64 of(double x) {
        return truncate<i64>(x, -9223372036854775808.0, 9223372036854775808.0, (i64)(1ull << 63), (i64)~(1ull << 63));
    }
    static __device__ __forceinline__ i64 of(i64 x) { return x; }
    static __device__ __forceinline__ i64 of(u32 x) { return (i64)x; }
};
template <> struct Cast<u32> {
    static __device__ __forceinline__ u32 of(float x) { return of((double)x); }
    static __device__ __forceinline__ u32 of(double x) { return truncate<u32>(x, 0.0, 4294967296.0, 0u, 0xFFFFFFFFu); }
    static __device__ __forceinline__ u32 of(i64 x) { return (u32)x; }
    static __device__ __forceinline__ u32 of(u32 x) { return x; }
};
template <> struct Cast<u8> {
    static __device__ __forceinline__ u8 of(float x) { return of((double)x); }
    static __device__ __forceinline__ u8 of(double x) { return (u8)truncate<u32>(x, 0.0, 256.0, 0u, 255u); }
    static __device__ __forceinline__ u8 of(i64 x) { return (u8)x; }
    static __device__ __forceinline__ u8 of(u32 x) { return (u8)x; }
};

extern "C" __global__ void __launch_bounds__(256) cast(Y* __restrict__ y, const X* __restrict__ x, const Layout lx, u64 n) {
    const u64 i = thread_number();
    if (i < n) y[i] = Cast<Y>::of(widen(x[offset_of(lx, i)]));
}
