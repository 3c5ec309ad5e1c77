// attention: a workgroup for four rows that share their keys (queries, or heads of a group), right for every head dimension and dtype.
// y[i, h] = sum_j softmax_j(scale q[i, h] . k[j, h / group]) v[j, h / group] over the keys that query i sees
// q [tokens, heads, dim] X; k [keys, kv_heads, dim], v [keys, kv_heads, v_dim] W, or in pages -> y [tokens, heads, v_dim] Y, lse [tokens, heads]
// grid rows / 4, kv_heads | workgroup 64, an invocation a key | shared 8 (ROOM + 64) numbers              X, W, Y, ROOM (dim and v_dim, or more): from the launch
// Order: tiles of 64 keys counted from the sequence's first, an online softmax over them. A row is a component of vectors, and has the bits that
// it has alone: they depend on a query's place in its sequence only.
// Vaswani and others 2017, arXiv 1706.03762; Dao and others 2022, arXiv 2205.14135.
const GROUP: u32 = 64u;
//@ include float
//@ include math

//@ entry attention
//@ include attending
var<workgroup> query: array<vec4<f32>, ROOM>;
var<workgroup> sum: array<vec4<f32>, ROOM>;
var<workgroup> weights: array<vec4<f32>, GROUP>;
var<workgroup> room: array<vec4<f32>, GROUP>;
var<workgroup> rows: array<u32, GROUP>;
var<workgroup> spans: array<Span, 4>;
var<workgroup> keys_seen: u32;

fn group_sums(e: vec4<f32>, lane: u32) -> vec4<f32> {
    room[lane] = e;
    workgroupBarrier();
    for (var width = GROUP / 2u; width > 0u; width = width >> 1u) {
        if (lane < width) { room[lane] = room[lane] + room[lane + width]; }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&room[0]);
}
fn group_largests(e: vec4<f32>, lane: u32) -> vec4<f32> {
    room[lane] = e;
    workgroupBarrier();
    for (var width = GROUP / 2u; width > 0u; width = width >> 1u) {
        if (lane < width) { room[lane] = largers(room[lane], room[lane + width]); }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&room[0]);
}

// The four rows' products with a key, each a chain over its elements.
fn scores_of(key: u32) -> vec4<f32> {
    var dot = vec4<f32>();
//@ if FOURS
    for (var d = 0u; d < p.dim; d += 4u) {
        let e = k_four(key + d);
        dot = fma(query[d], e.xxxx, dot);
        dot = fma(query[d + 1u], e.yyyy, dot);
        dot = fma(query[d + 2u], e.zzzz, dot);
        dot = fma(query[d + 3u], e.wwww, dot);
    }
//@ else
    for (var d = 0u; d < p.dim; d++) { dot = fma(query[d], vec4<f32>(k_at(key + d)), dot); }
//@ end
    return dot;
}

// Whether row `i` is of the sequence that row `first` is of, which no row before it is.
fn is_of(i: u32, first: u32) -> bool { return i >= first && spans[i].sequence == spans[first].sequence; }
fn is_first(i: u32) -> bool {
    if (i == 0u) { return true; }
    return spans[i - 1u].sequence != spans[i].sequence;
}

