// Activations as 8-bit integers with a scale for each 32 of a row, as puna-quant defines them, multiplied out again: an invocation a block.
// x [rows, k] f32, any layout -> y [rows, k] f32
// grid blocks / 256 | workgroup 256 | shared none
// bound by bandwidth.

//@ entry int8_blocks
//@ parameters lx: Layout, columns: u32, blocks: u32, n: u32
//@ output y: f32
//@ input x: f32
// To a whole number, ties to even; |x| <= 127.5, and the sign of a zero is kept.
fn whole_of(x: f32) -> f32 {
    let size = abs(x);
    let down = floor(size);
    let rest = size - down;
    let up = rest > 0.5 || (rest == 0.5 && (u32(down) & 1u) == 1u);
    return bitcast<f32>(bitcast<u32>(select(down, down + 1.0, up)) | (bitcast<u32>(x) & 0x80000000u));
}
@compute @workgroup_size(256)
fn int8_blocks(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * groups.x + group.x) * 256u + lane;
    if (i >= p.n) { return; }
    let row = i / p.blocks;
    let begin = i % p.blocks * 32u;
    let end = min(begin + 32u, p.columns);
    // The order of magnitudes is that of their bits, with infinities and NaNs above all numbers.
    var largest = 0u;
    for (var k = begin; k < end; k++) { largest = max(largest, bitcast<u32>(x_at(lx_of(row * p.columns + k))) & 0x7fffffffu); }
    let finite = largest < 0x7f800000u;
    let d = bitcast<f32>(largest) / 127.0;
    let divides = finite && d >= 1.17549435e-38;
    let scale = select(select(not_a_number(), 0.0, finite), d, divides);
    let inverse = 1.0 / select(1.0, d, divides);
    for (var k = begin; k < end; k++) {
        let v = x_at(lx_of(row * p.columns + k));
        let quant = select(0.0, whole_of(v * inverse), divides);
        y_store(row * p.columns + k, vec2<f32>(scale * quant, 0.0));
    }
}
