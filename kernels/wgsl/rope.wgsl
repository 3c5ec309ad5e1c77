// Rotary positions, and rows written into a cache's pages.
// x [tokens, heads, dim] X, contiguous; cos, sin [positions, dim / 2] f32; pages [slots, kv_heads, dim] Y
// grid words of the result / 256 | workgroup 256 | shared none              X, Y: from the launch
// bound by bandwidth. Su and others 2021, arXiv 2104.09864.

// Element `i` of x, turned. A position beyond the table reads zeros.
//@ entry rope
//@ parameters n: u32, heads: u32, half: u32, rows: u32, halves: u32, inverse: u32
//@ output y: Y
//@ input x: X
//@ input cosines: f32
//@ input sines: f32
//@ input positions: u32
//@ include rotate
fn element(i: u32) -> f32 { return rotated(i); }
//@ elements y

//@ entry rope_to_pages
// `turns`: whether rows are turned (those of keys) or only written (of values). What goes into the pages is rounded to X first, as separate
// ops would. y may be a part of the pages, from slot `first_slot` on.
//@ parameters n: u32, heads: u32, half: u32, rows: u32, halves: u32, inverse: u32, turns: u32, first_slot: u32, slot_count: u32
//@ output y: Y
//@ input x: X
//@ input cosines: f32
//@ input sines: f32
//@ input positions: u32
//@ input slots: u32
//@ include rotate
@compute @workgroup_size(256)
fn rope_to_pages(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = ((group.y * groups.x + group.x) * 256u + lane) * y_COUNT;
    if (i >= p.n) { return; }
    let row = p.heads * p.half * 2u;
    let slot = slots_at(i / row) - p.first_slot;
    if (slot >= p.slot_count) { return; }
    var v = vec2<f32>();
    for (var j = 0u; j < y_COUNT; j++) {
        if (p.turns == 1u) { v[j] = X_round(rotated(i + j)); } else { v[j] = x_at(i + j); }
    }
    y_store(slot * row + i % row, v);
}
