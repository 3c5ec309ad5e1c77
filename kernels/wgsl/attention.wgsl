// attention: a workgroup for four rows that share their keys (queries, or heads of a group), right for every head dimension and dtype.
// y[i, h] = sum_j softmax_j(scale q[i, h] . k[j, h / group]) v[j, h / group] over the keys that query i sees
// q [tokens, heads, DIM] X; k [keys, kv_heads, DIM], v [keys, kv_heads, V_DIM] W, or in pages -> y [tokens, heads, V_DIM] Y, lse [tokens, heads]
// grid rows / 4, kv_heads | workgroup 64, an invocation a key | shared 4 (DIM + V_DIM + 128) numbers              X, W, Y, DIM, V_DIM: from the launch
// Order: tiles of 64 keys counted from the sequence's first, an online softmax over them. A row is a component of vectors, and has the bits that
// it has alone: they depend on a query's place in its sequence only.
// Vaswani and others 2017, arXiv 1706.03762; Dao and others 2022, arXiv 2205.14135.
const GROUP: u32 = 64u;
//@ include float
//@ include math

//@ entry attention
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, columns: u32, page_size: u32, page_count: u32, has_lse: u32, tokens: u32, scale: f32
//@ output y: Y
//@ output lse: f32
//@ input q: X
//@ input k: W
//@ input v: W
//@ input q_starts: u32
//@ input k_starts: u32
//@ if PAGED
//@ input pages: u32
//@ end
//@ include sequences
var<workgroup> query: array<vec4<f32>, DIM>;
var<workgroup> sum: array<vec4<f32>, V_DIM>;
var<workgroup> weights: array<vec4<f32>, GROUP>;
var<workgroup> room: array<vec4<f32>, GROUP>;
var<workgroup> rows: array<u32, GROUP>;
var<workgroup> spans: array<Span, 4>;
var<workgroup> keys_seen: u32;

fn exps(e: vec4<f32>) -> vec4<f32> { return vec4<f32>(exp_of(e.x), exp_of(e.y), exp_of(e.z), exp_of(e.w)); }
fn largers(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(larger(a.x, b.x), larger(a.y, b.y), larger(a.z, b.z), larger(a.w, b.w));
}
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
    for (var d = 0u; d < DIM; d += 4u) {
        let e = k_four(key + d);
        dot = fma(query[d], e.xxxx, dot);
        dot = fma(query[d + 1u], e.yyyy, dot);
        dot = fma(query[d + 2u], e.zzzz, dot);
        dot = fma(query[d + 3u], e.wwww, dot);
    }
//@ else
    for (var d = 0u; d < DIM; d++) { dot = fma(query[d], vec4<f32>(k_at(key + d)), dot); }
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
    for (var d = lane; d < DIM; d += GROUP) {
        var e = vec4<f32>();
        for (var i = 0u; i < min(4u, row_count - first); i++) {
            let row = first + i;
            e[i] = q_at((row / heads_of * p.heads + kv_head * heads_of + row % heads_of) * DIM + d);
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
        for (var d = lane; d < V_DIM; d += GROUP) { sum[d] = vec4<f32>(); }
        let end = workgroupUniformLoad(&keys_seen);
        var most = vec4<f32>(-infinity());
        var total = vec4<f32>();
        for (var tile = 0u; tile < end; tile += GROUP) {
            let count = min(end - tile, GROUP);
            var row = NO_ROW;
            var dots = vec4<f32>();
            if (lane < count) {
                row = row_of(span, tile + lane);
                if (row != NO_ROW) { dots = scores_of((row * p.kv_heads + kv_head) * DIM); }
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
            for (var d = lane; d < V_DIM; d += GROUP) {
                var add = sum[d] * keep;
                for (var j = 0u; j < count; j++) {
                    let key = rows[j];
                    if (key == NO_ROW) { continue; }
                    // What a row does not see may be NaN, which times nothing is something.
                    let next = fma(weights[j], vec4<f32>(v_at((key * p.kv_heads + kv_head) * V_DIM + d)), add);
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
                let at = (first + i) / heads_of * p.heads + kv_head * heads_of + (first + i) % heads_of;
                // A NaN among the scores is one in the sum, and stays.
                let any = is_nan(total[i]) || total[i] > 0.0;
                for (var d = lane * y_COUNT; d < V_DIM; d += GROUP * y_COUNT) {
                    var result = vec2<f32>();
                    for (var j = 0u; j < y_COUNT && any; j++) { result[j] = sum[d + j][i] / total[i]; }
                    y_store(at * V_DIM + d, result);
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

//@ entry attention_delta
// delta[i, h] = dy . y, an invocation each.
//@ parameters n: u32
//@ output delta: f32
//@ input dy: X
//@ input y: X
fn element(i: u32) -> f32 {
    var sum = 0.0;
    for (var d = 0u; d < V_DIM; d++) { sum = fma(dy_at(i * V_DIM + d), y_at(i * V_DIM + d), sum); }
    return sum;
}
//@ elements delta

//@ entry attention_dq
// dq[i, h] = sum_j ds[i, j] k[j]: a workgroup for each query of each head.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, tokens: u32, scale: f32
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
var<workgroup> sum: array<f32, DIM>;
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
    for (var d = lane; d < DIM; d += GROUP) { sum[d] = 0.0; }
    let end = workgroupUniformLoad(&seen);
    for (var tile = 0u; tile < end; tile += GROUP) {
        let count = min(end - tile, GROUP);
        if (lane < count) { ds[lane] = slope_of(at, (span.first_key + tile + lane) * p.kv_heads + kv_head); }
        workgroupBarrier();
        for (var d = lane; d < DIM; d += GROUP) {
            var add = sum[d];
            for (var j = 0u; j < count; j++) { add = fma(ds[j], k_at(((span.first_key + tile + j) * p.kv_heads + kv_head) * DIM + d), add); }
            sum[d] = add;
        }
        workgroupBarrier();
    }
    for (var d = lane * dq_COUNT; d < DIM; d += GROUP * dq_COUNT) {
        var v = vec2<f32>(sum[d], 0.0);
        if (dq_COUNT == 2u) { v.y = sum[d + 1u]; }
        dq_store(at * DIM + d, v);
    }
}

//@ entry attention_dk
// dk[j] = sum_i ds[i, j] q[i] over the queries and heads of its group: a workgroup for each key of each kv head.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, tokens: u32, scale: f32
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
const WIDTH: u32 = DIM;
fn store_sum(i: u32, v: vec2<f32>) { dk_store(i, v); }
const COUNT: u32 = dk_COUNT;
//@ include over_queries
@compute @workgroup_size(64)
fn attention_dk(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) { over_queries(group.x, group.y, lane); }

//@ entry attention_dv
// dv[j] = sum_i p[i, j] dy[i], over the same.
//@ parameters heads: u32, kv_heads: u32, sequences: u32, keys: u32, causal: u32, tokens: u32, scale: f32
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
const WIDTH: u32 = V_DIM;
fn store_sum(i: u32, v: vec2<f32>) { dv_store(i, v); }
const COUNT: u32 = dv_COUNT;
//@ include over_queries
@compute @workgroup_size(64)
fn attention_dv(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) { over_queries(group.x, group.y, lane); }
