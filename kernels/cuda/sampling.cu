// sample: draws the next token of each row: penalties, bias, temperature, top-k, top-p, min-p, and the largest of logit and Gumbel noise.
// logits [rows, V] T, contiguous; parameters [rows, 7] -> ids, log_probabilities [rows]; x [rows, V] f32, what is left before the draw
// grid rows | block 1024 | shared some 4 KiB              T: from the launch
// bound by the latency of some ten passes over a row in cache, those of filters that are off left out.
// No sort: thresholds are found digit by digit of the values' order, with counts for top-k and masses for top-p, both integers, whose sums
// have no order. Exact, and the same for any neighbours.
#include "block_reduce.cuh"
#include "philox.cuh"

#define THREADS 1024

struct Inputs {
    const float* parameters;
    const u32* history;
    const u32* generated_from;
    const u32* bias_ids;
    const float* bias;
    const u32* seeds;
    const u32* positions;
    u32 history_length, bias_length;
    u64 vocab;
};

// A number that is ordered as the value is; NaN above all others, -0 as 0.
__device__ __forceinline__ u32 order_of(float x) {
    if (x != x) return 0xFFFFFFFFu;
    const u32 bits = float_bits(x + 0.0f);
    return bits ^ ((bits >> 31) ? 0xFFFFFFFFu : 0x80000000u);
}

// What a probability is counted as: its share of the largest, in units of 2^-40.
__device__ __forceinline__ u64 mass_of(float x, float most) { return (u64)((double)expf(x - most) * 1099511627776.0); }

struct Shared {
    float floats[THREADS / 32];
    u32 words[THREADS / 32];
    u32 counts[256];
    u64 masses[256];
    u32 prefix, ties;
    u64 left, beyond;
};

// Whether ids[j] stands nowhere before j.
__device__ __forceinline__ bool is_first(const u32* ids, u32 j) {
    for (u32 i = 0; i < j; i++)
        if (ids[i] == ids[j]) return false;
    return true;
}

// Takes what is smaller than the k-th largest away.
__device__ __forceinline__ void keep_top_k(float* x, u64 vocab, u64 k, Shared& s) {
    if (threadIdx.x == 0) s.prefix = 0, s.left = k;
    u32 mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        if (threadIdx.x < 256) s.counts[threadIdx.x] = 0;
        __syncthreads();
        const u32 prefix = s.prefix;
        for (u64 i = threadIdx.x; i < vocab; i += THREADS) {
            const u32 order = order_of(x[i]);
            if ((order & mask) == prefix) atomicAdd(&s.counts[order >> shift & 255], 1u);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            u64 left = s.left;
            int digit = 255;
            for (; digit > 0 && s.counts[digit] < left; digit--) left -= s.counts[digit];
            s.left = left;
            s.prefix = prefix | (u32)digit << shift;
        }
        mask |= 255u << shift;
        __syncthreads();
    }
    const u32 threshold = s.prefix;
    for (u64 i = threadIdx.x; i < vocab; i += THREADS)
        if (order_of(x[i]) < threshold) x[i] = -INF;
    __syncthreads();
}

