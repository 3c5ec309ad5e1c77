// Cross entropy of rows of logits, and its derivative: a row per workgroup.
// logits [rows, V] X, contiguous; labels [rows] u32 -> losses, lse [rows], counted [rows] u32; dlogits [rows, V] X
// grid rows | workgroup 256 | shared 256 numbers              X: from the launch
// bound by bandwidth. Order: lanes stride by 256, tree. Depends on V alone.
//@ include float
//@ include math

//@ entry cross_entropy
// A row whose label is none of V counts nothing. `has_lse`: whether the logarithm of the sum is wanted.
//@ parameters label_stride: u32, vocab: u32, rows: u32, has_lse: u32
//@ output losses: f32
//@ output counted: u32
//@ output lse: f32
//@ input logits: X
//@ input labels: u32
const GROUP: u32 = 256u;
//@ include group
@compute @workgroup_size(256)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) { return; }
    let first = row * p.vocab;
    var most = -infinity();
    for (var i = lane; i < p.vocab; i += GROUP) { most = larger(most, logits_at(first + i)); }
    most = group_largest(most, lane);
    var sum = 0.0;
    for (var i = lane; i < p.vocab; i += GROUP) { sum += exp_of(logits_at(first + i) - most); }
    sum = group_sum(sum, lane);
    if (lane != 0u) { return; }
    let all = log_of(sum) + most;
    let label = labels_at(row * p.label_stride);
    let counts = label < p.vocab;
    var loss = 0.0;
    if (counts) { loss = all - logits_at(first + label); }
    losses_store(row, vec2<f32>(loss, 0.0));
    counted_store(row, vec2<u32>(select(0u, 1u, counts), 0u));
    if (p.has_lse == 1u) { lse_store(row, vec2<f32>(all, 0.0)); }
}

//@ entry cross_entropy_backward
//@ parameters n: u32, label_stride: u32, vocab: u32
//@ output dlogits: X
//@ input logits: X
//@ input dsum: f32
//@ input labels: u32
//@ input lse: f32
fn element(at: u32) -> f32 {
    let row = at / p.vocab;
    let label = labels_at(row * p.label_stride);
    if (label >= p.vocab) { return 0.0; }
    return (exp_of(logits_at(at) - lse_at(row)) - select(0.0, 1.0, at % p.vocab == label)) * dsum_at(0u);
}
//@ elements dlogits

//@ entry cross_entropy_in_place
// The same where dlogits takes the place of f32 logits.
//@ parameters n: u32, label_stride: u32, vocab: u32
//@ output dlogits: f32
//@ input dsum: f32
//@ input labels: u32
//@ input lse: f32
fn element(at: u32) -> f32 {
    let row = at / p.vocab;
    let label = labels_at(row * p.label_stride);
    if (label >= p.vocab) { return 0.0; }
    return (exp_of(dlogits_at(at) - lse_at(row)) - select(0.0, 1.0, at % p.vocab == label)) * dsum_at(0u);
}
//@ elements dlogits
