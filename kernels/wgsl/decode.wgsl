// Blocks decoded: to a tensor, or rows of them by number. Each value is formed in f32 as puna-quant says and rounded once.
// w blocks of B, as bytes, rows at any distance -> y [rows, n] Y, contiguous
// grid words of the result / 256 | workgroup 256 | shared none              B (VALUES, BYTES), Y: from the launch
// bound by bandwidth: reads each block's bytes from cache for every value.

//@ entry decode
// `rows`: where each row begins, in bytes.
//@ parameters rows: Layout, n: u32, columns: u32
//@ output y: Y
//@ input w: u8
//@ include blocks
fn element(i: u32) -> f32 {
    let k = i % p.columns;
    return block_value(rows_of(i / p.columns) + k / VALUES * BYTES, k % VALUES);
}
//@ elements y

//@ entry gather_blocks
// y[i] = row index[i]; of a row that is not there zeros. `inner`: where the rows of a row of the table begin, in bytes; `first`, `keep`: see
// index.wgsl.
//@ parameters inner: Layout, at: Layout, n: u32, row_stride: u32, rows: u32, row_values: u32, columns: u32, first: u32, keep: u32
//@ output y: Y
//@ input w: u8
//@ input index: u32
//@ include blocks
fn element(i: u32) -> f32 {
    let row = index_at(at_of(i / p.row_values)) - p.first;
    if (row >= p.rows) {
        if (p.keep == 1u) { return y_at(i); }
        return 0.0;
    }
    let of_row = i % p.row_values;
    let k = of_row % p.columns;
    return block_value(row * p.row_stride + inner_of(of_row / p.columns) + k / VALUES * BYTES, k % VALUES);
}
//@ elements y
