// attention_backward_sm80: the derivatives of attention on the tensor cores of sm_80 and later, one of the three at a time (OF):
// dq[i] = sum_j ds[i, j] k[j],  dk[j] = sum_i ds[i, j] q[i],  dv[j] = sum_i p[i, j] dy[i],
// with p = exp(scale q.k - lse), ds = scale p (dy.v - delta): scores are formed again, tile by tile, and no sum is shared between blocks.
// q, dy [tokens, heads, D], k, v [keys, kv_heads, D] T; lse, delta [tokens, heads] f32 -> dq, or dk, or dv T
// A block takes 64 rows (queries of a head for dq, keys of a kv head for dk and dv), 16 a warp, and meets columns in tiles of 64.
// grid (tiles of rows, heads or kv_heads) | block 128 | shared 4 tiles of 64 D halves              T, D, OF: from the launch
// bound by the tensor cores. Not measured on a card.
// Order: heads of a group, then tiles counted from the sequence's first, one chain. Weights meet halves in parts, as in attention_sm80.
// Dao 2023, arXiv 2307.08691.
#include "head_tiles.cuh"
#include "sequences.cuh"

#define DQ 1
#define DK 2
#define DV 3

constexpr int THREADS = 128, BYTES = TILE * D * 2;

// 64 rows of a tensor [rows, heads, D] from `first` on; zeros from `count` on.
__device__ __forceinline__ void load(u32 to, const T* __restrict__ from, u64 begin, i64 first, i64 count, u32 heads, u32 head) {
#pragma unroll
    for (int i = threadIdx.x; i < TILE * PIECES; i += THREADS) {
        const int line = i / PIECES, piece = i % PIECES;
        const bool in = first + line < count;
        ptx::cp_async_16(to + offset(line, piece), in ? from + ((begin + first + line) * heads + head) * D + piece * 8 : from, in ? 16 : 0);
    }
}