@compute @workgroup_size(64)
fn attention(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let heads_of = p.heads / p.kv_heads;
    let kv_head = group.y;
    let first = group.x * 4u;
    let row_count = p.tokens * heads_of;
    if (lane < 4u) {
        if (first + lane < row_count) { spans[lane] = span_of((first + lane) / heads_of); } else { spans[lane] = Span(NO_ROW, 0u, 0u, 0u); }
    }
    for (var d = lane; d < p.dim; d += GROUP) {
        var e = vec4<f32>();
        for (var i = 0u; i < min(4u, row_count - first); i++) {
            let row = first + i;
            e[i] = q_at(head_of(row, kv_head) * p.dim + d);
        }
        query[d] = e;
    }
    workgroupBarrier();
    // Rows of one sequence after those of another: most often all four are of one.
    for (var begin = 0u; begin < 4u; begin++) {
        var seen = vec4<u32>();
        for (var i = 0u; i < 4u; i++) { seen[i] = select(0u, spans[i].seen, is_of(i, begin)); }
        if (lane == 0u) { keys_seen = select(0u, max(max(seen.x, seen.y), max(seen.z, seen.w)), is_first(begin)); }
        let span = spans[begin];
        for (var d = lane; d < p.v_dim; d += GROUP) { sum[d] = vec4<f32>(); }
        let end = workgroupUniformLoad(&keys_seen);
        var most = vec4<f32>(-infinity());
        var total = vec4<f32>();
        for (var tile = 0u; tile < end; tile += GROUP) {
            let count = min(end - tile, GROUP);
            var row = NO_ROW;
            var dots = vec4<f32>();
            if (lane < count) {
                row = row_of(span, tile + lane);
                if (row != NO_ROW) { dots = scores_of((row * p.kv_heads + kv_head) * p.dim); }
            }
            rows[lane] = row;
            let inside = vec4<u32>(tile + lane) < seen;
            let scores = select(vec4<f32>(-infinity()), dots * p.scale, inside);
            let now = largers(most, group_largests(scores, lane));
            let shift = select(now, vec4<f32>(), bitcast<vec4<u32>>(now) == vec4<u32>(0xff800000u));
            let keep = exps(most - shift);
            let mine = select(vec4<f32>(), exps(scores - shift), inside);
            weights[lane] = mine;
            total = total * keep + group_sums(mine, lane);
            for (var d = lane; d < p.v_dim; d += GROUP) {
                var add = sum[d] * keep;
                for (var j = 0u; j < count; j++) {
                    let key = rows[j];
                    if (key == NO_ROW) { continue; }
                    // What a row does not see may be NaN, which times nothing is something.
                    let next = fma(weights[j], vec4<f32>(v_at((key * p.kv_heads + kv_head) * p.v_dim + d)), add);
                    add = select(add, next, vec4<u32>(tile + j) < seen);
                }
                sum[d] = add;
            }
            most = now;
            workgroupBarrier();
        }
        if (is_first(begin)) {
            for (var i = begin; i < min(4u, row_count - first); i++) {
                if (!is_of(i, begin)) { break; }
                if (p.keep == 1u && spans[i].sequence == p.sequences) { continue; }
                let at = head_of(first + i, kv_head);
                // A NaN among the scores is one in the sum, and stays.
                let any = is_nan(total[i]) || total[i] > 0.0;
                for (var d = lane * y_COUNT; d < p.v_dim; d += GROUP * y_COUNT) {
                    var result = vec2<f32>();
                    for (var j = 0u; j < y_COUNT && any; j++) { result[j] = sum[d + j][i] / total[i]; }
                    y_store(at * p.v_dim + d, result);
                }
                if (p.has_lse == 1u && lane == 0u) {
                    var all = -infinity();
                    if (any) { all = log_of(total[i]) + most[i]; }
                    lse_store(at, vec2<f32>(all, 0.0));
                }
            }
        }
        workgroupBarrier();
    }
}

//@ entry attention_lanes
// The same, and the same bits, without shared memory and barriers: a workgroup is one subgroup of LANES invocations (a power of two) for 4 ROWS
// rows, in which each reads its own keys and its own elements of values once, and they hand each other queries and weights.
// grid rows / (4 ROWS), kv_heads | workgroup LANES | shared none
// DIM, V_DIM, LANES, KEYS (64 / LANES), ROWS, DIMS (the elements of a sum that a lane has): from the launch
//@ include attending
//@ include lanes
const DEEP: u32 = (DIM + LANES - 1u) / LANES;
//@ repeat r ROWS
var<private> query$r: array<vec4<f32>, DEEP>;
var<private> weights$r: array<vec4<f32>, KEYS>;
//@ end
var<private> halves: array<vec4<f32>, KEYS>;
var<private> rows: array<u32, KEYS>;

