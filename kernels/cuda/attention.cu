// attention: the plain way, right for every head dimension, dtype and architecture: a block for each query of each head.
// y[i, h] = sum_j softmax_j(scale q[i, h] . k[j, h / group]) v[j, h / group] over the keys that query i sees
// q [tokens, heads, dim] T; k [keys, kv_heads, dim], v [keys, kv_heads, v_dim] P, or in pages -> y [tokens, heads, v_dim] T, lse [tokens, heads]
// grid tokens x heads | block TILE, a thread a key | shared (dim + v_dim + TILE + TILE / 32) numbers              T, P: from the launch
// Order: tiles of TILE keys counted from the sequence's first, an online softmax over them. Depends on a query's place in its sequence alone.
// Vaswani and others 2017, arXiv 1706.03762; Dao and others 2022, arXiv 2205.14135.
#include "block_reduce.cuh"
#include "sequences.cuh"

typedef Wide<T>::type A;

#define TILE 128

extern "C" __global__ void __launch_bounds__(TILE)
attention(T* __restrict__ y, A* __restrict__ lse, const T* __restrict__ q, const P* __restrict__ k, const P* __restrict__ v, const Sequences s,
          u32 heads, u32 kv_heads, u32 dim, u32 v_dim, double scale_) {
    DYN_SHARED(A, room);
    A *query = room, *sum = query + dim, *p = sum + v_dim, *reduce = p + TILE;
    const u32 token = blockIdx.x, head = blockIdx.y, kv_head = head / (heads / kv_heads), tid = threadIdx.x;
    const A scale = (A)scale_, nothing = -infinity_of<A>();
    const Span span = span_of(s, token);
    q += ((u64)token * heads + head) * dim;
    for (u32 d = tid; d < dim; d += TILE) query[d] = widen(q[d]);
    for (u32 d = tid; d < v_dim; d += TILE) sum[d] = (A)0;
    __syncthreads();
    A most = nothing, total = (A)0;
    for (i64 tile = 0; tile < span.seen; tile += TILE) {
        const u32 count = span.seen - tile < TILE ? (u32)(span.seen - tile) : TILE;
        A score = nothing;
        if (tid < count) {
            const i64 row = row_of(s, span, (u32)tile + tid);
            score = (A)0;
            if (row >= 0) {
                const P* key = k + ((u64)row * kv_heads + kv_head) * dim;
                for (u32 d = 0; d < dim; d++) score = fma_of(query[d], (A)widen(key[d]), score);
            }
            score *= scale;
        }
        const A now = larger(most, block_reduce<TILE>(score, reduce, Largest()));
        const A shift = now == nothing ? (A)0 : now, keep = exp_of(most - shift);
        const A mine = tid < count ? exp_of(score - shift) : (A)0;
        p[tid] = mine;
        total = total * keep + block_reduce<TILE>(mine, reduce, Sum());
        for (u32 d = tid; d < v_dim; d += TILE) {
            A add = sum[d] * keep;
            for (u32 j = 0; j < count; j++) {
                const i64 row = row_of(s, span, (u32)tile + j);
                if (row >= 0) add = fma_of(p[j], (A)widen(v[((u64)row * kv_heads + kv_head) * v_dim + d]), add);
            }
            sum[d] = add;
        }
        most = now;
        __syncthreads();
    }
    y += ((u64)token * heads + head) * v_dim;
    // A NaN among the scores is one in the sum, and stays.
    for (u32 d = tid; d < v_dim; d += TILE) y[d] = narrow<T>(total == (A)0 ? (A)0 : sum[d] / total);
    if (lse && tid == 0) lse[(u64)token * heads + head] = total == (A)0 ? nothing : log_of(total) + most;
}

// delta[i, h] = dy . y, a thread each.
extern "C" __global__ void __launch_bounds__(TILE)
attention_delta(A* __restrict__ delta, const T* __restrict__ dy, const T* __restrict__ y, u32 v_dim, u64 n) {
    const u64 i = thread_number();
    if (i >= n) return;
    A sum = (A)0;
    for (u32 d = 0; d < v_dim; d++) sum = fma_of((A)widen(dy[i * v_dim + d]), (A)widen(y[i * v_dim + d]), sum);
    delta[i] = sum;
}

// p and ds of query `token`, head `head` and the key whose row is `row`.
__device__ __forceinline__ void weight_of(A& p, A& ds, const T* q, const T* dy, const P* k, const P* v, A lse, A delta, u32 dim, u32 v_dim, A scale) {
    A score = (A)0, dp = (A)0;
    for (u32 d = 0; d < dim; d++) score = fma_of((A)widen(q[d]), (A)widen(k[d]), score);
    for (u32 d = 0; d < v_dim; d++) dp = fma_of((A)widen(dy[d]), (A)widen(v[d]), dp);
    p = exp_of(score * scale - lse);
    ds = p * (dp - delta) * scale;
}

