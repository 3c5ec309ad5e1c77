// Root-mean-square norms: a row per block.  y = round(x * rsqrt(mean(x^2) + eps)) * w; and their derivative.
// x [rows, n] T, w [n] W -> y [rows, n] T; r [rows]
// grid rows | block 256 | shared 8 numbers              T, W: from the launch
// bound by bandwidth: 2 rows n sizeof(T) bytes. Order: lanes stride by 256, tree. Depends on n alone.
#include "block_reduce.cuh"

typedef Wide<T>::type A;

// With `stream`, what is normed is its sum with x, rounded, and that is written too. `w` and `r` may be absent.
extern "C" __global__ void __launch_bounds__(256)
rms_norm(T* __restrict__ y, T* __restrict__ sum, A* __restrict__ r, const T* __restrict__ stream, const T* __restrict__ x,
         const W* __restrict__ w, u32 n, u64 rows, double eps) {
    __shared__ A room[8];
    const u64 row = block_number();
    if (row >= rows) return;
    x += row * n;
    y += row * n;
    if (stream) stream += row * n, sum += row * n;
    A squares = (A)0;
    for (u32 i = threadIdx.x; i < n; i += 256) {
        A v = widen(x[i]);
        if (stream) {
            const T s = narrow<T>(widen(stream[i]) + v);
            sum[i] = s;
            v = widen(s);
        }
        squares += v * v;
    }
    squares = block_reduce<Sum, 256>(squares, room);
    const A scale = (A)1 / sqrt_of(squares / (A)n + (A)eps);
    if (r && threadIdx.x == 0) r[row] = scale;
    // Each thread reads what it has written itself.
    const T* from = stream ? sum : x;
    for (u32 i = threadIdx.x; i < n; i += 256) {
        const T v = narrow<T>(widen(from[i]) * scale);
        y[i] = w ? narrow<T>(widen(v) * (A)widen(w[i])) : v;
    }
}

// dx = r (g - x r^2 mean(g x)), g = dy w
extern "C" __global__ void __launch_bounds__(256)
rms_norm_backward(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x, const A* __restrict__ r, const W* __restrict__ w,
                  u32 n, u64 rows) {
    __shared__ A room[8];
    const u64 row = block_number();
    if (row >= rows) return;
    dx += row * n;
    dy += row * n;
    x += row * n;
    A along = (A)0;
    for (u32 i = threadIdx.x; i < n; i += 256) {
        const A g = w ? widen(dy[i]) * (A)widen(w[i]) : widen(dy[i]);
        along += g * widen(x[i]);
    }
    along = block_reduce<Sum, 256>(along, room) / (A)n;
    const A scale = r[row], turn = along * scale * scale;
    for (u32 i = threadIdx.x; i < n; i += 256) {
        const A g = w ? widen(dy[i]) * (A)widen(w[i]) : widen(dy[i]);
        dx[i] = narrow<T>(scale * (g - widen(x[i]) * turn));
    }
}

// partial[chunk, i] = sum over a chunk of rows, in order, of dy x r: summed over chunks by a reduction behind it.
extern "C" __global__ void __launch_bounds__(256)
rms_norm_dweight(A* __restrict__ partial, const T* __restrict__ dy, const T* __restrict__ x, const A* __restrict__ r, u32 n, u64 rows, u32 chunk) {
    const u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    const u64 begin = (u64)blockIdx.y * chunk, end = begin + chunk < rows ? begin + chunk : rows;
    A sum = (A)0;
    for (u64 row = begin; row < end; row++) sum += widen(dy[row * n + i]) * widen(x[row * n + i]) * r[row];
    partial[(u64)blockIdx.y * n + i] = sum;
}
