// Sums, means, maxima, minima and their places over some axes; running sums.
// x of X, any layout: `kept` says where each result's values begin, `reduced` where they stand from there
// grid results x chunks | workgroup 256 | shared 256 numbers              X, Y: from the launch
// bound by bandwidth. Order: lanes stride by 256 within a chunk, tree, chunks in order. Depends on the number of values alone.
//@ include number X

fn none(kind: u32) -> X {
    if (kind == 2u) { return least(); }
    if (kind == 3u) { return greatest(); }
    return zero();
}
// Two values as one, by what is asked for.
fn join(kind: u32, a: X, b: X) -> X {
    if (kind == 2u) { return larger(a, b); }
    if (kind == 3u) { return smaller(a, b); }
    return plus(a, b);
}

//@ entry reduce_chunk
// A chunk of one result's values to `partial[result, chunk]`.
//@ parameters kept: Layout, reduced: Layout, count: u32, results: u32, chunk: u32, chunks: u32, kind: u32
//@ output partial: W
//@ input x: X
var<workgroup> room: array<X, 256>;
@compute @workgroup_size(256)
fn reduce_chunk(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let result = group.y * groups.x + group.x;
    if (result >= p.results) { return; }
    let first = kept_of(result);
    let begin = group.z * p.chunk;
    let end = min(begin + p.chunk, p.count);
    var v = none(p.kind);
    for (var i = begin + lane; i < end; i += 256u) { v = join(p.kind, v, x_at(first + reduced_of(i))); }
    room[lane] = v;
    workgroupBarrier();
    for (var width = 128u; width > 0u; width = width >> 1u) {
        if (lane < width) { room[lane] = join(p.kind, room[lane], room[lane + width]); }
        workgroupBarrier();
    }
    if (lane == 0u) { partial_one(result * p.chunks + group.z, room[0]); }
}
fn partial_one(i: u32, v: X) {
//@ if X f32 f16 bf16
    partial_store(i, vec2<f32>(v, 0.0));
//@ else
//@ if X i64
    partial_store(i, v);
//@ else
    partial_store(i, vec2<u32>(v, 0u));
//@ end
//@ end
}

//@ entry reduce_columns
// Few values of each result, side by side with its neighbours': an invocation forms one chunk's. Which of the two runs depends on the layout alone.
//@ parameters kept: Layout, reduced: Layout, count: u32, results: u32, chunk: u32, chunks: u32, kind: u32
//@ output partial: W
//@ input x: X
@compute @workgroup_size(256)
fn reduce_columns(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let result = (group.y * groups.x + group.x) * 256u + lane;
    if (result >= p.results) { return; }
    let first = kept_of(result);
    let begin = group.z * p.chunk;
    let end = min(begin + p.chunk, p.count);
    var v = none(p.kind);
    for (var i = begin; i < end; i++) { v = join(p.kind, v, x_at(first + reduced_of(i))); }
    let at = result * p.chunks + group.z;
//@ if X f32 f16 bf16
    partial_store(at, vec2<f32>(v, 0.0));
//@ else
//@ if X i64
    partial_store(at, v);
//@ else
    partial_store(at, vec2<u32>(v, 0u));
//@ end
//@ end
}

//@ entry reduce_finish
// The chunks of each result in order, and the rounding.
//@ parameters n: u32, chunks: u32, count: f32, kind: u32
//@ output y: Y
//@ input partial: W
fn element(i: u32) -> X {
    var v = none(p.kind);
    for (var c = 0u; c < p.chunks; c++) { v = join(p.kind, v, partial_at(i * p.chunks + c)); }
//@ if X f32 f16 bf16
    if (p.kind == 1u) { return v / p.count; }
//@ end
    return v;
}
//@ elements y

//@ entry arg_reduce
// The place of the largest (smallest) value: of equal ones the first, and a NaN, the first, before all.
//@ parameters kept: Layout, step: u32, count: u32, results: u32, largest: u32
//@ output y: u32
//@ input x: X
const NOWHERE = 0xffffffffu;
fn before(a: X, at: u32, b: X, bt: u32) -> bool {
    if (at == NOWHERE) { return false; }
    if (bt == NOWHERE) { return true; }
    let an = is_none(a);
    let bn = is_none(b);
    if (an || bn) { return (an && bn && at < bt) || (an && !bn); }
    if (equal(a, b)) { return at < bt; }
    if (p.largest == 1u) { return less(b, a); }
    return less(a, b);
}
var<workgroup> values: array<X, 256>;
var<workgroup> places: array<u32, 256>;
@compute @workgroup_size(256)
fn arg_reduce(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let result = group.y * groups.x + group.x;
    if (result >= p.results) { return; }
    let first = kept_of(result);
    var v = zero();
    var at = NOWHERE;
    for (var i = lane; i < p.count; i += 256u) {
        let w = x_at(first + i * p.step);
        if (before(w, i, v, at)) {
            v = w;
            at = i;
        }
    }
    values[lane] = v;
    places[lane] = at;
    workgroupBarrier();
    for (var width = 128u; width > 0u; width = width >> 1u) {
        if (lane < width && before(values[lane + width], places[lane + width], values[lane], places[lane])) {
            values[lane] = values[lane + width];
            places[lane] = places[lane + width];
        }
        workgroupBarrier();
    }
    if (lane == 0u) { y_store(result, vec2<u32>(places[0], 0u)); }
}

//@ entry cum_sum
// Running sums of each row: 256 at a time, by doubling distances, and what came before.
//@ parameters rows: Layout, step: u32, columns: u32, count: u32
//@ output y: W
//@ input x: X
var<workgroup> sums: array<X, 512>;
@compute @workgroup_size(256)
fn cum_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.count) { return; }
    let first = rows_of(row);
    var before = zero();
    for (var base = 0u; base < p.columns; base += 256u) {
        let i = base + lane;
        var side = 0u;
        var mine = zero();
        if (i < p.columns) { mine = x_at(first + i * p.step); }
        sums[lane] = mine;
        workgroupBarrier();
        for (var distance = 1u; distance < 256u; distance = distance << 1u) {
            var v = sums[side + lane];
            if (lane >= distance) { v = plus(sums[side + lane - distance], v); }
            side = 256u - side;
            sums[side + lane] = v;
            workgroupBarrier();
        }
        if (i < p.columns) {
            let v = plus(before, sums[side + lane]);
            let at = row * p.columns + i;
//@ if X f32 f16 bf16
            y_store(at, vec2<f32>(v, 0.0));
//@ else
//@ if X i64
            y_store(at, v);
//@ else
            y_store(at, vec2<u32>(v, 0u));
//@ end
//@ end
        }
        before = plus(before, sums[side + 255u]);
        workgroupBarrier();
    }
}
