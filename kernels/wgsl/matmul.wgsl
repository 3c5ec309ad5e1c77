// Products.  c[z, m, n] = round((add[m, n] + scale * sum_k a[z, m, k] * b[z, k, n]) * factor[n] + bias[n])
// a X, any strides (A_FOURS: side by side along k); b W, any strides, counted in rows along k (or along n: B_ROWS; B_FOURS: side by side in
// rows), or blocks of B, as bytes, in such rows -> c Y, its rows `pitch` apart; add, of the same pitch, factor, bias f32, or absent: bits of `has`, which nothing asks without TAIL
// Order: one chain over k for each result, in f32, whatever m, n and z are, in all entries: so a row has the same bits alone and among many.
// bound by multiply-adds (matmul), by bandwidth (matmul_few).

//@ parameters batch_a: Layout, batch_b: Layout, sa_m: u32, sa_k: u32, sb0: u32, sb1: u32, m: u32, n: u32, k: u32, batches: u32, pitch: u32, has: u32, scale: f32
//@ output c: Y
//@ input a: X
//@ input w: W
//@ input add: f32
//@ input factor: f32
//@ input bias: f32
//@ if BLOCKS
//@ include blocks
fn value_of(batch: u32, row: u32, column: u32) -> f32 { return block_value(row * p.sb0 + column / VALUES * BYTES, column % VALUES); }
// Four values of a row from `column` on, which is a multiple of 4.
fn four_of(batch: u32, row: u32, column: u32) -> vec4<f32> { return block_four(row * p.sb0 + column / VALUES * BYTES, column % VALUES); }
//@ else
fn value_of(batch: u32, row: u32, column: u32) -> f32 { return w_at(batch + row * p.sb0 + column * p.sb1); }
// The same where a row's values lie side by side; what is beyond k are zeros.
fn four_of(batch: u32, row: u32, column: u32) -> vec4<f32> {
    let at = batch + row * p.sb0 + column;
    if (column + 4u <= p.k) { return w_four(at); }
    var v = vec4<f32>();
    for (var j = 0u; j < p.k - column; j++) { v[j] = w_at(at + j); }
    return v;
}
//@ end

// What follows the sum, before the one rounding.
fn finished(sum: f32, row: u32, column: u32) -> f32 {
    var v = sum * p.scale;
//@ if TAIL
    if ((p.has & 1u) != 0u) { v = add_at(row * p.pitch + column) + v; }
    if ((p.has & 2u) != 0u) { v = v * factor_at(column); }
    if ((p.has & 4u) != 0u) { v = v + bias_at(column); }
//@ end
    return v;
}
// A word of a row of c, from the sums of its elements.
fn put_word(z: u32, row: u32, column: u32, sums: vec2<f32>) {
    var pair = vec2<f32>(finished(sums.x, row, column), 0.0);
    if (c_COUNT == 2u && column + 1u < p.n) { pair.y = finished(sums.y, row, column + 1u); }
    c_store((z * p.m + row) * p.pitch + column, pair);
}

//@ entry matmul
// grid n / 64, m / 64, z | workgroup 64, 8 x 8 results each | shared 16 x 64 of each
var<workgroup> as_: array<vec4<f32>, 272>;
var<workgroup> bs: array<vec4<f32>, 272>;

