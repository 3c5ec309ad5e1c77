// sum over the queries that see a key, and over the heads of its group, of part_of(query, key) other[query]: tiles of 64 pairs, in order.
var<workgroup> sum: array<f32, ROOM>;
var<workgroup> parts: array<f32, GROUP>;
var<workgroup> first_query: u32;
var<workgroup> pair_count: u32;

fn key_sequence(at: u32) -> u32 {
    var low = 0u;
    var high = p.sequences;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (k_starts_at(middle + 1u) <= at) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}

fn over_queries(key: u32, kv_head: u32, lane: u32) {
    let heads_of = p.heads / p.kv_heads;
    let row = key * p.kv_heads + kv_head;
    if (lane == 0u) {
        let sequence = key_sequence(key);
        var begin = 0u;
        var end = 0u;
        if (sequence < p.sequences) {
            begin = q_starts_at(sequence);
            end = min(q_starts_at(sequence + 1u), p.tokens);
            begin = min(begin, end);
            if (p.causal == 1u) {
                // The first query that sees this key.
                let n = q_starts_at(sequence + 1u) - begin;
                let place = key - k_starts_at(sequence) + n;
                let m = k_starts_at(sequence + 1u) - k_starts_at(sequence);
                if (place > m) { begin += min(place - m, end - begin); }
            }
        }
        first_query = begin;
        pair_count = (end - begin) * heads_of;
    }
    for (var d = lane; d < width(); d += GROUP) { sum[d] = 0.0; }
    let begin = workgroupUniformLoad(&first_query);
    let pairs = workgroupUniformLoad(&pair_count);
    for (var tile = 0u; tile < pairs; tile += GROUP) {
        let count = min(pairs - tile, GROUP);
        if (lane < count) {
            let pair = tile + lane;
            parts[lane] = part_of((begin + pair / heads_of) * p.heads + kv_head * heads_of + pair % heads_of, row);
        }
        workgroupBarrier();
        for (var d = lane; d < width(); d += GROUP) {
            var add = sum[d];
            for (var j = 0u; j < count; j++) {
                let pair = tile + j;
                let at = (begin + pair / heads_of) * p.heads + kv_head * heads_of + pair % heads_of;
                add = fma(parts[j], other_at(at * width() + d), add);
            }
            sum[d] = add;
        }
        workgroupBarrier();
    }
    for (var d = lane * COUNT; d < width(); d += GROUP * COUNT) {
        var v = vec2<f32>(sum[d], 0.0);
        if (COUNT == 2u) { v.y = sum[d + 1u]; }
        store_sum(row * width() + d, v);
    }
}
