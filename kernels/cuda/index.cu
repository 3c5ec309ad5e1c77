// Rows and entries by number; a number out of range reads zeros and writes nothing.
// X: the dtype of what is read, Y: of what is written
// grid elements / 256, or one block a row | block 256 | shared none              X, Y: from the launch
// bound by bandwidth. Sums run in the order of the numbers, in f32 (f64 for f64), and are rounded once.
#include "number.cuh"

typedef Wide<Y>::type A;

// y[i, ..] = table[index[i], ..]. `inner`: the layout of a row.
extern "C" __global__ void __launch_bounds__(256)
gather_rows(Y* __restrict__ y, const X* __restrict__ table, const Layout inner, i64 row_stride, u64 rows, const u32* __restrict__ index,
            const Layout at, u64 row_values, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const u32 row = index[offset_of(at, i / row_values)];
    y[i] = row < rows ? narrow<Y>((A)widen(table[(i64)row * row_stride + offset_of(inner, i % row_values)])) : narrow<Y>((A)0);
}

// y[index[i], ..] = x[i, ..], the last of equal numbers wins: a block writes a row unless the same number comes again.
extern "C" __global__ void __launch_bounds__(256)
scatter_rows(Y* __restrict__ y, const Layout inner_y, i64 row_stride, u64 rows, const u32* __restrict__ index, i64 index_stride, u64 n,
             const X* __restrict__ x, const Layout lx, u64 row_values) {
    const u64 i = block_number();
    if (i >= n) return;
    const u32 row = index[(i64)i * index_stride];
    if (row >= rows) return;
    int again = 0;
    for (u64 j = i + 1 + threadIdx.x; j < n; j += 256) again |= index[(i64)j * index_stride] == row;
    if (__syncthreads_or(again)) return;
    for (u64 k = threadIdx.x; k < row_values; k += 256)
        y[(i64)row * row_stride + offset_of(inner_y, k)] = narrow<Y>((A)widen(x[offset_of(lx, i * row_values + k)]));
}

// y[.., j] = x[.., index[.., j]]
extern "C" __global__ void __launch_bounds__(256)
take(Y* __restrict__ y, const X* __restrict__ x, const Layout rows_x, i64 step, u64 length, const u32* __restrict__ index, const Layout at,
     u64 m, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    const u32 j = index[offset_of(at, i)];
    y[i] = j < length ? narrow<Y>((A)widen(x[offset_of(rows_x, i / m) + (i64)j * step])) : narrow<Y>((A)0);
}

// The first of `n` ascending numbers that is `value` or more.
__device__ __forceinline__ u64 first_from(const u32* sorted, u64 n, u64 value) {
    u64 low = 0, high = n;
    while (low < high) {
        const u64 middle = (low + high) / 2;
        if (sorted[middle] < value) low = middle + 1;
        else high = middle;
    }
    return low;
}

// y[r, ..] = sum of x[i, ..] over the i with index[i] = r; `sorted` the numbers ascending, `order` where they stood.
extern "C" __global__ void __launch_bounds__(256)
scatter_add_rows(Y* __restrict__ y, const X* __restrict__ x, const Layout lx, const u32* __restrict__ sorted, const u32* __restrict__ order,
                 u64 count, u64 rows, u64 row_values) {
    const u64 r = block_number();
    if (r >= rows) return;
    const u64 begin = first_from(sorted, count, r), end = first_from(sorted, count, r + 1);
    for (u64 k = threadIdx.x; k < row_values; k += 256) {
        A sum = (A)0;
        for (u64 i = begin; i < end; i++) sum += (A)widen(x[offset_of(lx, order[i] * row_values + k)]);
        y[r * row_values + k] = narrow<Y>(sum);
    }
}

// y[.., i] = sum of x[.., j] over the j with index[.., j] = i, of each row by itself.
extern "C" __global__ void __launch_bounds__(256)
take_backward(Y* __restrict__ y, const X* __restrict__ x, const Layout lx, const u32* __restrict__ sorted, const u32* __restrict__ order,
              u64 m, u64 length, u64 n) {
    const u64 at = thread_number();
    if (at >= n) return;
    const u64 row = at / length, i = at % length;
    sorted += row * m;
    order += row * m;
    A sum = (A)0;
    for (u64 j = first_from(sorted, m, i); j < m && sorted[j] == i; j++) sum += (A)widen(x[offset_of(lx, row * m + order[j])]);
    y[at] = narrow<Y>(sum);
}