// 16 k of 64 rows of a, and of 64 columns of b: rows in fours, 17 of them apart. Neighbours read what lies side by side.
fn stage_a(first: u32, m0: u32, k0: u32, lane: u32) {
    for (var i = lane; i < 256u; i += 64u) {
        var v = vec4<f32>();
//@ if A_FOURS
        let r = i / 4u;
        let kk = i % 4u * 4u;
        if (m0 + r < p.m) {
            let at = first + (m0 + r) * p.sa_m + k0 + kk;
            if (k0 + kk + 4u <= p.k) { v = a_four(at); } else {
                for (var j = 0u; k0 + kk + j < p.k; j++) { v[j] = a_at(at + j); }
            }
        }
        for (var j = 0u; j < 4u; j++) { as_[(kk + j) * 17u + r / 4u][r % 4u] = v[j]; }
//@ else
        let kk = i / 16u;
        let r = i % 16u * 4u;
        if (k0 + kk < p.k) {
            for (var j = 0u; j < 4u && m0 + r + j < p.m; j++) { v[j] = a_at(first + (m0 + r + j) * p.sa_m + (k0 + kk) * p.sa_k); }
        }
        as_[kk * 17u + r / 4u] = v;
//@ end
    }
}
fn stage_b(first: u32, n0: u32, k0: u32, lane: u32) {
    for (var i = lane; i < 256u; i += 64u) {
        var v = vec4<f32>();
//@ if B_ROWS
        let kk = i / 16u;
        let r = i % 16u * 4u;
        if (k0 + kk < p.k) {
            for (var j = 0u; j < 4u && n0 + r + j < p.n; j++) { v[j] = value_of(first, k0 + kk, n0 + r + j); }
        }
        bs[kk * 17u + r / 4u] = v;
//@ else
        let r = i / 4u;
        let kk = i % 4u * 4u;
        if (n0 + r < p.n && k0 + kk < p.k) {
//@ if B_FOURS
            v = four_of(first, n0 + r, k0 + kk);
//@ else
            for (var j = 0u; j < 4u && k0 + kk + j < p.k; j++) { v[j] = value_of(first, n0 + r, k0 + kk + j); }
//@ end
        }
        for (var j = 0u; j < 4u; j++) { bs[(kk + j) * 17u + r / 4u][r % 4u] = v[j]; }
//@ end
    }
}

fn put(z: u32, row: u32, column: u32, v: vec4<f32>) {
    if (row >= p.m) { return; }
    for (var j = 0u; j < 4u; j += c_COUNT) {
        if (column + j >= p.n) { return; }
        put_word(z, row, column + j, vec2<f32>(v[j], v[j + c_COUNT - 1u]));
    }
}

@compute @workgroup_size(64)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * 64u;
    let n0 = group.x * 64u;
    let ty = lane / 8u;
    let tx = lane % 8u;
    for (var z = group.z; z < p.batches; z += groups.z) {
        let za = batch_a_of(z);
        let zb = batch_b_of(z);
        var l0 = vec4<f32>();
        var l1 = vec4<f32>();
        var l2 = vec4<f32>();
        var l3 = vec4<f32>();
        var l4 = vec4<f32>();
        var l5 = vec4<f32>();
        var l6 = vec4<f32>();
        var l7 = vec4<f32>();
        var r0 = vec4<f32>();
        var r1 = vec4<f32>();
        var r2 = vec4<f32>();
        var r3 = vec4<f32>();
        var r4 = vec4<f32>();
        var r5 = vec4<f32>();
        var r6 = vec4<f32>();
        var r7 = vec4<f32>();
        for (var k0 = 0u; k0 < p.k; k0 += 16u) {
            stage_a(za, m0, k0, lane);
            stage_b(zb, n0, k0, lane);
            workgroupBarrier();
            let last = min(16u, p.k - k0);
            for (var kk = 0u; kk < last; kk++) {
                let at = kk * 17u + ty * 2u;
                let bt = kk * 17u + tx * 2u;
                let low = as_[at];
                let high = as_[at + 1u];
                let left = bs[bt];
                let right = bs[bt + 1u];
                l0 = fma(low.xxxx, left, l0);
                l1 = fma(low.yyyy, left, l1);
                l2 = fma(low.zzzz, left, l2);
                l3 = fma(low.wwww, left, l3);
                l4 = fma(high.xxxx, left, l4);
                l5 = fma(high.yyyy, left, l5);
                l6 = fma(high.zzzz, left, l6);
                l7 = fma(high.wwww, left, l7);
                r0 = fma(low.xxxx, right, r0);
                r1 = fma(low.yyyy, right, r1);
                r2 = fma(low.zzzz, right, r2);
                r3 = fma(low.wwww, right, r3);
                r4 = fma(high.xxxx, right, r4);
                r5 = fma(high.yyyy, right, r5);
                r6 = fma(high.zzzz, right, r6);
                r7 = fma(high.wwww, right, r7);
            }
            workgroupBarrier();
        }
        let row = m0 + ty * 8u;
        let column = n0 + tx * 8u;
        var all = array<vec4<f32>, 16>(l0, r0, l1, r1, l2, r2, l3, r3, l4, r4, l5, r5, l6, r6, l7, r7);
        for (var i = 0u; i < 16u; i++) { put(z, row + i / 2u, column + i % 2u * 4u, all[i]); }
    }
}