// Four elements of a key from `d` on, with zeros beyond the last.
fn key_four(key: u32, d: u32) -> vec4<f32> {
//@ if FOURS
    return k_four(key + d);
//@ else
    var e = vec4<f32>();
    for (var j = 0u; j < min(4u, DIM - d); j++) { e[j] = k_at(key + d + j); }
    return e;
//@ end
}
// Over the keys of a tile, in the order in which a workgroup joins them.
fn tile_sums() -> vec4<f32> {
    for (var width = KEYS / 2u; width > 0u; width = width >> 1u) {
        for (var i = 0u; i < width; i++) { halves[i] = halves[i] + halves[i + width]; }
    }
    var all = halves[0];
    for (var width = LANES / 2u; width > 0u; width = width >> 1u) { all = all + subgroupShuffleXor(all, width); }
    return all;
}
fn tile_largests(mine: vec4<f32>) -> vec4<f32> {
    var all = mine;
    for (var width = LANES / 2u; width > 0u; width = width >> 1u) { all = largers(all, subgroupShuffleXor(all, width)); }
    return all;
}
// Element d of the queries of four rows, of which those from `beyond` on are none.
fn four_queries(row: u32, beyond: u32, kv_head: u32, d: u32) -> vec4<f32> {
    var e = vec4<f32>();
    for (var i = row; i < min(row + 4u, beyond); i++) { e[i % 4u] = q_at(head_of(i, kv_head) * DIM + d); }
    return e;
}
// How many keys each of four rows sees, of those rows from `begin` to `end`.
fn four_seen(row: u32, begin: u32, end: u32) -> vec4<u32> {
    var seen = vec4<u32>();
    for (var i = row; i < min(row + 4u, end); i++) {
        if (i >= begin) { seen[i % 4u] = span_of(i / (p.heads / p.kv_heads)).seen; }
    }
    return seen;
}

