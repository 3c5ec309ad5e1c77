// Which tokens and keys belong to which sequence. `q_starts_at`, and for keys `k_starts_at` (packed one sequence behind the other) or `lengths`
// in their place and `pages_at` (in pages of a cache, PAGED): see attention.wgsl.

const NO_ROW = 0xffffffffu;

struct Span { sequence: u32, first_key: u32, keys: u32, seen: u32 }

// The first sequence whose end is beyond `at`.
fn query_sequence(at: u32) -> u32 {
    var low = 0u;
    var high = p.sequences;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (q_starts_at(middle + 1u) <= at) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}

// The keys of a sequence, and those that the query `token` sees.
fn span_of(token: u32) -> Span {
    var span = Span(query_sequence(token), 0u, 0u, 0u);
    if (span.sequence == p.sequences) { return span; }
    let begin = q_starts_at(span.sequence);
    if (token < begin) {
        // Before the first of them.
        span.sequence = p.sequences;
        return span;
    }
    let end = q_starts_at(span.sequence + 1u);
//@ if PAGED
    span.keys = min(k_starts_at(span.sequence), p.columns * p.page_size);
//@ else
    let first = k_starts_at(span.sequence);
    let beyond = min(k_starts_at(span.sequence + 1u), p.keys);
    span.first_key = first;
    span.keys = select(beyond - first, 0u, beyond <= first);
//@ end
    span.seen = span.keys;
    if (p.causal == 1u) {
        let reach = (token - begin) + span.keys + 1u;
        let own = end - begin;
        span.seen = select(min(reach - own, span.keys), 0u, reach <= own);
    }
    return span;
}

// The row of key `j` of a sequence among all rows of keys; NO_ROW where its page is none.
fn row_of(span: Span, j: u32) -> u32 {
//@ if PAGED
    let page = pages_at(span.sequence * p.columns + j / p.page_size);
    return select(NO_ROW, page * p.page_size + j % p.page_size, page < p.page_count);
//@ else
    return span.first_key + j;
//@ end
}
