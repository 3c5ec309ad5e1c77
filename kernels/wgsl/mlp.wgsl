// The gate of a feed-forward block: y = silu(gate) * up, and its derivatives.
// gate, up, dy X, any layout -> y, dgate, dup X, contiguous
// grid words of the result / 256 | workgroup 256 | shared none              X: from the launch
// bound by bandwidth. Shazeer 2020, arXiv 2002.05202.
//@ include math

//@ entry swiglu
//@ parameters at_gate: Layout, at_up: Layout, n: u32
//@ output y: X
//@ input gate: X
//@ input up: X
fn element(i: u32) -> f32 {
    let g = gate_at(at_gate_of(i));
    return g * sigmoid(g) * up_at(at_up_of(i));
}
//@ elements y

//@ entry swiglu_dgate
//@ parameters at_dy: Layout, at_gate: Layout, at_up: Layout, n: u32
//@ output y: X
//@ input dy: X
//@ input gate: X
//@ input up: X
fn element(i: u32) -> f32 {
    let g = gate_at(at_gate_of(i));
    let s = sigmoid(g);
    return dy_at(at_dy_of(i)) * up_at(at_up_of(i)) * (s * (1.0 + g * (1.0 - s)));
}
//@ elements y

//@ entry swiglu_dup
//@ parameters at_dy: Layout, at_gate: Layout, n: u32
//@ output y: X
//@ input dy: X
//@ input gate: X
fn element(i: u32) -> f32 {
    let g = gate_at(at_gate_of(i));
    return dy_at(at_dy_of(i)) * g * sigmoid(g);
}
//@ elements y
