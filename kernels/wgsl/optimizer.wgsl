// Steps of optimisers, in place, an invocation a word of the weight.
// weight X, gradient W, m, v, b, master f32, all contiguous; lr, step, scale f32 scalars on the device
// grid words of the weight / 256 | workgroup 256 | shared none              X, W: from the launch
// bound by bandwidth. Kingma and Ba 2014, arXiv 1412.6980; Loshchilov and Hutter 2017, arXiv 1711.05101.
//@ include math

//@ entry adamw
// `rest1`, `rest2`: 1 - beta, rounded once; `log1`, `log2`: the logarithms of the betas.
//@ parameters n: u32, beta1: f32, beta2: f32, rest1: f32, rest2: f32, eps: f32, decay: f32, log1: f32, log2: f32, has_master: u32
//@ output weight: X
//@ output m: f32
//@ output v: f32
//@ output master: f32
//@ input gradient: W
//@ input rate: f32
//@ input step: f32
//@ input scale: f32
fn stepped(i: u32) -> f32 {
    let lr = rate_at(0u);
    let g = gradient_at(i) * scale_at(0u);
    let mean = p.beta1 * m_at(i) + p.rest1 * g;
    let square = p.beta2 * v_at(i) + p.rest2 * g * g;
    m_store(i, vec2<f32>(mean, 0.0));
    v_store(i, vec2<f32>(square, 0.0));
    // 1 - beta^t without the difference of near numbers.
    let first = -expm1_of(step_at(0u) * p.log1);
    let second = -expm1_of(step_at(0u) * p.log2);
    var w = weight_at(i);
    if (p.has_master == 1u) { w = master_at(i); }
    w -= lr * p.decay * w;
    w -= lr * (mean / first) / (sqrt(square / second) + p.eps);
    if (p.has_master == 1u) { master_store(i, vec2<f32>(w, 0.0)); }
    return w;
}
@compute @workgroup_size(256)
fn adamw(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = ((group.y * groups.x + group.x) * 256u + lane) * weight_COUNT;
    if (i >= p.n) { return; }
    var w = vec2<f32>(stepped(i), 0.0);
    if (weight_COUNT == 2u) {
        // The other half of a last word is another's.
        if (i + 1u < p.n) { w.y = stepped(i + 1u); } else { w.y = weight_at(i + 1u); }
    }
    weight_store(i, w);
}

//@ entry sgd
//@ parameters n: u32, momentum: f32, decay: f32, has_master: u32
//@ output weight: X
//@ output b: f32
//@ output master: f32
//@ input gradient: W
//@ input rate: f32
//@ input scale: f32
fn stepped(i: u32) -> f32 {
    var w = weight_at(i);
    if (p.has_master == 1u) { w = master_at(i); }
    let sum = p.momentum * b_at(i) + gradient_at(i) * scale_at(0u) + p.decay * w;
    b_store(i, vec2<f32>(sum, 0.0));
    w -= rate_at(0u) * sum;
    if (p.has_master == 1u) { master_store(i, vec2<f32>(w, 0.0)); }
    return w;
}
@compute @workgroup_size(256)
fn sgd(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = ((group.y * groups.x + group.x) * 256u + lane) * weight_COUNT;
    if (i >= p.n) { return; }
    var w = vec2<f32>(stepped(i), 0.0);
    if (weight_COUNT == 2u) {
        if (i + 1u < p.n) { w.y = stepped(i + 1u); } else { w.y = weight_at(i + 1u); }
    }
    weight_store(i, w);
}
