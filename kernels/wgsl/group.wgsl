// Reductions over a workgroup of GROUP invocations, in a fixed order: halves joined until one is left. All get the result.

var<workgroup> room: array<f32, GROUP>;

fn group_sum(v: f32, lane: u32) -> f32 {
    room[lane] = v;
    workgroupBarrier();
    for (var width = GROUP / 2u; width > 0u; width = width >> 1u) {
        if (lane < width) { room[lane] = room[lane] + room[lane + width]; }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&room[0]);
}

// The largest, or NaN where one is.
fn group_largest(v: f32, lane: u32) -> f32 {
    room[lane] = v;
    workgroupBarrier();
    for (var width = GROUP / 2u; width > 0u; width = width >> 1u) {
        if (lane < width) { room[lane] = larger(room[lane], room[lane + width]); }
        workgroupBarrier();
    }
    return workgroupUniformLoad(&room[0]);
}