// Takes away what, the largest first, has a mass of `share` of the whole or more before it; the first stays.
__device__ __forceinline__ void keep_top_p(float* x, u64 vocab, float share, float most, bool countable, Shared& s) {
    // The last that stays, by order; of equal ones the first `ties`.
    u32 threshold, ties;
    if (countable) {
        if (threadIdx.x < 256) s.masses[threadIdx.x] = 0;
        if (threadIdx.x == 0) s.prefix = 0, s.beyond = 0;
        __syncthreads();
        u64 mine = 0;
        for (u64 i = threadIdx.x; i < vocab; i += THREADS) mine += mass_of(x[i], most);
        atomicAdd(&s.masses[0], mine);
        __syncthreads();
        const u64 whole = s.masses[0];
        const double bound = (double)share * (double)whole;
        __syncthreads();
        u32 mask = 0;
        for (int shift = 24; shift >= 0; shift -= 8) {
            if (threadIdx.x < 256) s.masses[threadIdx.x] = 0, s.counts[threadIdx.x] = 0;
            __syncthreads();
            const u32 prefix = s.prefix;
            for (u64 i = threadIdx.x; i < vocab; i += THREADS) {
                const u32 order = order_of(x[i]);
                if ((order & mask) != prefix) continue;
                atomicAdd(&s.masses[order >> shift & 255], mass_of(x[i], most));
                atomicAdd(&s.counts[order >> shift & 255], 1u);
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                // The lowest digit in which something has less than the bound before it; the highest that there is, at least.
                u64 beyond = s.beyond;
                int digit = 255, last = -1;
                u64 at_last = beyond;
                for (; digit >= 0; digit--) {
                    if (s.counts[digit] == 0) continue;
                    if (last >= 0 && !((double)beyond < bound)) break;
                    last = digit, at_last = beyond;
                    beyond += s.masses[digit];
                }
                s.beyond = at_last;
                s.prefix = prefix | (u32)(last < 0 ? 0 : last) << shift;
                s.ties = last < 0 ? 0 : s.counts[last];
            }
            mask |= 255u << shift;
            __syncthreads();
        }
        threshold = s.prefix;
        // Equal values have equal masses: as many as begin below the bound.
        const u64 beyond = s.beyond, each = s.ties ? s.masses[threshold & 255] / s.ties : 0;
        const double room = bound - (double)beyond;
        ties = each == 0 ? s.ties : room <= 0.0 ? 1 : room > (double)each * s.ties ? s.ties : (u32)ceil(room / (double)each);
        if (ties < 1) ties = 1;
    } else {
        // Of values that are not finite the first of the largest stays.
        threshold = order_of(most);
        ties = 1;
    }
    __syncthreads();
    // Of the equal ones the first by place: each thread takes a run of places, and knows how many stand before it.
    const u64 run = (vocab + THREADS - 1) / THREADS, begin = threadIdx.x * run < vocab ? threadIdx.x * run : vocab,
              end = begin + run < vocab ? begin + run : vocab;
    u32 own = 0;
    for (u64 i = begin; i < end; i++) own += order_of(x[i]) == threshold;
    u32 earlier = own;
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        const u32 other = __shfl_up_sync(FULL_WARP, earlier, distance);
        if (lane >= distance) earlier += other;
    }
    if (lane == 31) s.words[threadIdx.x >> 5] = earlier;
    __syncthreads();
    earlier -= own;
    for (u32 w = 0; w < (threadIdx.x >> 5); w++) earlier += s.words[w];
    for (u64 i = begin; i < end; i++) {
        const u32 order = order_of(x[i]);
        if (order == threshold && earlier++ >= ties) x[i] = -INF;
        if (order < threshold) x[i] = -INF;
    }
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS)
sample(u32* __restrict__ ids, float* __restrict__ log_probabilities, float* filtered, const T* __restrict__ logits, const Inputs in) {
    __shared__ Shared s;
    const u64 row = blockIdx.x, vocab = in.vocab;
    const u32 tid = threadIdx.x;
    logits += row * vocab;
    float* x = filtered + row * vocab;
    const float* parameters = in.parameters + row * 7;
    const float temperature = parameters[0], k = parameters[1], share = parameters[2], floor = parameters[3];
    const float repetition = parameters[4], frequency = parameters[5], presence = parameters[6];
    const bool greedy = temperature == 0.0f;

    float raw_most = -INF;
    for (u64 i = tid; i < vocab; i += THREADS) {
        const float v = (float)widen(logits[i]);
        x[i] = v;
        raw_most = larger(raw_most, v);
    }
    raw_most = block_reduce<THREADS>(raw_most, s.floats, Largest());
    float sum = 0.0f;
    for (u64 i = tid; i < vocab; i += THREADS) sum += expf(x[i] - raw_most);
    sum = block_reduce<THREADS>(sum, s.floats, Sum());  // and every x is written

    // Penalties: whoever has the first of equal tokens of the history applies theirs.
    const u32* history = in.history + row * in.history_length;
    const u32 from = in.generated_from[row];
    for (u32 j = tid; j < in.history_length; j += THREADS) {
        const u32 id = history[j];
        if (id >= vocab || !is_first(history, j)) continue;
        float generated = 0.0f;
        for (u32 i = j < from ? from : j; i < in.history_length; i++) generated += history[i] == id;
        const float v = x[id], penalised = v < 0.0f ? v * repetition : v / repetition;
        x[id] = __fadd_rn(__fadd_rn(penalised, -__fmul_rn(generated, frequency)), -(generated > 0.0f ? presence : 0.0f));
    }
    __syncthreads();
    const u32* bias_ids = in.bias_ids + row * in.bias_length;
    const float* bias = in.bias + row * in.bias_length;
    for (u32 j = tid; j < in.bias_length; j += THREADS) {
        const u32 id = bias_ids[j];
        if (id >= vocab || !is_first(bias_ids, j)) continue;
        float all = 0.0f;
        for (u32 i = j; i < in.bias_length; i++)
            if (bias_ids[i] == id) all += bias[i];
        x[id] += all;
    }
    __syncthreads();

    if (!greedy && temperature != 1.0f)
        for (u64 i = tid; i < vocab; i += THREADS) x[i] /= temperature;
    __syncthreads();
    if (k >= 1.0f && k < (float)vocab) keep_top_k(x, vocab, (u64)k, s);
    if (share < 1.0f || floor > 0.0f) {
        float most = -INF;
        for (u64 i = tid; i < vocab; i += THREADS) most = larger(most, x[i]);
        most = block_reduce<THREADS>(most, s.floats, Largest());
        const bool finite = most - most == 0.0f;
        // Of nothing but -inf every probability is 0, and all stay.
        if (share < 1.0f && most != -INF) keep_top_p(x, vocab, share, most, finite, s);
        if (floor > 0.0f && finite)
            for (u64 i = tid; i < vocab; i += THREADS)
                if (expf(x[i] - most) < floor) x[i] = -INF;
        __syncthreads();
    }

    // The largest, with its noise: see `before`.
    float best = -INF;
    u64 at = NOWHERE;
    const u32 blocks = (u32)((vocab + 3) / 4);
    for (u32 b = tid; b < blocks; b += THREADS) {
        float u[4];
        if (!greedy) uniforms(u, in.seeds[2 * row], in.seeds[2 * row + 1], in.positions[row], b);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const u64 i = (u64)b * 4 + j;
            if (i >= vocab) continue;
            // What went needs no noise.
            const float v = greedy || x[i] == -INF ? x[i] : x[i] + gumbel(u[j]);
            if (before(v, i, best, at, true)) best = v, at = i;
        }
    }
    block_choose<THREADS>(best, at, s.floats, s.masses, true);
    if (tid) return;
    ids[row] = (u32)at;
    log_probabilities[row] = (float)widen(logits[at]) - raw_most - logf(sum);
}