// dq[i, h] = sum_j ds[i, j] k[j]: a block for each query of each head; shared dim + 128 numbers.
extern "C" __global__ void __launch_bounds__(TILE)
attention_dq(T* __restrict__ dq, const T* __restrict__ dy, const T* __restrict__ q, const P* __restrict__ k, const P* __restrict__ v,
             const A* __restrict__ lse, const A* __restrict__ delta, const Sequences s, u32 heads, u32 kv_heads, u32 dim, u32 v_dim, double scale) {
    DYN_SHARED(A, room);
    A *sum = room, *ds = sum + dim;
    const u32 token = blockIdx.x, head = blockIdx.y, kv_head = head / (heads / kv_heads), tid = threadIdx.x;
    const u64 at = (u64)token * heads + head;
    const Span span = span_of(s, token);
    for (u32 d = tid; d < dim; d += TILE) sum[d] = (A)0;
    for (i64 tile = 0; tile < span.seen; tile += TILE) {
        const u32 count = span.seen - tile < TILE ? (u32)(span.seen - tile) : TILE;
        if (tid < count) {
            const u64 row = ((u64)span.first_key + tile + tid) * kv_heads + kv_head;
            A p;
            weight_of(p, ds[tid], q + at * dim, dy + at * v_dim, k + row * dim, v + row * v_dim, lse[at], delta[at], dim, v_dim, (A)scale);
        }
        __syncthreads();
        for (u32 d = tid; d < dim; d += TILE)
            for (u32 j = 0; j < count; j++) sum[d] = fma_of(ds[j], (A)widen(k[(((u64)span.first_key + tile + j) * kv_heads + kv_head) * dim + d]), sum[d]);
        __syncthreads();
    }
    for (u32 d = tid; d < dim; d += TILE) dq[at * dim + d] = narrow<T>(sum[d]);
}

// dk[j] = sum_i ds[i, j] q[i], dv[j] = sum_i p[i, j] dy[i], over the queries and heads of its group: a block for each key of each kv head;
// shared dim + v_dim + 256 numbers.
extern "C" __global__ void __launch_bounds__(TILE)
attention_dkv(P* __restrict__ dk, P* __restrict__ dv, const T* __restrict__ dy, const T* __restrict__ q, const P* __restrict__ k,
              const P* __restrict__ v, const A* __restrict__ lse, const A* __restrict__ delta, const Sequences s, u32 heads, u32 kv_heads, u32 dim,
              u32 v_dim, double scale) {
    DYN_SHARED(A, room);
    A *sum_k = room, *sum_v = sum_k + dim, *p = sum_v + v_dim, *ds = p + TILE;
    const u32 key = blockIdx.x, kv_head = blockIdx.y, group = heads / kv_heads, tid = threadIdx.x;
    const u64 row = (u64)key * kv_heads + kv_head;
    for (u32 d = tid; d < dim; d += TILE) sum_k[d] = (A)0;
    for (u32 d = tid; d < v_dim; d += TILE) sum_v[d] = (A)0;
    const u32 sequence = sequence_of(s.k_starts, s.sequences, key);
    u32 begin = 0, end = 0;
    if (sequence < s.sequences) {
        begin = s.q_starts[sequence], end = s.q_starts[sequence + 1];
        if (end > s.tokens) end = s.tokens;
        if (begin > end) begin = end;
        if (s.causal) {
            // The first query that sees this key.
            const i64 n = (i64)s.q_starts[sequence + 1] - begin, m = (i64)s.k_starts[sequence + 1] - s.k_starts[sequence];
            const i64 first = (i64)(key - s.k_starts[sequence]) - m + n;
            if (first > 0) begin = (i64)begin + first < (i64)end ? begin + (u32)first : end;
        }
    }
    const u64 pairs = (u64)(end - begin) * group;
    for (u64 tile = 0; tile < pairs; tile += TILE) {
        const u32 count = pairs - tile < TILE ? (u32)(pairs - tile) : TILE;
        if (tid < count) {
            const u64 at = (begin + (tile + tid) / group) * heads + kv_head * group + (tile + tid) % group;
            weight_of(p[tid], ds[tid], q + at * dim, dy + at * v_dim, k + row * dim, v + row * v_dim, lse[at], delta[at], dim, v_dim, (A)scale);
        }
        __syncthreads();
        for (u32 d = tid; d < dim; d += TILE)
            for (u32 j = 0; j < count; j++) {
                const u64 at = (begin + (tile + j) / group) * heads + kv_head * group + (tile + j) % group;
                sum_k[d] = fma_of(ds[j], (A)widen(q[at * dim + d]), sum_k[d]);
            }
        for (u32 d = tid; d < v_dim; d += TILE)
            for (u32 j = 0; j < count; j++) {
                const u64 at = (begin + (tile + j) / group) * heads + kv_head * group + (tile + j) % group;
                sum_v[d] = fma_of(p[j], (A)widen(dy[at * v_dim + d]), sum_v[d]);
            }
        __syncthreads();
    }
    for (u32 d = tid; d < dim; d += TILE) dk[row * dim + d] = narrow<P>((Wide<P>::type)sum_k[d]);
    for (u32 d = tid; d < v_dim; d += TILE) dv[row * v_dim + d] = narrow<P>((Wide<P>::type)sum_v[d]);
}