@compute @workgroup_size(LANES)
fn attention_lanes(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let heads_of = p.heads / p.kv_heads;
    let kv_head = group.y;
    let first = group.x * (4u * ROWS);
    let beyond = min(first + 4u * ROWS, p.tokens * heads_of);
    for (var d = lane; d < DIM; d += LANES) {
//@ repeat r ROWS
        query$r[d / LANES] = four_queries(first + 4u * $ru, beyond, kv_head, d);
//@ end
    }
    // Rows of one sequence after those of another: most often all are of one.
    var end = first;
    for (var begin = first; begin < beyond; begin = end) {
        let span = span_of(begin / heads_of);
        var last = 0u;
        while (end < beyond) {
            let other = span_of(end / heads_of);
            if (other.sequence != span.sequence) { break; }
            last = max(last, other.seen);
            end = min((end / heads_of + 1u) * heads_of, beyond);
        }
//@ repeat r ROWS
        let seen$r = four_seen(first + 4u * $ru, begin, end);
        var most$r = vec4<f32>(-infinity());
        var total$r = vec4<f32>();
//@ repeat c DIMS
        var sum$r_$c = vec4<f32>();
//@ end
//@ end
        for (var tile = 0u; tile < last; tile += GROUP) {
            for (var i = 0u; i < KEYS; i++) {
                let place = tile + i * LANES + lane;
                rows[i] = NO_ROW;
                if (place < last) { rows[i] = row_of(span, place); }
            }
//@ repeat i KEYS
            let key$i = (select(0u, rows[$i], rows[$i] != NO_ROW) * p.kv_heads + kv_head) * DIM;
//@ repeat r ROWS
            var dot$r_$i = vec4<f32>();
//@ end
//@ end
            for (var d = 0u; d < DIM; d += 4u) {
//@ repeat i KEYS
                let k$i = key_four(key$i, d);
//@ end
                for (var j = d; j < d + 4u; j++) {
//@ repeat r ROWS
                    let q$r = subgroupShuffle(query$r[d / LANES], j % LANES);
//@ repeat i KEYS
                    dot$r_$i = fma(q$r, vec4<f32>(k$i[j % 4u]), dot$r_$i);
//@ end
//@ end
                }
            }
//@ repeat r ROWS
            var top$r = most$r;
//@ repeat i KEYS
            let inside$r_$i = vec4<u32>(tile + $iu * LANES + lane) < seen$r;
            let score$r_$i = select(vec4<f32>(-infinity()), select(vec4<f32>(), dot$r_$i, rows[$i] != NO_ROW) * p.scale, inside$r_$i);
            top$r = largers(top$r, score$r_$i);
//@ end
            top$r = tile_largests(top$r);
            let shift$r = select(top$r, vec4<f32>(), bitcast<vec4<u32>>(top$r) == vec4<u32>(0xff800000u));
            let keep$r = exps(most$r - shift$r);
            most$r = top$r;
//@ repeat i KEYS
            weights$r[$i] = select(vec4<f32>(), exps(score$r_$i - shift$r), inside$r_$i);
            halves[$i] = weights$r[$i];
//@ end
            total$r = total$r * keep$r + tile_sums();
//@ repeat c DIMS
            sum$r_$c = sum$r_$c * keep$r;
//@ end
//@ end
            for (var j = tile; j < min(tile + GROUP, last); j++) {
                let key = subgroupShuffle(rows[j % GROUP / LANES], j % LANES);
                if (key == NO_ROW) { continue; }
                let value = (key * p.kv_heads + kv_head) * V_DIM;
//@ repeat c DIMS
                let v$c = vec4<f32>(v_at(value + min(element_of(lane, $cu, y_COUNT), V_DIM - 1u)));
//@ end
//@ repeat r ROWS
                // What a row does not see may be NaN, which times nothing is something.
                let w$r = subgroupShuffle(weights$r[j % GROUP / LANES], j % LANES);
                let sees$r = vec4<u32>(j) < seen$r;
//@ repeat c DIMS
                sum$r_$c = select(sum$r_$c, fma(w$r, v$c, sum$r_$c), sees$r);
//@ end
//@ end
            }
        }
//@ repeat r ROWS
        for (var i = max(begin, first + 4u * $ru); i < min(end, first + 4u * $ru + 4u); i++) {
            if (p.keep == 1u && span.sequence == p.sequences) { continue; }
            put_row(head_of(i, kv_head), lane, total$r[i % 4u], most$r[i % 4u], array<f32, DIMS>(
//@ repeat c DIMS
                sum$r_$c[i % 4u],
//@ end
            ));
        }
//@ end
    }
}

fn put_row(at: u32, lane: u32, total: f32, most: f32, sums: array<f32, DIMS>) {
    // A NaN among the scores is one in the sum, and stays.
    let any = is_nan(total) || total > 0.0;
//@ repeat c DIMS
    if ($cu % y_COUNT == 0u && element_of(lane, $cu, y_COUNT) < V_DIM) {
        y_store(at * V_DIM + element_of(lane, $cu, y_COUNT), select(vec2<f32>(), vec2<f32>(sums[$c], sums[min($cu + 1u, DIMS - 1u)]) / total, any));
    }
//@ end
    if (p.has_lse == 1u && lane == 0u) {
        var log_sum = -infinity();
        if (any) { log_sum = log_of(total) + most; }
        lse_store(at, vec2<f32>(log_sum, 0.0));
    }
}

//@ entry attention_delta
// delta[i, h] = dy . y, an invocation each.
//@ parameters n: u32, v_dim: u32
//@ output delta: f32
//@ input dy: X
//@ input y: X
fn element(i: u32) -> f32 {
    var sum = 0.0;
    for (var d = 0u; d < p.v_dim; d++) { sum = fma(dy_at(i * p.v_dim + d), y_at(i * p.v_dim + d), sum); }
    return sum;
}
//@ elements delta

