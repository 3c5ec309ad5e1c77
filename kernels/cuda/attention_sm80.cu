// attention_sm80: flash attention on the tensor cores of sm_80 and later, packed or over a cache's pages, long prompts and single tokens alike.
// y[i, h] = sum_j softmax_j(scale q[i, h] . k[j, h / group]) v[j, h / group] over the keys that query i sees
// q [tokens, heads, D], k, v [keys, kv_heads, D] or in pages, T -> y [tokens, heads, D] T, lse [tokens, heads]
// A block takes ROWS pairs (query, head) of one sequence and kv head, 16 a warp; keys come in tiles of 64, values behind them.
// grid (tiles of rows, kv_heads, splits if PARTIAL) | block 32 WARPS | shared: see `Room`           T, D, WARPS, PARTIAL: from the launch
// bound by the tensor cores for long prompts, by the bandwidth for k and v in decoding. Not measured on a card.
// Order: an online softmax over the tiles of a split of SPLIT keys, counted from the sequence's first; splits joined in order. With PARTIAL
// a block computes one split, and attention_combine joins them: the same bits, whatever shares the step.
// Probabilities meet v in halves of halves (three of bf16, two of f16), which sum to what f32 holds: nothing is rounded away.
// Dao 2023, arXiv 2307.08691.
#include "head_tiles.cuh"
#include "sequences.cuh"

constexpr int SPLIT = 512, ROWS = 16 * WARPS, THREADS = 32 * WARPS;
constexpr float LN2 = 0.69314718055994531f;

// Dynamic shared memory, in bytes from its beginning.
struct Room {
    static constexpr int Q = 0, K = Q + ROWS * D * 2, V = K + TILE * D * 2, P = V + TILE * D * 2, TOTAL = P + ROWS * TILE * 4,
                         BYTES = TOTAL + (PARTIAL ? 0 : ROWS * D * 4);
};

// How two parts of a softmax become one: largest scores (of base 2) and what they leave of sums formed with them.
struct Joined {
    float most, keep, add;
};
__device__ __forceinline__ Joined join(float most, float other) {
    const float now = fmaxf(most, other), shift = now == -INF ? 0.0f : now;
    return {now, ptx::ex2(most - shift), ptx::ex2(other - shift)};
}
// Fused where it says so and nowhere else: the same in every kernel.
__device__ __forceinline__ float joined(float total, float part, const Joined& j) { return __fmaf_rn(total, j.keep, __fmul_rn(part, j.add)); }