// 16 rows of `a` from `row` on times the 64 rows of `b`, over D.
__device__ __forceinline__ void product(float (&c)[TILE / 8][4], u32 a, int row, u32 b) {
    const int lane = threadIdx.x & 31;
    // Two at a time: unrolled as a whole, the loads that go ahead take more registers than there are.
#pragma unroll 2
    for (int i = 0; i < D / 16; i++) {
        u32 fa[4];
        ptx::ldmatrix_x4(fa, a + offset(row + lane % 16, i * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < TILE / 16; j++) {
            u32 fb[4];
            ptx::ldmatrix_x4(fb, b + offset(j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
            mma(c[j * 2], fa, fb[0], fb[1], T());
            mma(c[j * 2 + 1], fa, fb[2], fb[3], T());
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_backward_sm80(T* __restrict__ out, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, const T* __restrict__ dy,
                        const float* __restrict__ lse, const float* __restrict__ delta, const Sequences s, u32 heads, u32 kv_heads, float scale) {
    DYN_SHARED(u8, shared);
    const u32 base = ptx::smem_addr(shared), rows_at = base, rows_too = base + BYTES, columns_at = base + 2 * BYTES, columns_too = base + 3 * BYTES;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane / 4, t = lane % 4;
    const u32 head = blockIdx.y, group = heads / kv_heads, kv_head = OF == DQ ? head / group : head, first_head = kv_head * group;

    // The sequence and the rows that are this block's; behind the last sequence, rows of none.
    const u32 *starts = OF == DQ ? s.q_starts : s.k_starts, all = OF == DQ ? s.tokens : s.keys;
    u32 sequence = 0, tile = blockIdx.x, begin = 0, count = 0;
    for (;; sequence++) {
        if (sequence > s.sequences) return;
        const u32 end = sequence < s.sequences && starts[sequence + 1] < all ? starts[sequence + 1] : all;
        begin = starts[sequence];
        count = end > begin ? end - begin : 0;
        const u32 tiles = (count + TILE - 1) / TILE;
        if (tile < tiles) break;
        tile -= tiles;
    }
    const i64 row0 = (i64)tile * TILE;
    // Queries and keys of the sequence, and which of them see each other: key j and query i where j <= i + ahead.
    u64 q_begin = 0, k_begin = 0;
    i64 queries = 0, keys = 0, ahead = 1ll << 40;
    if (sequence < s.sequences) {
        const u32 q_end = s.q_starts[sequence + 1] < s.tokens ? s.q_starts[sequence + 1] : s.tokens;
        const u32 k_end = s.k_starts[sequence + 1] < s.keys ? s.k_starts[sequence + 1] : s.keys;
        q_begin = s.q_starts[sequence];
        k_begin = s.k_starts[sequence];
        queries = q_end > q_begin ? q_end - (i64)q_begin : 0;
        keys = k_end > k_begin ? k_end - (i64)k_begin : 0;
        if (s.causal) ahead = keys - ((i64)s.q_starts[sequence + 1] - (i64)q_begin);
    }
    const i64 columns = OF == DQ ? keys : queries;
    // The columns that some row of this block meets.
    i64 from = 0, to = columns;
    if (OF == DQ) {
        const i64 last = row0 + TILE - 1 + ahead + 1;
        if (last < to) to = last;
    } else if (row0 - ahead > 0) {
        from = (row0 - ahead) / TILE * TILE;
    }

    load(rows_at, OF == DQ ? q : k, begin, row0, count, OF == DQ ? heads : kv_heads, head);
    if (OF != DV) load(rows_too, OF == DQ ? dy : v, begin, row0, count, OF == DQ ? heads : kv_heads, head);
    ptx::cp_async_commit();

    float acc[D / 8][4] = {};
    for (u32 each = 0; each < (OF == DQ ? 1 : group); each++) {
        const u32 q_head = OF == DQ ? head : first_head + each;
        for (i64 first = from; first < to; first += TILE) {
            __syncthreads();  // the last tile of columns is read by none
            if (OF == DQ) {
                load(columns_at, k, k_begin, first, keys, kv_heads, kv_head);
                load(columns_too, v, k_begin, first, keys, kv_heads, kv_head);
            } else {
                load(columns_at, q, q_begin, first, queries, heads, q_head);
                load(columns_too, dy, q_begin, first, queries, heads, q_head);
            }
            ptx::cp_async_commit();
            ptx::cp_async_wait<0>();
            __syncthreads();
            float w[TILE / 8][4] = {}, dp[TILE / 8][4] = {};
            product(w, rows_at, warp * 16, columns_at);
            if (OF != DV) product(dp, rows_too, warp * 16, columns_too);
#pragma unroll
            for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const i64 row = row0 + warp * 16 + g + e / 2 * 8, column = first + j * 8 + t * 2 + e % 2;
                    const i64 i = OF == DQ ? row : column, key = OF == DQ ? column : row;
                    float weight = 0.0f;
                    if (i < queries && key < keys && key <= i + ahead) {
                        const u64 at = (q_begin + i) * heads + q_head;
                        weight = ptx::ex2(w[j][e] * (scale * LOG2E) - lse[at] * LOG2E);
                        if (OF != DV) weight *= (dp[j][e] - delta[at]) * scale;
                    }
                    w[j][e] = weight;
                }
            weigh(acc, w, OF == DV ? columns_too : columns_at);
        }
    }
    ptx::cp_async_wait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const i64 row = row0 + warp * 16 + g + h * 8;
        if (row >= (i64)count) continue;
        T* y = out + ((u64)(begin + row) * (OF == DQ ? heads : kv_heads) + head) * D;
#pragma unroll
        for (int j = 0; j < D / 8; j++) *(u32*)(y + j * 8 + t * 2) = pack(acc[j][h * 2], acc[j][h * 2 + 1], T());
    }
}
