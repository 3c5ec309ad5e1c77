// Rows and entries by number; a number out of range reads zeros and writes nothing.
// X: the dtype of what is read, Y: of what is written
// grid words of the result / 256, or a workgroup a row | workgroup 256 | shared none              X, Y: from the launch
// bound by bandwidth. Sums run in the order of the numbers, in f32, and are rounded once.
//@ include number X

//@ entry gather_rows
// y[i, ..] = table[index[i], ..]. `inner`: the layout of a row. The table may be a part of one, from row `first` on: then what other parts
// hold is left as it is (`keep`).
//@ parameters inner: Layout, at: Layout, n: u32, row_stride: u32, rows: u32, row_values: u32, first: u32, keep: u32
//@ output y: Y
//@ input table: X
//@ input index: u32
fn element(i: u32) -> X {
    let row = index_at(at_of(i / p.row_values)) - p.first;
    if (row >= p.rows) {
        if (p.keep == 1u) { return y_at(i); }
        return zero();
    }
    return table_at(row * p.row_stride + inner_of(i % p.row_values));
}
//@ elements y

//@ entry scatter_rows
// y[index[i], ..] = x[i, ..], the last of equal numbers wins: a workgroup writes a row unless the same number comes again. y may be a part of
// what is written, from row `first` on.
//@ parameters inner_y: Layout, lx: Layout, row_stride: u32, rows: u32, index_stride: u32, n: u32, row_values: u32, first: u32
//@ atomic y: Y
//@ input index: u32
//@ input x: X
var<workgroup> again: atomic<u32>;
@compute @workgroup_size(256)
fn scatter_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group.y * groups.x + group.x;
    if (i >= p.n) { return; }
    let row = index_at(i * p.index_stride) - p.first;
    if (lane == 0u) { atomicStore(&again, 0u); }
    workgroupBarrier();
    for (var j = i + 1u + lane; j < p.n; j += 256u) {
        if (index_at(j * p.index_stride) - p.first == row) { atomicStore(&again, 1u); }
    }
    workgroupBarrier();
    if (row >= p.rows || atomicLoad(&again) != 0u) { return; }
    for (var k = lane; k < p.row_values; k += 256u) {
        y_put(row * p.row_stride + inner_y_of(k), x_at(lx_of(i * p.row_values + k)));
    }
}

//@ entry take
// y[.., j] = x[.., index[.., j]]
//@ parameters rows_x: Layout, at: Layout, n: u32, step: u32, length: u32, m: u32
//@ output y: Y
//@ input x: X
//@ input index: u32
fn element(i: u32) -> X {
    let j = index_at(at_of(i));
    if (j >= p.length) { return zero(); }
    return x_at(rows_x_of(i / p.m) + j * p.step);
}
//@ elements y

//@ entry scatter_add_rows
// y[r, ..] = sum of x[i, ..] over the i with index[i] = r; `sorted` the numbers ascending, `order` where they stood.
// y may be a part of the result, from row `first` on.
//@ parameters lx: Layout, n: u32, count: u32, row_values: u32, first: u32
//@ output y: Y
//@ input x: X
//@ input sorted: u32
//@ input order: u32
fn first_from(value: u32) -> u32 {
    var low = 0u;
    var high = p.count;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (sorted_at(middle) < value) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}
fn element(at: u32) -> X {
    let r = p.first + at / p.row_values;
    let k = at % p.row_values;
    var sum = zero();
    for (var i = first_from(r); i < p.count; i++) {
        if (sorted_at(i) != r) { break; }
        sum = plus(sum, x_at(lx_of(order_at(i) * p.row_values + k)));
    }
    return sum;
}
//@ elements y

//@ entry take_backward
// y[.., i] = sum of x[.., j] over the j with index[.., j] = i, of each row by itself.
//@ parameters lx: Layout, n: u32, m: u32, length: u32
//@ output y: Y
//@ input x: X
//@ input sorted: u32
//@ input order: u32
fn first_from(begin: u32, value: u32) -> u32 {
    var low = 0u;
    var high = p.m;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (sorted_at(begin + middle) < value) { low = middle + 1u; } else { high = middle; }
    }
    return low;
}
fn element(at: u32) -> X {
    let row = at / p.length;
    let i = at % p.length;
    let begin = row * p.m;
    var sum = zero();
    for (var j = first_from(begin, i); j < p.m; j++) {
        if (sorted_at(begin + j) != i) { break; }
        sum = plus(sum, x_at(lx_of(begin + order_at(begin + j))));
    }
    return sum;
}
//@ elements y