//@ entry matmul_few
// Few rows of a, one product, both along k side by side: an invocation a word of a row of c, for four rows, or for one (ONE).
// grid n / 64 / the results of a word, m / 4 | workgroup 64 | shared 4 x 256 of a
var<workgroup> xs: array<vec4<f32>, 256>;

// Four more steps of the chains of four rows, in order.
fn stepped(sums: vec4<f32>, e: vec4<f32>, at: u32) -> vec4<f32> {
    let x0 = xs[at];
//@ if ONE
    var one = fma(x0.x, e.x, sums.x);
    one = fma(x0.y, e.y, one);
    one = fma(x0.z, e.z, one);
    return vec4<f32>(fma(x0.w, e.w, one), 0.0, 0.0, 0.0);
//@ else
    let x1 = xs[64u + at];
    let x2 = xs[128u + at];
    let x3 = xs[192u + at];
    var more = fma(vec4<f32>(x0.x, x1.x, x2.x, x3.x), e.xxxx, sums);
    more = fma(vec4<f32>(x0.y, x1.y, x2.y, x3.y), e.yyyy, more);
    more = fma(vec4<f32>(x0.z, x1.z, x2.z, x3.z), e.zzzz, more);
    return fma(vec4<f32>(x0.w, x1.w, x2.w, x3.w), e.wwww, more);
//@ end
}

// The steps of one column over what is staged.
fn walked(sums: vec4<f32>, column: u32, k0: u32, fours: u32) -> vec4<f32> {
    var all = sums;
//@ if BLOCKS
    // 16 values have one scale.
    for (var i = 0u; i < fours; i += 4u) {
        let k = k0 + 4u * i;
        let b = column * p.sb0 + k / VALUES * BYTES;
        let s = block_scale(b, k % VALUES);
        for (var j = 0u; j < 4u; j++) { all = stepped(all, s.x * block_quants(b, k % VALUES + 4u * j) + s.y, i + j); }
    }
//@ else
    for (var i = 0u; i < fours; i++) { all = stepped(all, four_of(0u, column, k0 + 4u * i), i); }
//@ end
    return all;
}

@compute @workgroup_size(64)
fn matmul_few(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m0 = group.y * 4u;
    let column = (group.x * 64u + lane) * c_COUNT;
    var sums = vec4<f32>();
    var others = vec4<f32>();
    for (var k0 = 0u; k0 < p.k; k0 += 256u) {
        for (var row = 0u; row < min(4u, p.m - m0); row++) {
            var v = vec4<f32>();
            let k = k0 + lane * 4u;
            if (k < p.k) {
                let at = (m0 + row) * p.sa_m + k;
                if (k + 4u <= p.k) { v = a_four(at); } else {
                    for (var j = 0u; k + j < p.k; j++) { v[j] = a_at(at + j); }
                }
            }
            xs[row * 64u + lane] = v;
        }
        workgroupBarrier();
        let fours = (min(256u, p.k - k0) + 3u) / 4u;
        if (column < p.n) {
            sums = walked(sums, column, k0, fours);
        }
        if (c_COUNT == 2u && column + 1u < p.n) {
            others = walked(others, column + 1u, k0, fours);
        }
        workgroupBarrier();
    }
    if (column >= p.n) { return; }
    for (var i = 0u; i < 4u; i++) {
        let row = m0 + i;
        if (row >= p.m) { return; }
        put_word(0u, row, column, vec2<f32>(sums[i], others[i]));
    }
}

