// Root-mean-square norms: a row per workgroup.  y = round(x * rsqrt(mean(x^2) + eps)) * w; and their derivative.
// x [rows, n] X, w [n] W -> y [rows, n] Y, whole words; r [rows]
// grid rows | workgroup 256 | shared 256 numbers              X, W, Y: from the launch
// bound by bandwidth: 2 rows n elements. Order: lanes stride by 256, tree. Depends on n alone.
const GROUP: u32 = 256u;
//@ include float

//@ entry rms_norm
// With a stream, what is normed is its sum with x, rounded, and that is written too. `has`: bits for stream, weight, r.
//@ include norming
//@ include group
@compute @workgroup_size(256)
fn rms_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let first = row * p.n;
    var squares = 0.0;
    for (var i = lane; i < p.n; i += GROUP) {
        let v = value(first + i);
        squares += v * v;
    }
    squares = group_sum(squares, lane);
    let scale = 1.0 / sqrt(squares / f32(p.n) + p.eps);
    if ((p.has & 4u) != 0u && lane == 0u) { r_store(row, vec2<f32>(scale, 0.0)); }
    for (var i = lane * y_COUNT; i < p.n; i += GROUP * y_COUNT) {
        var v = vec2<f32>();
        var s = vec2<f32>();
        for (var j = 0u; j < y_COUNT; j++) {
            s[j] = value(first + i + j);
            v[j] = X_round(s[j] * scale);
            if ((p.has & 2u) != 0u) { v[j] = v[j] * w_at(i + j); }
        }
        y_store(first + i, v);
        if ((p.has & 1u) != 0u) { sum_store(first + i, s); }
    }
}

//@ entry rms_norm_lanes
// The same, and the same bits, without shared memory and barriers: a workgroup is one subgroup of LANES invocations for ROWS rows, which holds a
// row, and the weight, while it works on it.
// grid rows / ROWS | workgroup LANES | shared none      LANES, ROWS, HELD (how many elements of a row a lane has, whole words): from the launch
//@ include norming
//@ include lanes
const SLOTS: u32 = GROUP / LANES;
var<private> held: array<f32, HELD>;
var<private> weight: array<f32, HELD>;
var<private> squares: array<f32, SLOTS>;
// The sums of a workgroup's 256 lanes, joined as it joins them.
fn joined(lane: u32) -> f32 {
    for (var width = SLOTS / 2u; width >= y_COUNT; width = width >> 1u) {
        for (var t = 0u; t < width; t++) { squares[t] = squares[t] + squares[t + width]; }
    }
    var all = vec2<f32>(squares[0], squares[y_COUNT - 1u]);
    for (var width = LANES / 2u; width > 0u; width = width >> 1u) { all = all + subgroupShuffleXor(all, width); }
    return select(all.x, all.x + all.y, y_COUNT == 2u);
}
@compute @workgroup_size(LANES)
fn rms_norm_lanes(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let begin = (group.y * groups.x + group.x) * ROWS;
    if ((p.has & 2u) != 0u) {
        for (var t = 0u; t < HELD; t++) { weight[t] = w_at(min(element_of(lane, t, y_COUNT), p.n - 1u)); }
    }
    for (var row = begin; row < min(begin + ROWS, p.rows); row++) {
        let first = row * p.n;
        for (var t = 0u; t < SLOTS; t++) { squares[t] = 0.0; }
        for (var t = 0u; t < HELD; t++) {
            let i = element_of(lane, t, y_COUNT);
            if (i < p.n) {
                let v = value(first + i);
                held[t] = v;
                squares[t % SLOTS] = squares[t % SLOTS] + v * v;
            }
        }
        let scale = 1.0 / sqrt(joined(lane) / f32(p.n) + p.eps);
        if ((p.has & 4u) != 0u && lane == 0u) { r_store(row, vec2<f32>(scale, 0.0)); }
        for (var t = 0u; t < HELD; t += y_COUNT) {
            let i = element_of(lane, t, y_COUNT);
            if (i >= p.n) { break; }
            var v = vec2<f32>();
            var s = vec2<f32>();
            for (var j = 0u; j < y_COUNT; j++) {
                s[j] = held[t + j];
                v[j] = X_round(s[j] * scale);
                if ((p.has & 2u) != 0u) { v[j] = v[j] * weight[t + j]; }
            }
            y_store(first + i, v);
            if ((p.has & 1u) != 0u) { sum_store(first + i, s); }
        }
    }
}

//@ entry rms_norm_backward
// dx = r (g - x r^2 mean(g x)), g = dy w
//@ parameters n: u32, rows: u32, has: u32
//@ output dx: Y
//@ input dy: X
//@ input x: X
//@ input r: f32
//@ input w: W
//@ include group
fn slope(first: u32, i: u32) -> f32 {
    if (p.has == 0u) { return dy_at(first + i); }
    return dy_at(first + i) * w_at(i);
}
@compute @workgroup_size(256)
fn rms_norm_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let first = row * p.n;
    var along = 0.0;
    for (var i = lane; i < p.n; i += GROUP) { along += slope(first, i) * x_at(first + i); }
    along = group_sum(along, lane) / f32(p.n);
    let scale = r_at(row);
    let turn = along * scale * scale;
    for (var i = lane * dx_COUNT; i < p.n; i += GROUP * dx_COUNT) {
        var v = vec2<f32>();
        for (var j = 0u; j < dx_COUNT; j++) { v[j] = scale * (slope(first, i + j) - x_at(first + i + j) * turn); }
        dx_store(first + i, v);
    }
}

//@ entry rms_norm_dweight
// partial[chunk, i] = sum over a chunk of rows, in order, of dy x r: summed over chunks by a reduction behind it.
//@ parameters n: u32, rows: u32, chunk: u32
//@ output partial: f32
//@ input dy: X
//@ input x: X
//@ input r: f32
@compute @workgroup_size(256)
fn rms_norm_dweight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group.x * 256u + lane;
    if (i >= p.n) { return; }
    let begin = group.y * p.chunk;
    let end = min(begin + p.chunk, p.rows);
    var sum = 0.0;
    for (var row = begin; row < end; row++) { sum += dy_at(row * p.n + i) * x_at(row * p.n + i) * r_at(row); }
    partial_store(group.y * p.n + i, vec2<f32>(sum, 0.0));
}
