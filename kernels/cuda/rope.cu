// Rotary positions, and k and v written into a cache's pages.
// x [tokens, heads, dim] T; cos, sin [positions, dim / 2] in the accumulating dtype; pages [slots, kv_heads, dim] P
// grid pairs / 256 | block 256 | shared none              T, P: from the launch
// bound by bandwidth. Su and others 2021, arXiv 2104.09864.
#include "number.cuh"

typedef Wide<T>::type A;

struct Table {
    const A* cos;
    const A* sin;
    const u32* positions;
    u32 rows;
    u32 halves;   // pairs are i and i + dim / 2, else 2 i and 2 i + 1
    u32 inverse;  // turns back
    u32 unused;
};

// Where the pair stands in its head, and how far it turns. A position beyond the table reads zeros.
__device__ __forceinline__ void turn(const Table& t, u64 token, u32 i, u32 half, u32& first, u32& second, A& cosine, A& sine) {
    first = t.halves ? i : 2 * i;
    second = t.halves ? i + half : 2 * i + 1;
    const u32 position = t.positions[token];
    cosine = sine = (A)0;
    if (position < t.rows) cosine = t.cos[(u64)position * half + i], sine = t.sin[(u64)position * half + i];
    if (t.inverse) sine = -sine;
}

extern "C" __global__ void __launch_bounds__(256)
rope(T* __restrict__ y, const T* __restrict__ x, const Table table, u32 heads, u32 half, u64 n) {
    const u64 at = thread_number();
    if (at >= n) return;
    const u32 i = (u32)(at % half);
    const u64 head = at / half, token = head / heads;
    u32 first, second;
    A cosine, sine;
    turn(table, token, i, half, first, second, cosine, sine);
    x += head * 2 * half;
    y += head * 2 * half;
    const A x0 = widen(x[first]), x1 = widen(x[second]);
    y[first] = narrow<T>(x0 * cosine - x1 * sine);
    y[second] = narrow<T>(x1 * cosine + x0 * sine);
}

// The pairs of q's heads, then of k's, then of v's, which do not turn. What goes into the pages is rounded to T first, as separate ops would.
extern "C" __global__ void __launch_bounds__(256)
rope_and_cache(T* __restrict__ y, P* __restrict__ k_pages, P* __restrict__ v_pages, const T* __restrict__ q, const T* __restrict__ k,
               const T* __restrict__ v, const Table table, const u32* __restrict__ slots, u64 slot_count, u32 heads, u32 kv_heads, u32 half, u64 n) {
    const u64 at = thread_number();
    if (at >= n) return;
    const u32 i = (u32)(at % half), all = heads + 2 * kv_heads;
    const u64 token = at / half / all;
    u32 head = (u32)(at / half % all), first, second;
    A cosine, sine;
    turn(table, token, i, half, first, second, cosine, sine);
    const bool is_q = head < heads, is_v = head >= heads + kv_heads;
    const T* x;
    if (is_q) {
        x = q + (token * heads + head) * 2 * half;
    } else {
        head -= is_v ? heads + kv_heads : heads;
        x = (is_v ? v : k) + (token * kv_heads + head) * 2 * half;
        if (is_v) k_pages = v_pages;
    }
    const A x0 = widen(x[first]), x1 = widen(x[second]);
    T y0 = narrow<T>(x0 * cosine - x1 * sine), y1 = narrow<T>(x1 * cosine + x0 * sine);
    if (is_q) {
        y += (token * heads + head) * 2 * half;
        y[first] = y0;
        y[second] = y1;
        return;
    }
    const u32 slot = slots[token];
    if (slot >= slot_count) return;
    if (is_v) y0 = x[first], y1 = x[second];
    P* to = k_pages + ((u64)slot * kv_heads + head) * 2 * half;
    to[first] = narrow<P>((Wide<P>::type)widen(y0));
    to[second] = narrow<P>((Wide<P>::type)widen(y1));
}