//@ entry attention_dq
// dq[i, h] = sum_j ds[i, j] k[j]: a workgroup for each query of each head.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, tokens: u32, dim: u32, v_dim: u32, scale: f32
//@ output dq: Y
//@ input dy: X
//@ input q: X
//@ input k: W
//@ input v: W
//@ input lse: f32
//@ input delta: f32
//@ input starts: u32
//@ include starts
//@ include sequences
//@ include slopes
var<workgroup> sum: array<f32, ROOM>;
var<workgroup> ds: array<f32, GROUP>;
var<workgroup> seen: u32;
@compute @workgroup_size(64)
fn attention_dq(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let token = group.x;
    let head = group.y;
    let kv_head = head / (p.heads / p.kv_heads);
    let span = span_of(token);
    let at = token * p.heads + head;
    if (lane == 0u) { seen = span.seen; }
    for (var d = lane; d < p.dim; d += GROUP) { sum[d] = 0.0; }
    let end = workgroupUniformLoad(&seen);
    for (var tile = 0u; tile < end; tile += GROUP) {
        let count = min(end - tile, GROUP);
        if (lane < count) { ds[lane] = slope_of(at, (span.first_key + tile + lane) * p.kv_heads + kv_head); }
        workgroupBarrier();
        for (var d = lane; d < p.dim; d += GROUP) {
            var add = sum[d];
            for (var j = 0u; j < count; j++) { add = fma(ds[j], k_at(((span.first_key + tile + j) * p.kv_heads + kv_head) * p.dim + d), add); }
            sum[d] = add;
        }
        workgroupBarrier();
    }
    for (var d = lane * dq_COUNT; d < p.dim; d += GROUP * dq_COUNT) {
        var v = vec2<f32>(sum[d], 0.0);
        if (dq_COUNT == 2u) { v.y = sum[d + 1u]; }
        dq_store(at * p.dim + d, v);
    }
}

//@ entry attention_dk
// dk[j] = sum_i ds[i, j] q[i] over the queries and heads of its group: a workgroup for each key of each kv head.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, tokens: u32, dim: u32, v_dim: u32, scale: f32
//@ output dk: Y
//@ input dy: X
//@ input q: X
//@ input k: W
//@ input v: W
//@ input lse: f32
//@ input delta: f32
//@ input starts: u32
//@ include starts
//@ include slopes
fn part_of(at: u32, row: u32) -> f32 { return slope_of(at, row); }
fn other_at(i: u32) -> f32 { return q_at(i); }
fn width() -> u32 { return p.dim; }
fn store_sum(i: u32, v: vec2<f32>) { dk_store(i, v); }
const COUNT: u32 = dk_COUNT;
//@ include over_queries
@compute @workgroup_size(64)
fn attention_dk(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) { over_queries(group.x, group.y, lane); }

//@ entry attention_dv
// dv[j] = sum_i p[i, j] dy[i], over the same.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, tokens: u32, dim: u32, v_dim: u32, scale: f32
//@ output dv: Y
//@ input dy: X
//@ input q: X
//@ input k: W
//@ input v: W
//@ input lse: f32
//@ input delta: f32
//@ input starts: u32
//@ include starts
//@ include slopes
fn part_of(at: u32, row: u32) -> f32 { return weight_of(at, row); }
fn other_at(i: u32) -> f32 { return dy_at(i); }
fn width() -> u32 { return p.v_dim; }
fn store_sum(i: u32, v: vec2<f32>) { dv_store(i, v); }
const COUNT: u32 = dv_COUNT;
//@ include over_queries
@compute @workgroup_size(64)
fn attention_dv(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) { over_queries(group.x, group.y, lane); }