struct Outputs {
    T* y;
    float* lse;       // or null
    float* partial;   // with PARTIAL: [tokens, heads, splits, D]
    float* softmax;   // with PARTIAL: [tokens, heads, splits, 2], largest score and sum
    u32 splits, unused;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attention_sm80(const Outputs out, const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, const Sequences s, u32 heads, u32 kv_heads, float scale) {
    DYN_SHARED(u8, shared);
    const u32 base = ptx::smem_addr(shared), sq = base + Room::Q, sk = base + Room::K, sv = base + Room::V;
    float *probabilities = (float*)(shared + Room::P), *totals = (float*)(shared + Room::TOTAL);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane / 4, t = lane % 4;
    const u32 kv_head = blockIdx.y, group = heads / kv_heads;

    // The sequence and the rows that are this block's; behind the last sequence, tokens of none.
    u32 sequence = 0, tile = blockIdx.x, first_token = 0, queries = 0;
    for (;; sequence++) {
        if (sequence > s.sequences) return;
        const u32 begin = s.q_starts[sequence], end = sequence < s.sequences ? s.q_starts[sequence + 1] : s.tokens;
        first_token = begin;
        queries = end > begin ? end - begin : 0;
        const u32 tiles = (queries * group + ROWS - 1) / ROWS;
        if (tile < tiles) break;
        tile -= tiles;
    }
    const u32 row0 = tile * ROWS, rows = queries * group;
    const u32 last_row = row0 + ROWS < rows ? row0 + ROWS - 1 : rows - 1;
    const Span span = span_of(s, first_token + row0 / group);
    // What the block's last row sees is the most.
    const i64 most_seen = span_of(s, first_token + last_row / group).seen;
    i64 seen[2];
    u64 at[2];
    bool there[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const u32 row = row0 + warp * 16 + g + h * 8;
        there[h] = row < rows;
        const u32 token = first_token + (there[h] ? row : rows - 1) / group;
        seen[h] = span_of(s, token).seen;
        at[h] = (u64)token * heads + kv_head * group + (there[h] ? row : rows - 1) % group;
    }

    auto load_keys = [&](u32 to, const T* from, i64 first) {
#pragma unroll
        for (int i = threadIdx.x; i < TILE * PIECES; i += THREADS) {
            const int line = i / PIECES, piece = i % PIECES;
            const i64 key = first + line;
            const i64 row = key < (i64)span.keys ? row_of(s, span, (u32)key) : -1;
            ptx::cp_async_16(to + offset(line, piece), row >= 0 ? from + ((u64)row * kv_heads + kv_head) * D + piece * 8 : from, row >= 0 ? 16 : 0);
        }
    };
    for (int i = threadIdx.x; i < ROWS * PIECES; i += THREADS) {
        const u32 line = i / PIECES, piece = i % PIECES, row = row0 + line;
        const u64 pair = (u64)(first_token + row / group) * heads + kv_head * group + row % group;
        ptx::cp_async_16(sq + offset(line, piece), row < rows ? q + pair * D + piece * 8 : q, row < rows ? 16 : 0);
    }
    const i64 begin = PARTIAL ? (i64)blockIdx.z * SPLIT : 0;
    const i64 end = PARTIAL && most_seen > begin + SPLIT ? begin + SPLIT : most_seen;
    if (PARTIAL && begin > 0 && begin >= end) {
        ptx::cp_async_wait<0>();
        return;
    }
    if (begin < end) load_keys(sk, k, begin);
    ptx::cp_async_commit();

    float acc[D / 8][4] = {}, most[2] = {-INF, -INF}, sum[2] = {0.0f, 0.0f};
    float all_most[2] = {-INF, -INF}, all_sum[2] = {0.0f, 0.0f};
    const float factor = scale * LOG2E;
    // Where this thread's results of a row stand among the totals of its block.
    auto total_at = [&](int h, int j, int e) { return (warp * 16 + g + h * 8) * D + j * 8 + t * 2 + e; };
    u32 fq[D / 16][4];
    for (i64 first = begin; first < end; first += TILE) {
        ptx::cp_async_wait<0>();
        __syncthreads();  // keys are there; values of the last tile are no longer read
        load_keys(sv, v, first);
        ptx::cp_async_commit();
        if (first == begin)
#pragma unroll
            for (int i = 0; i < D / 16; i++) ptx::ldmatrix_x4(fq[i], sq + offset(warp * 16 + lane % 16, i * 2 + lane / 16));

        float p[TILE / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; i++)
#pragma unroll
            for (int j = 0; j < TILE / 16; j++) {
                u32 f[4];
                ptx::ldmatrix_x4(f, sk + offset(j * 16 + lane / 16 * 8 + lane % 8, i * 2 + lane / 8 % 2));
                mma(p[j * 2], fq[i], f[0], f[1], T());
                mma(p[j * 2 + 1], fq[i], f[2], f[3], T());
            }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float now = most[h];
#pragma unroll
            for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float& x = p[j][h * 2 + e];
                    x = first + j * 8 + t * 2 + e < seen[h] ? __fmul_rn(x, factor) : -INF;
                    now = fmaxf(now, x);
                }
            now = fmaxf(now, __shfl_xor_sync(0xFFFFFFFFu, now, 1));
            now = fmaxf(now, __shfl_xor_sync(0xFFFFFFFFu, now, 2));
            const float shift = now == -INF ? 0.0f : now, keep = ptx::ex2(most[h] - shift);
            float add = 0.0f;
#pragma unroll
            for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    p[j][h * 2 + e] = ptx::ex2(p[j][h * 2 + e] - shift);
                    add += p[j][h * 2 + e];
                }
            sum[h] = __fmaf_rn(sum[h], keep, add);
            most[h] = now;
#pragma unroll
            for (int j = 0; j < D / 8; j++) acc[j][h * 2] *= keep, acc[j][h * 2 + 1] *= keep;
        }

        ptx::cp_async_wait<0>();
        __syncthreads();  // values are there; keys are no longer read
        if (first + TILE < end) load_keys(sk, k, first + TILE);
        ptx::cp_async_commit();

        // In a tile that some row sees a part of, a value that is not finite must not meet the rows that do not see it: zero times it is NaN.
        bool apart = false;
        if (first + TILE > span.seen) {
            int odd = 0;
            for (int i = threadIdx.x; i < TILE * PIECES; i += THREADS) {
                const uint4 piece = *(const uint4*)(shared + Room::V + i * 16);
                const u32 words[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
                for (int w = 0; w < 4; w++) odd |= !(low_of(words[w], T()) * 0.0f == 0.0f) || !(high_of(words[w], T()) * 0.0f == 0.0f);
            }
            apart = __syncthreads_or(odd);
        }
        if (apart) {
#pragma unroll
            for (int j = 0; j < TILE / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) probabilities[(warp * 16 + g + e / 2 * 8) * TILE + j * 8 + t * 2 + e % 2] = p[j][e];
            __syncwarp();
#pragma unroll 1
            for (int key = 0; key < TILE; key++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    if (first + key >= seen[h]) continue;
                    const float weight = probabilities[(warp * 16 + g + h * 8) * TILE + key];
#pragma unroll
                    for (int j = 0; j < D / 8; j++) {
                        const u32 pair = *(const u32*)(shared + Room::V + offset(key, j) + t * 4);
                        acc[j][h * 2] = fmaf(weight, low_of(pair, T()), acc[j][h * 2]);
                        acc[j][h * 2 + 1] = fmaf(weight, high_of(pair, T()), acc[j][h * 2 + 1]);
                    }
                }
        } else {
            weigh(acc, p, sv);
        }
        if (!PARTIAL && (first + TILE >= end || (first + TILE) % SPLIT == 0)) {
            // The end of a split: it joins those before.
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float own = sum[h];
                own += __shfl_xor_sync(0xFFFFFFFFu, own, 1);
                own += __shfl_xor_sync(0xFFFFFFFFu, own, 2);
                const bool before = all_sum[h] != 0.0f;
                const Joined j = join(all_most[h], most[h]);
                if (own != 0.0f) {
#pragma unroll
                    for (int c = 0; c < D / 8; c++)
#pragma unroll
                        for (int e = 0; e < 2; e++) {
                            float& total = totals[total_at(h, c, e)];
                            total = before ? joined(total, acc[c][h * 2 + e], j) : acc[c][h * 2 + e];
                        }
                    all_sum[h] = before ? joined(all_sum[h], own, j) : own;
                    all_most[h] = before ? j.most : most[h];
                }
                most[h] = -INF;
                sum[h] = 0.0f;
#pragma unroll
                for (int c = 0; c < D / 8; c++) acc[c][h * 2] = acc[c][h * 2 + 1] = 0.0f;
            }
        }
    }
    ptx::cp_async_wait<0>();

