// Copies between layouts, selection, filling: elements as units of 1, 2, 4 or 8 bytes, whatever they are.
// x any layout -> y any layout
// grid words of the result / 256, or elements / 256 | workgroup 256 | shared none              T: u8, u16, u32, u64, from the launch
// bound by bandwidth.

//@ entry copy
//@ parameters lx: Layout, n: u32
//@ output y: T
//@ input x: T
fn element(i: u32) -> T { return x_at(lx_of(i)); }
//@ elements y

//@ entry copy_to
// To places of any layout, of words that others own a part of.
//@ parameters ly: Layout, lx: Layout, n: u32
//@ atomic y: T
//@ input x: T
@compute @workgroup_size(256)
fn copy_to(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * groups.x + group.x) * 256u + lane;
    if (i < p.n) { y_put(ly_of(i), x_at(lx_of(i))); }
}

//@ entry select_elements
//@ parameters lc: Layout, la: Layout, lb: Layout, n: u32
//@ output y: T
//@ input c: u8
//@ input a: T
//@ input b: T
fn element(i: u32) -> T {
    if (c_at(lc_of(i)) != 0u) { return a_at(la_of(i)); }
    return b_at(lb_of(i));
}
//@ elements y

//@ entry fill
//@ parameters n: u32, low: u32, high: u32
//@ output y: T
fn element(i: u32) -> T {
//@ if T i64
    return vec2<u32>(p.low, p.high);
//@ else
    return p.low;
//@ end
}
//@ elements y

//@ entry arange
// A part of it, from entry `first` on.
//@ parameters n: u32, first: u32
//@ output y: u32
fn element(i: u32) -> u32 { return p.first + i; }
//@ elements y
