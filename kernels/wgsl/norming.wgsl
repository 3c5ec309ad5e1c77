// What the forward kernels of root-mean-square norms take: see norm.wgsl.
//@ parameters n: u32, rows: u32, has: u32, eps: f32
//@ output y: Y
//@ output sum: Y
//@ output r: f32
//@ input stream: X
//@ input x: X
//@ input w: W
fn value(at: u32) -> f32 {
    if ((p.has & 1u) == 0u) { return x_at(at); }
    return X_round(stream_at(at) + x_at(at));
}
