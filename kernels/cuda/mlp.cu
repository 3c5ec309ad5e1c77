// The gate of a feed-forward block: y = silu(gate) * up, and its derivative.
// gate, up, dy T, contiguous -> y, dgate, dup T
// grid elements / 256 | block 256 | shared none              T: from the launch
// bound by bandwidth. Shazeer 2020, arXiv 2002.05202.
#include "number.cuh"

typedef Wide<T>::type A;

__device__ __forceinline__ A sigmoid(A x) {
    const A e = exp_of(x < (A)0 ? x : -x), r = (A)1 / ((A)1 + e);
    return x < (A)0 ? e * r : r;
}

constexpr int VEC = 16 / sizeof(T);
struct alignas(16) Vec { T at[VEC]; };

extern "C" __global__ void __launch_bounds__(256) swiglu(T* __restrict__ y, const T* __restrict__ gate, const T* __restrict__ up, u64 n) {
    const u64 i = thread_number() * VEC;
    if (i + VEC <= n) {
        const Vec g = *(const Vec*)(gate + i), u = *(const Vec*)(up + i);
        Vec out;
#pragma unroll
        for (int j = 0; j < VEC; j++) out.at[j] = narrow<T>(widen(g.at[j]) * sigmoid(widen(g.at[j])) * widen(u.at[j]));
        *(Vec*)(y + i) = out;
    } else {
        for (u64 j = i; j < n; j++) y[j] = narrow<T>(widen(gate[j]) * sigmoid(widen(gate[j])) * widen(up[j]));
    }
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_backward(T* __restrict__ dgate, T* __restrict__ dup, const T* __restrict__ dy, const T* __restrict__ gate, const T* __restrict__ up, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const A g = widen(gate[i]), d = widen(dy[i]), s = sigmoid(g);
    dgate[i] = narrow<T>(d * widen(up[i]) * (s * ((A)1 + g * ((A)1 - s))));
    dup[i] = narrow<T>(d * g * s);
}
