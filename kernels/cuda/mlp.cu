// The gate of a feed-forward block: y = silu(gate) * up, and its derivative.
// gate, up, dy T, contiguous -> y, dgate, dup T
// grid elements (forward: 16 bytes of them) / 256 | block 256 | shared none              T: from the launch
// bound by bandwidth. Shazeer 2020, arXiv 2002.05202.
#include "rows.cuh"

typedef Wide<T>::type A;

extern "C" __global__ void __launch_bounds__(256) swiglu(T* __restrict__ y, const T* __restrict__ gate, const T* __restrict__ up, u64 n) {
    constexpr int COUNT = Lane<T>::COUNT;
    const u64 i = thread_number() * COUNT;
    A g[COUNT], u[COUNT];
    read<T>(g, gate, i, n, 1, is_aligned(gate), (A)0);
    read<T>(u, up, i, n, 1, is_aligned(up), (A)0);
#pragma unroll
    for (int j = 0; j < COUNT; j++) g[j] = g[j] * sigmoid(g[j]) * u[j];
    write<T>(y, i, n, is_aligned(y), g);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_backward(T* __restrict__ dgate, T* __restrict__ dup, const T* __restrict__ dy, const T* __restrict__ gate, const T* __restrict__ up, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const A g = widen(gate[i]), d = widen(dy[i]), s = sigmoid(g);
    dgate[i] = narrow<T>(d * widen(up[i]) * (s * ((A)1 + g * ((A)1 - s))));
    dup[i] = narrow<T>(d * g * s);
}