//@ entry matmul_lanes
// A workgroup is one subgroup of LANES invocations that hand each other what they have read, where reading shared memory is as slow as reading
// any: on a processor. An invocation has 4 ROWS rows of c and COLUMNS of its columns, each a variable, since arrays whose index is not known make
// such drivers compile for seconds; it reads each element of a and b once.
// grid n / (LANES COLUMNS), m / (4 ROWS), z | workgroup LANES | shared none            LANES, ROWS, COLUMNS: from the launch
//@ include lanes
// Four rows of a, or (ONE) the one there is.
//@ if ONE
alias Rows = f32;
//@ else
alias Rows = vec4<f32>;
//@ end

// Element k of four rows of a, from `row` on; those beyond the last are the last again.
fn rows_of(first: u32, row: u32, k: u32) -> Rows {
//@ if ONE
    return a_at(first + k * p.sa_k);
//@ else
    let at = first + k * p.sa_k;
    let last = p.m - 1u;
    return vec4<f32>(
        a_at(at + min(row, last) * p.sa_m), a_at(at + min(row + 1u, last) * p.sa_m),
        a_at(at + min(row + 2u, last) * p.sa_m), a_at(at + min(row + 3u, last) * p.sa_m),
    );
//@ end
}
// Four elements of a column of b, from k on; beyond the last, zeros.
fn four_steps(first: u32, column: u32, k: u32) -> vec4<f32> {
//@ if ALONG_K
    return four_of(first, column, k);
//@ else
    var v = vec4<f32>();
    for (var j = 0u; j < min(4u, p.k - k); j++) {
//@ if B_ROWS
        v[j] = value_of(first, k + j, column);
//@ else
        v[j] = value_of(first, column, k + j);
//@ end
    }
    return v;
//@ end
}
// Of four rows the one whose number ends in `row`.
//@ if ONE
fn part_of(rows: Rows, row: u32) -> f32 { return rows; }
//@ else
fn part_of(rows: Rows, row: u32) -> f32 { return rows[row % 4u]; }
//@ end

@compute @workgroup_size(LANES)
fn matmul_lanes(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let m0 = group.y * (4u * ROWS);
    let n0 = group.x * (LANES * COLUMNS);
    for (var z = group.z; z < p.batches; z += groups.z) {
        let za = batch_a_of(z);
        let zb = batch_b_of(z);
//@ repeat r ROWS
//@ repeat c COLUMNS
        var sum$r_$c = Rows();
//@ end
//@ end
        for (var k0 = 0u; k0 < p.k; k0 += LANES) {
            let k = min(k0 + lane, p.k - 1u);
//@ repeat r ROWS
            let a$r = select(Rows(), rows_of(za, m0 + 4u * $ru, k), k0 + lane < p.k);
//@ end
            for (var step = k0; step < min(k0 + LANES, p.k); step += 4u) {
//@ repeat c COLUMNS
                let b$c = four_steps(zb, min(n0 + element_of(lane, $cu, c_COUNT), p.n - 1u), step);
//@ end
                // Beyond k are zeros in both.
                for (var j = step - k0; j < step - k0 + 4u; j++) {
//@ repeat r ROWS
                    let x$r = subgroupShuffle(a$r, j);
//@ repeat c COLUMNS
                    sum$r_$c = fma(x$r, Rows(b$c[j % 4u]), sum$r_$c);
//@ end
//@ end
                }
            }
        }
//@ repeat r ROWS
        for (var row = m0 + 4u * $ru; row < min(m0 + 4u * $ru + 4u, p.m); row++) {
            put_row(z, row, n0, lane, array<f32, COLUMNS>(
//@ repeat c COLUMNS
                part_of(sum$r_$c, row - m0),
//@ end
            ));
        }
//@ end
    }
}

fn put_row(z: u32, row: u32, n0: u32, lane: u32, sums: array<f32, COLUMNS>) {
//@ repeat c COLUMNS
    if ($cu % c_COUNT == 0u && n0 + element_of(lane, $cu, c_COUNT) < p.n) {
        put_word(z, row, n0 + element_of(lane, $cu, c_COUNT), vec2<f32>(sums[$c], sums[min($cu + 1u, COLUMNS - 1u)]));
    }
//@ end
}
