// Rows read and written 16 bytes at a time where they lie so, one by one where they do not: in the same order, so that a row's sums have the
// same bits wherever it lies.
#pragma once
#include "number.cuh"

template <class T> struct Lane {
    static constexpr int COUNT = 16 / sizeof(T);
    struct alignas(16) Vec { T at[COUNT]; };
};

// Whether 16 bytes may be read from here on.
__device__ __forceinline__ bool is_aligned(const void* p) { return ((u64)p & 15) == 0; }

// Elements i .. i + COUNT of a row of `n`, `step` apart, widened; `beyond` behind its end.
template <class T, class A>
__device__ __forceinline__ void read(A (&v)[Lane<T>::COUNT], const T* row, u64 i, u64 n, i64 step, bool aligned, A beyond) {
    constexpr int COUNT = Lane<T>::COUNT;
    if (aligned && i + COUNT <= n) {
        const typename Lane<T>::Vec all = *(const typename Lane<T>::Vec*)(row + i);
#pragma unroll
        for (int j = 0; j < COUNT; j++) v[j] = (A)widen(all.at[j]);
    } else {
#pragma unroll
        for (int j = 0; j < COUNT; j++) v[j] = i + j < n ? (A)widen(row[(i64)(i + j) * step]) : beyond;
    }
}

template <class T, class A> __device__ __forceinline__ void write(T* row, u64 i, u64 n, bool aligned, const A (&v)[Lane<T>::COUNT]) {
    constexpr int COUNT = Lane<T>::COUNT;
    if (aligned && i + COUNT <= n) {
        typename Lane<T>::Vec all;
#pragma unroll
        for (int j = 0; j < COUNT; j++) all.at[j] = narrow<T>(v[j]);
        *(typename Lane<T>::Vec*)(row + i) = all;
    } else {
#pragma unroll
        for (int j = 0; j < COUNT; j++)
            if (i + j < n) row[i + j] = narrow<T>(v[j]);
    }
}
