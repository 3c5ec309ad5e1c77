// Root-mean-square norms: a row per block.  y = round(x * rsqrt(mean(x^2) + eps)) * w; and their derivative.
// x [rows, n] T, w [n] W -> y [rows, n] T; r [rows]
// grid rows | block 256 | shared 8 numbers              T, W: from the launch
// bound by bandwidth: 2 rows n sizeof(T) bytes, 16 at a time. Order: lanes take 16 bytes each, stride by 256 of them, tree. Depends on n alone.
#include "block_reduce.cuh"
#include "rows.cuh"

typedef Wide<T>::type A;

constexpr int COUNT = Lane<T>::COUNT;

// With `stream`, what is normed is its sum with x, rounded, and that is written too. `w` and `r` may be absent.
extern "C" __global__ void __launch_bounds__(256)
rms_norm(T* __restrict__ y, T* sum, A* __restrict__ r, const T* __restrict__ stream, const T* __restrict__ x, const W* __restrict__ w, u32 n,
         u64 rows, double eps) {
    __shared__ A room[8];
    const u64 row = block_number();
    if (row >= rows) return;
    x += row * n;
    y += row * n;
    if (stream) stream += row * n, sum += row * n;
    const bool aligned = is_aligned(x) && is_aligned(y) && (!stream || (is_aligned(stream) && is_aligned(sum)));
    A squares = (A)0;
    for (u32 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A v[COUNT];
        read<T>(v, x, i, n, 1, aligned, (A)0);
        if (stream) {
            A other[COUNT];
            read<T>(other, stream, i, n, 1, aligned, (A)0);
#pragma unroll
            for (int j = 0; j < COUNT; j++) v[j] = widen(narrow<T>(other[j] + v[j]));
            write<T>(sum, i, n, aligned, v);
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) squares += v[j] * v[j];
    }
    squares = block_reduce<256>(squares, room, Sum());
    const A scale = (A)1 / sqrt_of(squares / (A)n + (A)eps);
    if (r && threadIdx.x == 0) r[row] = scale;
    // Each thread reads what it has written itself; what it has read before comes from cache.
    const T* from = stream ? sum : x;
    for (u32 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A v[COUNT];
        read<T>(v, from, i, n, 1, aligned, (A)0);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            const T rounded = narrow<T>(v[j] * scale);
            v[j] = w && i + j < n ? widen(rounded) * (A)widen(w[i + j]) : widen(rounded);
        }
        write<T>(y, i, n, aligned, v);
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
    const bool aligned = is_aligned(dx) && is_aligned(dy) && is_aligned(x);
    A along = (A)0;
    for (u32 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A g[COUNT], v[COUNT];
        read<T>(g, dy, i, n, 1, aligned, (A)0);
        read<T>(v, x, i, n, 1, aligned, (A)0);
#pragma unroll
        for (int j = 0; j < COUNT; j++) along += (w && i + j < n ? g[j] * (A)widen(w[i + j]) : g[j]) * v[j];
    }
    along = block_reduce<256>(along, room, Sum()) / (A)n;
    const A scale = r[row], turn = along * scale * scale;
    for (u32 i = threadIdx.x * COUNT; i < n; i += 256 * COUNT) {
        A g[COUNT], v[COUNT];
        read<T>(g, dy, i, n, 1, aligned, (A)0);
        read<T>(v, x, i, n, 1, aligned, (A)0);
#pragma unroll
        for (int j = 0; j < COUNT; j++) v[j] = scale * ((w && i + j < n ? g[j] * (A)widen(w[i + j]) : g[j]) - v[j] * turn);
        write<T>(dx, i, n, aligned, v);
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
