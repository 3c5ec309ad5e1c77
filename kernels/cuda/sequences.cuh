// Which tokens and keys belong to which sequence, for every kernel of attention.
#pragma once
#include "common.cuh"

// Which tokens and keys belong to a sequence. Keys: packed one sequence behind the other, or in pages of a cache.
struct Sequences {
    const u32* q_starts;
    const u32* k_starts;    // packed
    const u32* lengths;     // in pages
    const u32* page_table;  // in pages: [sequences, columns]
    u32 sequences, tokens, keys, causal;
    u32 columns, page_size, pages, unused;
};

struct Span {
    u32 sequence, first_key, keys;  // `keys`: those of the sequence
    i64 seen;                       // those that the query sees
};

__device__ __forceinline__ u32 sequence_of(const u32* starts, u32 sequences, u32 at) {
    u32 low = 0, high = sequences;  // the first whose end is beyond
    while (low < high) {
        const u32 middle = (low + high) / 2;
        if (starts[middle + 1] <= at) low = middle + 1;
        else high = middle;
    }
    return low;
}

__device__ __forceinline__ Span span_of(const Sequences& s, u32 token) {
    Span span = {sequence_of(s.q_starts, s.sequences, token), 0, 0, 0};
    if (span.sequence == s.sequences) return span;
    const u32 begin = s.q_starts[span.sequence], end = s.q_starts[span.sequence + 1];
    if (s.page_table) {
        const u32 room = s.columns * s.page_size, length = s.lengths[span.sequence];
        span.keys = length < room ? length : room;
    } else {
        const u32 first = s.k_starts[span.sequence], beyond = s.k_starts[span.sequence + 1];
        span.first_key = first;
        span.keys = beyond <= first || first >= s.keys ? 0 : (beyond < s.keys ? beyond : s.keys) - first;
    }
    span.seen = span.keys;
    if (s.causal) {
        span.seen = (i64)(token - begin) + (i64)span.keys - (i64)(end - begin) + 1;
        if (span.seen < 0) span.seen = 0;
        if (span.seen > (i64)span.keys) span.seen = span.keys;
    }
    return span;
}

// The row of key `j` of a sequence among all rows of keys; -1 where its page is none.
__device__ __forceinline__ i64 row_of(const Sequences& s, const Span& span, u32 j) {
    if (!s.page_table) return (i64)span.first_key + j;
    const u32 page = s.page_table[(u64)span.sequence * s.columns + j / s.page_size];
    return page < s.pages ? (i64)page * s.page_size + j % s.page_size : -1;
}
