// Sorts rows, stably: runs of 256 by rank, then runs merged in pairs, each element finding its place in the other run by bisection.
// x [rows, n] X, any layout -> values [rows, n] W (words), places [rows, n] u32
// grid elements / 256, rows in y | workgroup 256 | shared one run              X, W: from the launch
// bound by latency: log2(n / 256) passes. NaN is larger than every number, -0 equal to 0.
//@ include number X

// Whether a comes before b where they are not equal.
fn first_of(a: X, b: X, descending: u32) -> bool {
    let an = is_none(a);
    let bn = is_none(b);
    if (an || bn) { return select(bn && !an, an && !bn, descending == 1u); }
    if (descending == 1u) { return less(b, a); }
    return less(a, b);
}
//@ if X f32 f16 bf16
fn pair_of(v: X) -> vec2<f32> { return vec2<f32>(v, 0.0); }
//@ else
//@ if X i64
fn pair_of(v: X) -> vec2<u32> { return v; }
//@ else
fn pair_of(v: X) -> vec2<u32> { return vec2<u32>(v, 0u); }
//@ end
//@ end

//@ entry sort_runs
//@ parameters at: Layout, step: u32, n: u32, rows: u32, descending: u32
//@ output values: W
//@ output places: u32
//@ input x: X
var<workgroup> run: array<X, 256>;
@compute @workgroup_size(256)
fn sort_runs(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y + group.z * groups.y;
    let begin = group.x * 256u;
    let count = min(p.n - begin, 256u);
    if (row >= p.rows) { return; }
    let first = at_of(row);
    var v = zero();
    if (lane < count) { v = x_at(first + (begin + lane) * p.step); }
    run[lane] = v;
    workgroupBarrier();
    if (lane >= count) { return; }
    var rank = 0u;
    for (var j = 0u; j < count; j++) {
        let w = run[j];
        if (first_of(w, v, p.descending) || (j < lane && !first_of(v, w, p.descending))) { rank++; }
    }
    values_store(row * p.n + begin + rank, pair_of(v));
    places_store(row * p.n + begin + rank, vec2<u32>(begin + lane, 0u));
}

//@ entry merge_runs
// Runs of `length` become runs of twice that.
//@ parameters n: u32, rows: u32, length: u32, descending: u32
//@ output values: W
//@ output places: u32
//@ input old_values: W
//@ input old_places: u32
@compute @workgroup_size(256)
fn merge_runs(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y + group.z * groups.y;
    let i = group.x * 256u + lane;
    if (i >= p.n || row >= p.rows) { return; }
    let own = row * p.n;
    let pair = i / (2u * p.length) * (2u * p.length);
    let middle = pair + p.length;
    let left = i < middle;
    let begin = select(pair, min(middle, p.n), left);
    let end = select(middle, min(middle + p.length, p.n), left);
    let v = old_values_at(own + i);
    // How many of the other run come before: of equal ones, those of the left run.
    var low = begin;
    var high = end;
    while (low < high) {
        let half = (low + high) / 2u;
        let w = old_values_at(own + half);
        var first = !first_of(v, w, p.descending);
        if (left) { first = first_of(w, v, p.descending); }
        if (first) { low = half + 1u; } else { high = half; }
    }
    let to = own + pair + (i - select(middle, pair, left)) + (low - begin);
    values_store(to, pair_of(v));
    places_store(to, vec2<u32>(old_places_at(own + i), 0u));
}