#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (PARTIAL) {
            float own = sum[h];
            own += __shfl_xor_sync(0xFFFFFFFFu, own, 1);
            own += __shfl_xor_sync(0xFFFFFFFFu, own, 2);
            if (!there[h]) continue;
            const u64 place = at[h] * out.splits + blockIdx.z;
#pragma unroll
            for (int j = 0; j < D / 8; j++) *(float2*)(out.partial + place * D + j * 8 + t * 2) = make_float2(acc[j][h * 2], acc[j][h * 2 + 1]);
            if (t == 0) *(float2*)(out.softmax + place * 2) = make_float2(most[h], own);
        } else if (there[h]) {
            T* y = out.y + at[h] * D;
            const bool any = all_sum[h] != 0.0f;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                // Zero is added so that it has one sign, however many tiles of nothing came behind.
                const float low = any ? totals[total_at(h, j, 0)] / all_sum[h] + 0.0f : 0.0f, high = any ? totals[total_at(h, j, 1)] / all_sum[h] + 0.0f : 0.0f;
                *(u32*)(y + j * 8 + t * 2) = pack(low, high, T());
            }
            if (out.lse && t == 0) out.lse[at[h]] = any ? __fmaf_rn(all_most[h], LN2, logf(all_sum[h])) : -INF;
        }
    }
}

// Joins the splits of each query and head, in order: grid tokens x heads, block D.
extern "C" __global__ void __launch_bounds__(D) attention_combine(const Outputs out, const Sequences s, u32 heads) {
    const u32 token = blockIdx.x, d = threadIdx.x;
    const u64 at = (u64)token * heads + blockIdx.y;
    const i64 seen = span_of(s, token).seen;
    float most = -INF, sum = 0.0f, total = 0.0f;
    for (u32 split = 0; (i64)split * SPLIT < seen; split++) {
        const u64 place = at * out.splits + split;
        const float2 own = *(const float2*)(out.softmax + place * 2);
        if (own.y == 0.0f) continue;
        const float part = out.partial[place * D + d];
        const bool before = sum != 0.0f;
        const Joined j = join(most, own.x);
        total = before ? joined(total, part, j) : part;
        sum = before ? joined(sum, own.y, j) : own.y;
        most = before ? j.most : own.x;
    }
    const bool any = sum != 0.0f;
    out.y[at * D + d] = narrow<T>(any ? total / sum + 0.0f : 0.0f);
    if (out.lse && d == 0) out.lse[at] = any ? __fmaf_rn(most, LN2, logf(sum)) : -INF;
}
