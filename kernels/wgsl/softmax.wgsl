// Softmax and its logarithm over the last axis: a row per workgroup.
// x [rows, n] X, rows at any distance -> y [rows, n] Y, whole words
// grid rows | workgroup 256 | shared 256 numbers              X, Y: from the launch
// bound by bandwidth: three reads, from cache where a row fits, and a write. Order: lanes stride by 256, tree. Depends on n alone.
const GROUP: u32 = 256u;
//@ include float
//@ include math
//@ include group

//@ entry softmax
//@ parameters at: Layout, step: u32, n: u32, rows: u32, logarithm: u32
//@ output y: Y
//@ input x: X
@compute @workgroup_size(256)
fn softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let first = at_of(row);
    var most = -infinity();
    for (var i = lane; i < p.n; i += GROUP) { most = larger(most, x_at(first + i * p.step)); }
    most = group_largest(most, lane);
    // Of nothing but -inf the difference would be NaN; the logarithm's definition gives that, a softmax zeros.
    let nothing = bitcast<u32>(most) == 0xff800000u && p.logarithm == 0u;
    let shift = select(most, 0.0, nothing);
    var sum = 0.0;
    for (var i = lane; i < p.n; i += GROUP) { sum += exp_of(x_at(first + i * p.step) - shift); }
    sum = group_sum(sum, lane);
    if (nothing) { sum = 1.0; }
    var log_sum = 0.0;
    if (p.logarithm == 1u) { log_sum = log_of(sum); }
    for (var i = lane * y_COUNT; i < p.n; i += GROUP * y_COUNT) {
        var v = vec2<f32>();
        for (var j = 0u; j < y_COUNT; j++) {
            let d = x_at(first + (i + j) * p.step) - shift;
            if (p.logarithm == 1u) { v[j] = d - log_sum; } else { v[j] = exp_of(d) / sum; }
        }
        y_store(row * p.n + i, v);
    }
}
